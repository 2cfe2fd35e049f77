"""Compares methods on one network: a table with mean and standard deviation over seeds, as Markdown, CSV and LaTeX.

delete-jax study --config=CONFIG[:VARIANT] --methods=NAME,NAME --workdir=FOLDER [--seeds=3 --forget=REQUESTS --lr=RATES]
                 [--config.FIELD=VALUE ...]

--config=digits             as for a run: the data, the network, its training, and the settings of unlearning
--methods=delete,anchored   what is compared. The config's own method has the config's hyper-parameters, all others their defaults
--seeds=3                   each method unlearns with the seeds 0, 1 and 2; what it starts from is trained with the config's seed
--forget='3;4,5'            the requests, separated by semicolons: the classes of each by number or name; by default the config's
--lr=auto                   no rate is needed, as in `unlearn`; a method whose default is a rate has the config's. This is the default
--lr=search                 the smallest rate that erases is found for each request and seed
--lr=config                 all methods have the config's rate. Or numbers: --lr=0.01; --lr=auto,redistil=0.05 for one method alone
--workdir=runs/study        the folder of the study; running the same command again resumes it, also with more methods or seeds
--config.unlearn.epochs=10  a setting in place of the config's
--help                      this text

Distances and gaps are to networks that are retrained without the classes, one for each request; with --config.retrain=false, there
are none. The original is trained, too, unless --config.teacher names it. Files in the folder: table.md, table.csv, table.tex,
cells.jsonl (the finished cells), checkpoints (the original and the retrained networks).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from delete_jax import methods, metrics, tasks
from delete_jax.config import Config, plain, prefixed, validate
from delete_jax.data.groups import ungrouped
from delete_jax.identity import digest
from delete_jax.methods import Method
from delete_jax.options import AUTO, FEW_STEPS, FOUND, SEARCH, default_rate, rate
from delete_jax.result import Result
from delete_jax.run.arguments import read
from delete_jax.run.folder import Folder
from delete_jax.run.loggers import check_installed
from delete_jax.run.networks import Loaded
from delete_jax.run.paths import local
from delete_jax.run.stages import needed, note_earlier, prepared
from delete_jax.run.subcommand import Parser
from delete_jax.run.training import few_steps_of, train
from delete_jax.settings import measures
from delete_jax.step import sgd
from delete_jax.studies import Study, check_method, check_requests, study
from delete_jax.tasks import Run
from delete_jax.tasks.base import ORIGINAL, RETRAINED, augmentation
from delete_jax.writing import write_all

OF_CONFIG = "config"
APART = ("forget", "groups", "erased", "method", "hyperparameters", "lr", "momentum", "augment", "pixels")
"""Settings of unlearning that a study takes in another form, or that are for label maps; all others have the same names there."""
LONGEST = 60
"""Letters of a request in the name of a stage; a folder's name may have 255."""


class Asked(NamedTuple):
    """What a command line asks for, checked as far as that needs no data.

    methods, rates: in this order, and by the methods' names. forget: the requests, as they were given.
    """

    config: Config
    methods: list[Method]
    rates: dict[str, float | str]
    seeds: int
    forget: list[tuple[int | str, ...]]
    workdir: Path


def parse(argv: list[str]) -> Asked:
    """What the arguments ask for.

    Raises:
      ValueError: an unknown flag, method, field or value, a missing one, one that would not count, or a task that is not studied.
    """
    parser = Parser("study")
    for name in ("config", "methods", "workdir"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--forget")
    parser.add_argument("--lr", default=AUTO)
    given, settings = parser.parse_beside(argv, r"--?(no)?config\.")
    config = read(["delete-jax", f"--config={given.config}", *settings])[0]
    task = tasks.of_settings(config.task)
    if not task.studied:
        studied = ", ".join(name for name, other in tasks.TASKS.items() if other.studied)
        raise ValueError(f"--config={given.config:.60}: a study is not for the task {task.name}, only for {studied}")
    names = [name.strip() for name in given.methods.split(",")]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"--methods={given.methods:.60}: {twice[0] or 'an empty name'} stands there several times")
    if not re.fullmatch(r"0*[1-9][0-9]{0,5}", given.seeds):
        raise ValueError(f"--seeds={given.seeds:.60}: give how many, a whole number from 1 on")
    validate(config)
    check_installed(config.logger)
    chosen = [_method(config, name) for name in names]
    rates = _rates(given.lr, chosen, config)
    for method in chosen:
        prefixed(f"--methods, {method.name}", validate, _with(config, method=method.name, lr=rates[method.name]))
    _check_read(given, config, names, settings)
    forget = [config.unlearn.forget] if given.forget is None else _requests(given.forget)
    return Asked(config, chosen, rates, int(given.seeds), forget, local(given.workdir, "--workdir"))


