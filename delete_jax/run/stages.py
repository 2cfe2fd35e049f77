"""The stages of a run: train what the task's plan says, unlearn, measure, report. Each is skipped when it is done."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from rich.console import Console

from delete_jax import data, methods, models, tasks
from delete_jax.config import Config, prefixed
from delete_jax.data.groups import ungrouped
from delete_jax.data.splits import missing
from delete_jax.earlier import classes_of, warnings_of
from delete_jax.identity import short
from delete_jax.methods import Setup
from delete_jax.methods.base import COUNTERPARTS
from delete_jax.network_check import check_network, check_training
from delete_jax.options import check_batch, check_micro_batch
from delete_jax.parallel import on_each_device
from delete_jax.predict import input_shape
from delete_jax.reports.page import PAGE, RECORD
from delete_jax.request import check_remaining, known_requests
from delete_jax.result import Result
from delete_jax.run.folder import Folder
from delete_jax.run.integrity import BESIDE, check_untouched, read_json
from delete_jax.run.loggers import check_installed
from delete_jax.run.networks import Loaded, load_teacher
from delete_jax.run.phases import CHECKPOINTS, CHECKS, DATA, EVALUATION, IMPORTS, REPORT, phase
from delete_jax.run.record import make_record
from delete_jax.run.trace import check_place
from delete_jax.run.training import streams_of, train, unlearn
from delete_jax.tasks import Data, Run, Training
from delete_jax.tasks.base import ORIGINAL, UNLEARNED
from delete_jax.tasks.evidence import without_classes
from delete_jax.trainable import part_of

if TYPE_CHECKING:
    from delete_jax.reports import Verdict


def run_stages(config: Config, workdir: Path, console: Console, command: str) -> None:
    """Runs what is left to do of a validated config in its folder, and says where the report is, and its verdict.

    Raises:
      ValueError: bad input; nothing has been overwritten.
      OSError: the folder cannot be written.
    """
    check_installed(config.logger)
    folder, task = Folder(workdir, console), tasks.of_settings(config.task)
    check_place(workdir)
    run, teacher = prepared(config)
    with phase(CHECKS):
        if not folder.is_finished:
            task.try_out(run, None if teacher is None else teacher.variables)
    plan = needed(task.trainings(config, run.data), config.retrain, teacher is not None)
    with folder.claimed(config):
        if folder.is_finished:
            record = read_json(workdir / RECORD)
            check_untouched(workdir, record)
            _check_forgotten(run, workdir, record)
            folder.say(f"already done: {workdir / PAGE}")
            if "run" in record:  # an earlier version may have measured something else
                say_verdict(folder, _page(task).verdict(record))
        else:
            note_earlier(folder, teacher)
            for said in earlier_warnings(run, teacher):
                folder.say(f"note: {said}")
            _run(run, folder, plan, teacher, command)


def prepared(config: Config) -> tuple[Run, Loaded | None]:
    """Loads the data and the teacher of a validated config, if it names one, and checks all that can be checked without training.

    Raises:
      ValueError: one of them is missing or damaged, or they do not belong together.
    """
    with phase(CHECKPOINTS):
        teacher = load_teacher(config.teacher, config.model.name) if config.teacher else None
    with phase(DATA):
        found = tasks.load(config, _forgotten_by(teacher, config))
    with phase(CHECKS):
        found = _with_requests(config, found, teacher)
        _check_batches(config, found)
        run = describe(config, found, teacher)
        run.method.check(found.dataset.num_classes, found.forget)
        _check_network(run, teacher)
        if teacher is not None:
            _check_held_out(found, teacher)
    return run, teacher


def earlier_warnings(run: Run, teacher: Loaded | None) -> list[str]:
    """What to know before anything is trained, because of requests that the teacher has answered."""
    if teacher is None:
        return []
    said = warnings_of(run.data.requests, run.data.forget, run.method, run.config.unlearn.batch_norm, teacher.variables)
    if any(split == "train" for split, _ in missing(run.data.dataset, run.data.erased)):
        ours, theirs = _compared(run.data, teacher)
        if theirs.get("train") != ours["train"]:
            said.append(
                f"nothing says that {teacher.source} was trained on this run's training samples of the other classes: it may know some "
                "that are held out here, unless --config.seed and --config.data.validation are those of its run"
            )
    return said


def _forgotten_by(teacher: Loaded | None, config: Config) -> dict[int, str]:
    """The classes that were erased from the teacher, by number, as far as it says their names: their samples may have been deleted.
    What the config says wrongly of them is refused once the data is there (`_with_requests`)."""
    if teacher is None:
        return {}
    names, groups = teacher.description.get("class_names") or [], config.unlearn.groups
    told = [class_ for word in config.unlearn.erased for class_ in groups.get(str(word), [word])]
    found = [*classes_of(teacher.requests), *(names.index(class_) if class_ in names else class_ for class_ in told)]
    return {class_: names[class_] for class_ in found if class_ in range(len(names)) and names[class_] is not None}


def _with_requests(config: Config, found: Data, teacher: Loaded | None) -> Data:
    """The data with the requests that the original network has answered before: those that the teacher knows, and those of the config.

    Raises:
      ValueError: the config names an unknown class, or no class would remain.
    """
    dataset, erased = found.dataset, config.unlearn.erased
    if erased and teacher is None:
        raise ValueError(
            f"config.unlearn.erased is {erased!r}: the original is trained in this run, with all classes: leave it out, or name a teacher"
        )
    known = () if teacher is None else teacher.requests
    try:
        erased = ungrouped(erased, dataset, config.unlearn.groups)
        requests = known_requests(known, erased, dataset.num_classes, dataset.class_names)
        check_remaining(found.forget, classes_of(requests), dataset.num_classes)
    except ValueError as error:
        raise ValueError(f"config.unlearn.erased: {error}") from None
    return found._replace(requests=requests)


def note_earlier(folder: Folder, teacher: Loaded | None) -> None:
    """Says where a teacher's class names and statistics are taken on trust."""
    if teacher is not None and teacher.is_earlier:
        folder.say(
            f"note: {teacher.source} was written by an earlier version, whose digest covers the weights alone: its class "
            "names, mean and standard deviation are taken as they stand there"
        )


