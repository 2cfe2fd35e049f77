"""One training as a value: what is trained, on what, by which method, and how. Checked when it is made, never changed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from delete_jax.earlier import Answered, answer, classes_of, warnings_of
from delete_jax.epochs import Length, steps_in_epoch
from delete_jax.given import shown
from delete_jax.identity import describe_method, digest
from delete_jax.methods import Method, Setup, Stream
from delete_jax.methods.base import ORIGINAL, check_needs
from delete_jax.methods.contract import called, check_networks
from delete_jax.methods.finish import overwrite
from delete_jax.model import Model, Variables, as_given, on_one_device
from delete_jax.network_check import check_answers, check_network, check_training
from delete_jax.optimiser_check import check_optimiser
from delete_jax.optimisers import polyak
from delete_jax.options import Options, check_auto, check_batch, default_epochs
from delete_jax.parallel import on_each_device, run_key
from delete_jax.step import sgd
from delete_jax.streams import provided
from delete_jax.traced import functions
from delete_jax.trainable import WHOLE, Part, check_method, part_of, whole


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A training, or what a method computes in place of one. `checked_job` makes it; `loop.fit` runs it.

    Attributes:
      model, variables: the network, and where the training starts. In unlearning these are the original's.
      streams: the samples (`methods.base.Stream`), by name: those that the method reads.
      num_classes: k.
      forget: the classes to erase; none where single samples are forgotten, or nothing is.
      method: of `delete_jax.methods`.
      options: the settings; a rate that they leave open is decided here (`Options.decided`).
      networks: further frozen networks that the method reads, by name (`Method.networks`): variables of the same model.
      earlier: the requests that the network has answered before (`earlier.Answered`). The classes that they erased are in the streams'
        masks and in the method's `Setup`.
    """

    model: Model
    variables: Variables
    streams: Mapping[str, Stream]
    num_classes: int
    forget: tuple[int, ...]
    method: Method
    options: Options
    networks: Mapping[str, Variables] = dataclasses.field(default_factory=dict)
    earlier: tuple[Answered, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", self.options.decided(self.method, self.forget))

    @property
    def requests(self) -> tuple[Answered, ...]:
        """The requests that the resulting network has answered: the earlier ones, and this one."""
        return (*self.earlier, *answer(self.forget, self.method, self.options.batch_norm))

    @property
    def erased(self) -> tuple[int, ...]:
        """The classes that earlier requests erased, and that this one does not erase again."""
        return tuple(class_ for class_ in classes_of(self.earlier) if class_ not in self.forget)

    @property
    def warnings(self) -> list[str]:
        """What to know before the job is run, because of earlier requests (`earlier.warnings_of`)."""
        return warnings_of(self.earlier, self.forget, self.method, self.options.batch_norm, self.variables)

    def having(self, **settings: Any) -> Job:
        """The same job with other settings (`Options`), such as another rate or seed."""
        return dataclasses.replace(self, options=dataclasses.replace(self.options, **settings))

    def frozen(self, name: str) -> Variables:
        """The frozen network of that name, which the method reads."""
        return self.variables if name == ORIGINAL else self.networks[name]

    @functools.cached_property
    def part(self) -> Part:
        """What is trained of the network (`Options.trainable`)."""
        trainable = self.options.trainable
        return WHOLE if trainable is None else part_of(trainable, self.setup, self.images)

    def unwrapped(self, variables: Variables) -> Variables:
        """The network, of the variables that its training has: without what the method or a training of low rank added."""
        return self.method.unwrap(whole(variables, self.options.trainable))

    def as_given(self, variables: Variables) -> Variables:
        """Variables with the containers and dtypes of the job's own."""
        return as_given(variables, self.variables)

    @property
    def images(self) -> Any:
        """The images of a stream, of which shape and dtype are those of all."""
        return next(iter(self.streams.values()))["image"]

    @property
    def lr(self) -> float | str:
        """The rate: a number, or how it is found (`options.FOUND`)."""
        assert self.options.lr is not None  # it was decided when the job was made
        return self.options.lr

    @property
    def epochs(self) -> int | None:
        """How many passes the training makes; None where it was told a number of steps."""
        options = self.options
        if options.epochs is not None or options.steps is not None:
            return options.epochs
        return default_epochs(self.method, steps_in_epoch(sizes(self.streams), options.batch_size))

    def length(self, streams: Mapping[str, Stream] | None = None) -> Length:
        """How long the training is, on these streams where the method's preparation replaced the job's own."""
        in_epoch = steps_in_epoch(sizes(self.streams if streams is None else streams), self.options.batch_size)
        return Length(self.options.steps or (self.epochs or 1) * in_epoch, in_epoch)

    @property
    def num_steps(self) -> int:
        """How many steps the training takes."""
        return self.length().steps

    @property
    def setup(self) -> Setup:
        """What the method prepares itself from."""
        options = self.options
        return Setup(
            self.model,
            jax.tree.map(
                lambda leaf: leaf, self.variables
            ),  # containers of its own: a method may not change the caller's
            options.preprocess,
            self.streams,
            self.num_classes,
            self.forget,
            key=jax.random.fold_in(run_key(options.seed), np.uint32(2**32 - 1)),  # apart from those of the steps
            strength=1.0 if isinstance(self.lr, str) else self.lr,
            batch_size=options.batch_size,
            num_steps=self.num_steps,
            epochs=self.epochs,
            classifier=self.model.classifier,
            networks=dict(self.networks),
            erased=self.erased,
        )

    def functions(self) -> dict[str, str]:
        """Digests of what the job computes (`traced.functions`): of the functions that it is made of."""
        return functions(self.model, self.variables, self.method, self.images, self.options)

    def identity(self) -> dict[str, Any]:
        """What the result is made from, as JSON takes it: digests of arrays (`identity.digest`) and of functions, names, numbers. How
        long a training is is left out: it may go on for more epochs."""
        return {**self.origin(), "functions": self.functions()}

    def origin(self) -> dict[str, Any]:
        """The identity without functions."""
        options, method = self.options, self.method
        numbers = {name: getattr(options, name) for name in ("lr", "batch_size", "seed", "batch_norm")}
        count = {name: value for name, value in numbers.items() if name in method.settings}
        if method.edit is not None and "epochs" in method.settings:  # it is computed at once, and does not go on
            count["num_steps"] = self.num_steps
        if options.micro_batch is not None and method.edit is None:
            count["micro_batch"] = options.micro_batch
        if options.trainable is not None:
            count["trainable"] = options.trainable
        if not options.reproducible:
            count["reproducible"] = False
        others: dict[str, Any] = {"erased": list(self.erased)} if self.erased else {}
        if self.networks:
            others["networks"] = {name: digest(tree) for name, tree in self.networks.items()}
        return {
            "original": digest(self.variables),
            "samples": digest(dict(self.streams)),
            "forget": list(self.forget),
            "method": describe_method(method),
            "settings": count | {"augmented": options.augment is not None},
            **others,
        }

    def digest(self) -> str:
        """SHA-256 of the identity: two jobs with the same one have the same result, within one version of the package and of jax."""
        whole = {**self.identity(), "steps": self.num_steps, "finish": self.options.finish}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def sizes(streams: Mapping[str, Stream]) -> dict[str, int]:
    """How many samples each stream has."""
    return {name: len(stream["label"]) for name, stream in streams.items()}


def checked_job(
    model: Model,
    variables: Variables,
    streams: Mapping[str, Stream],
    num_classes: int,
    forget: tuple[int, ...],
    method: Method,
    options: Options,
    networks: Mapping[str, Variables] | None = None,
    *,
    earlier: tuple[Answered, ...] = (),
    like: Job | None = None,
) -> Job:
    """A training, all checks of which are passed: that the method suits the request, and the network can be trained.

    Args:
      model, variables, streams, num_classes, forget, method, options, networks, earlier: as in `Job`. The network takes such images and
        answers with `num_classes` (`request.as_samples`).
      like: a checked job with this network, method and settings but for rate and seed, and images of this shape: what it was checked
        for is not checked again.

    Raises:
      ValueError: something is wrong; one line says what. Nothing has been computed but a few answers.
    """
    networks = {} if networks is None else networks
    if not isinstance(networks, Mapping):
        raise ValueError(f"networks must be a dict of variables by name, got {shown(networks)}")
    networks = {name: on_one_device(tree) for name, tree in networks.items()}
    job = Job(model, variables, streams, num_classes, forget, method, options, networks, earlier)
    options = job.options
    check_needs(method, provided(streams, forget), "these samples")
    called(method, "check", num_classes, forget)
    if isinstance(job.lr, str):
        check_auto(method, forget, job.lr)
    check_method(method, options.trainable)
    if like is not None:
        return job
    check_networks(method, job.networks)
    for name, frozen in job.networks.items():
        _check_frozen(name, frozen, job)
    check_trainable(job)
    part = job.part  # it is there, or refused before anything is spent
    if options.tx not in (sgd(), polyak()):
        check_optimiser(options.tx, variables, part if method.wrap is None else WHOLE)
    if options.finish is not None:
        overwrite(job.setup, options.finish)  # it is for this network, or refused before anything is spent
    return job


def check_trainable(job: Job) -> None:
    """Raises ValueError unless the job's network can be trained in the mode that it asks for, and answers with logits."""
    method, options, network = job.method, job.options, (job.model, job.variables, job.images, job.options.preprocess)
    check_batch(options.batch_size, job.images.shape[1:], options.parallel)
    if method.edit is None and (options.batch_norm == "train" or "batch_norm" not in method.settings):
        size = (options.micro_batch or options.batch_size) * (len(job.streams) + (method.reorient is not None))
        check_training(*network, *on_each_device(size, options.parallel))
    check_answers(*network)


def _check_frozen(name: str, variables: Variables, job: Job) -> None:
    """Raises ValueError unless a further network answers as the job's own does."""
    try:
        answers = check_network(job.model, variables, job.images, job.options.preprocess)
        if answers != job.num_classes:
            raise ValueError(
                f"it answers with {answers} classes, and the network that is unlearned with {job.num_classes}"
            )
        check_answers(job.model, variables, job.images, job.options.preprocess)
    except ValueError as error:
        raise ValueError(f"networks[{name!r}]: {error}") from error
