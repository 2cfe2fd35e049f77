"""The schema of a run: its settings with their types, defaults and meanings. It imports nothing of the package."""

# No `from __future__ import annotations` here: config_flags reads the fields' types, not their names.
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

LOGGERS = ("csv", "tensorboard", "wandb")
"""What `logger` may name."""


class TaskSettings(Protocol):
    """The settings of a task (`tasks.Task.settings`): a dataclass of which every field has a default.

    A field `measures: tuple[str, ...]` names what is measured in addition (`measures`).
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


def measures(task: TaskSettings) -> tuple[str, ...]:
    """Which measures a task's settings ask for; none where they have no such field."""
    return getattr(task, "measures", ())


@dataclasses.dataclass(slots=True, kw_only=True)
class DataConfig:
    """Where the images come from (see `delete_jax.data.load`).

    name: the dataset, a name or KIND:PATH; `delete-jax --list` prints them.
    data_dir: the folder of prepared TFDS datasets; DELETE_JAX_DATA_DIR, or TFDS's own, when None.
    source: the folder with Fashion-MNIST's four IDX files, where it is not prepared yet.
    validation: the fraction of the training samples that is held out.
    size: the side in pixels that images are brought to when they are loaded; as they are when None.
    """

    name: str = "digits"
    data_dir: str | None = None
    source: str | None = None
    validation: float = 0.1
    size: int | None = None


@dataclasses.dataclass(slots=True, kw_only=True)
class LackingConfig(DataConfig):
    """The same for data from which samples have been deleted: no setting, but what is known of a network (`Settings.lacking`).

    erased: the classes that may have no samples, by number.
    """

    erased: dict[int, str]


@dataclasses.dataclass(slots=True, kw_only=True)
class ModelConfig:
    """The network.

    name: the architecture; `delete-jax --list` prints them.
    dtype: the number format that it computes in: float32 or bfloat16.
    input_size: the side in pixels that each batch is resized to for the network; as stored when None.
    remat: computes activations again in the backward pass: slower, with less memory.
    """

    name: str = "resnet_tiny"
    dtype: str = "float32"
    input_size: int | None = None
    remat: bool = False


@dataclasses.dataclass(slots=True, kw_only=True)
class TrainConfig:
    """How the original and the retrained reference are trained: SGD, with a learning rate that falls.

    epochs: passes over the training data.
    lr: the learning rate at the start.
    batch_size: samples in each step, over all devices.
    micro_batch: samples that are computed at once, a divisor of batch_size: less memory for the same step.
    momentum: SGD's momentum.
    weight_decay: the factor of the L2 penalty.
    augment: random changes of the images, such as flip,crop.
    schedule: how the rate falls: along a cosine to 0 when None; step multiplies it by gamma at each milestone.
    milestones: for schedule=step: after which epochs, such as 40,80,120.
    gamma: for schedule=step: the factor; 0.1 when None.
    """

    epochs: int = 3
    lr: float = 0.1
    batch_size: int = 128
    micro_batch: int | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: tuple[str, ...] = ()
    schedule: str | None = None
    milestones: tuple[int, ...] | None = None
    gamma: float | None = None


@dataclasses.dataclass(slots=True, kw_only=True)
class UnlearnConfig:
    """What is forgotten, and how (see `delete_jax.unlearn`).

    forget: the classes to forget, by number or name, such as 3,4 or Shirt.
    groups: names for several classes at once, which forget and erased may have, such as "{'even': [0,2,4]}"; cifar100 has its superclasses.
    erased: classes that were erased from the teacher before, as in forget; those that its run or file names need not be given.
    method: the unlearning method; `delete-jax --list` prints them.
    hyperparameters: the method's, such as "{'temperature': 2.0}".
    epochs: passes over the samples that the method reads.
    steps: how many steps, in place of epochs. Without either, 5 epochs, and at least 120 steps by a method that trains on forget samples alone.
    lr: the learning rate; auto needs none, search finds the smallest that erases, both from forget samples. None: auto where that is safe, else 0.001.
    batch_size: samples in each step, over all devices.
    micro_batch: samples that are computed at once, a divisor of batch_size: less memory for the same step.
    momentum: SGD's momentum; lr=auto has none.
    mask: which classes are masked at a sample: union (all forgotten ones) or own (its own label).
    pixels: which pixels count in segmentation: all, or forget (those of the forgotten classes).
    batch_norm: frozen, or train (statistics follow the samples that the method reads).
    augment: random changes of the images, such as flip,crop.
    finish: overwrites the forgotten class's row of the last layer afterwards: zero or mean.
    trainable: what is trained: last_stage, classifier, names such as layer4,fc (with wildcards), or lora:RANK; everything when None.
    """

    forget: tuple[int | str, ...] = (0,)
    groups: dict[str, Any] = dataclasses.field(default_factory=dict)
    erased: tuple[int | str, ...] = ()
    method: str = "anchored"
    hyperparameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int | None = None
    steps: int | None = None
    lr: float | str | None = None
    batch_size: int = 128
    micro_batch: int | None = None
    momentum: float = 0.9
    mask: str = "union"
    pixels: str = "all"
    batch_norm: str = "frozen"
    augment: tuple[str, ...] = ()
    finish: str | None = None
    trainable: str | None = None


@dataclasses.dataclass(slots=True, kw_only=True)
class Settings:
    """All settings of a run, as tasks read them. Config files make a `config.Config`, whose task has a default, too.

    data, model, train, unlearn: the settings of each part.
    task: what is forgotten of what: the settings of a task of `delete_jax.tasks.TASKS`, such as `Faces(people=10)`.
    teacher: the original: a run's folder, one of its checkpoints/STAGE, or a file of weights; trained when None.
    retrain: also trains the reference that never saw the forgotten classes.
    parallel: jit (one device), pmap or sharding (all devices), or auto.
    seed: decides initial weights, order, held-out samples and augmentation.
    reproducible: the same command gives the same bits, also on a GPU; with False, XLA may choose kernels by timing them.
    logger: where the rows of metrics.jsonl go besides: csv, tensorboard or wandb, or several, such as csv,tensorboard.
    keep_best: also keeps, of each training, the state that was best on held-out samples, in checkpoints/STAGE_best.
    """

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    unlearn: UnlearnConfig = dataclasses.field(default_factory=UnlearnConfig)
    task: TaskSettings
    teacher: str | None = None
    retrain: bool = True
    parallel: str = "auto"
    seed: int = 0
    reproducible: bool = True
    logger: tuple[str, ...] = ()
    keep_best: bool = False

    def lacking(self, erased: Mapping[int, str]) -> Self:
        """The same settings for data in which these classes, which a network has forgotten, may have no samples; by number."""
        data = LackingConfig(**{**dataclasses.asdict(self.data), "erased": dict(erased)})
        return dataclasses.replace(self, data=data)

    def data_arguments(self) -> dict[str, Any]:
        """What `delete_jax.data.load` takes."""
        return {**dataclasses.asdict(self.data), "seed": self.seed}
