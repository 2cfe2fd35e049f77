"""A study: methods, requests and seeds on one network, measured alike, kept cell by cell."""

import csv
import io
import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import delete_jax as dj
from delete_jax import studies
from delete_jax.identity import IdentityError
from delete_jax.methods import FORGET, Method, Term
from tests import tiny
from tests.pages import snippets
from tests.test_evaluation import plain

MODEL, ORIGINAL = plain()
SAMPLES = {"train": tiny.samples(96), "test": tiny.samples(64, 1)}


def without(class_):
    return {"params": {"w": np.where(np.arange(4) == class_, -9, ORIGINAL["params"]["w"]).astype(np.float32)}}


def studied(**more):
    given = {
        **SAMPLES,
        "forget": [[1]],
        "methods": ["anchored", "gradient_ascent"],
        "seeds": 2,
        "lr": 0.1,
        "epochs": 4,
        "batch_size": 8,
    }
    return dj.study(MODEL, ORIGINAL, **{"batch_norm": "train"} | given | more)


def pushing(weight):
    """A method that pushes the class away; another weight is other code around it."""

    def loss(outputs, context):
        output = outputs[FORGET]
        return {FORGET: Term(weight * jnp.mean(jnp.where(output.batch["erase"], output.logits, 0), -1))}

    return Method("pushing", loss)


def test_the_cells_and_the_table():
    retrained = [dj.Result(without(class_), [], [], seconds=8.0) for class_ in (1, 3)]  # which know their time
    table = studied(forget=[[1], [3]], retrained=retrained, measures=["head_norm", "speedup"])
    assert len(table.cells) == 2 * 2 * 2
    assert table.methods == ["original", "retrained", "anchored", "gradient_ascent"]
    assert table.values("original", "acc_ft") == [1.0]
    assert table.values("retrained", "acc_ft") == [0.0]
    assert table.values("retrained", "seconds") == [8.0]
    assert table.values("original", "seconds") == table.values("retrained", "speedup") == []
    times = [cell["seconds"] for cell in table.cells if cell["method"] == "anchored" and cell["seed"] == 1]
    assert table.values("anchored", "speedup")[1] == pytest.approx(np.mean([8 / seconds for seconds in times]))
    own = [cell["metrics"]["acc_ft"] for cell in table.cells if cell["method"] == "anchored" and cell["seed"] == 1]
    assert table.values("anchored", "acc_ft")[1] == np.mean(own)
    alone = dj.unlearn(
        MODEL,
        ORIGINAL,
        *SAMPLES["train"],
        forget=[3],
        method="anchored",
        seed=1,
        lr=0.1,
        epochs=4,
        batch_size=8,
        batch_norm="train",
    )
    networks = {"original": ORIGINAL, "unlearned": alone, "retrained": without(3)}
    expected = dj.evaluate(MODEL, networks, **SAMPLES, forget=[3], measures=["head_norm"])["unlearned"]
    (cell,) = (cell for cell in table.cells if (cell["method"], cell["forget"], cell["seed"]) == ("anchored", [3], 1))
    for name in ("acc_ft", "acc_rt", "probe_10", "probe_10_gap", "head_norm"):
        assert cell["metrics"][name] == pytest.approx(expected[name], abs=1e-12)
    values = table.values("anchored", "acc_rt")
    shown = f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}"
    assert shown in str(table)
    assert shown in table.to_markdown()
    assert shown.replace("±", r"$\pm$") in table.to_latex()
    assert r"gradient\_ascent" in table.to_latex()
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert len(lines) == 8 + 4
    assert float(lines[-1]["acc_rt"]) == table.cells[-1]["metrics"]["acc_rt"]
    assert repr(table) == "Study(4 methods, 8 cells)"


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    whole = studied()
    real, count = studies.unlearn_job, []

    def stopped(job):
        count.append(job.options.seed)
        if len(count) == 3:
            raise KeyboardInterrupt
        return real(job)

    monkeypatch.setattr(studies, "unlearn_job", stopped)
    with pytest.raises(KeyboardInterrupt):
        studied(store=tmp_path)
    with (tmp_path / "cells.jsonl").open("a") as file:
        file.write('{"key": "half')  # as a process leaves it that is killed there
    monkeypatch.setattr(studies, "unlearn_job", lambda job: count.append(0) or real(job))
    found = studied(store=tmp_path)
    assert len(count) == 3 + 4 - 2
    for cell, other in zip(found.cells, whole.cells, strict=True):
        assert cell["metrics"] == other["metrics"]
    monkeypatch.setattr(studies, "unlearn_job", None)
    assert studied(store=tmp_path).cells == found.cells
    assert (
        len((tmp_path / "cells.jsonl").read_text().splitlines()) == 1 + 1 + 4
    )  # what it is of, the references, the cells