def _with(config: Config, **unlearn: Any) -> Config:
    """The config with other settings of unlearning; another method has its default hyper-parameters."""
    if unlearn.get("method", config.unlearn.method) != config.unlearn.method:
        unlearn = {"hyperparameters": {}, **unlearn}
    return dataclasses.replace(config, unlearn=dataclasses.replace(config.unlearn, **unlearn))


def _method(config: Config, name: str) -> Method:
    return methods.create(name, **_with(config, method=name).unlearn.hyperparameters)


def _rates(text: str, chosen: Sequence[Method], config: Config) -> dict[str, float | str]:
    """The rate of each method: one word for all, and others, behind commas, for some. A method that cannot do without one, or by default
    does not, has the config's, or 0.001 where that has none."""
    for_all, of_one = AUTO, {}
    names = [method.name for method in chosen]
    for position, word in enumerate(text.split(",")):
        name, equals, value = (part.strip() for part in word.rpartition("="))
        if name in of_one or (position and not equals) or (equals and name not in names):
            raise ValueError(
                f"--lr={text:.60}: give {AUTO}, {SEARCH}, {OF_CONFIG} or a number, and METHOD=… for single ones of --methods, such as "
                f"--lr={AUTO},{names[-1]}=0.01"
            )
        if equals:
            of_one[name] = value
        else:
            for_all = value

    def of(method: Method) -> float | str:
        word = of_one.get(method.name, for_all)
        is_meant = method.name in of_one or _is_for(word, method)
        if word != OF_CONFIG and is_meant:
            return _rate(text, word)
        own = config.unlearn.lr
        return default_rate(method, (0,)) if own is None or (own in FOUND and not is_meant) else own

    return {method.name: of(method) for method in chosen}


def _rate(text: str, word: str) -> float | str:
    try:
        return word if word in FOUND else rate(float(word))
    except ValueError:
        raise ValueError(
            f"--lr={text:.60}: give {AUTO}, {SEARCH}, {OF_CONFIG} or a number above 0, not {word!r:.30}"
        ) from None


def _is_for(word: str, method: Method) -> bool:
    """Whether what is said for all methods is for this one."""
    return {AUTO: default_rate(method, (0,)) == AUTO, SEARCH: method.trains_on_forget_alone}.get(word, True)


def _requests(text: str) -> list[tuple[int | str, ...]]:
    requests = [[word.strip() for word in request.split(",")] for request in text.split(";")]
    if not all(map(all, requests)):
        raise ValueError(f"--forget={text:.60}: give the classes of each request, such as --forget='3;4,5'")
    return [tuple(int(word) if re.fullmatch(r"-?[0-9]+", word) else word for word in request) for request in requests]


def _check_read(given: argparse.Namespace, config: Config, names: Sequence[str], settings: Sequence[str]) -> None:
    """Raises ValueError for a setting that the command line gives and the study does not read."""
    said = {found[1] for word in settings if (found := re.match(r"--?(config\.[^=]*)", word))}
    if "config.unlearn.forget" in said and given.forget is not None:
        raise ValueError("--forget stands in place of --config.unlearn.forget: give one of them")
    if (files := getattr(config.task, "files", None)) is not None:
        raise ValueError(f"config.task.files is {files!r}: a study names classes: leave it out, and give --forget")
    for name in ("config.unlearn.method", "config.unlearn.hyperparameters"):
        if name in said and config.unlearn.method not in names:
            raise ValueError(
                f"--{name} would not count: the config's method, {config.unlearn.method}, is none of --methods={','.join(names)}"
            )


def main(argv: list[str]) -> None:
    """Trains what is missing, unlearns, measures, prints the table and writes it.

    Raises:
      ValueError: wrong arguments or data, or the folder is another study's; nothing has been overwritten.
    """
    asked = parse(argv)
    first = asked.methods[0]
    config = _with(asked.config, method=first.name, lr=asked.rates[first.name], forget=asked.forget[0])
    run, teacher = prepared(config)
    dataset = run.data.dataset
    meant = [ungrouped(request, dataset, config.unlearn.groups) for request in asked.forget]
    requests = check_requests(meant, dataset.num_classes, dataset.class_names)
    runs = [run._replace(data=tasks.requested(run.data, request)) for request in requests]
    for method in asked.methods:
        check_method(method, asked.rates[method.name], requests, dataset.num_classes)
    tasks.of_settings(config.task).try_out(run, None if teacher is None else teacher.variables)
    folder = Folder(asked.workdir, Console(soft_wrap=True))
    with folder.claimed(config, _claim(asked.config, requests)):
        note_earlier(folder, teacher)
        for method in asked.methods:
            few = (few_steps_of(one._replace(method=method), _labels(one.data)) for one in runs)
            if (said := next(filter(None, few), None)) is not None:
                folder.say(f"note: {said}")
        original, retrained = _references(runs, folder, teacher)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            warnings.filterwarnings("ignore", FEW_STEPS, UserWarning)  # which has been said
            table = _studied(asked, run, requests, original, retrained, lambda line: _say(folder, line, caught))
        written = {"md": table.to_markdown(), "csv": table.to_csv(), "tex": table.to_latex()}
        files = {folder.path / f"table.{kind}": f"{text.rstrip()}\n".encode() for kind, text in written.items()}
        write_all(files)
    folder.say(f"\n{table}\n")
    for line in failures(table):
        folder.say(f"warning: {line}")
    folder.say(f"written: {', '.join(map(str, files))}")


