"""Several ways to forget, each at its best rate, for several requests and seeds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from bench import Bench, Case, Rate, Way
from script import Request, write
from table import measured, note, summary, table

import delete_jax as dj
from delete_jax import metrics
from delete_jax.sweeping import sweep_jobs
from delete_jax.tasks.base import ORIGINAL, RETRAINED

ANOTHER = "retrained, another seed"
SEARCH, FINAL = "search", "final"
"""What a cell is of: a rate that is tried, or what is shown."""

Scores = Callable[[Sequence[float]], dict[float, float]]
"""Rates -> the score of each."""


def every(candidates: Sequence[float], scores: Scores) -> dict[float, float]:
    """Scores all candidates."""
    return scores(candidates)


def search(candidates: Sequence[float], scores: Scores) -> dict[float, float]:
    """Scores every other candidate, from the second, and the neighbours of the best of these."""
    found = scores(candidates[1::2] or candidates)
    best = candidates.index(max(found, key=lambda rate: found[rate]))
    return found | scores([c for c in candidates[max(best - 1, 0) : best + 2] if c not in found])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Ways × requests × rates × seeds. A cell that diverged has the reason as `failed`, and a score of 0.

    name: of its files and cells.
    heads: what the first two columns of its rows are called: what was erased, and how.
    names: the figures of its rows: of `metrics.MEASURES`, or of `more`.
    added: figures of its rows that came later, of `metrics.MEASURES`. They have cells of their own, so that what was kept before stays.
      Where a kept cell has none, they are taken of a network that is kept, too; one that is not is trained again with `again`.
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
    added: Sequence[str] = ()
    again: bool = False

    def __post_init__(self):
        for forget in self.requests:  # a wrong one is found at once
            self.bench.case(0, forget)

    def figures(self, case: Case, result: dj.Result) -> dict[str, Any]:
        """Measures what is shown of a network."""
        names = [name for name in self.names if name in metrics.MEASURES]
        return metrics.measure(self.evidence(case, result), names) | self.more(case, result)

    def _cell(self, what: str, case: Case, way: Way, rate: Rate, result: Any = None) -> dict[str, Any]:
        """Returns the figures of a way's network, or why it failed. `result`: the network, or the error, where it is known."""

        def compute() -> dict[str, Any]:
            original = case.network(ORIGINAL)
            try:
                if isinstance(result, ValueError):
                    raise result
                network = result or case.unlearn(way, rate, original)
                if what == SEARCH:
                    return self.score(case, network)
                self._later(self.added, of, case, network)
                return self.figures(case, network)
            except ValueError as error:
                if isinstance(rate, str) or isinstance(error, dj.NonFiniteError):
                    return {"failed": str(error)}
                raise

        of = self._of(what, case, way, rate)
        return self.bench.cells.get(of, compute)

    def _later(self, names: Sequence[str], of: dict[str, Any], case: Case, network: dj.Result) -> dict[str, Any]:
        """Returns the figures that came later, each from a cell of its own; the network's evidence is collected once."""
        evidence = functools.cache(lambda: self.evidence(case, network))

        def compute(name: str) -> dict[str, Any]:
            return metrics.measure(evidence(), [name])

        found: dict[str, Any] = {}
        for name in names:
            found |= self.bench.cells.get({**of, "figure": name}, functools.partial(compute, name))
        return found

    def _completed(
        self, of: dict[str, Any], case: Case, cell: dict[str, Any], network: Callable[[], dj.Result], is_kept: bool
    ) -> dict[str, Any]:
        """Returns a cell with the figures that came later, where they are known or can be had."""
        if "failed" in cell:
            return cell
        known = [name for name in self.added if {**of, "figure": name} in self.bench.cells]
        if len(known) == len(self.added) or not (is_kept or self.again):
            return cell | self._later(known, of, case, dj.Result({}, [], []))
        return cell | self._later(self.added, of, case, network())

    def _of(self, what: str, case: Case, way: Way, rate: Rate) -> dict[str, Any]:
        """Says what a cell is of: of the search for a rate, with figures on held-out data, or of the final figures."""
        settings = {"rate": rate if isinstance(rate, str) else float(rate), **way.described()}
        return {**self._about(case.run.config.seed, case.forget), "cell": what, **settings}

    def _about(self, seed: int, forget: Request) -> dict[str, Any]:
        return {"study": self.name, "seed": seed, "forget": list(forget)}

    def scores(self, way: Way, rates: Sequence[float]) -> dict[float, dict[str, float]]:
        """Averages over the requests what `score` finds for each rate; a score of 0 where it diverged. On several devices, each
        trains one rate and request."""
        wanted = [(rate, self.bench.case(0, forget)) for rate in rates for forget in self.requests]
        results = self._side_by_side(way, wanted) if jax.local_device_count() > 1 else {}
        cells: dict[float, list[dict[str, Any]]] = {rate: [] for rate in rates}
        for rate, case in wanted:
            result = results.pop((rate, case.forget), None)
            cells[rate].append(self._cell(SEARCH, case, way, rate, result))
        return {rate: self._means(found) for rate, found in cells.items()}

    def _side_by_side(self, way: Way, wanted: Sequence[tuple[float, Case]]) -> dict[tuple[float, Request], Any]:
        """Trains the networks of the cells that are missing; the errors are in place of those that diverged."""
        missing = [(rate, case) for rate, case in wanted if self._of(SEARCH, case, way, rate) not in self.bench.cells]
        by_network: dict[int, list[tuple[float, Case]]] = {}  # a request may have an original of its own
        for rate, case in missing:
            by_network.setdefault(id(case.network(ORIGINAL)), []).append((rate, case))
        results: dict[tuple[float, Request], Any] = {}
        for pairs in by_network.values():
            network = pairs[0][1].network(ORIGINAL).variables
            found = sweep_jobs([case.job(way, rate, network) for rate, case in pairs])
            results |= {(rate, case.forget): one for (rate, case), one in zip(pairs, found, strict=True)}
        return results

    def _means(self, cells: Sequence[dict[str, Any]]) -> dict[str, float]:
        names = {name: None for cell in cells for name in cell if name != "failed"} or {"score": None}
        return {name: float(np.mean([cell.get(name, 0.0) for cell in cells])) for name in names}

    def held_out(self, way: Way, rates: Sequence[float]) -> dict[float, float]:
        """Averages the score over the requests, for each rate."""
        return {rate: found["score"] for rate, found in self.scores(way, rates).items()}

    def final(self, way: Way, rate: Rate, forget: Request) -> list[dict[str, Any]]:
        """Returns the figures of each seed."""

        def one(case: Case) -> dict[str, Any]:
            found, of = self._cell(FINAL, case, way, rate), self._of(FINAL, case, way, rate)
            return self._completed(of, case, found, lambda: case.unlearn(way, rate), is_kept=False)

        return [one(self.bench.case(seed, forget)) for seed in range(self.seeds)]

    def reference(self, name: str, forget: Request) -> list[dict[str, Any]]:
        """Returns the figures of each seed's network of the plan; of `ANOTHER`, those of the next seed's retrained network
        beside the seed's own."""

        def cell(seed: int, other: int) -> dict[str, Any]:
            case = self.bench.case(seed, forget)

            def network() -> dj.Result:
                return self.bench.case(other, forget).network(RETRAINED if name == ANOTHER else name)

            of = {**self._about(seed, forget), "network": name, "of_seed": other}
            found = self.bench.cells.get(of, lambda: self.figures(case, network()))
            return self._completed(of, case, found, network, is_kept=True)

        return [cell(seed, (seed + (name == ANOTHER)) % self.seeds) for seed in range(self.seeds)]

    def choose(
        self, way: Way, search: Callable[[Sequence[float], Scores], dict[float, float]]
    ) -> tuple[float, dict[float, float]]:
        """Returns the best rate, and all scores."""
        scores = search(way.rates, functools.partial(self.held_out, way))
        best = max(scores, key=lambda rate: scores[rate])
        listed = ", ".join(f"{rate:g}: {score:.3f}" for rate, score in sorted(scores.items()))
        print(f"{way.name}: {best:g} (scores {listed})", flush=True)
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
            if way.rate:
                rates[way.name] = way.rate
            elif not way.like and way.name not in rates:
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
        return {**titles, "rate": rate, **summary([*self.names, *self.added], cells)}

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
    """Names the networks that every method is compared with; another seed's only where there are several."""
    return {name: name for name in (ORIGINAL, RETRAINED, ANOTHER)[: 3 if seeds > 1 else 2]}
