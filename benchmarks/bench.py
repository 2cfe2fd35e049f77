"""What the benchmarks share: one parser, a config's data and networks, one study, one table.

A script says which ways to forget it compares (`Way`), what it scores on held-out data and what it shows of test data. A
`Study` chooses each way's rate and runs it for every request and seed. Nothing changes a config: every cell has its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from rich.console import Console

import delete_jax as dj
from delete_jax import methods, metrics, tasks
from delete_jax.config import Config, validate
from delete_jax.identity import digest
from delete_jax.job import Job, checked_job
from delete_jax.methods import FORGET, Stream
from delete_jax.model import Variables
from delete_jax.options import AUTO
from delete_jax.predict import make_predictor
from delete_jax.request import check_forget
from delete_jax.run import stages
from delete_jax.run.arguments import load_config
from delete_jax.run.folder import Folder
from delete_jax.run.training import train, unlearning_options
from delete_jax.sweeping import sweep_jobs
from delete_jax.tasks import Run, Training
from delete_jax.tasks.base import ORIGINAL, RETRAINED
from delete_jax.tasks.evidence import RELEARN_STEPS, Evidence
from delete_jax.unlearning import unlearn_job
from delete_jax.writing import writing

Request = tuple[int, ...]
Rate = float | str
"""A learning rate, or `options.AUTO`."""
ANOTHER = "retrained, another seed"
PERCENT = (100, 1)
RATE_OF = {"ssd": "alpha", "esc": "share"}
"""The hyper-parameter that takes the place of a learning rate."""

# ---------------------------------------------------------------------------------------------------- the command


def make_parser(
    description: str | None, classes: Sequence[str] | None = None, flag: str = "--classes", seeds: int = 3
) -> argparse.ArgumentParser:
    """The parser of a script: `--config` and `--out`, and what else it has.

    Args:
      description: the script's docstring.
      classes: what is erased where `flag` is left out; it must be given when empty, and there is no such flag when None.
      seeds: how many where `--seeds` is left out; there is no such flag when 0.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config file, optionally FILE:VARIANT")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    if classes is not None:
        default = [request(text) for text in classes]
        message = "what to erase, one after the other; several classes at once as 0+6"
        parser.add_argument(flag, type=request, nargs="+", default=default, required=not classes, help=message)
    if seeds:
        parser.add_argument("--seeds", type=count, default=seeds)
    return parser


def make_timing_parser(description: str | None, samples: int, batch: int, rounds: int) -> argparse.ArgumentParser:
    """The parser of a script that times a network on random images: where its results go, and these defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--model", default="resnet_small")
    parser.add_argument("--samples", type=count, default=samples, help="of all classes together")
    parser.add_argument("--batch", type=count, default=batch)
    parser.add_argument("--rounds", type=count, default=rounds)
    return parser


def alternate(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The seconds that each way says it took, by round: all ways run in each. One more round, the first, compiles and warms up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, seconds in ways.items():
            value = seconds()
            if number:
                found[name].append(value)
    return found


def largest_difference(tree: Any, other: Any) -> float:
    """Between two numbers at the same place of two trees of arrays."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(np.asarray(mine) - np.asarray(theirs)).max()) for mine, theirs in pairs)


def request(text: str) -> Request:
    """The classes of "0+6", sorted."""
    return tuple(sorted({int(class_) for class_ in text.split("+")}))


def count(text: str) -> int:
    """A whole number of at least 1."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def run_script(parser: argparse.ArgumentParser, function: Callable[[argparse.Namespace], None]) -> int:
    """Runs it with the command's arguments; 0, or 2 after one line for bad input."""
    options = parser.parse_args()
    try:
        function(options)
    except (ValueError, OSError) as error:
        print(f"{Path(sys.argv[0]).stem}: error: {error}", file=sys.stderr)
        return 2
    return 0


# ------------------------------------------------------------------------------------------- data, networks, runs