def failures(table: Study) -> Iterator[str]:
    """Says of each method with trainings that came to nothing why its row has no figures."""
    for method in table.methods:
        own = [cell for cell in table.cells if cell["method"] == method]
        if failed := [cell["failed"] for cell in own if "failed" in cell]:
            yield f"{method}: {len(failed)} of {len(own)} trainings failed, and its row has no figures: {failed[0]}"


def _labels(data: tasks.Data) -> dict[str, dict[str, np.ndarray]]:
    """The labels of the forget samples."""
    labels = data.dataset.train.labels
    return {methods.FORGET: {"label": labels[np.isin(labels, data.forget)]}}


def _say(folder: Folder, line: str, caught: list[warnings.WarningMessage]) -> None:
    """Says a line, and what was warned of before it."""
    folder.say("\n".join([line, *(f"note: {warning.message}" for warning in caught)]))
    caught.clear()


def _claim(config: Config, requests: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """What the folder is of: the settings that all cells have in common. Methods, rates and seeds may be added."""
    found = plain(config)
    for name in ("forget", "method", "hyperparameters", "lr"):
        del found["unlearn"][name]
    return found | {"study": {"forget": [list(request) for request in requests]}}


def _references(runs: Sequence[Run], folder: Folder, teacher: Loaded | None) -> tuple[Result, list[Result]]:
    """The original, and the retrained network of each request, as far as they are wanted: trained, or from the folder."""
    trained: dict[str, Result] = {}
    retrained: list[Result] = []
    for run in runs:
        plan = tasks.of_settings(run.config.task).trainings(run.config, run.data)
        for training in needed(plan, run.config.retrain, teacher is not None):
            if training.shown_as == RETRAINED:
                training = training._replace(name=f"{training.name}_{_called(run.data.forget)}")
                retrained.append(train(run, folder, training, trained.get(training.start)))
            elif training.name not in trained:
                trained[training.name] = train(run, folder, training, trained.get(training.start))
                if training.shown_as == ORIGINAL:
                    trained[ORIGINAL] = trained[training.name]
    if teacher is not None:
        requests = runs[0].data.requests
        return Result(teacher.variables, [], [], source=teacher.source, requests=requests), retrained
    return trained[ORIGINAL], retrained


def _called(request: tuple[int, ...]) -> str:
    name = "_".join(map(str, request))
    return name if len(name) <= LONGEST else f"{len(request)}_classes_{digest(np.array(request))[:16]}"


def _studied(
    asked: Asked,
    run: Run,
    requests: Sequence[tuple[int, ...]],
    original: Result,
    retrained: Sequence[Result],
    say: Callable[[str], None],
) -> Study:
    """The table; each cell is told when it is there."""
    settings, dataset = run.config.unlearn, run.data.dataset
    count = itertools.count(1)
    total = len(requests) * len(asked.methods) * asked.seeds

    def tell(cell: Mapping[str, Any]) -> None:
        names = ", ".join(dataset.class_names[class_] for class_ in cell["forget"])
        said = cell.get("failed") or ", ".join(
            f"{metrics.MEASURES[name].heading} {metrics.show(cell['metrics'][name], metrics.MEASURES[name].show)}"
            for name in ("acc_ft", "acc_rt")
            if name in cell["metrics"]
        )
        say(f"{next(count)}/{total}  {cell['method']}, forgetting {names}, seed {cell['seed']}: {said}")

    return study(
        run.model,
        original,
        train=dataset.train,
        test=dataset.test,
        forget=requests,
        methods=asked.methods,
        seeds=asked.seeds,
        lr=asked.rates,
        preprocess=run.preprocess,
        augment=augmentation(run.network.answers, settings.augment),
        tx={name: sgd(settings.momentum) for name, lr in asked.rates.items() if lr != AUTO},
        parallel=run.config.parallel,
        reproducible=run.config.reproducible,
        class_names=dataset.class_names,
        measures=measures(run.config.task),
        retrained=retrained or None,
        store=asked.workdir,
        on_cell=tell,
        **{name: value for name, value in dataclasses.asdict(settings).items() if name not in APART},
    )