def test_cells_of_something_else(tmp_path, monkeypatch):
    studied(store=tmp_path, seeds=1, methods=[pushing(1.0)])
    for other, words in (
        ({"epochs": 3}, "settings.epochs was 4, now 3"),
        ({"preprocess": lambda x: 2 * x}, "functions.preprocess"),
    ):
        with pytest.raises(IdentityError, match=words):
            studied(store=tmp_path, seeds=1, methods=[pushing(1.0)], **other)
    made = []
    real = studies.unlearn_job
    monkeypatch.setattr(studies, "unlearn_job", lambda job: made.append(job.method.name) or real(job))
    studied(store=tmp_path, seeds=1, methods=[pushing(1.0)])
    assert made == []
    studied(store=tmp_path, seeds=1, methods=[pushing(2.0)])  # another loss is another cell
    studied(store=tmp_path, seeds=1, methods=[pushing(1.0)], lr=0.2)
    assert made == ["pushing"] * 2
    lines = (tmp_path / "cells.jsonl").read_text().splitlines()
    (tmp_path / "cells.jsonl").write_text("\n".join([lines[0], "{damaged", *lines[1:]]) + "\n")
    with pytest.raises(IdentityError, match=r"cells\.jsonl, line 2 is damaged"):
        studied(store=tmp_path, seeds=1)


def test_each_cell_is_told_and_the_rarer_options_count(tmp_path):
    """A finish and a mask are others' cells; a store of the time before there were any is read on."""
    told = []
    given = {"forget": [[1, 3]], "methods": ["delete"], "seeds": 1, "measures": ["head_norm"]}
    plainly = studied(**given, store=tmp_path / "a", on_cell=told.append)
    assert told == plainly.cells
    assert set(json.loads((tmp_path / "a" / "cells.jsonl").read_text().splitlines()[0])["settings"]) == {
        "epochs", "batch_size", "batch_norm",
    }  # fmt: skip
    for more in ({"mask": "own"}, {"micro_batch": 8, "batch_size": 16}):
        alone = dj.unlearn(
            MODEL,
            ORIGINAL,
            *SAMPLES["train"],
            forget=[1, 3],
            lr=0.1,
            epochs=4,
            **{"method": "delete", "batch_norm": "train"} | {"batch_size": 8, **more},
        )
        networks = {"original": ORIGINAL, "unlearned": alone}
        expected = dj.evaluate(MODEL, networks, **SAMPLES, forget=[1, 3], measures=["head_norm"])["unlearned"]
        (cell,) = studied(**given, **more).cells
        for name in ("acc_ft", "acc_rt", "head_norm"):
            assert cell["metrics"][name] == pytest.approx(expected[name], abs=1e-12)
        with pytest.raises(IdentityError, match="holds another study"):
            studied(**given, **more, store=tmp_path / "a")


