"""Several methods, requests and seeds on one network, measured alike: the table of a paper, with mean and standard deviation."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from delete_jax import metrics
from delete_jax.cells import Cells
from delete_jax.columns import Rows
from delete_jax.earlier import classes_of
from delete_jax.evaluation import evidence_of, flat, given_splits
from delete_jax.given import MOST_SEED, function, integer, listed, shown
from delete_jax.identity import describe_method, digest
from delete_jax.job import Job, checked_job
from delete_jax.methods import CLASSES, Method, as_method, check_needs
from delete_jax.methods.contract import called
from delete_jax.metrics.measure import SHOWN, Measure
from delete_jax.metrics.table import find
from delete_jax.model import Model, Variables
from delete_jax.network_check import as_is
from delete_jax.non_finite import NonFiniteError
from delete_jax.options import FOUND, Options, check_auto, rate
from delete_jax.parallel import outside_meshes
from delete_jax.rate_search import NoRateError
from delete_jax.request import Samples, Selection, check_forget, check_remaining, known_requests, split
from delete_jax.result import Result, as_result, network_of
from delete_jax.tables import aligned, markdown
from delete_jax.tasks.base import ORIGINAL, RETRAINED
from delete_jax.tasks.figures import ALWAYS
from delete_jax.traced import functions
from delete_jax.unlearning import unlearn_job, warn_beforehand

if TYPE_CHECKING:
    import optax

SHOWN_FIRST = ("acc_ft", "acc_rt", "residual_auc", "residual_auc_gap", "probe_10", "probe_10_gap")
"""The columns of every table, as far as they were measured; those that were asked for follow, then the time."""
SECONDS, MOST_SEEDS = "seconds", 10**6


class Study(NamedTuple):
    """The results of a study. Printed, it is a table: a row for each method, mean ± standard deviation over seeds.

    A cell's value is the mean over the requests; the deviation is that of these means over the seeds.

    Attributes:
      cells: one dict for each method, request and seed: `method`, `forget`, `seed`, `metrics` by the names of `metrics.MEASURES`,
        `lr` and `seconds`. Where a training diverged or no rate erases, there are no metrics, and `failed` says why.
      references: the same of the original and the retrained network, for each request.
      measures: the names of the columns.
    """

    cells: list[dict[str, Any]]
    references: list[dict[str, Any]]
    measures: list[str]

    def __repr__(self) -> str:
        return f"Study({len(self.methods)} methods, {len(self.cells)} cells)"

    @property
    def methods(self) -> list[str]:
        """The names of the rows, in their order."""
        return list(dict.fromkeys(cell["method"] for cell in [*self.references, *self.cells]))

    def values(self, method: str, measure: str) -> list[float]:
        """Returns a measure of one row, one value for each seed: the mean over the requests; none where a cell failed."""
        cells = [cell for cell in [*self.references, *self.cells] if cell["method"] == method]
        by_seed: dict[int, list[float | None]] = {}
        for cell in cells:
            value = cell.get(SECONDS) if measure == SECONDS else cell["metrics"].get(measure)
            by_seed.setdefault(cell["seed"], []).append(value)
        whole = [values for values in by_seed.values() if all(value is not None for value in values)]
        return [float(np.mean(values)) for values in whole] if len(whole) == len(by_seed) else []  # type: ignore[arg-type]

    def _table(self) -> tuple[list[str], list[tuple[str, list[tuple[str, str]]]]]:
        """Headings, and for each row its name and its cells as (mean, deviation) in words."""
        rows = [find(name) for name in self.measures]
        columns = [row for row in rows if any(self.values(method, row.name) for method in self.methods)]
        heads = [f"{row.heading}{_unit(row)}" for row in columns]
        return heads, [
            (method, [_cell(self.values(method, row.name), row) for row in columns]) for method in self.methods
        ]

    def _lines(self, between: str) -> list[list[str]]:
        heads, rows = self._table()
        found = [
            [name, *(f"{mean}{between}{deviation}" if deviation else mean for mean, deviation in cells)]
            for name, cells in rows
        ]
        return [["", *heads], *found]

    def __str__(self) -> str:
        return "\n".join(aligned(self._lines(" ± ")))

    def to_markdown(self) -> str:
        """Formats the table as Markdown."""
        return markdown(self._lines(" ± "))

    def to_latex(self) -> str:
        """Formats the table as a LaTeX tabular of the package booktabs."""
        arrows = {
            "↓": r"$\downarrow$",
            "↑": r"$\uparrow$",
            "→": r"$\to$",
            "%": r"\%",
            "_": r"\_",
            "–": "--",
            "−": "$-$",
        }

        def text(cell: str) -> str:
            return "".join(arrows.get(letter, letter) for letter in cell)

        head, *rows = self._lines(r" $\pm$ ")
        lines = [" & ".join(map(text, line)) + r" \\" for line in [head, *rows]]
        form = "l" + "r" * (len(head) - 1)
        start, end = [rf"\begin{{tabular}}{{{form}}}", r"\toprule"], [r"\bottomrule", r"\end{tabular}"]
        return "\n".join([*start, lines[0], r"\midrule", *lines[1:], *end])

    def to_csv(self) -> str:
        """Formats every cell as a line of CSV: method, forget, seed, lr, seconds, then each measure as a plain number."""
        cells = [*self.references, *self.cells]
        names = list(dict.fromkeys(name for cell in cells for name in cell["metrics"]))
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "forget", "seed", "lr", SECONDS, *names])
        for cell in cells:
            about = [cell["method"], " ".join(map(str, cell["forget"])), *map(cell.get, ("seed", "lr", SECONDS))]
            writer.writerow([*about, *(cell["metrics"].get(name) for name in names)])
        return file.getvalue()


def _unit(row: Measure) -> str:
    return {"percent": " (%)", "points": " (points)"}.get(row.show, "")


def _cell(values: Sequence[float], row: Measure) -> tuple[str, str]:
    if not values or not np.isfinite(values).all():
        return "–", ""
    how = SHOWN[row.show]
    scaled = how.factor * np.array(values)
    deviation = f"{scaled.std(ddof=1):.{how.digits}f}" if len(values) > 1 else ""
    return f"{scaled.mean():.{how.digits}f}".replace("-", "−"), deviation


@outside_meshes
def study(
    model: Model,
    variables: Variables | Result,
    *,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    forget: Iterable[Any],
    methods: Iterable[Method | str],
    seeds: int | Iterable[int] = 3,
    lr: float | str | Mapping[str, float | str | None] | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    micro_batch: int | None = None,
    mask: str = "union",
    batch_norm: str = "frozen",
    preprocess: Callable[[jax.Array], jax.Array] | None = None,
    augment: Callable[..., Any] | None = None,
    tx: optax.GradientTransformation | Mapping[str, optax.GradientTransformation] | None = None,
    parallel: str = "auto",
    reproducible: bool = True,
    finish: str | None = None,
    trainable: str | None = None,
    class_names: Sequence[str] | Mapping[Any, Any] | None = None,
    measures: Iterable[str] | None = None,
    retrained: Variables | Result | Sequence[Variables | Result] | None = None,
    erased: int | str | Iterable[int | str] = (),
    store: str | os.PathLike | None = None,
    on_cell: Callable[[Mapping[str, Any]], None] | None = None,
) -> Study:
    """Unlearns every request by every method with every seed, and measures each result as `evaluate` does.

    Args:
      model, variables: the original network, as for `unlearn`.
      train, test: images `[n, h, w, c]` and labels int `[n]` of all classes.
      forget: a list of requests, each a class or a list of classes, by number or, with `class_names`, by name.
      methods: of `delete_jax.methods`, or their names. Each must have a name of its own.
      seeds: how many, or which.
      lr: the rate; "auto" needs none, "search" finds one for each request and seed; None is each method's default (`unlearn`); or a
        dict with one for each method, by name.
      epochs, steps, batch_size, micro_batch, mask, batch_norm, preprocess, augment, parallel, reproducible, finish, trainable, class_names: as for
        `unlearn`, the same for all methods.
      tx: as for `unlearn`, the same for all methods; or a dict with one for some of them, by name, such as those for which `lr` does
        not say "auto".
      measures: names of `metrics.MEASURES`, in addition to those of every report.
      retrained: the network that was trained without the classes: for each request one, in their order. Distances and gaps are to it. A
        `Result` knows its time, too, to which the measure `speedup` is.
      erased: classes that were erased from the network before, as for `unlearn`.
      store: a folder. Finished cells are kept there; the same call goes on with the others. One process at a time.
      on_cell: is called with each of `Study.cells` when it is finished, or found in the store.

    Returns:
      A `Study`: `print` shows its table; `to_markdown`, `to_latex`, `to_csv`.

    Raises:
      ValueError: an argument is invalid; found before anything is trained.
      IdentityError: the folder holds the cells of another study.

    Warns:
      UserWarning: as `unlearn` does.

    Examples:
      >>> import numpy as np
      >>> import delete_jax as dj
      >>> apply = lambda variables, x: x.reshape(len(x), -1) @ variables["params"]["w"]
      >>> model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
      >>> variables = {"params": {"w": 4 * np.eye(4, dtype=np.float32)}}
      >>> labels = np.arange(64) % 4
      >>> images = np.eye(4, dtype=np.float32)[labels].reshape(64, 2, 2, 1)
      >>> samples = {"train": (images, labels), "test": (images, labels)}
      >>> table = dj.study(model, variables, **samples, forget=[3], methods=["delete"], seeds=2, lr=0.1, epochs=40)
      >>> table.values("original", "acc_ft"), table.values("delete", "acc_ft")
      ([1.0], [0.0, 0.0])
    """
    chosen = [as_method(method) for method in _list(methods, "methods")]
    names = [method.name for method in chosen]
    if twice := [name for name in names if [ORIGINAL, RETRAINED, *names].count(name) > 1]:
        raise ValueError(f"methods has {twice[0]} several times, or as a network: name each, method._replace(name=…)")
    rates, optimisers = _rates(lr, names), _optimisers(tx, names)
    function("on_cell", on_cell)
    given = seeds if isinstance(seeds, Iterable) else range(integer("seeds", seeds, 1, MOST_SEEDS))
    numbers = [integer("a seed", seed, 0, MOST_SEED) for seed in _list(given, "seeds")]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"seeds has a number several times: give each once, got {shown(numbers)}")
    variables, known_before = network_of(variables)
    before = Result(variables, [], [], requests=known_before)
    asked_for = _list(forget, "forget")
    references = _references(retrained, len(asked_for))
    checked = {ORIGINAL: before} | {f"retrained[{i}]": one for i, one in enumerate(references) if one is not None}
    splits, num_classes = given_splits(model, checked, train, test, preprocess or as_is)
    requests = check_requests(asked_for, num_classes, class_names)
    earlier = known_requests(before.requests, erased, num_classes, class_names)
    gone = classes_of(earlier)
    for request in requests:
        check_remaining(request, gone, num_classes)
    asked = [find(name).name for name in listed(() if measures is None else measures, "measures")]
    shared: dict[str, Any] = {
        "epochs": epochs, "steps": steps, "batch_size": batch_size, "micro_batch": micro_batch, "batch_norm": batch_norm, "preprocess": preprocess,
        "augment": augment, "parallel": parallel, "reproducible": reproducible, "finish": finish, "trainable": trainable,
    }  # fmt: skip
    samples = Samples(Rows(splits[0].images), splits[0].labels, num_classes)
    jobs: dict[tuple[str, tuple[int, ...]], Job] = {}
    codes: dict[str, dict[str, str]] = {}  # of somebody's own functions, by method: the cells' own
    for method in chosen:
        check_method(method, rates[method.name], requests, num_classes)
        like: Job | None = None
        for request in requests:
            options = Options(**shared, lr=rates[method.name], tx=optimisers[method.name])
            streams, _ = split(samples, Selection(request, mask=mask, erased=gone), method, augment)
            like = checked_job(
                model, variables, streams, num_classes, request, method, options, earlier=earlier, like=like
            )
            jobs[method.name, request] = like
            if method.name not in codes:
                codes[method.name] = like.functions()
    warn_beforehand([(f"{name}: ", job) for (name, _), job in jobs.items()])
    has_own = isinstance(tx, Mapping)
    like_all = Options(**shared, lr=1.0, tx=None if has_own else tx)  # methods, rates and own optimisers may be added
    cells = Cells(store, lambda: _identity(model, variables, splits, references, like_all, mask, asked, gone))
    found, known = list[dict[str, Any]](), list[dict[str, Any]]()
    for request, reference in zip(requests, references, strict=True):
        networks = {ORIGINAL: before} | ({} if reference is None else {RETRAINED: reference})
        evidence = evidence_of(model, networks, splits, num_classes, request, preprocess or as_is, class_names, earlier)
        for name, network in networks.items():

            def make_reference(name=name, network=network) -> dict[str, Any]:
                values = flat(evidence.measured(name, asked))
                return {"metrics": values} | ({SECONDS: network.seconds} if network.seconds else {})

            about = {"method": name, "forget": list(request), "seed": 0}
            known.append(about | cells.get(about, make_reference))
        for method in chosen:
            for seed in numbers:
                about = {"method": method.name, "forget": list(request), "seed": seed}
                key = {
                    **about,
                    "rate": jobs[method.name, request].lr,
                    "described": describe_method(method),
                    "code": codes[method.name].get("method"),
                } | ({"tx": codes[method.name]["tx"]} if has_own else {})
                job = jobs[method.name, request].having(seed=seed)

                def make(job=job) -> dict[str, Any]:
                    try:
                        result = unlearn_job(job)
                        values = flat(evidence.beside(result, asked))
                        return {"metrics": values, "lr": result.lr, SECONDS: result.seconds}
                    except (NonFiniteError, NoRateError) as error:
                        return {"metrics": {}, "failed": str(error)}

                found.append(about | cells.get(key, make))
                if on_cell is not None:
                    on_cell(found[-1])
    shown_names = [*SHOWN_FIRST, *metrics.with_gaps(asked), SECONDS]
    return Study(found, known, list(dict.fromkeys(shown_names)))


def _list(given: Any, name: str) -> list[Any]:
    if isinstance(given, (str, bytes, Mapping, Method)) or not isinstance(given, Iterable):
        raise ValueError(f"{name} must be a list, got {shown(given)}")
    if not (found := list(given)):
        raise ValueError(f"{name} is empty: give at least one")
    return found


def _rates(lr: Any, names: Sequence[str]) -> dict[str, float | str | None]:
    given = dict(lr) if isinstance(lr, Mapping) else dict.fromkeys(names, lr)
    if wrong := [name for name in [*names, *given] if (name in names) != (name in given)]:
        raise ValueError(f"lr must have a rate for each method, {', '.join(names)}, and no other: {shown(wrong[0])}")
    is_open = {name: value is None or (isinstance(value, str) and value in FOUND) for name, value in given.items()}
    return {name: value if is_open[name] else rate(value) for name, value in given.items()}


def _optimisers(tx: Any, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(tx, Mapping):
        return dict.fromkeys(names, tx)
    if wrong := [name for name in tx if name not in names]:
        raise ValueError(f"tx must have optimisers for some of {', '.join(names)}, and no other: {shown(wrong[0])}")
    return {name: tx.get(name) for name in names}


def check_requests(forget: Iterable[Any], num_classes: int, class_names: Any = None) -> list[tuple[int, ...]]:
    """The classes of each request, sorted; arguments as for `study`.

    Raises:
      ValueError: one of them has no class, an unknown one or all of them, or stands there twice.
    """
    requests = [check_forget(request, num_classes, class_names) for request in forget]
    if twice := [request for request in requests if requests.count(request) > 1]:
        raise ValueError(f"forget has the request {list(twice[0])} several times: give it once")
    return requests


def check_method(method: Method, lr: float | str | None, requests: Sequence[tuple[int, ...]], num_classes: int) -> None:
    """Raises ValueError where a method cannot do one of the requests, before anything is spent on the others."""
    check_needs(method, (CLASSES,), "a study")
    for request in requests:
        called(method, "check", num_classes, request)
        if isinstance(lr, str):
            check_auto(method, request, lr)


def _references(retrained: Any, requests: int) -> list[Result | None]:
    if retrained is None:
        return [None] * requests
    given: list[Any] = [retrained] if isinstance(retrained, (Mapping, Result)) else _list(retrained, "retrained")
    if len(given) != requests:
        raise ValueError(
            f"retrained must have a network for each request: {len(given)} for {requests} request(s); a network that was trained "
            "without one class is no reference for another"
        )
    return [as_result(network) for network in given]


def _identity(
    model: Model,
    variables: Variables,
    splits: Any,
    references: Sequence[Result | None],
    options: Options,
    mask: str,
    asked: Sequence[str],
    erased: tuple[int, ...],
) -> dict[str, Any]:
    """What the cells of a store are of, as JSON has it."""
    settings = {name: getattr(options, name) for name in ("epochs", "batch_size", "batch_norm")}
    rarer = {
        "steps": options.steps,
        "micro_batch": options.micro_batch,
        "mask": None if mask == "union" else mask,
        "finish": options.finish,
        "trainable": options.trainable,
    }
    if erased:
        settings["erased"] = list(erased)
    if not options.reproducible:
        settings["reproducible"] = False
    # An earlier version had none of them.
    settings |= {name: value for name, value in rarer.items() if value is not None}
    return {
        "original": digest(variables),
        "samples": [digest(split._asdict()) for split in splits],
        "retrained": [None if reference is None else digest(reference.variables) for reference in references],
        "settings": settings,
        "measures": [*ALWAYS, *asked],
        "functions": functions(model, variables, as_method(None), splits[0].images, options),
    }
