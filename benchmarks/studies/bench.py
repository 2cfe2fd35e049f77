"""A config's data and networks: loaded once, trained once, and made to forget in one way or another.

Nothing changes a config: every case has its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import runpy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from script import Request

import delete_jax as dj
from delete_jax import data, methods, metrics, models, tasks
from delete_jax.cells import Cells
from delete_jax.config import Config, validate
from delete_jax.identity import Identified, digest
from delete_jax.job import Job
from delete_jax.loop import one
from delete_jax.methods import FORGET, Stream
from delete_jax.model import Variables
from delete_jax.predict import make_predictor
from delete_jax.request import check_forget
from delete_jax.result import Watch
from delete_jax.settings import Settings
from delete_jax.tasks import Run, Training
from delete_jax.tasks.base import ORIGINAL, RETRAINED
from delete_jax.tasks.evidence import Evidence
from delete_jax.tasks.jobs import for_dataset, training_job, unlearning_job
from delete_jax.unlearning import unlearn_job
from delete_jax.writing import writing

Rate = float | str
"""A learning rate, or one of `options.FOUND`."""
RATE_OF = {"ssd": "alpha", "esc": "share"}
"""The hyper-parameter that takes the place of a learning rate."""
UNCOUNTED = {
    "model": ("remat",),
    "unlearn": ("forget", "groups", "erased", "method", "hyperparameters", "lr"),
    "task": ("measures",),
}
"""Settings of a config that change no result, or that a result names itself."""


class Way(NamedTuple):
    """One way to forget.

    name: in tables, and of its cells.
    unlearn, task: settings in place of the config's; the method is among them, and has its own hyper-parameters.
    rates: candidates, rising: learning rates, or whatever takes their place (`RATE_OF`).
    rate: one of `options.FOUND` that it takes, in place of candidates.
    like: the way whose rate it takes, in place of candidates.
    several: it is for requests of several classes only.
    remaining: how many samples of the other classes are among its forget samples, each as often as makes them half of all.
    samples: how many samples of each class it reads, drawn by the seed; 0: all.
    """

    name: str
    unlearn: Mapping[str, Any]
    task: Mapping[str, Any] = {}
    rates: tuple[float, ...] = ()
    rate: str = ""
    like: str = ""
    several: bool = False
    remaining: int = 0
    samples: int = 0

    @property
    def is_experimental(self) -> bool:
        """Whether its method is one of this project, which no paper has proposed."""
        return methods.METHODS[self.unlearn["method"]]().is_experimental

    def configure(self, config: Settings, rate: Rate) -> Settings:
        """Makes the config with this way's settings."""
        settings = {"hyperparameters": {}, **self.unlearn, "lr": rate}
        if (name := RATE_OF.get(settings["method"])) is not None:
            settings["hyperparameters"] = {name: rate}
        task = dataclasses.replace(config.task, **self.task)
        return dataclasses.replace(config, unlearn=dataclasses.replace(config.unlearn, **settings), task=task)

    def described(self) -> dict[str, Any]:
        """Says which way it is, as JSON takes it: its name, and the settings without those that are empty."""
        settings = {
            "unlearn": {name: value for name, value in self.unlearn.items() if value != {}},
            "task": dict(self.task),
            "remaining": self.remaining,
            "samples": self.samples,
        }
        return {"way": self.name, **{name: value for name, value in settings.items() if value}}


