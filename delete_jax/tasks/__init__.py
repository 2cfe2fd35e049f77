"""Tasks: what is forgotten of what. To add one: write its folder, add its row here (or, from outside, to `TASKS`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from delete_jax.data.groups import ungrouped
from delete_jax.data.loading import find
from delete_jax.data.splits import missing
from delete_jax.methods import CLASSES
from delete_jax.plugins import Table
from delete_jax.request import check_forget
from delete_jax.tasks import named
from delete_jax.tasks.backdoor.task import TASK as _BACKDOOR
from delete_jax.tasks.backdoor.task import Backdoor
from delete_jax.tasks.base import Data, Measured, Run, Task, Training
from delete_jax.tasks.classification.task import TASK as _CLASSIFICATION
from delete_jax.tasks.classification.task import Classification
from delete_jax.tasks.faces.task import TASK as _FACES
from delete_jax.tasks.faces.task import Faces
from delete_jax.tasks.instances.task import TASK as _INSTANCES
from delete_jax.tasks.instances.task import Instances
from delete_jax.tasks.segmentation.task import TASK as _SEGMENTATION
from delete_jax.tasks.segmentation.task import Segmentation

if TYPE_CHECKING:
    from delete_jax.settings import Settings

TASKS: Table[Task] = Table(
    "tasks",
    {
        "classification": _CLASSIFICATION,
        "segmentation": _SEGMENTATION,
        "backdoor": _BACKDOOR,
        "faces": _FACES,
        "instances": _INSTANCES,
    },
    lambda row: isinstance(row, Task),
)


def of_settings(settings: Any) -> Task:
    """Finds the task whose settings these are.

    Raises:
      ValueError: they are no task's.
    """
    for task in TASKS.values():
        if type(settings) is task.settings:
            return task
    known = ", ".join(task.settings.__name__ for task in TASKS.values())
    raise ValueError(f"config.task is {settings!r}: it must be the settings of a task, one of {known}")


def load(config: Settings, erased: Mapping[int, str] | None = None) -> Data:
    """Loads the data of a config, with its request.

    Args:
      config: of the run.
      erased: classes that earlier requests erased from its network, by number: their samples may have been deleted since. Of a task
        whose evidence cannot leave such a class out, they must be there.

    Raises:
      ValueError: data are missing or damaged, do not suit the task, or do not have the classes of the request.
    """
    task, name = of_settings(config.task), config.data.name
    if not (task.prefix and name.startswith(task.prefix)):
        _check_answers(task, name, find(name)[0].answers)  # before anything is prepared
    found = task.load(config.lacking(erased) if erased and task.studied else config)
    dataset = found.dataset
    _check_answers(task, name, "pixel" if dataset.has_maps else "image")
    if CLASSES not in task.provides:
        return found
    if (files := getattr(config.task, "files", None)) is None:
        return requested(found, ungrouped(config.unlearn.forget, dataset, config.unlearn.groups))
    forget, names = named.classes(files, dataset)
    return requested(found._replace(files=names), forget)


def requested(found: Data, classes: Iterable[int | str]) -> Data:
    """The data with a request to erase classes, by number or name.

    Raises:
      ValueError: a class is unknown, has no training or no test samples, or none would remain.
    """
    dataset = found.dataset
    forget = check_forget(classes, dataset.num_classes, dataset.class_names)
    for split, class_ in missing(dataset, forget):
        if split != "validation":  # what is held out only shows how a run gets on
            raise ValueError(
                f"class {class_} ({dataset.class_names[class_]}) has no {split} samples in {dataset.name}: it cannot be "
                f"{'forgotten' if split == 'train' else 'seen whether it is forgotten'}; give some, or name another class"
            )
    return found._replace(forget=forget)


def _check_answers(task: Task, name: str, answers: str) -> None:
    if answers not in ("", task.answers):
        fitting = [other.settings.__name__ for other in TASKS.values() if other.answers == answers]
        raise ValueError(
            f"config.data.name: {name} has a class per {answers}, the task {task.name} needs one per {task.answers}: "
            f"name other data, or start from a config with task={'(…) or task='.join(fitting)}(…)"
        )


__all__ = [
    "TASKS",
    "Backdoor",
    "Classification",
    "Data",
    "Faces",
    "Instances",
    "Measured",
    "Run",
    "Segmentation",
    "Task",
    "Training",
    "load",
    "of_settings",
]
