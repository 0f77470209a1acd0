"""Images without masks for pseudo-labels: their places, and their share of a step."""

import dataclasses

import pytest

from trainers import config
from trainers.training import pseudo_labels


def _data(value):
    return config.replace(config.Experiment(), "data.pseudo_labels", value).data


def test_a_missing_folder_is_refused(tiny_dataset, tmp_path):
    with pytest.raises(config.ConfigError, match="is not a folder.*or rest"):
        pseudo_labels.sources(_data(str(tmp_path / "nothing")), tiny_dataset)


def test_a_folder_without_images_is_refused(tiny_dataset, tmp_path):
    with pytest.raises(config.ConfigError, match="leads to no image.*key data.pseudo_labels"):
        pseudo_labels.sources(_data(str(tmp_path)), tiny_dataset)


def test_a_run_on_all_training_images_leaves_none_for_pseudo_labels(tiny_dataset):
    dataset = dataclasses.replace(tiny_dataset, left_out=tiny_dataset.train.take([]))
    with pytest.raises(config.ConfigError, match="uses all images of split 'train'"):
        pseudo_labels.sources(_data("rest"), dataset)


@pytest.mark.parametrize("num_labelled", [1, 3, 8, 50])
@pytest.mark.parametrize("num_pseudo", [1, 7, 292])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
def test_pseudo_labelled_images_are_at_most_their_share(num_labelled, num_pseudo, share):
    times = pseudo_labels.repetitions(num_labelled, num_pseudo, share)
    assert num_pseudo / (num_pseudo + times * num_labelled) <= share + 1e-9
    fewer = times - 1
    assert fewer == 0 or num_pseudo / (num_pseudo + fewer * num_labelled) > share