def _run(run: Run, folder: Folder, plan: list[Training], teacher: Loaded | None, command: str) -> None:
    # They are made once, before anything is trained where they can be: what is to be said of them is said then.
    streams = None if COUNTERPARTS in run.method.needs else streams_of(run, folder, {})
    trained: dict[str, Result] = {}
    for training in plan:
        trained[training.name] = train(run, folder, training, trained.get(training.start))
    networks = {training.shown_as: trained[training.name] for training in plan if training.shown_as}
    if teacher is not None:
        networks = {
            ORIGINAL: Result(teacher.variables, [], [], source=teacher.source, requests=run.data.requests),
            **networks,
        }
    networks[UNLEARNED] = unlearn(run, folder, networks[ORIGINAL], streams)
    task = tasks.of_settings(run.config.task)
    with phase(EVALUATION):
        measured = task.measure(run, networks)
    for note in measured.notes:
        folder.say(f"note: {note}")
    with phase(IMPORTS):
        from delete_jax import reports  # here, because drawing takes long to import

        page = _page(task)
    with phase(REPORT):
        record = make_record(run, networks, measured, command, folder.config)
        parts = reports.write_report(record, lambda record: page.parts(record, measured.examples), folder.path, BESIDE)
    folder.say(f"{measured.summary}. Report: {folder.path / PAGE}")
    say_verdict(folder, parts.verdict)


def _page(task: tasks.Task) -> Any:
    return importlib.import_module(task.page)


def say_verdict(folder: Folder, verdict: Verdict) -> None:
    """Says the report's verdict in words, as the last line; before it, as warnings, what was lost besides."""
    for lost in verdict.lost:
        folder.say(f"warning: {' '.join(lost.split())}")
    folder.say(f"{verdict.label}: {' '.join(verdict.headline.split())}")


def _check_forgotten(run: Run, workdir: Path, record: Any) -> None:
    """Raises ValueError where a finished run forgot other samples than this one would: its data, or a list of names, has changed."""
    task, said = tasks.of_settings(run.config.task), record.get("forget", {}).get("digest")
    if said is not None and task.forgotten is not None and data.split_digest(task.forgotten(run)) != said:
        raise ValueError(
            f"{workdir} holds a run that forgot other samples: the data, or the list of names, has changed since: choose another --workdir"
        )


def needed(plan: list[Training], retrain: bool, has_teacher: bool) -> list[Training]:
    """Finds what must be trained of a plan: the original unless it was given, the references if they are wanted, and what these
    start from."""

    def is_wanted(training: Training) -> bool:
        return not has_teacher if training.shown_as == ORIGINAL else retrain and bool(training.shown_as)

    wanted = {training.name for training in plan if is_wanted(training)}
    for training in reversed(plan):  # each starts from an earlier one
        wanted |= {training.start} if training.name in wanted else set()
    return [training for training in plan if training.name in wanted]