class Bench:
    """A config's data, loaded once, its networks, trained once, and finished results, which are kept in OUT/cells.jsonl.

    given, dataset: the config's dataset, and what the script makes of it.
    seeds: how many networks of a kind the script asks for.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        *fitting: str,
        kind: type[Evidence] = Evidence,
        names: Mapping[str, str] = {},
        change: Callable[[data.Dataset], data.Dataset] = lambda dataset: dataset,
    ):
        """Loads the data of `options.config`.

        Args:
          fitting: tasks that the script is for.
          kind: of the evidence on a network.
          names: of networks that are called otherwise than in the task's plan.
          change: makes of the dataset the one that the script is about.

        Raises:
          ValueError: the config is wrong or is another task's, its data are missing, or OUT has results of something else.
        """
        self.config, self.out, self.kind, self.names = load_config(options.config), options.out, kind, names
        self.seeds = getattr(options, "seeds", 1)
        validate(self.config)
        self.task = tasks.of_settings(self.config.task)
        if self.task.name not in fitting:
            raise ValueError(
                f"--config={options.config}: its task is {self.task.name}, and this is for {' or '.join(fitting)}"
            )
        found = tasks.load(self.config)
        self.given, self.dataset = found.dataset, change(found.dataset)
        self.run = describe(self.config, found._replace(dataset=self.dataset))
        self.cells = Cells(self.out, lambda: identity(self.config, self.dataset))
        self.trained: dict[str, dj.Result] = {}
        self.cases: dict[tuple[int, Request], Case] = {}

    def case(self, seed: int, forget: Request) -> Case:
        """Returns a request to the seed's networks.

        Raises:
          ValueError: there are no such classes.
        """
        forget = check_forget(forget, self.dataset.num_classes)
        if (seed, forget) not in self.cases:
            unlearn = dataclasses.replace(self.config.unlearn, forget=forget)
            config = dataclasses.replace(self.config, seed=seed, unlearn=unlearn)
            data = self.run.data._replace(forget=forget)
            self.cases[seed, forget] = Case(self, self.run._replace(config=config, data=data))
        return self.cases[seed, forget]

    def label(self, forget: Request) -> str:
        return " + ".join(self.dataset.class_names[class_] for class_ in forget)

    def train(self, training: Training, seed: int, name: str, start: dj.Result | None = None) -> dj.Result:
        """Trains a network of a plan, or continues with it: its states are in OUT/seedN/NAME. It is the one that the results are of.

        Args:
          start: the network that it starts from, with a new classifier.
        """
        place = f"seed{seed}/{name}"
        if place not in self.trained:
            run = for_dataset(self.run, training.dataset)
            run = run._replace(config=dataclasses.replace(self.config, seed=seed))
            job = training_job(run, training, None if start is None else start.variables)
            result = one(job, Watch(store=Identified(dj.Checkpoints(self.out / place), job.identity())))
            result = result._replace(variables=jax.device_get(result.variables))
            print(f"{place}: trained in {result.seconds:.1f} s", flush=True)
            self.trained[place] = self._kept(place.replace("/", "-"), result)
        return self.trained[place]

    def _kept(self, name: str, network: dj.Result) -> dj.Result:
        """Returns the network that the results are of: on another kind of processor, the same seed trains another one.

        The first that is trained is kept in OUT/networks, and its digest among the cells. It is trained again where only that is
        there, so that times are this machine's, and then replaced by what was kept.

        Raises:
          ValueError: another one was trained, and the kept one is not there.
        """
        if (kept := self.kept(name)) is not None:
            return network._replace(variables=kept)
        self._check(name, network.variables)
        path = self._place(name)
        path.parent.mkdir(exist_ok=True)
        arrays = jax.tree.map(np.asarray, flatten_dict(network.variables, sep="/"))
        with writing(path) as file:
            np.savez_compressed(file, **arrays)
        return network

    def kept(self, name: str) -> Variables | None:
        """Returns the variables of a network in OUT/networks, such as "seed0-teacher"; None where there is none.

        Raises:
          ValueError: it is not the one that the results are of.
        """
        path = self._place(name)
        if not path.exists():
            return None
        with np.load(path) as stored:
            variables = unflatten_dict(dict(stored), sep="/")
        self._check(name, variables)
        return variables

    def _check(self, name: str, variables: Variables) -> None:
        """Raises ValueError unless the results are of this network; where there are none, they will be."""
        found = digest(variables)
        if (known := self.cells.get({"network": name}, lambda: {"digest": found})["digest"]) != found:
            raise ValueError(
                f"{self.cells.path} has results for another network: {name} is {found} here, and was {known} there. Another kind of "
                "processor or version trains other weights. Give another --out, or remove that file"
            )

    def _place(self, name: str) -> Path:
        return self.out / "networks" / f"{name}.npz"


@dataclasses.dataclass(eq=False)
class Case:
    """One request to one seed's networks, which are trained when they are asked for. `run` has both in its config."""

    bench: Bench
    run: Run

    @property
    def forget(self) -> Request:
        return self.run.data.forget

    def network(self, shown_as: str) -> dj.Result:
        """Returns a network of the task's plan. Those that do not depend on the request serve all of a seed's."""
        plan = self.bench.task.trainings(self.run.config, self.run.data)
        return self._train({training.name: training for training in plan}, shown_as)

    def _train(self, plan: Mapping[str, Training], name: str) -> dj.Result:
        training = next(one for one in plan.values() if name in (one.name, one.shown_as))
        start = self._train(plan, training.start) if training.start else None
        called = self.bench.names.get(training.name, training.name)
        if training.split is not training.dataset.train:
            called += f"-{key(self.forget)}"
        return self.bench.train(training, self.run.config.seed, called, start)

    def unlearn(self, way: Way, rate: Rate, start: dj.Result | None = None) -> dj.Result:
        """Forgets, from the original network or from `start`, which may have answered other requests.

        Raises:
          NonFiniteError: it diverged.
        """
        start = start or self.network(ORIGINAL)
        data = self.run.data._replace(requests=tuple(dict(request) for request in start.requests))
        case = dataclasses.replace(self, run=self.run._replace(data=data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what they warn of is measured
            return unlearn_job(case.job(way, rate, start.variables))

    def job(self, way: Way, rate: Rate, network: Variables) -> Job:
        """Makes the job of a way: what it reads, and how it is trained."""
        config = way.configure(self.run.config, rate)
        method = methods.create(config.unlearn.method, **config.unlearn.hyperparameters)
        run = self.run._replace(config=config, method=method)
        streams = self.bench.task.streams(run, method, network)
        streams = self._fewer(streams, way.samples) if way.samples else streams
        streams = self._joined(streams, way.remaining) if way.remaining else streams
        return unlearning_job(run, network, streams, run.config.unlearn.finish)

    def _fewer(self, streams: dict[str, Stream], count: int) -> dict[str, Stream]:
        """Keeps so many forget samples of each class. Fewer ones are among the more."""
        labels = np.asarray(streams[FORGET]["label"])
        order = np.random.default_rng(self.run.config.seed).permutation(len(labels))
        kept = np.sort(np.concatenate([order[labels[order] == class_][:count] for class_ in self.forget]))
        return streams | {FORGET: {name: np.asarray(column)[kept] for name, column in streams[FORGET].items()}}

    def _joined(self, streams: dict[str, Stream], count: int) -> dict[str, Stream]:
        """Joins remaining samples to the forget samples; the same classes are masked at them."""
        forget, (images, labels) = streams[FORGET], self.bench.dataset.train
        remaining = np.flatnonzero(~np.isin(labels, self.forget))
        drawn = np.random.default_rng(self.run.config.seed).permutation(remaining)[:count]
        drawn = np.resize(drawn, len(forget["label"]))
        own = forget | {"image": images[drawn], "label": labels[drawn].astype(np.int32)}
        return streams | {FORGET: {name: np.concatenate([column, own[name]]) for name, column in forget.items()}}

    @functools.cached_property
    def _beside(self) -> tuple[Evidence, Evidence]:
        original, retrained = (self.bench.kind(self.run, self.network(name)) for name in (ORIGINAL, RETRAINED))
        for evidence in (original, retrained):  # its distance to itself is 0
            evidence.original, evidence.retrained, evidence.reference = original, retrained, retrained
        return original, retrained

    def evidence(self, result: dj.Result) -> Evidence:
        """Returns the evidence on a network, beside the original and the retrained one, whose own is kept."""
        own = [evidence for evidence in self._beside if evidence.result is result]
        return own[0] if own else self.bench.kind(self.run, result, *self._beside)

    def held_out(self, result: dj.Result) -> dict[str, float]:
        """Measures `acc_f`, `acc_r` and their H-Mean (residual), the `score`, on held-out training samples."""
        split = self.bench.dataset.validation
        answers = make_predictor(self.run.model, self.run.preprocess)(result.variables, split.images).argmax(-1)
        found = metrics.forget_remain_accuracy(answers, split.labels, self.forget)
        return found | {"score": metrics.hmean_residual(acc_rt=found["acc_r"], acc_ft=found["acc_f"])}


def load_config(file: str) -> Config:
    """Reads what `get_config()` of a config file returns; of "FILE:VARIANT", `get_config(VARIANT)`.

    Raises:
      ValueError: there is no such file, it has no such variant, or it returns no config.
    """
    path, _, variant = file.partition(":")
    if not Path(path).is_file():
        raise ValueError(f"--config={file}: there is no file {path}")
    get_config = runpy.run_path(path).get("get_config")
    config = get_config(variant) if callable(get_config) else None
    if not isinstance(config, Config):
        raise ValueError(f"--config={file}: it must have a function get_config(variant) that returns a Config")
    return config


def describe(config: Config, found: tasks.Data) -> Run:
    """Makes the run of a config: its network for some data, and its method."""
    dataset = found.dataset
    module, model = make_network(config, dataset.num_classes)
    preprocess = data.normalize(dataset.mean.tolist(), dataset.std.tolist(), size=config.model.input_size)
    method = methods.create(config.unlearn.method, **config.unlearn.hyperparameters)
    return Run(config, found, models.NETWORKS[config.model.name], module, model, preprocess, method, description={})


def make_network(config: Config, num_classes: int) -> tuple[nn.Module, dj.Model]:
    """Makes a config's network for that many classes: as a module, and as two functions."""
    module = models.create(config.model.name, num_classes, config.model.dtype, config.model.remat)
    return module, models.from_linen(module, models.NETWORKS[config.model.name].classifier)


def identity(config: Config, dataset: data.Dataset) -> dict[str, Any]:
    """Says what all results in a folder are of: the data, and the settings that count and that no result names."""
    settings = {
        part: {
            name: value
            for name, value in dataclasses.asdict(getattr(config, part)).items()
            if value is not None and name not in UNCOUNTED.get(part, ())
        }
        for part in ("model", "train", "unlearn", "task")
    }
    return {"data": {"name": dataset.name, **dataset.digests, "class_names": list(dataset.class_names)}, **settings}


def named(rate: Rate) -> str:
    return rate if isinstance(rate, str) else f"{rate:g}"


def key(forget: Request) -> str:
    return "+".join(map(str, forget))
