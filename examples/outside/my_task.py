"""A task from outside: a class is forgotten of which few samples were kept.

delete-jax --config=my_task.py --config.task.samples=30 --workdir=runs/task
"""

import dataclasses

from delete_jax import data
from delete_jax.config import Config, UnlearnConfig
from delete_jax.tasks import TASKS, Classification

WHOLE = TASKS["classification"]  # what is loaded, trained and measured is the same


@dataclasses.dataclass(slots=True, kw_only=True)
class Few(Classification):
    """A class is forgotten of which few samples were kept.

    samples: how many were kept.
    measures: what to measure beside the predictions.
    """

    samples: int = 20


def check(config):
    WHOLE.check(config)
    if config.task.samples < 1:
        raise ValueError(f"config.task.samples is {config.task.samples}: it must be at least 1")


def streams(run, method, original):
    found, few = WHOLE.streams(run, method, original), slice(run.config.task.samples)
    return found | {
        name: {key: column[few] for key, column in found[name].items()} for name in found if name == "forget"
    }


def measure(run, networks):
    found, few = WHOLE.measure(run, networks), slice(run.config.task.samples)
    return found._replace(erased=data.Split(*(column[few] for column in found.erased)))


TASKS["few"] = WHOLE._replace(name="few", settings=Few, check=check, streams=streams, measure=measure)


def get_config(variant=""):
    return Config(
        task=Few(),
        unlearn=UnlearnConfig(forget=(3,), method="delete", batch_norm="train", epochs=30, lr=1e-2, batch_size=16),
    )