class Way(NamedTuple):
    """One way to forget.

    name: in tables and in the names of cells.
    unlearn, task: settings in place of the config's; the method is among them, and has its own hyper-parameters.
    rates: candidates, rising: learning rates, or whatever takes their place (`RATE_OF`).
    like: the way whose rate it takes, in place of candidates.
    several: it is for requests of several classes only.
    remaining: how many samples of the other classes are among its forget samples, each as often as makes them half of all.
    """

    name: str
    unlearn: Mapping[str, Any]
    task: Mapping[str, Any] = {}
    rates: tuple[float, ...] = ()
    like: str = ""
    several: bool = False
    remaining: int = 0

    def configure(self, config: Config, rate: Rate) -> Config:
        """The config with this way's settings."""
        settings = {"hyperparameters": {}, **self.unlearn, "lr": rate}
        if (name := RATE_OF.get(settings["method"])) is not None:
            settings["hyperparameters"] = {name: rate}
        task = dataclasses.replace(config.task, **self.task)
        return dataclasses.replace(config, unlearn=dataclasses.replace(config.unlearn, **settings), task=task)


class Bench:
    """A config's data, loaded once, its networks, trained once, and results that are kept as files under OUT/cells."""

    def __init__(
        self, options: argparse.Namespace, *fitting: str, kind: type[Evidence] = Evidence, names: Mapping[str, str] = {}
    ):  # fmt: skip
        """Loads the data of `options.config`.

        Args:
          fitting: tasks that the script is for.
          kind: of the evidence on a network.
          names: of stages that are called otherwise than in the task's plan.

        Raises:
          ValueError: the config is wrong or is another task's, or its data are missing.
        """
        self.config, self.out, self.kind, self.names = load_config(options.config), options.out, kind, names
        validate(self.config)
        self.task = tasks.of_settings(self.config.task)
        if self.task.name not in fitting:
            raise ValueError(
                f"--config={options.config}: its task is {self.task.name}, and this is for {' or '.join(fitting)}"
            )
        self.console = Console(soft_wrap=True)
        self.run = stages.describe(self.config, tasks.load(self.config))
        self.dataset = self.run.data.dataset
        # Once: another function would compile again.
        self.trained: dict[tuple[Path, str], dj.Result] = {}
        self.cases: dict[tuple[int, Request], Case] = {}
        self.out.mkdir(parents=True, exist_ok=True)

    def case(self, seed: int, forget: Request) -> Case:
        """A request to the seed's networks.

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

    def cell(self, name: str, compute: Callable[[], Any]) -> Any:
        """What was computed under this name, now or before."""
        return cell(self.out, name, compute)

    def has_cell(self, name: str) -> bool:
        return _path(self.out, name).exists()

    def kept_network(self, name: str, network: dj.Result) -> dj.Result:
        """The network that the cells are of: on another kind of processor, the same seed trains another one.

        The first that is trained is kept in OUT/networks, and its digest in OUT/networks.json. It is trained again where only that
        is there, so that times are this machine's, and then replaced by what was kept.

        Raises:
          ValueError: another one was trained, and the kept one is not there.
        """
        path, record = self.out / "networks" / f"{name}.npz", self.out / "networks.json"
        known = json.loads(record.read_text()) if record.exists() else {}
        if path.exists():
            with np.load(path) as stored:
                network = network._replace(variables=unflatten_dict(dict(stored), sep="/"))
        found = digest(network.variables)
        if known.setdefault(name, found) != found:
            raise ValueError(
                f"{self.out / 'cells'} has results for another network: {name} is {found} here, and was {known[name]} there. Another "
                f"kind of processor or version trains other weights. Give another --out, or remove cells and {record.name}"
            )
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            arrays = jax.tree.map(np.asarray, flatten_dict(network.variables, sep="/"))
            with writing(path) as file:
                np.savez_compressed(file, **arrays)
        write_json(record, known)
        return network


@dataclasses.dataclass(eq=False)
class Case:
    """One request to one seed's networks, which are trained when they are asked for. `run` has both in its config."""

    bench: Bench
    run: Run

    @property
    def forget(self) -> Request:
        return self.run.data.forget

    def network(self, shown_as: str) -> dj.Result:
        """A network of the task's plan. Those that do not depend on the request serve all of a seed's."""
        plan = self.bench.task.trainings(self.run.config, self.run.data)
        return self._train({training.name: training for training in plan}, shown_as)

    def _train(self, plan: Mapping[str, Training], name: str) -> dj.Result:
        training = next(one for one in plan.values() if name in (one.name, one.shown_as))
        start = self._train(plan, training.start) if training.start else None
        stage = self.bench.names.get(training.name, training.name)
        if training.split is not training.dataset.train:
            stage += f"-{key(self.forget)}"
        folder = Folder(self.bench.out / f"seed{self.run.config.seed}", self.bench.console)
        if (folder.path, stage) not in self.bench.trained:
            folder.path.mkdir(exist_ok=True)
            result = train(self.run, folder, training._replace(name=stage), start)
            result = self.bench.kept_network(f"{folder.path.name}-{stage}", result)
            self.bench.trained[folder.path, stage] = result
        return self.bench.trained[folder.path, stage]

    def unlearn(self, way: Way, rate: Rate, start: dj.Result | None = None) -> dj.Result:
        """Forgets, from the original network or from `start`.

        Raises:
          NonFiniteError: it diverged.
        """
        network = (start or self.network(ORIGINAL)).variables
        return unlearn_job(self.job(way, rate, network))

    def job(self, way: Way, rate: Rate, network: Variables) -> Job:
        """What a way reads and how it is trained."""
        config = way.configure(self.run.config, rate)
        method = methods.create(config.unlearn.method, **config.unlearn.hyperparameters)
        run = self.run._replace(config=config, method=method)
        streams = self.bench.task.streams(run, method, network)
        streams = self._joined(streams, way.remaining) if way.remaining else streams
        num_classes, options = self.bench.dataset.num_classes, unlearning_options(run)
        return checked_job(run.model, network, streams, num_classes, self.forget, method, options)

    def _joined(self, streams: dict[str, Stream], count: int) -> dict[str, Stream]:
        """The streams, the forget samples joined by remaining ones, at which the same classes are masked."""
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
        """The evidence on a network, beside the original and the retrained one, whose own is kept."""
        own = [evidence for evidence in self._beside if evidence.result is result]
        return own[0] if own else self.bench.kind(self.run, result, *self._beside)

    def held_out(self, result: dj.Result) -> dict[str, float]:
        """`acc_f`, `acc_r` and their H-Mean (residual), the `score`, on held-out training samples."""
        split = self.bench.dataset.validation
        answers = make_predictor(self.run.model, self.run.preprocess)(result.variables, split.images).argmax(-1)
        found = metrics.forget_remain_accuracy(answers, split.labels, self.forget)
        return found | {"score": metrics.hmean_residual(acc_rt=found["acc_r"], acc_ft=found["acc_f"])}


