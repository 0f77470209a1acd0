"""The model of stage mm from settings: defaults of each loss, and combinations that are refused."""

import keras
import pytest

import mm_keras
from mm_keras import backbones
from mm_keras.models import objective
from mm_keras.models.pixel_contrast import PixelContrast
from trainers import config
from trainers.config import keys
from trainers.training import tuned_models


def _experiment(**settings):
    values = {"network.backbone": "testing", "mm.patch_size": 16}
    values |= {key.replace("__", "."): value for key, value in settings.items()}
    return config.changed(config.Experiment(), values)


def _model(**settings):
    return tuned_models.build(_experiment(**settings), 3, backbones.build("testing"))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("flatten", ())),
        ({"mm__loss": "triplet_all"}, ("flatten", ())),
        ({"mm__loss": "softmax"}, ("pool", ())),
        ({"mm__loss": "softmax+triplet_all"}, ("pool", ())),
        ({"mm__loss": "supcon"}, ("pool", (256, 128))),
        ({"mm__loss": "supcon", "mm__projection": ()}, ("pool", ())),
        ({"mm__loss": "supcon", "mm__projection": "64,32"}, ("pool", (64, 32))),
        ({"mm__loss": "triplet", "mm__embedding": "grid"}, ("grid", ())),
    ],
)
def test_each_loss_has_its_own_embedding_and_projection(settings, expected):
    assert tuned_models.embedding_of(_experiment(**settings).mm) == expected


def test_the_default_is_the_papers_model_without_an_objective():
    model = _model()
    assert model.objective is None and model.built and model.margin == 2.1
    assert len(model.trainable_variables) == len(model.backbone.trainable_variables)


def test_an_objective_is_built_with_its_settings():
    model = _model(mm__loss="softmax+supcon+triplet_all", mm__temperature=0.3, mm__margin=1.0)
    softmax, supcon, triplets = model.objective.terms
    assert softmax.hubs.kernel.shape == (16, 3)
    assert supcon.function.keywords == {"temperature": 0.3}
    assert triplets.function.keywords == {"margin": 1.0, "scale": "paper"}
    for each in ("triplet", "triplet+softmax"):
        model = _model(mm__loss=each, mm__embedding="pool", mm__graph="global")
        assert len(model.graph_seeds) == 2 and model.graph == "global"


@pytest.mark.parametrize("graph", ["replica", "global"])
def test_all_triplets_alone_are_summed_over_replicas_of_a_global_graph(graph):
    (term,) = _model(mm__loss="triplet_all", mm__graph=graph).objective.terms
    assert isinstance(term, objective.AllTriplets)
    assert (term.reduce is mm_keras.models.trainable.sum_over_replicas) == (graph == "global")
    *_, term = _model(mm__loss="softmax+triplet_all", mm__graph=graph).objective.terms
    assert term.reduce is not mm_keras.models.trainable.sum_over_replicas


def test_equal_seeds_give_equal_heads_whatever_was_drawn_before():
    first = _model(mm__loss="softmax+cosface", mm__projection="8,4")
    keras.utils.set_random_seed(99)
    second = _model(mm__loss="softmax+cosface", mm__projection="8,4")
    for ours, theirs in zip(first.objective.weights, second.objective.weights, strict=True):
        assert (ours.numpy() == theirs.numpy()).all()


def test_pixel_contrast_takes_crops_and_refuses_settings_of_patches():
    model = _model(mm__loss="pixel_contrast", mm__num_points=7, mm__projection="16,8")
    assert isinstance(model, PixelContrast) and model.num_points == 7
    assert model.temperature == 0.07 and model.head.project.kernel.shape == (16, 8)
    with pytest.raises(config.ConfigError, match="leave mm.chunk, mm.graph at the default"):
        _model(mm__loss="pixel_contrast", mm__chunk=2, mm__graph="global")
    with pytest.raises(config.ConfigError, match="two sizes.*key mm.projection"):
        _model(mm__loss="pixel_contrast", mm__projection="8")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mm.loss", "hinge", "mm.loss.*hinge"),
        (
            "mm.loss",
            "softmax+softmax",
            "mm.loss: A sum has each part once. Received 'softmax.softmax'",
        ),
        ("mm.loss", "softmax+pixel_contrast", "pixel_contrast cannot be part of a sum"),
        ("mm.loss", "softmax+hinge", "mm.loss: Unknown name 'hinge'; known: triplet, "),
        ("mm.loss", "softmax+", "mm.loss: Unknown name ''"),
        ("mm.temperature", "0", "mm.temperature must be none or float, more than 0, at most 10"),
        ("mm.loss_margin", "-1", "mm.loss_margin must be none or float, more than 0, at most 4"),
        ("mm.projection", "0,8", "must be sizes in 1..16384"),
    ],
)
def test_values_out_of_range_are_refused(key, value, message):
    with pytest.raises(config.ConfigError, match=message):
        keys.replace(config.Experiment(), key, value)


def test_sums_and_none_are_accepted_as_text():
    experiment = keys.replace(config.Experiment(), "mm.loss", "softmax+triplet_all")
    assert experiment.mm.loss == "softmax+triplet_all"
    assert keys.replace(experiment, "mm.projection", "none").mm.projection is None
    assert keys.replace(experiment, "mm.projection", "").mm.projection == ()
