"""Many requests as one program: each result is that of the request alone."""

import jax
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import columns, job, layout, loop, parallel, sweeping
from delete_jax.data import augmentation
from delete_jax.rate_search import NoRateError
from tests import tiny
from tests.pages import snippets
from tests.test_unlearn import trained

OPTIONS = {"epochs": 2, "batch_size": 8, "batch_norm": "train"}


def alone(network, samples, request, **options):
    request = dj.Request(*request)
    return dj.unlearn(
        *network, *samples, forget=request.forget, method=request.method, lr=request.lr, seed=request.seed,
        parallel="jit", **OPTIONS | options,
    )  # fmt: skip


def assert_same(found, expected):
    for leaf, other in zip(jax.tree.leaves(found.variables), jax.tree.leaves(expected.variables), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-6, atol=1e-6)
    assert [row["step"] for row in found.history] == [row["step"] for row in expected.history]
    assert [row["epoch"] for row in found.history] == [row["epoch"] for row in expected.history]
    for name in expected.history[0]:
        np.testing.assert_allclose(
            [row[name] for row in found.history], [row[name] for row in expected.history], rtol=2e-5, atol=1e-6
        )


def uneven(n=75):
    """Classes of different sizes: their trainings differ in length."""
    images, labels = tiny.samples(n)
    labels[(labels == 3) & (np.arange(n) > n // 2)] = 2
    return images, labels


@pytest.mark.slow
@pytest.mark.devices(8)
def test_eight_devices_answer_as_one():
    """Other classes, rates and seeds, more of them than devices, in one program a method."""
    assert jax.local_device_count() == 8
    network, samples = tiny.network(), uneven()
    requests = [
        ([1], "delete", 0.05, 0), ([2], "delete", 0.02, 1), ([3], "delete", 0.05, 2), ([1, 3], "delete", 0.01, 0), ([0], "delete", 0.05, 4),
        ([1], "anchored", 0.02, 0), ([3], "anchored", 0.05, 1),
        ([2], "delete", 0.05, 5), ([2], "delete", 0.05, 6), ([0, 1], "delete", 0.03, 7), ([3], "delete", 0.001, 8), ([1], "delete", 0.05, 9),
        ([1], "pour", 1.0, 0),
    ]  # fmt: skip
    parallel._trainer.cache_clear()
    found = dj.sweep(*network, *samples, requests, **OPTIONS)
    for result, request in zip(found, requests, strict=True):
        assert_same(result, alone(network, samples, request)) if result.history else None
        assert result.lr == request[2]
    expected = alone(network, samples, requests[-1])
    jax.tree.map(np.testing.assert_array_equal, found[-1].variables, expected.variables)
    assert parallel._trainer.cache_info().misses >= 3  # DELETE on eight devices and on two, anchored on two


@pytest.mark.parametrize(
    "options",
    [
        {"augment": augmentation(("flip", "crop"), padding=1)},
        {"batch_norm": "frozen"},
        {"finish": "zero"},
        {"mask": "own"},
    ],
    ids=["augment", "frozen", "finish", "own"],
)
def test_with_options(options):
    network, samples = tiny.network(tiny.Net()), uneven()
    model = dj.models.from_linen(tiny.Net(), classifier="Dense_0") if "finish" in options else network[0]
    network = (model, network[1])
    requests = [([1], "delete", 0.05, 0), ([2, 3], "delete", 0.02, 1)]
    for result, request in zip(dj.sweep(*network, *samples, requests, **OPTIONS | options), requests, strict=True):
        assert_same(result, alone(network, samples, request, **options))


def test_images_in_a_file(tmp_path):
    network, (images, labels) = tiny.network(), uneven()
    np.save(tmp_path / "images.npy", images)
    requests = [([1], "delete", 0.05, 0), ([2], "delete", 0.02, 1)]
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    for result, request in zip(dj.sweep(*network, mapped, labels, requests, **OPTIONS), requests, strict=True):
        assert_same(result, alone(network, (images, labels), request))


def test_methods_that_read_all_samples():
    network, samples = tiny.network(), uneven()
    requests = [([1], "finetune", 0.05, 0), ([2], "finetune", 0.02, 1), ([2], "salun", 0.02, 1)]
    for result, request in zip(dj.sweep(*network, *samples, requests, **OPTIONS), requests, strict=True):
        assert_same(result, alone(network, samples, request))


def test_one_that_diverges_harms_no_other():
    network, samples = tiny.network(), uneven()
    requests = [([1], "delete", 0.05, 0), ([1], "delete", 1e30, 0), ([2], "delete", 0.05, 0)]
    found = dj.sweep(*network, *samples, requests, **OPTIONS)
    assert isinstance(found[1], dj.NonFiniteError)
    assert "1e+30" in str(found[1])
    for number in (0, 2):
        assert_same(found[number], alone(network, samples, requests[number]))


def test_the_choice_of_a_rate_in_the_guide(capsys):
    (snippet,) = snippets("choosing", "results = dj.sweep(model, variables, images, labels, requests)")
    images, labels = tiny.samples(20)
    model, variables = tiny.network()
    names = {"model": model, "variables": variables, "images": images, "labels": labels}
    names |= {"held_out_images": images, "held_out_labels": labels}
    assert "rates = [3e-4, 1e-3, 3e-3, 1e-2]" in snippet
    snippet = snippet.replace("[3e-4, 1e-3, 3e-3, 1e-2]", "[1e30, 1e-3]").replace("requests)\n", "requests, steps=2)\n")
    exec(snippet, names)
    (said,) = capsys.readouterr().out.splitlines()  # the first diverged
    assert said.startswith("0.001 {'acc_f': ")


def test_as_the_page_has_it():
    (snippet,) = snippets("performance", "results = dj.sweep(model, variables, images, labels, requests)")
    images, labels = tiny.samples(20)
    model, variables = tiny.network()
    names = {"dj": dj, "model": model, "variables": variables, "images": images, "labels": labels}
    exec(snippet.replace("range(10)", "range(2)"), names)
    assert len(names["results"]) == 4
    assert all(result.history for result in names["results"])


@pytest.mark.parametrize(
    "requests",
    [
        [1, 2], (1, 2), np.array([1, 2]), iter([1, 2]), [[1], [2]], [{1}, np.array([2])], ["b", "c"], [("b",), (2, "anchored")],
        [{"forget": [1]}, {"forget": 2, "method": "anchored"}], [dj.Request(1), (np.int64(2), None)],
    ],
)  # fmt: skip
def test_requests_as_people_write_them(requests, monkeypatch):
    seen = []
    monkeypatch.setattr(sweeping, "sweep_jobs", seen.extend)
    dj.sweep(*tiny.network(), *uneven(), requests, **OPTIONS, class_names=["a", "b", "c", "d"])
    assert [(job.forget, job.method.name, job.options.lr) for job in seen] == [
        ((1,), "anchored", "auto"), ((2,), "anchored", "auto"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        (3, r"requests must be a list, such as \[Request\(forget=\[3\]\)\], got 3"),
        ("bee", "requests must be a list"),
        ({"forget": [1]}, "requests must be a list"),
        (dj.Request([1]), "requests must be a list"),
        ([None], "request 0: a class to forget must be an integer, got None"),
        ([dj.Request([1]), None], "request 1: a class to forget must be an integer, got None"),
        ([()], "request 0: a tuple must hold a request's fields, forget, method, lr, seed"),
        ([([1], "delete", 1e-3, 0, 5, 6)], "request 0: a tuple must hold a request's fields"),
        (
            [{"forget": [1], "rate": 1}],
            "request 0: a request has no field 'rate': its fields are forget, method, lr, seed",
        ),
        ([{"lr": 1}], "request 0: a request needs the field forget"),
        ([[()]], "request 0: a class to forget must be an integer"),
        ([1.5], "request 0: a class to forget must be an integer, got 1.5"),
        ([], "there is no request"),
        ([([1],), ([17],)], "request 1: class 17 cannot be forgotten"),
        ([([1], "finetune", "auto")], "request 0: lr='auto' is for trained methods that read forget samples alone"),
        ([([1], "delete", "fast")], "request 0: the learning rate must be"),
        ([([1], "delete", -1.0)], "request 0: the learning rate must be"),
        ([([1], "ssd", 1.0), ([1], "nothing")], "request 1: .*nothing"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_computed(requests, message, monkeypatch):
    monkeypatch.setattr(sweeping, "fit", None)
    with pytest.raises(ValueError, match=message):
        dj.sweep(*tiny.network(), *uneven(), requests, **OPTIONS)


@pytest.mark.filterwarnings(
    "ignore:other predictions have moved", "ignore:the network is unsure", "ignore:the smallest rate"
)
def test_without_a_rate():
    """One by one, in their places; an error stands for a request that nothing answers."""
    model, variables = tiny.network()
    network, samples = (model, trained(model, variables, *tiny.samples(160))), tiny.samples(160)
    requests = [
        ([1], "delete", "auto", 0),
        ([2], "delete", 0.02, 1),
        ([2], "gradient_ascent", "auto"),
        ([3], "delete", "search", 0),
    ]
    options = {"batch_norm": "frozen"}
    found = dj.sweep(*network, *samples, requests, **OPTIONS | options)
    for number in (0, 1, 3):
        assert_same(found[number], expected := alone(network, samples, requests[number], **options))
        assert (found[number].lr, len(found[number].search)) == (expected.lr, len(expected.search))
    assert isinstance(found[2], NoRateError)


def test_each_request_is_held_while_it_runs(monkeypatch):
    """The samples of all requests at once might not fit, and the network is traced once a method."""
    network, (images, labels) = tiny.network(), uneven()
    monkeypatch.setattr(layout.jax, "local_devices", lambda: jax.devices()[:1])
    read, traced = [], []
    check = job.check_training
    monkeypatch.setattr(job, "check_training", lambda *given: traced.append(given) or check(*given))
    ready = loop.make_ready
    monkeypatch.setattr(loop, "make_ready", lambda one: read.append((one.forget, type(one.images))) or ready(one))
    requests = [(iter([1]), "delete", 0.05, 0), ([2], "delete", 0.02, 1), ([3], "negative_gradient_plus", 0.02, 0)]
    found = dj.sweep(*network, images, labels, requests, **OPTIONS)
    assert [result.lr for result in found] == [0.05, 0.02, 0.02]
    assert [forget for forget, _ in read] == [(2,), (1,), (3,)] or [forget for forget, _ in read] == [(1,), (2,), (3,)]
    assert {kind for _, kind in read} == {columns.Rows}, "not copied before their turn"
    assert len(traced) == 2