def cell(out: Path, name: str, compute: Callable[[], Any]) -> Any:
    """What was computed under this name, now or before: a file under OUT/cells."""
    path = _path(out, name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, compute())
    return json.loads(path.read_text())


def _path(out: Path, name: str) -> Path:
    return out / "cells" / (name.replace(", ", "-").replace(" ", "-") + ".json")


def named(rate: Rate) -> str:
    return rate if isinstance(rate, str) else f"{rate:g}"


def key(forget: Request) -> str:
    return "+".join(map(str, forget))


def compared_classes(table: dict[str, Any], bench: Bench) -> list[int]:
    """The classes that were erased alone in a comparison's `table.json`."""
    names = {row["forget"] for row in table["rows"]}
    return [class_ for class_, name in enumerate(bench.dataset.class_names) if name in names]


# ------------------------------------------------------------------------------------------------------- a study


Scores = Callable[[Sequence[float]], dict[float, float]]
"""Rates -> the score of each."""


def every(candidates: Sequence[float], scores: Scores) -> dict[float, float]:
    """The scores of all candidates."""
    return scores(candidates)


def search(candidates: Sequence[float], scores: Scores) -> dict[float, float]:
    """The scores of every other candidate, from the second, and of the neighbours of the best of these."""
    found = scores(candidates[1::2] or candidates)
    best = candidates.index(max(found, key=lambda rate: found[rate]))
    return found | scores([c for c in candidates[max(best - 1, 0) : best + 2] if c not in found])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Ways × requests × rates × seeds. A cell that diverged has the reason as `failed`, and a score of 0.

    name: of its files and cells.
    heads: what the first two columns of its rows are called: what was erased, and how.
    names: the figures of its rows: of `metrics.MEASURES`, or of `more`.
    evidence: what the measures read of a network, on test data. more: further figures.
    score: figures on held-out data, of which a way's rate is chosen by `score`, for the first seed's network.
    """

    name: str
    bench: Bench
    requests: Sequence[Request]
    seeds: int
    heads: tuple[str, str] = ("forget", "method")
    names: Sequence[str]
    evidence: Callable[[Case, dj.Result], Any] = Case.evidence
    more: Callable[[Case, dj.Result], dict[str, Any]] = lambda case, result: {}
    score: Callable[[Case, dj.Result], dict[str, float]] = Case.held_out

    def __post_init__(self):
        for forget in self.requests:  # a wrong one is found at once
            self.bench.case(0, forget)

    def figures(self, case: Case, result: dj.Result) -> dict[str, Any]:
        """What is shown of a network."""
        names = [name for name in self.names if name in metrics.MEASURES]
        return metrics.measure(self.evidence(case, result), names) | self.more(case, result)

    def _cell(
        self, kind: str, case: Case, way: Way, rate: Rate, measure: Callable[..., Any], result: Any = None
    ) -> Any:
        """The figures of a way's network, or why it failed. `result`: the network, or the error, where it is known."""

        def compute() -> dict[str, Any]:
            original = case.network(ORIGINAL)
            try:
                if isinstance(result, ValueError):
                    raise result
                return measure(case, result or case.unlearn(way, rate, original))
            except ValueError as error:
                if rate == AUTO or isinstance(error, dj.NonFiniteError):
                    return {"failed": str(error)}
                raise

        return self.bench.cell(self._name(kind, case, way, rate), compute)

    def _name(self, kind: str, case: Case, way: Way, rate: Rate) -> str:
        return f"{self.name}-{kind}-{way.name}-{key(case.forget)}-{named(rate)}"

    def scores(self, way: Way, rates: Sequence[float]) -> dict[float, dict[str, float]]:
        """The means over the requests of what `score` finds for each rate; a score of 0 where it diverged. On several devices, each
        trains one rate and request."""
        wanted = [(rate, self.bench.case(0, forget)) for rate in rates for forget in self.requests]
        results = self._side_by_side(way, wanted) if jax.local_device_count() > 1 else {}
        cells: dict[float, list[dict[str, Any]]] = {rate: [] for rate in rates}
        for rate, case in wanted:
            result = results.pop((rate, case.forget), None)
            cells[rate].append(self._cell("search", case, way, rate, self.score, result))
        return {rate: self._means(found) for rate, found in cells.items()}

    def _side_by_side(self, way: Way, wanted: Sequence[tuple[float, Case]]) -> dict[tuple[float, Request], Any]:
        """The networks of the cells that are missing, or the errors where they diverged."""
        missing = [pair for pair in wanted if not self.bench.has_cell(self._name("search", pair[1], way, pair[0]))]
        by_network: dict[int, list[tuple[float, Case]]] = {}  # a request may have an original of its own
        for rate, case in missing:
            by_network.setdefault(id(case.network(ORIGINAL)), []).append((rate, case))
        results = {}
        for pairs in by_network.values():
            network = pairs[0][1].network(ORIGINAL).variables
            found = sweep_jobs([case.job(way, rate, network) for rate, case in pairs])
            results |= {(rate, case.forget): one for (rate, case), one in zip(pairs, found, strict=True)}
        return results

    def _means(self, cells: Sequence[dict[str, Any]]) -> dict[str, float]:
        names = {name: None for cell in cells for name in cell if name != "failed"} or {"score": None}
        return {name: float(np.mean([cell.get(name, 0.0) for cell in cells])) for name in names}

    def held_out(self, way: Way, rates: Sequence[float]) -> dict[float, float]:
        """The mean score over the requests, for each rate."""
        return {rate: found["score"] for rate, found in self.scores(way, rates).items()}

    def final(self, way: Way, rate: Rate, forget: Request) -> list[dict[str, Any]]:
        """The figures of each seed."""
        cases = [self.bench.case(seed, forget) for seed in range(self.seeds)]
        return [self._cell(f"seed{s}", case, way, rate, self.figures) for s, case in enumerate(cases)]

    def reference(self, name: str, forget: Request) -> list[dict[str, Any]]:
        """The figures of each seed's network of the plan; of `ANOTHER`, those of the next seed's retrained network beside
        the seed's own."""

        def cell(seed: int, other: int) -> dict[str, Any]:
            def compute() -> dict[str, Any]:
                result = self.bench.case(other, forget).network(RETRAINED if name == ANOTHER else name)
                return self.figures(self.bench.case(seed, forget), result)

            return self.bench.cell(f"{self.name}-seed{seed}-{name}-{key(forget)}-of-seed{other}", compute)

        return [cell(seed, (seed + (name == ANOTHER)) % self.seeds) for seed in range(self.seeds)]

    def choose(
        self, way: Way, search: Callable[[Sequence[float], Scores], dict[float, float]]
    ) -> tuple[float, dict[float, float]]:
        """The best rate, and all scores."""
        scores = search(way.rates, functools.partial(self.held_out, way))
        best = max(scores, key=lambda rate: scores[rate])
        listed = ", ".join(f"{rate:g}: {score:.3f}" for rate, score in sorted(scores.items()))
        self.bench.console.print(f"{way.name}: {best:g} (scores {listed})", highlight=False)
        return best, scores

    def run(
        self, ways: Iterable[Way], references: Mapping[str, str], search: Callable[[Sequence[float], Scores], dict[float, float]] = every,
        rates: Mapping[str, Rate] = {},
    ) -> dict[str, Any]:  # fmt: skip
        """Chooses the rates, and computes every cell, way by way: each is compiled once.

        Args:
          references: how a network is called in the rows -> in the task's plan (or `ANOTHER`).
          search: of the rates: `every`, or `search`.
          rates: those that were chosen before, by way.

        Returns:
          `rows` (for `table`; with the `rate`), `rates` and `searches` (all scores) by way.
        """
        rates, searches, found = dict(rates), {}, {}
        for way in ways:
            if not way.like and way.name not in rates:
                rates[way.name], searches[way.name] = self.choose(way, search)
            rate = rates[way.like or way.name]
            for forget in self.requests:
                if len(forget) > 1 or not way.several:
                    found[forget, way.name] = self._row(forget, way.name, rate, self.final(way, rate, forget))
        rows = []
        for forget in self.requests:
            rows += [self._row(forget, name, None, self.reference(of, forget)) for name, of in references.items()]
            rows += [row for (of, _), row in found.items() if of == forget]
        return {"rows": rows, "rates": rates, "searches": searches}

    def _row(self, forget: Request, name: str, rate: Rate | None, cells: list[dict[str, Any]]) -> dict[str, Any]:
        titles = dict(zip(self.heads, (self.bench.label(forget), name), strict=True))
        return {**titles, "rate": rate, **summary(self.names, cells)}

    def report(
        self, ways: Iterable[Way], references: Mapping[str, str], held_out: str,
        fractions: tuple[float, int] | None = None,
    ) -> None:  # fmt: skip
        """Runs, and writes one table of all to OUT/NAME.md and OUT/NAME.json. For the rest see `run`, `note`, `measured`."""
        record = self.run(ways, references)
        lines = table(self.heads, measured(self.names, fractions), record["rows"])
        below = note("Mean" if fractions else "Percent, mean", self.seeds, held_out, record["rates"])
        write(self.bench.out, self.name, [*lines, "", below], record)


