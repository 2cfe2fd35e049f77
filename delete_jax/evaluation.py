"""Evidence for any network: what networks predict and still know of erased classes, side by side, as a table and as a page."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from delete_jax import metrics
from delete_jax.class_names import class_names as as_class_names
from delete_jax.data import Dataset, Split, forget_remain, split_digest
from delete_jax.earlier import Answered, classes_of
from delete_jax.given import array, listed, shown
from delete_jax.given import path as as_path
from delete_jax.identity import digest
from delete_jax.metrics.audits import LEAST_RETRAINED
from delete_jax.metrics.table import find
from delete_jax.model import Model, Variables
from delete_jax.network_check import as_is, check_answers, check_network
from delete_jax.parallel import outside_meshes
from delete_jax.reports import Examples, write_report
from delete_jax.reports.made_with import device, now, versions
from delete_jax.reports.page import PAGE
from delete_jax.reports.record import IN_PYTHON, sealed
from delete_jax.request import as_images, check_forget, check_remaining, check_samples, known_requests
from delete_jax.result import Result, as_result
from delete_jax.tables import aligned, markdown
from delete_jax.tasks import TASKS
from delete_jax.tasks.base import ORIGINAL, RETRAINED, UNLEARNED, Data
from delete_jax.tasks.evidence import Evidence, Subject, side_by_side
from delete_jax.tasks.figures import (
    ALWAYS,
    ANSWERS,
    choose_examples,
    measure,
    most_lost,
    nearest_class,
    notes_of,
    taught,
)

if TYPE_CHECKING:
    import chex


class Evaluation(Mapping[str, dict[str, Any]]):
    """The measures of several networks: `evaluation["unlearned"]["acc_ft"]`. Printed, it is a table.

    Attributes:
      networks: their names, in the order given.
      notes: what could not be measured, or not rightly, and why, one line each.
      record: everything that a report says, as plain data (`delete_jax.reports.record`).
      examples: the test images that a report shows.
    """

    def __init__(self, record: dict[str, Any], examples: Examples, measured: Sequence[str], notes: Sequence[str]):
        self.record, self.examples, self.notes = record, examples, list(notes)
        self.networks = list(record["networks"])
        self._measured = list(measured)

    def __getitem__(self, name: str) -> dict[str, Any]:
        if name not in self.networks:
            raise KeyError(f"{name!r} is no network of this evaluation: there are {', '.join(self.networks)}")
        return self.record["networks"][name]["metrics"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.networks)

    def __len__(self) -> int:
        return len(self.networks)

    def _rows(self) -> list[list[str]]:
        """The cells of the table: a row for each measure that some network has, under the networks' names."""
        rows = [["", *self.networks]]
        for row in map(find, self._measured):
            values = [metrics.look_up(self[name], row.name) for name in self]
            if any(value is not None for value in values):
                rows.append([row.heading, *(metrics.show(value, row.show) for value in values)])
        return rows

    def __str__(self) -> str:
        return "\n".join([*aligned(self._rows()), *(f"note: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        return f"Evaluation({', '.join(self.networks)}; {len(self._measured)} measures)"

    def to_markdown(self) -> str:
        """Formats the table as Markdown; arrows say which direction is better."""
        return markdown(self._rows())

    def to_json(self) -> str:
        """Formats the record as JSON, with its digest: every measure of every network, what was erased and from what; NaN becomes null."""
        return json.dumps(sealed(self.record), indent=1, ensure_ascii=False, allow_nan=False)


@outside_meshes
def evaluate(
    model: Model,
    networks: Mapping[str, Variables | Result],
    *,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    forget: int | str | Iterable[int | str],
    preprocess: Callable[[chex.Array], chex.Array] | None = None,
    class_names: Sequence[str] | Mapping[Any, Any] | None = None,
    measures: Iterable[str] | None = None,
    erased: int | str | Iterable[int | str] = (),
    retrained: Sequence[Variables | Result] = (),
) -> Evaluation:
    """Measures networks after unlearning, side by side: what they predict, and what is left of the erased classes.

    Works for a network of any framework: Linen, NNX, PyTorch, Keras or plain functions. Features are read through the kernel of its
    last layer. Nothing is trained but the small probes and attacks that a measure asks for.

    Args:
      model: from `models.from_linen`, `from_nnx`, `from_torch`, `from_keras`, or `Model(apply=..., apply_train=...)`.
      networks: variables, or `Result`s of `unlearn`, by name. "original" is the network before, and is needed; "unlearned" the
        one after; "retrained" one that was trained without the classes, which makes distances and gaps to it. Any further names.
      train, test: images `[n, h, w, c]` and labels int `[n]` of all classes, as for `unlearn`.
      forget: the erased classes: numbers, or names if `class_names` are given.
      preprocess: maps stored images to the network's input.
      class_names: the name of class i at position i, or a dict (see `class_names.class_names`).
      measures: names of `metrics.MEASURES`, in addition to those of every report.
      erased: classes that were erased by earlier requests, as `forget` takes them; those that the `Result`s "original" and "unlearned"
        know of need not be named. They are no remaining classes: `acc_erased_before` alone measures them.
      retrained: a list of at least 4 networks that were trained without the classes with other seeds. The measure `cmia` is an attack that
        tells a network from these. Nothing else reads them. The network "retrained" may be among them.

    Returns:
      An `Evaluation`. `print` shows its table; `evaluation["unlearned"]["acc_ft"]` is one value.

    Raises:
      ValueError: an argument is invalid, or a measure that was asked for cannot be computed; one line says which.

    Examples:
      A linear network that predicts the brightest of four pixels, and what unlearning makes of it:

      >>> import numpy as np
      >>> import delete_jax as dj
      >>> apply = lambda variables, x: x.reshape(len(x), -1) @ variables["params"]["w"]
      >>> model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
      >>> original = {"params": {"w": 4 * np.eye(4, dtype=np.float32)}}
      >>> labels = np.arange(64) % 4
      >>> images = np.eye(4, dtype=np.float32)[labels].reshape(64, 2, 2, 1)
      >>> unlearned = dj.unlearn(model, original, images, labels, forget=[3], lr=0.1, epochs=40)
      >>> networks = {"original": original, "unlearned": unlearned}
      >>> found = dj.evaluate(model, networks, train=(images, labels), test=(images, labels), forget=[3])
      >>> found["original"]["acc_ft"], found["unlearned"]["acc_ft"], found["unlearned"]["acc_rt"]
      (1.0, 0.0, 1.0)
    """
    results, seeds = _as_results(networks), _seeds(retrained)
    checked = results | {f"retrained[{i}]": network for i, network in enumerate(seeds)}
    splits, num_classes = given_splits(model, checked, train, test, preprocess or as_is)
    classes = check_forget(forget, num_classes, class_names)
    known = [request for name in (ORIGINAL, UNLEARNED) if name in results for request in results[name].requests]
    requests = known_requests(known, erased, num_classes, class_names)
    check_remaining(classes, classes_of(requests), num_classes)
    asked = [find(name).name for name in listed(() if measures is None else measures, "measures")]
    evidence = evidence_of(model, results, splits, num_classes, classes, preprocess or as_is, class_names, requests)
    evidence.networks[ORIGINAL].seeds = seeds
    figures = {name: evidence.measured(name, asked) for name in results}
    before, after = evidence.networks[ORIGINAL], evidence.networks.get(UNLEARNED, [*evidence.networks.values()][-1])
    examples = choose_examples(before.dataset, classes, before.test, after.test)
    record = _record(evidence.subject.data, results, figures) | nearest_class(after) | most_lost(after)
    shown_images = examples._replace(images=_as_bytes(examples.images))
    notes = [*evidence.notes, *taught(before), *notes_of(after)]
    return Evaluation(record, shown_images, metrics.with_gaps((*evidence.always, *asked)), notes)


class Beside(NamedTuple):
    """Networks beside each other, on the same samples.

    networks: the evidence on each, by name. always: the measures that can be taken of all of them. notes: why others cannot.
    """

    subject: Subject
    networks: dict[str, Evidence]
    always: tuple[str, ...]
    notes: list[str]

    @property
    def dataset(self) -> Dataset:
        return self.subject.data.dataset

    def measured(self, name: str, asked: Sequence[str]) -> dict[str, Any]:
        """Measures a network; returns its values, among them those that were asked for."""
        return measure(self.networks[name], (*self.always, *asked))

    def beside(self, result: Result, asked: Sequence[str]) -> dict[str, Any]:
        """Measures a further network beside the original and the retrained one."""
        references = (self.networks.get(name) for name in (ORIGINAL, RETRAINED))
        return measure(Evidence(self.subject, result, *references), (*self.always, *asked))


def evidence_of(
    model: Model,
    results: Mapping[str, Result],
    splits: tuple[Split, Split],
    num_classes: int,
    erased: tuple[int, ...],
    preprocess: Callable[[chex.Array], chex.Array],
    class_names: Sequence[str] | Mapping[Any, Any] | None,
    requests: tuple[Answered, ...] = (),
) -> Beside:
    """Collects the evidence on networks that have passed all checks (`given_splits`); arguments as for `evaluate`."""
    names = tuple(map(str, range(num_classes))) if class_names is None else as_class_names(class_names, num_classes)
    nothing = np.zeros(1, np.float32)
    none = Split(splits[0].images[:0], splits[0].labels[:0])
    dataset = Dataset("given samples", splits[0], none, splits[1], names, nothing, nothing)
    subject = Subject(model, preprocess, Data(dataset, erased, requests=requests))
    networks = side_by_side(subject, dict(results), Evidence)
    try:
        _ = networks[ORIGINAL].kernel
    except ValueError as error:
        return Beside(subject, networks, ANSWERS, [f"nothing inside the networks is measured: {error}"])
    return Beside(subject, networks, ALWAYS, [])


def flat(figures: Mapping[str, Any]) -> dict[str, float]:
    """Returns the measures of a network by the names of `metrics.MEASURES`, without what is nested or for pictures."""
    found = {name: metrics.look_up(figures, name) for name in metrics.MEASURES}
    return {name: float(value) for name, value in found.items() if isinstance(value, (int, float))}


def report(evaluation: Evaluation, path: str | os.PathLike) -> None:
    """Writes the page of an evaluation: the verdict, what is left, each class, samples and limits. `report.json`, `report.png` and
    `SHA256SUMS`, which `delete-jax verify FOLDER` checks, lie beside it.

    Args:
      evaluation: of `evaluate`, with a network called "unlearned".
      path: `FOLDER/report.html`, or the folder. Existing files of these names are replaced.

    Raises:
      ValueError: there is no unlearned network, or the path is no page of that name.
      OSError: the files cannot be written.

    Examples:
      >>> import delete_jax as dj
      >>> dj.report(evaluation, "erased/report.html")  # doctest: +SKIP
    """
    if not isinstance(evaluation, Evaluation):
        raise ValueError(f"report needs what delete_jax.evaluate returns, got {shown(evaluation)}")
    if UNLEARNED not in evaluation:
        raise ValueError(
            f"a report is about a network called {UNLEARNED!r}: this evaluation has {', '.join(evaluation)}"
        )
    path = as_path("path", path)
    is_page = path.name == PAGE
    if path.suffix and not is_page and not path.is_dir():
        raise ValueError(f"{path}: the page is called {PAGE}; give FOLDER/{PAGE}, or the folder")
    page = importlib.import_module(next(iter(TASKS.values())).page)
    write_report(
        evaluation.record, lambda record: page.parts(record, evaluation.examples), path.parent if is_page else path
    )


def _as_results(networks: Any) -> dict[str, Result]:
    if not isinstance(networks, Mapping) or not all(isinstance(name, str) and name for name in networks):
        raise ValueError(f'networks must be a dict such as {{"original": v0, "unlearned": v1}}, got {shown(networks)}')
    if ORIGINAL not in networks or len(networks) < 2:
        raise ValueError(
            f"networks needs {ORIGINAL!r}, the network before, and at least another one, such as {UNLEARNED!r}; got "
            f"{', '.join(networks) or 'none'}"
        )
    found = {name: as_result(value) for name, value in networks.items()}
    order = [ORIGINAL, *(name for name in found if name != ORIGINAL)]
    return {name: found[name] for name in order}


def _seeds(retrained: Any) -> list[Result]:
    """The networks that were retrained with other seeds."""
    if (
        isinstance(retrained, (str, Mapping, Result))
        or not isinstance(retrained, Sequence)
        or 0 < len(retrained) < LEAST_RETRAINED
    ):
        number = f"{len(retrained)} network(s)" if isinstance(retrained, list) else shown(retrained)
        raise ValueError(
            f"retrained must be a list of at least {LEAST_RETRAINED} networks, trained without the classes with other seeds, got {number}; a "
            f"single one is networks[{RETRAINED!r}]"
        )
    return [as_result(value) for value in retrained]


def given_splits(
    model: Model, results: Mapping[str, Result], train: Any, test: Any, preprocess: Callable
) -> tuple[tuple[Split, Split], int]:
    """Checks both splits against every network; returns them and the number of classes."""
    splits = []
    num_classes = 0
    for what, given in (("train", train), ("test", test)):
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise ValueError(f"{what} must be (images, labels), got {shown(given)}")
        images, labels = as_images(given[0]), array(given[1], f"labels of {what}")
        for name, result in results.items():
            try:
                found = check_network(model, result.variables, images, preprocess, labels)
                num_classes = num_classes or found
                if found != num_classes:
                    raise ValueError(
                        f"it answers with {found} classes, and {next(iter(results))!r} with {num_classes}: a network that was trained without "
                        "a class keeps its number"
                    )
            except ValueError as error:
                raise ValueError(f"{what}, network {name!r}: {error}") from error
        if labels.ndim != 1:
            raise ValueError(f"{what}: evaluate is for one label for each image, got label maps {labels.shape}")
        try:
            check_samples(images, labels, num_classes)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
        splits.append(Split(images, labels.astype(np.int32)))
    for result in results.values():
        check_answers(model, result.variables, splits[0].images, preprocess)
    return (splits[0], splits[1]), num_classes


def _method(unlearned: Result | None) -> dict[str, Any]:
    """How a network was unlearned, as far as its result tells."""
    if unlearned is None or not unlearned.method:
        return {"name": "not stated"}
    return {**unlearned.method, "lr": unlearned.lr}


def _record(data: Data, results: Mapping[str, Result], figures: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What a report says, as far as samples and networks tell it."""
    dataset, erased = data.dataset, data.forget
    unlearned, retrained = results.get(UNLEARNED), results.get(RETRAINED)
    seconds = unlearned.seconds or None if unlearned else None
    retraining = retrained.seconds or None if retrained else None
    samples = forget_remain(dataset.train, erased)[0]
    return {
        "format": 1,
        "created": now(),
        "command": IN_PYTHON,
        "versions": versions(),
        "device": device(),
        "dataset": {
            "name": dataset.name,
            "digest": dataset.digest,
            "num_train": len(dataset.train.labels),
            "num_test": len(dataset.test.labels),
            "class_names": list(dataset.class_names),
        },
        "forget": {
            "classes": list(erased),
            "names": [dataset.class_names[class_] for class_ in erased],
            "num_samples": len(samples.labels),
            "digest": split_digest(samples),
            **({"erased": list(data.erased)} if data.erased else {}),
        },
        "model": {
            "name": "a network given to evaluate",
            "num_parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(results[ORIGINAL].variables["params"])),
        },
        "method": _method(unlearned),
        "networks": {
            name: {"digest": digest(result.variables), "source": result.source, "metrics": figures[name]}
            for name, result in results.items()
        },
        "cost": {
            "retrain_seconds": retraining,
            "unlearn_seconds": seconds,
            "speedup": retraining / seconds if retraining and seconds else None,
        },
    }


def _as_bytes(images: np.ndarray) -> np.ndarray:
    """Images as a page can show them: uint8 as they are, floats from their smallest to their largest value."""
    images = np.asarray(images)
    if images.dtype == np.uint8 or not images.size:
        return images.astype(np.uint8)
    low, high = float(images.min()), float(images.max())
    return np.round(255 * (images.astype(np.float64) - low) / max(high - low, 1e-12)).astype(np.uint8)