def test_an_optimiser_for_some_methods(tmp_path, monkeypatch):
    """The others have their default; a cell is of its own optimiser, and a store may have several."""
    given = {"methods": ["delete", "anchored"], "seeds": 1, "epochs": 2, "store": tmp_path}
    made, real = [], studies.unlearn_job
    monkeypatch.setattr(studies, "unlearn_job", lambda job: made.append(job.method.name) or real(job))
    plain_sgd = studied(**given, tx={"delete": optax.sgd(1.0)})
    alone = dj.unlearn(
        MODEL, ORIGINAL, *SAMPLES["train"], forget=[1], method="delete", lr=0.1, epochs=2, batch_size=8, batch_norm="train",
        tx=optax.sgd(1.0),
    )  # fmt: skip
    expected = dj.evaluate(MODEL, {"original": ORIGINAL, "unlearned": alone}, **SAMPLES, forget=[1])["unlearned"]
    assert plain_sgd.cells[0]["metrics"]["residual_auc"] == pytest.approx(expected["residual_auc"], abs=1e-12)
    assert made == ["delete", "anchored"]
    studied(**given, tx={"delete": optax.sgd(0.5)})
    studied(**given, tx={"delete": optax.sgd(1.0)})
    assert made == ["delete", "anchored", "delete"]


def test_a_finish_is_part_of_each_cell():
    model, variables = tiny.network()
    given = {"forget": [[1]], "methods": ["delete"], "seeds": 1, "lr": 1e-4, "epochs": 1, "batch_size": 8}
    table = dj.study(model, variables, **SAMPLES, **given, finish="zero", measures=["head_bias"], batch_norm="train")
    alone = dj.unlearn(
        model,
        variables,
        *SAMPLES["train"],
        forget=1,
        lr=1e-4,
        epochs=1,
        batch_size=8,
        finish="zero",
        method="delete",
        batch_norm="train",
    )
    networks = {"original": variables, "unlearned": alone}
    expected = dj.evaluate(model, networks, **SAMPLES, forget=1, measures=["head_bias"])["unlearned"]
    assert table.values("delete", "acc_ft") == [0.0]  # after one step of a tiny rate: the finish alone
    assert table.values("original", "acc_ft") > [0.0]
    assert table.values("delete", "head_bias") == [pytest.approx(expected["head_bias"], abs=1e-12)]


@pytest.mark.slow
def test_what_fails_is_shown():
    """One that diverges, and one that erases at no rate, and without one: the others count."""
    nothing = Method("nothing", lambda outputs, context: {FORGET: Term(0 * jnp.mean(outputs[FORGET].logits, -1))})
    table = studied(
        methods=["gradient_ascent", "delete", nothing, nothing._replace(name="no step")],
        seeds=1,
        lr={"gradient_ascent": 1e38, "delete": 0.1, "nothing": "search", "no step": "auto"},
        epochs=5,
    )
    failed = {cell["method"]: cell.get("failed", "") for cell in table.cells}
    assert "diverged" in failed["gradient_ascent"]
    assert failed["delete"] == ""
    assert "erases the held-out forget samples at no rate" in failed["nothing"]
    assert "erases the held-out forget samples in none of" in failed["no step"]
    assert table.values("nothing", "acc_ft") == []
    (row,) = (line for line in table.to_markdown().splitlines() if line.startswith("| nothing"))
    assert set(row.split("|")[2:-1]) == {" – "}


def test_a_network_that_answers_nan_has_failed():
    """Its weights are finite, and so are its answers to the samples that it was trained on."""
    large = Method(
        "large", edit=lambda setup: {"params": {"w": jnp.float32(1e30) * setup.teacher["params"]["w"]}}, settings=()
    )
    images, labels = tiny.samples(64, 1)
    images[0] *= 1e10
    table = studied(methods=[large, "anchored"], test=(images, labels), seeds=1, lr=0.1, epochs=1)
    failed = {cell["method"]: cell.get("failed", "") for cell in table.cells}
    assert "the network answers NaN or infinity to some of images 0 to" in failed["large"]
    assert failed["anchored"] == ""
    assert table.values("large", "acc_ft") == []


