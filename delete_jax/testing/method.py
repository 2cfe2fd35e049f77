"""The contract of a method: what `dj.unlearn`, `dj.sweep`, the command and the records rely on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from delete_jax.identity import describe_method
from delete_jax.methods import (
    CLASSES,
    COUNTERPARTS,
    FORGET,
    MAPS,
    METHODS,
    REMAIN,
    TRAINED,
    Method,
    Stream,
    as_method,
    create,
)
from delete_jax.methods.contract import called
from delete_jax.methods.describe import describe_factory
from delete_jax.model import Variables
from delete_jax.predict import NonFiniteError
from delete_jax.step import sgd
from delete_jax.streams import split_samples
from delete_jax.testing.case import Case
from delete_jax.testing.demands import Subject, copied, difference, form, is_finite
from delete_jax.testing.loss import check_functions
from delete_jax.testing.samples import NUM_CLASSES, Segmenter, label_maps, network, samples

REQUESTS = ((1, 2), (1,), (0,))
"""Which classes are forgotten: the first of these that the method takes."""
NUM = 48


def check_method(method: Method | Callable[[], Method]) -> None:
    """Tests the contract of a method on tiny networks with one answer per image and one per pixel.

    * It can be hashed. Made again, it is equal: a run compiles its steps once per method. JSON can hold its hyper-parameters.
    * `check` refuses requests by ValueError alone.
    * The result is finite, and has the tree, shapes and dtypes of the original, which stays as it is. The same seed gives the same bits.
    * The seed, the mask and, for a method with `edit`, every other setting change the result if they are among `settings`, and else not
      one bit. A method that is trained declares those that a training depends on.
    * Samples of a stream that it does not declare do not count, and those of one that it declares do.
    * `prepare` returns a `Prepared` that fits the streams. Neither it nor `edit` nor `wrap` changes what it is given.
    * The loss falls on a batch that is seen three times, its parts add up to it, and `unwrap` returns a tree like the original's.
    * A sample of weight 0 counts for nothing. A batch in parts gives the same step.
    * Label maps and, unless it needs whole classes, single samples give a finite result, or are refused by ValueError.

    Args:
      method: a method, or what makes one with no arguments: a row of `methods.METHODS`, or `functools.partial` of one.

    Raises:
      AssertionError: the contract is broken; one line says what was found, what is expected, and what to do.

    Examples:
      >>> import delete_jax as dj
      >>> dj.testing.check_method(dj.methods.delete)
      >>> forgetful = dj.methods.delete()._replace(name="forgetful", settings=("lr",))
      >>> dj.testing.check_method(forgetful)
      Traceback (most recent call last):
        ...
      AssertionError: method forgetful: it is trained, and its settings leave out epochs, batch_size, momentum, seed: add them, ...
    """
    method, again = _made(method)
    subject = Subject(f"method {method.name}")
    _check_facts(subject, method, again)
    case = _case(subject, method)
    first = _check_result(case)
    _check_settings(case, first)
    _check_streams(case, first)
    check_functions(case)
    _check_other_labels(case)


def _made(given: Any) -> tuple[Method, Any]:
    """A method, and the same made again."""
    subject = Subject("check_method")
    subject.demand(given is not None, "it was given None: give a method, or what makes one")
    if isinstance(given, Method) or not callable(given):
        with subject.during("the method"):
            method = as_method(given)
        if method.name not in METHODS:
            return method, method
        with Subject(f"method {method.name}").during("making it again from its hyper-parameters"):
            return method, create(method.name, **method.hyperparameters)
    name = getattr(given, "__name__", type(given).__name__)
    with subject.during(f"{name}()"):
        method = given()
        subject.demand(isinstance(method, Method), f"{name}() is a {type(method).__name__}: it must return a Method")
        return as_method(method), given()


def _check_facts(subject: Subject, method: Method, again: Any) -> None:
    subject.demand(isinstance(method.name, str) and method.name, "its name must be a string that is not empty")
    differing = [name for name in Method._fields if getattr(method, name) != getattr(again, name, None)]
    subject.demand(
        not differing and hash(method) == hash(again),
        f"made again it is not equal to itself, its {', '.join(differing)} differ: steps are compiled once per method; decorate what "
        "makes it with methods.hyperparameters.factory or functools.cache",
    )
    subject.demand(
        [*method.ranges] == [*method.hyperparameters],
        f"its ranges are those of {', '.join(method.ranges) or 'nothing'}, and its hyper-parameters "
        f"{', '.join(method.hyperparameters) or 'none'}: let methods.hyperparameters.factory fill in both",
    )
    subject.demand_json(describe_method(method), "its hyper-parameters")
    if method.name in METHODS:
        with subject.during("describing it"):
            text = str(describe_factory(METHODS[method.name]))
        subject.demand(all(line.strip() for line in text.splitlines()), f"its description has an empty line: {text!r}")
    needed = [name for name in TRAINED if name not in ("batch_norm", "augment")]
    missing = [name for name in needed if name not in method.settings]
    subject.demand(
        method.edit is not None or not missing,
        f"it is trained, and its settings leave out {', '.join(missing)}: add them, since they change the result",
    )


def _case(subject: Subject, method: Method) -> Case:
    refusals = []
    for forget in REQUESTS:
        try:
            with subject.during("check"):
                called(method, "check", NUM_CLASSES, forget)
        except AssertionError as error:
            subject.demand(_is_refusal(error.__cause__), f"check must refuse a request by ValueError alone: {error}")
            refusals.append(str(error))
            continue
        has_maps = MAPS in method.needs
        model, variables = network(Segmenter() if has_maps else None)
        images, labels = label_maps(NUM, forget) if has_maps else samples(NUM)
        return Case(subject, method, model, copied(variables), images, labels, forget)
    raise AssertionError(
        f"{subject.name}: check refuses each of {REQUESTS} of {NUM_CLASSES} classes: let it take one of them ({refusals[0]})"
    )


def _check_result(case: Case) -> Variables:
    """What a run gives, and gives again."""
    before, subject = copied(case.variables), case.subject
    first = case.unlearned("a short run").variables
    subject.demand(
        difference(case.variables, before) == 0, "a run changes the variables that it was given: work on a copy"
    )
    subject.demand(
        form(first) == form(before), "its result has other leaves, shapes or dtypes than the original: keep them"
    )
    subject.demand(is_finite(first), "its result has NaN or infinite numbers after a few steps: make the loss finite")
    moved = difference(first["params"], before["params"])
    subject.demand(
        moved > 0, "its parameters are the original's, bit for bit: it must change them; does a gradient flow?"
    )
    again = case.unlearned("the same run again").variables
    subject.demand(
        difference(first, again) == 0,
        "the same seed gives another result: draw from setup.key and the keys given, and from nothing else",
    )
    return first


def _check_settings(case: Case, first: Variables) -> None:
    """Those declared change the result, and the others do not change one bit. Trained methods train by most of them in any case."""
    others: dict[str, dict[str, Any]] = {
        "epochs": {"epochs": 4},
        "lr": {"lr": 0.01},
        "batch_size": {"batch_size": 12},  # fewer steps
        "momentum": {"tx": sgd(0.5)},
        "batch_norm": {"batch_norm": "frozen"},
        "augment": {"augment": _shifted},
        "seed": {"seed": 2},
    }
    settings = case.method.settings
    for name, options in others.items():
        if case.method.edit is not None or name == "seed" or name not in settings:
            _demand_setting(case, name, difference(first, case.unlearned(f"another {name}", **options).variables))
    if len(case.forget) > 1 and COUNTERPARTS not in case.method.needs and FORGET in case.method.streams:
        own = case.unlearned("mask='own'", case.streams("own")).variables
        _demand_setting(case, "mask", difference(first, own))


def _demand_setting(case: Case, name: str, changed: float) -> None:
    if name in case.method.settings:
        what = f"another {name} gives the same result, and {name!r} is among its settings: use it, or leave it out"
    else:
        what = f"another {name} gives another result, and {name!r} is not among its settings: add it"
    case.subject.demand((changed > 0) == (name in case.method.settings), what)


def _shifted(images: jax.Array, *more: Any) -> Any:
    return images + 1 if len(more) == 1 else (images + 1, more[1])


def _check_streams(case: Case, first: Variables) -> None:
    is_erased: np.ndarray = np.any(np.isin(case.labels, case.forget).reshape(len(case.labels), -1), axis=1)
    for name, chosen in ((FORGET, is_erased), (REMAIN, ~is_erased)):
        images = np.where(chosen[:, None, None, None], case.images + 1, case.images)
        other = case._replace(images=images).unlearned(f"a run with other {name} images").variables
        changed = difference(first, other) > 0
        if name not in case.method.streams:
            what = f"other {name} images give another result, and {name!r} is not among its streams: add it"
            case.subject.demand(not changed, what)
        elif name == REMAIN:  # a method may erase by the forget samples' classes alone
            what = f"other {name} images give the same result, and {name!r} is among its streams: use them, or leave it out"
            case.subject.demand(changed, what)


def _check_other_labels(case: Case) -> None:
    """Label maps, and single samples: a result, or a ValueError."""
    method, needs = case.method, set(case.method.needs)
    if not needs & {MAPS, COUNTERPARTS}:
        model, variables = network(Segmenter())
        images, labels = label_maps(NUM, case.forget)
        other = case._replace(model=model, variables=copied(variables), images=images, labels=labels)
        _demand_result_or_refusal(other, "a run with label maps", other.streams())
    if not needs & {CLASSES, MAPS, COUNTERPARTS} and FORGET in method.streams:
        indices = np.flatnonzero(np.isin(case.labels, case.forget))
        single = split_samples(case.images, case.labels, indices, NUM_CLASSES, method.streams)
        _demand_result_or_refusal(case._replace(forget=()), "a run that forgets single samples", single)


def _demand_result_or_refusal(case: Case, what: str, streams: dict[str, Stream]) -> None:
    subject, message = case.subject, f"{what} must give a result, or be refused by ValueError"
    try:
        result = case.unlearned(what, streams)
    except AssertionError as error:
        subject.demand(_is_refusal(error.__cause__), f"{message}: {error}")
        return
    subject.demand(is_finite(result.variables), f"{what} gives NaN or infinite numbers: make the loss finite")
    changed = difference(result.variables, case.variables) > 0
    subject.demand(
        changed, f"{what} gives the original, bit for bit: change the network, or refuse such samples by ValueError"
    )


def _is_refusal(error: BaseException | None) -> bool:
    """Whether somebody raised a ValueError on purpose: it has no other error behind it, and was not raised in a loss."""
    if error is None or "its loss cannot be traced" in str(error):
        return False
    is_one = isinstance(error, ValueError) and not isinstance(error, NonFiniteError)
    return is_one and (error.__cause__ is None or _is_refusal(error.__cause__))