def describe(config: Config, found: Data, teacher: Loaded | None = None) -> Run:
    """Describes the network that the run is about, checked against the data and against a loaded teacher's.

    Raises:
      ValueError: the teacher has other classes, images or another architecture.
    """
    dataset = found.dataset
    description: dict[str, Any] = {
        "name": config.model.name,
        "dtype": config.model.dtype,
        "class_names": list(dataset.class_names),
        "image_shape": list(dataset.train.images.shape[1:]),
        "mean": dataset.mean.tolist(),
        "std": dataset.std.tolist(),
    }
    if config.model.input_size is not None:
        description["input_size"] = config.model.input_size
    if teacher is not None:
        _check_fit(teacher, description)
        said = teacher.description  # the mean and std that it was trained with, and what PyTorch calls its weights
        description |= {key: said[key] for key in ("mean", "std", "torch") if said.get(key) is not None}
    network = models.NETWORKS[config.model.name]
    module = models.create(config.model.name, dataset.num_classes, config.model.dtype, config.model.remat)
    model = models.from_linen(module, network.classifier)
    preprocess = data.normalize(description["mean"], description["std"], size=config.model.input_size)
    method = methods.create(config.unlearn.method, **config.unlearn.hyperparameters)
    return Run(config, found, network, module, model, preprocess, method, description)


def _check_fit(teacher: Loaded, ours: dict[str, Any]) -> None:
    """Raises ValueError where the teacher has other classes, images or another architecture; what it leaves open fits."""

    def fits(said: Any, mine: Any) -> bool:
        if isinstance(said, list) and len(said) == len(mine):
            return all(map(fits, said, mine))
        return said is None or said == mine

    fields = {"name": "model.name", "input_size": "model.input_size", "image_shape": "data", "class_names": "data"}
    for key, field in fields.items():
        said, mine = teacher.description.get(key), ours.get(key)
        # A run that names no size saw images as they are stored; weights from PyTorch leave it open.
        is_exact = key == "input_size" and "torch" not in teacher.description
        if said == mine if is_exact else fits(said, mine):
            continue
        if key == "class_names" and said and mine and len(said) != len(mine):
            what = f"{len(said)} classes, this run {len(mine)}"
        else:
            what = f"{key} {short(said).replace('None', 'any')}, this run {short(mine)}"
        raise ValueError(
            f"the teacher {teacher.source} has {what}: set --config.{field} to match, or name another teacher"
        )


def _check_network(run: Run, teacher: Loaded | None) -> None:
    """Traces the network, given or still to be trained, on images of the data.

    Raises:
      ValueError: it cannot take them, answers otherwise than the data need, or cannot be trained.
    """
    dataset, config = run.data.dataset, run.config
    images, labels = dataset.train
    where = f"--config.model.name={config.model.name}" if teacher is None else f"--config.teacher={teacher.source}"
    try:
        if teacher is None:
            variables = models.shapes(run.module, input_shape(run.preprocess, images))
        else:
            variables = teacher.variables
        answered = check_network(run.model, variables, images, run.preprocess, labels)
        if config.unlearn.finish is not None:
            layer: Any = variables["params"]
            for part in run.network.path:
                layer = layer.get(part, {})
            if "bias" not in layer:
                raise ValueError(
                    f"its classifier {run.network.classifier} has no bias: leave config.unlearn.finish out"
                )
        if config.unlearn.trainable is not None:
            zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
            setup = Setup(run.model, zeros, run.preprocess, {}, answered, run.data.forget, jax.random.key(0))
            part_of(config.unlearn.trainable, setup._replace(classifier=run.model.classifier), images)
        if answered != dataset.num_classes:
            raise ValueError(f"it answers with {answered} classes, and {dataset.name} has {dataset.num_classes}")
        if teacher is None:
            size = config.train.micro_batch or config.train.batch_size
            per_device, axis = on_each_device(size, config.parallel)
            check_training(run.model, variables, images, run.preprocess, per_device, axis)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_held_out(found: Data, teacher: Loaded) -> None:
    """Raises ValueError where the teacher was trained on other samples than this run's: it may know those that are held out here."""
    ours, theirs = _compared(found, teacher)
    if theirs.get("test") == ours["test"] and theirs.get("train", ours["train"]) != ours["train"]:
        raise ValueError(
            f"--config.teacher={teacher.source}: its training samples are not those of this run, which may hold out some of them: give "
            "--config.seed and --config.data.validation of its run, and the data as it was"
        )


def _compared(found: Data, teacher: Loaded) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    """The digests of this run's samples and of the teacher's; without the classes that the teacher has forgotten where they differ in these."""
    ours, theirs = found.dataset.digests, teacher.identity
    if not teacher.remaining or theirs.get("train") == ours["train"]:
        return ours, theirs
    return without_classes(found.dataset, classes_of(teacher.requests)).digests, teacher.remaining


def _check_batches(config: Config, found: Data) -> None:
    for name, part in (("train", config.train), ("unlearn", config.unlearn)):
        shape = found.dataset.train.images.shape[1:]
        prefixed(f"config.{name}.batch_size", check_batch, part.batch_size, shape, config.parallel)
        prefixed(f"config.{name}.micro_batch", check_micro_batch, part.micro_batch, part.batch_size, config.parallel)