def references(seeds: int) -> dict[str, str]:
    """The networks that every method is compared with; another seed's only where there are several."""
    return {name: name for name in (ORIGINAL, RETRAINED, ANOTHER)[: 3 if seeds > 1 else 2]}


# ------------------------------------------------------------------------------------------------------- a table


class Column(NamedTuple):
    """A figure in a table: its name in a row, what stands above it, how it is shown, and what where a seed has no value."""

    name: str
    heading: str
    factor: float = 100
    digits: int = 1
    missing: str = ""


def measured(names: Iterable[str], fractions: tuple[float, int] | None = None) -> list[Column]:
    """The columns of measures.

    Args:
      fractions: factor and digits of all numbers between 0 and 1, where one table shall show them alike.
    """
    rows = [metrics.MEASURES[name] for name in names]
    scales = {kind: how[1:] for kind, how in metrics.SHOWN.items()}
    scales |= dict.fromkeys(("percent", "points", "number"), fractions) if fractions else {}
    missing = {"relearn_steps": f"> {RELEARN_STEPS}"}
    return [Column(row.name, row.heading, *scales[row.show], missing.get(row.name, "")) for row in rows]


def summary(names: Iterable[str], cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The values of figures by seed, and why where a seed's run failed."""
    if failed := [cell["failed"] for cell in cells if "failed" in cell]:
        return {"failed": failed[0]}
    return {name: [metrics.look_up(cell, name) for cell in cells] for name in names}


def mean_std(values: Sequence[float | None]) -> tuple[float, float]:
    """Over seeds (n - 1); infinite where there is a seed without a value (a class that did not come back)."""
    if None in values:
        return math.inf, 0.0
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def shown(row: dict[str, Any], column: Column) -> str:
    """Mean ± std of a figure, empty where the row has none."""
    if "failed" in row:
        return "failed"
    if None in row.get(column.name, [None]):
        return column.missing if column.name in row else ""
    mean, deviation = mean_std(row[column.name])
    return f"{column.factor * mean:.{column.digits}f} ± {column.factor * deviation:.{column.digits}f}"


def table(heads: Sequence[str], columns: Sequence[Column], rows: Iterable[dict[str, Any]]) -> list[str]:
    """A Markdown table of means ± std: what the rows have under `heads`, then their figures."""
    titles = [*heads, *(column.heading for column in columns)]
    return markdown(titles, ([*(row[head] for head in heads), *(shown(row, c) for c in columns)] for row in rows))


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    head, *lines = ["| " + " | ".join(row) + " |" for row in (heads, *rows)]
    return [head, "|---" * len(heads) + "|", *lines]


def note(start: str, seeds: int, held_out: str, rates: Mapping[str, float]) -> str:
    """The line below a table."""
    chosen = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
    return f"{start} ± std over {seeds} seeds. Rates chosen on {held_out}: {chosen}."


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is whole whenever it is there."""
    with writing(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())


def write(out: Path, name: str, lines: Sequence[str], record: dict[str, Any]) -> None:
    """Prints lines and writes them to OUT/NAME.md, and the record to OUT/NAME.json."""
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")
    write_json(out / f"{name}.json", record)
    print("\n".join(lines), flush=True)
