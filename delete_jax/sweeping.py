"""Many requests to one network, as one program: each device trains one of them, and no device waits for another's samples."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from delete_jax.class_names import class_names as as_class_names
from delete_jax.columns import Rows
from delete_jax.earlier import classes_of
from delete_jax.given import listed, shown
from delete_jax.identity import describe_method
from delete_jax.job import Job, checked_job
from delete_jax.layout import Layout, a_job_a_device
from delete_jax.loop import fit
from delete_jax.methods import Method, as_method
from delete_jax.model import Model, Variables
from delete_jax.non_finite import NonFiniteError
from delete_jax.options import Options
from delete_jax.parallel import outside_meshes
from delete_jax.rate_search import NoRateError
from delete_jax.request import Selection, as_samples, check_forget, known_requests, split
from delete_jax.result import Result, network_of
from delete_jax.unlearning import unlearn_job, warn_beforehand

if TYPE_CHECKING:
    import optax


class Request(NamedTuple):
    """One line of a sweep: what to forget, and how.

    Attributes:
      forget: the classes to erase, as for `unlearn`.
      method: of `delete_jax.methods`, or its name; `anchored` if None.
      lr: learning rate, or strength of a method without training; "auto", "search" or None, as for `unlearn`.
      seed: for the data order, augmentation, dropout and whatever the method draws.
    """

    forget: int | str | Iterable[int | str]
    method: Method | str | None = None
    lr: float | str | None = None
    seed: int = 0


@outside_meshes
def sweep(
    model: Model,
    variables: Variables | Result,
    images: np.ndarray,
    labels: np.ndarray,
    requests: Iterable[Any],
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    mask: str = "union",
    pixels: str = "all",
    batch_norm: str = "frozen",
    preprocess: Callable[[jax.Array], jax.Array] | None = None,
    augment: Callable[..., Any] | None = None,
    tx: optax.GradientTransformation | None = None,
    finish: str | None = None,
    class_names: Sequence[str] | None = None,
    erased: int | str | Iterable[int | str] = (),
    reproducible: bool = True,
    trainable: str | None = None,
) -> list[Result | NonFiniteError | NoRateError]:
    """Answers many requests to the same network: other classes, methods, rates and seeds.

    Every device of this process trains one request at a time, each from the original. Requests with the same method are one
    compiled program, whatever their classes, rates and seeds. Each result is that of `unlearn` alone, up to rounding.
    On one device, requests run one by one; so do methods without a training, those that put another network in place of the
    given one, and requests whose rate is "auto" or "search".

    Args:
      model, variables, images, labels: as for `unlearn`.
      requests: a list of them. Each is a `Request`, a tuple or a dict of its fields, or only what to forget: a class, or a list of
        classes, in which case the rest has its defaults.
      epochs, steps, batch_size, mask, pixels, batch_norm, preprocess, augment, tx, finish, class_names, erased, reproducible, trainable: as for
        `unlearn`, the same for all requests.

    Returns:
      One `Result` for each request, in their order. If a training diverged, or without a rate nothing erases, the error stands in its
      place. `seconds` of a
      request is its share of the time that its device's group took.

    Raises:
      ValueError: something is wrong with an argument or a request, before anything is computed; names the request.

    Warns:
      UserWarning: as `unlearn` does before it trains.

    Examples:
      A linear network that predicts the brightest of four pixels forgets one class, then another:

      >>> import numpy as np
      >>> import delete_jax as dj
      >>> apply = lambda variables, x: x.reshape(len(x), -1) @ variables["params"]["w"]
      >>> model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
      >>> variables = {"params": {"w": 4 * np.eye(4, dtype=np.float32)}}
      >>> labels = np.arange(64) % 4
      >>> images = np.eye(4, dtype=np.float32)[labels].reshape(64, 2, 2, 1)
      >>> requests = [dj.Request([3], lr=0.1), dj.Request([0], lr=0.1)]
      >>> results = dj.sweep(model, variables, images, labels, requests, epochs=40)
      >>> [sorted(set(model.apply(result.variables, images).argmax(-1).tolist())) for result in results]
      [[0, 1, 2], [1, 2, 3]]
    """
    shared: dict[str, Any] = {
        "epochs": epochs, "steps": steps, "batch_size": batch_size, "batch_norm": batch_norm, "preprocess": preprocess, "augment": augment, "tx": tx,
        "parallel": "jit", "finish": finish, "reproducible": reproducible, "trainable": trainable,
    }  # fmt: skip
    listed_requests = _as_requests(requests)
    variables, known = network_of(variables)
    samples = as_samples(model, variables, images, labels, Options(**shared).preprocess)
    if not isinstance(samples.images, Rows):
        samples = samples._replace(images=Rows(samples.images))  # each request picks some of them when its turn comes
    names = None if class_names is None else as_class_names(class_names, samples.num_classes)
    earlier = known_requests(known, erased, samples.num_classes, names)
    jobs: list[Job] = []
    like: dict[Any, Job] = {}
    for number, (asked, name, lr, seed) in enumerate(listed_requests):
        with _named(number):
            method = as_method(name)
            options = Options(**shared, lr=lr, seed=seed)
            selection = Selection(
                check_forget(asked, samples.num_classes, names), mask=mask, pixels=pixels, erased=classes_of(earlier)
            )
            streams, classes = split(samples, selection, method, augment)
            job = checked_job(
                model,
                variables,
                streams,
                samples.num_classes,
                classes,
                method,
                options,
                earlier=earlier,
                like=like.get(method),
            )
        like.setdefault(method, job)
        jobs.append(job)
    warn_beforehand([(f"request {number}: ", job) for number, job in enumerate(jobs)])
    return sweep_jobs(jobs)


@outside_meshes
def sweep_jobs(jobs: Sequence[Job], layout: Layout | None = None) -> list[Result | NonFiniteError | NoRateError]:
    """`sweep` for jobs (`job.checked_job`), whose streams may be made otherwise than by the samples' classes.

    Args:
      jobs: those whose rate is "auto" or "search" are answered one by one.
      layout: how many train at once, and where; None: on several devices a job on each, else one by one.

    Returns:
      One result for each job, in their order. If a training diverged, or without a rate nothing erases, the error stands in its place.
    """
    results: list[Any] = [_found(job) if isinstance(job.lr, str) else None for job in jobs]
    places = [number for number, result in enumerate(results) if result is None]
    jobs = [jobs[place] for place in places]
    together: dict[Any, int] = {}
    alike = [(job.method, dataclasses.replace(job.options, lr=1.0, seed=0)) for job in jobs]
    groups = [together.setdefault(kind, len(together)) for kind in alike]
    order = sorted(range(len(jobs)), key=lambda number: (groups[number], jobs[number].num_steps))  # ending together
    made = fit((jobs[number] for number in order), layout or a_job_a_device())
    for number, result in zip(order, made, strict=True):
        lr, method = float(jobs[number].lr), describe_method(jobs[number].method)
        known = jobs[number].requests
        results[places[number]] = (
            result._replace(lr=lr, method=method, requests=known) if isinstance(result, Result) else result
        )
    return results


def _found(job: Job) -> Result | NonFiniteError | NoRateError:
    """The result of a job without a rate, or why there is none."""
    try:
        return unlearn_job(job)
    except (NonFiniteError, NoRateError) as error:
        return error


def _as_requests(given: Any) -> list[Request]:
    """The requests that a user means; ValueError for something else."""
    if isinstance(given, (str, bytes, Mapping, Request)) or not isinstance(given, Iterable):
        raise ValueError(f"requests must be a list, such as [Request(forget=[3])], got {shown(given)}")
    found = []
    for number, request in enumerate(listed(given, "requests")):
        with _named(number):
            found.append(_as_request(request))
    if not found:
        raise ValueError("there is no request: give at least one, such as Request(forget=[3])")
    return found


def _as_request(given: Any) -> Request:
    if isinstance(given, Request):
        return given
    names = Request._fields
    if isinstance(given, Mapping):
        if unknown := [name for name in given if name not in names]:
            raise ValueError(f"a request has no field {shown(unknown[0])}: its fields are {', '.join(names)}")
        if "forget" not in given:
            raise ValueError(f"a request needs the field forget, the classes to erase, got {shown(given)}")
        return Request(**given)
    if isinstance(given, tuple):
        if not 1 <= len(given) <= len(names):
            raise ValueError(f"a tuple must hold a request's fields, {', '.join(names)}, got {shown(given)}")
        return Request(*given)
    return Request(given)


@contextlib.contextmanager
def _named(number: int) -> Iterator[None]:
    """An error says of which request it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"request {number}: {error}") from error