WRONG = {
    "no list of methods": ({"methods": "delete"}, "methods must be a list, got 'delete'"),
    "no method": ({"methods": []}, "methods is empty"),
    "one name twice": ({"methods": ["delete", dj.methods.delete(temperature=2.0)]}, "methods has delete several times"),
    "the name of a network": (
        {"methods": [dj.methods.delete()._replace(name="original")]},
        "has original several times, or as a network: name each",
    ),
    "another network": (
        {"retrained": {"params": {"w": np.zeros((36, 6), np.float32)}}},
        r"network 'retrained\[0\]': it answers with 6 classes, and 'original' with 4",
    ),
    "an unknown method": ({"methods": ["delet"]}, "unknown method 'delet'"),
    "no list of requests": ({"forget": 3}, "forget must be a list, got 3"),
    "a mask": ({"forget": [np.arange(4) == 1]}, "got a mask of truth values"),
    "no seeds": ({"seeds": 0}, "seeds must be at least 1 and at most 1000000, got 0"),
    "a seed twice": ({"seeds": [0, 1, 0]}, r"seeds has a number several times: give each once, got \[0, 1, 0\]"),
    "seeds of another kind": ({"seeds": [0, 0.5]}, "a seed must be an integer, got 0.5"),
    "a rate too few": ({"lr": {"anchored": 0.1}}, "lr must have a rate for each method, anchored, gradient_ascent"),
    "a rate too many": ({"lr": {"anchored": 0.1, "gradient_ascent": 1, "x": 1}}, "and no other: 'x'"),
    "a wrong rate": ({"lr": -1}, "the learning rate must be a number above 0"),
    "too few references": ({"retrained": [without(1), without(3)]}, "a network for each request: 2 for 1 request"),
    "an unknown measure": ({"measures": ["prob"]}, "unknown measure 'prob'"),
    "an unknown mask": ({"mask": "both"}, "unknown mask 'both'"),
    "no epochs": ({"epochs": 0}, "epochs must be at least 1"),
    "parts that do not fit": ({"micro_batch": 3}, "micro_batch 3 does not fit"),
    "no rate to be found": (
        {"methods": ["delete", "finetune"], "lr": "auto"},
        "lr='auto' .* finetune reads remain samples",
    ),
    "an optimiser beside a step of its own": (
        {"methods": ["anchored"], "lr": "auto", "tx": optax.sgd(1.0)},
        "lr='auto' takes a step of its own, and tx was given: leave tx out",
    ),
    "an optimiser for another method": ({"tx": {"delete": optax.sgd(1.0)}}, "tx must have .* and no other: 'delete'"),
    "no optimiser": ({"tx": {"anchored": 0.1}}, "tx must have init and update"),
    "a method for maps": ({"methods": ["delete", "to_background"]}, "method to_background needs .* in a study"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_studied(name, monkeypatch, tmp_path):
    monkeypatch.setattr(studies, "unlearn_job", None)
    given, words = WRONG[name]
    with pytest.raises(ValueError, match=words) as caught:
        studied(**given, store=tmp_path / "store")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_as_the_page_has_it(tmp_path, monkeypatch):
    (snippet,) = snippets("choosing", "table = dj.study(")
    (images, labels), (test_images, test_labels) = SAMPLES["train"], SAMPLES["test"]
    names = {
        "model": MODEL,
        "variables": ORIGINAL,
        "images": images,
        "labels": labels,
        "test_images": test_images,
        "test_labels": test_labels,
    }
    monkeypatch.chdir(tmp_path)
    exec(snippet.replace("[5]", "[1]").replace("seeds=3", "seeds=1"), names)
    settings = json.loads((tmp_path / "runs" / "study" / "cells.jsonl").read_text().splitlines()[0])["settings"]
    assert (settings["epochs"], settings["batch_norm"]) == (None, "frozen")
