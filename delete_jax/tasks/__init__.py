"""Tasks: what is forgotten of what. To add one: write its folder, add its row here (or, from outside, to `TASKS`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from delete_jax.streams import check_forget
from delete_jax.tasks.backdoor.task import TASK as _BACKDOOR
from delete_jax.tasks.backdoor.task import Backdoor
from delete_jax.tasks.base import Data, Measured, Run, Task, Training
from delete_jax.tasks.classification.task import TASK as _CLASSIFICATION
from delete_jax.tasks.classification.task import Classification
from delete_jax.tasks.faces.task import TASK as _FACES
from delete_jax.tasks.faces.task import Faces
from delete_jax.tasks.segmentation.task import TASK as _SEGMENTATION
from delete_jax.tasks.segmentation.task import Segmentation

if TYPE_CHECKING:
    from delete_jax.config import Config

TASKS: dict[str, Task] = {task.name: task for task in (_CLASSIFICATION, _SEGMENTATION, _BACKDOOR, _FACES)}


def of_settings(settings: Any) -> Task:
    """The task whose settings these are.

    Raises:
      ValueError: they are no task's.
    """
    for task in TASKS.values():
        if type(settings) is task.settings:
            return task
    known = ", ".join(task.settings.__name__ for task in TASKS.values())
    raise ValueError(f"config.task is {settings!r}: it must be the settings of a task, one of {known}")


def load(config: Config) -> Data:
    """The data of a config, with its request.

    Raises:
      ValueError: data are missing or damaged, or the request names classes that they do not have.
    """
    found = of_settings(config.task).load(config)
    return found._replace(forget=check_forget(config.unlearn.forget, found.dataset.num_classes))


__all__ = [
    "TASKS",
    "Backdoor",
    "Classification",
    "Data",
    "Faces",
    "Measured",
    "Run",
    "Segmentation",
    "Task",
    "Training",
    "load",
    "of_settings",
]
