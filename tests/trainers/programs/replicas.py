"""Train a small model on some logical CPU devices or workers.

tests/trainers/devices runs it in new processes: TensorFlow fixes its devices when it starts.

python replicas.py OUT.json NUM_DEVICES TASK...
TF_CONFIG=... python replicas.py OUT.json 0 TASK...
"""

import json
import pathlib
import sys

import keras
import numpy as np
import rich.console
import tensorflow as tf

import mm_keras
from mm_keras import backbones, layers, matching
from mm_keras.models import objective, trainable
from pipelines.batches import order
from trainers import config, devices
from trainers.training import norm_statistics

NUM_NODES, NUM_STEPS = 16, 3


def batch(step, share):
    """Return the part of one replica of step `step`."""
    rng = np.random.default_rng(step)
    labels = rng.integers(0, 3, NUM_NODES).astype("int32")
    patches = rng.integers(0, 256, (NUM_NODES, 16, 16, 3)).astype("uint8")
    own = np.split(np.arange(NUM_NODES), share.count)[share.index]
    return {"patches": tf.constant(patches[own]), "labels": tf.constant(labels[own])}


class Recorded:
    """A matching that records its edges."""

    def __init__(self):
        self.edges = []

    def __call__(self, labels, seed):
        triplets = matching.class_connected(labels, seed)
        if tf.executing_eagerly():
            self.edges.append([labels.numpy().tolist(), *(x.numpy().tolist() for x in triplets)])
        return triplets


def build(replicas, graph="global", chunk=None, backbone="testing", rate=0.1, loss=None):
    """Return a compiled model, and the matching that records its edges."""
    summed = objective.TripletSettings(reduce=trainable.sum_over_replicas)
    keras.utils.set_random_seed(0)
    recorded = Recorded()
    with replicas.scope():
        network = backbones.build(backbone, width=0.05 if backbone == "alexnet" else 1.0)
        if graph == "global" and chunk is None:
            layers.synchronize(network, replicas.count)
        model = mm_keras.MixAndMatch(
            network,
            matching=recorded,
            seed=3,
            chunk=chunk,
            graph=graph,
            objective=loss and objective.build(loss, 3, triplets=summed),
            num_classes=3,
        )
        model.build((None, 16, 16, 3))
        optimizer = mm_keras.optimizers.CoupledSGD(rate)
        model.compile(optimizer=optimizer, jit_compile=False)
        model.optimizer.build(model.trainable_variables)
    return model, recorded


def train(replicas, graph="global", **arguments):
    """Return the metrics, the edges of the first step and the weights after the last step."""
    model, recorded = build(replicas, graph, **arguments)
    shared = [model.seed_generator.state] if graph == "global" else []
    replicas.separate_seeds(model.variables, shared)
    step_function = tf.function(lambda element: replicas.run(model.train_step, element))
    figures = []
    for step in range(NUM_STEPS):
        element = replicas.distributed([batch(step, share) for share in replicas.shares])
        if step == 0:
            replicas.run(model.train_step, element)  # eagerly, so that edges can be recorded
        else:
            step_function(element)
        figures.append({k: float(v) for k, v in model.get_metrics_result().items()})
        model.reset_metrics()
    trained = [*model.backbone.variables, *model.trainable_variables]
    weights = {v.path: v.numpy().tolist() for v in trained}
    return {"figures": figures, "edges": recorded.edges, "weights": weights}


def statistics(replicas):
    """Return the weights of AlexNet after two passes that renew its statistics."""
    model, _ = build(replicas, backbone="alexnet")
    batches = [
        replicas.distributed([batch(step, share) for share in replicas.shares]) for step in range(2)
    ]
    norm_statistics.renew(model, replicas, batches, lambda: None)
    weights = {v.path: v.numpy().tolist() for v in model.backbone.variables}
    return {"figures": [], "edges": [], "weights": weights}


def fit(replicas):
    """Return the history of a fit over the joint batch of the first step."""
    whole = tf.data.Dataset.from_tensors(batch(0, order.WHOLE))
    return build(replicas)[0].fit(whole, verbose=0).history


def same_labels(replicas):
    """Return the negatives of each replica when all replicas have equal labels."""
    with replicas.scope():
        model = mm_keras.MixAndMatch(keras.Sequential([keras.Input((16, 16, 3))]), seed=3)
    replicas.separate_seeds(model.variables)
    labels = tf.constant([0, 1] * 8)
    edges = replicas.run(
        lambda x: matching.class_connected(x, model.seed_generator).negative,
        replicas.distributed([labels for _ in replicas.shares]),
    )
    return [part.numpy().tolist() for part in replicas.strategy.experimental_local_results(edges)]


def overflow(replicas):
    """Train with mixed_float16 on a batch whose gradients overflow on the last replica only."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    with replicas.scope():
        inputs = keras.Input((16, 16, 3))
        network = keras.Model(inputs, keras.layers.Conv2D(4, 3, strides=4)(inputs))
        model = mm_keras.MixAndMatch(network, margin=2.1)
        model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.1), jit_compile=False)
        model.optimizer.build(model.trainable_variables)
    keras.mixed_precision.set_global_policy("float32")
    model.optimizer.dynamic_scale.assign(2.0**40)
    before = network.get_weights()
    step_function = tf.function(lambda element: replicas.run(model.train_step, element))
    elements = [batch(0, share) for share in replicas.shares]
    harmless, large = (dict(element) for element in elements)
    for element, factor in ((harmless, 0.0), (large, 1.0)):
        element["patches"] = tf.cast(element["patches"], "float32") * factor
    step_function(replicas.distributed([harmless, large]))
    unchanged = all(
        np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True)
    )
    counted = int(model.optimizer.iterations.numpy()), float(model.optimizer.dynamic_scale.numpy())
    step_function(replicas.distributed([harmless, harmless]))
    return {
        "unchanged": unchanged,
        "counted": counted,
        "then": int(model.optimizer.iterations.numpy()),
        "finite": all(np.isfinite(w).all() for w in network.get_weights()),
    }


TASKS = {
    "global": train,
    "chunk": lambda replicas: train(replicas, chunk=4),
    "alexnet": lambda replicas: train(replicas, backbone="alexnet", rate=1e-4),
    "statistics": statistics,
    "replica": lambda replicas: train(replicas, graph="replica"),
    "hubs_and_pairs": lambda replicas: train(replicas, loss="softmax+supcon+triplet_all"),
    "triplet_all": lambda replicas: train(replicas, loss="triplet_all"),
    "same_labels": same_labels,
    "fit": fit,
    "overflow": overflow,
}


def main(path, count, *tasks):
    experiment = config.Experiment(strategy="mirrored" if int(count) else "multi_worker")
    if int(count):
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * int(count)
        tf.config.set_logical_device_configuration(cpu, logical)
    replicas = devices.create(experiment, rich.console.Console())
    results = {name: TASKS[name](replicas) for name in tasks}
    pathlib.Path(path).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
