"""A config file that brings its task: of the class to forget few samples were kept, and a measure is its own."""

import dataclasses

from delete_jax import data, metrics
from delete_jax.config import Config, DataConfig, TrainConfig, UnlearnConfig
from delete_jax.metrics import MEASURES, Measure
from delete_jax.streams import split_streams
from delete_jax.tasks import TASKS, Classification, Task, classification
from delete_jax.tasks.evidence import Evidence, side_by_side


@dataclasses.dataclass(slots=True, kw_only=True)
class Few:
    """A class is forgotten of which few samples were kept. samples: how many."""

    samples: int = 20


def at_hand(config, found):
    forgotten, _ = data.forget_remain(found.dataset.train, found.forget)
    return data.Split(*(part[: config.task.samples] for part in forgotten))


def streams(run, method, original):
    images, labels = at_hand(run.config, run.data)
    return split_streams(images, labels, run.data.forget, run.data.dataset.num_classes, method.streams)


def measure(run, networks):
    whole = classification.task.measure_networks(run._replace(config=Config(task=Classification())), networks)
    for name, evidence in side_by_side(run, networks, Evidence).items():
        whole.metrics[name].update(metrics.measure(evidence, ["sureness"]))
    return whole._replace(erased=at_hand(run.config, run.data), summary=f"few: {run.config.task.samples}")


ROW = Measure(
    "sureness",
    lambda e: float(e.test.max(-1).mean()),
    "",
    "percent",
    "Sureness",
    "sureness",
    "Mean largest probability.",
)
MEASURES[ROW.name] = ROW
PARTS = (classification.task.load, classification.task.trainings, streams, measure)
TASKS["few"] = Task("few", Few, *PARTS, page="delete_jax.tasks.classification.page")


def get_config(variant=""):
    return Config(
        task=Few(),
        data=DataConfig(name="digits", validation=0.3),
        train=TrainConfig(epochs=6, batch_size=64),
        unlearn=UnlearnConfig(forget=(3,), epochs=30, lr=1e-2, batch_size=16),
    )
