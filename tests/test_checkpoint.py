"""Checkpoints: the digest sees every bit, damaged ones are skipped by name, half-written ones do not count."""

import json
import logging
import os
import pathlib
import shutil
import signal
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import delete_jax as dj
from delete_jax.checkpoint import CheckpointError, Checkpoints, seal
from delete_jax.identity import digest
from delete_jax.model import as_saved, from_saved
from delete_jax.run.log import JsonLog
from delete_jax.step import init_state, sgd
from tests import tiny
from tests.processes import environment, finish, start, wait_until
from tests.tiny import network, samples


def tree():
    return {
        "params": {"kernel": np.arange(4096, dtype=np.float32).reshape(64, 64), "bias": np.zeros(3, np.float32)},
        "step": np.int32(7),
    }


def damage(checkpoint: pathlib.Path) -> None:
    """Flips a bit in the middle of each data file: which of them holds the arrays is Orbax' business."""
    files = [path for path in (checkpoint / "tree").rglob("d/*") if path.is_file()]
    assert files
    for path in files:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def content(folder: pathlib.Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def assert_equal(found, expected) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.array_equal(a, b)


# ---------------------------------------------------------------------------------------------------------- digest


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["params"]["kernel"].view(np.uint32).__setitem__((5, 5), t["params"]["kernel"].view(np.uint32)[5, 5] ^ 1),
        lambda t: t["params"].update(bias=-t["params"]["bias"]),  # -0.0 is another bit pattern
        lambda t: t["params"].update(bias=t["params"]["bias"].astype(np.float16)),
        lambda t: t["params"].update(bias=t["params"]["bias"].view(np.int32)),
        lambda t: t["params"].update(kernel=t["params"]["kernel"].reshape(32, 128)),
        lambda t: t["params"].update(offset=t["params"].pop("bias")),
        lambda t: t.update(bias=t["params"].pop("bias")),
        lambda t: t.update(step=np.int64(7)),
        lambda t: t.pop("step"),
        lambda t: t.update(extra=np.zeros(0, np.float32)),
    ],
    ids=["bit", "sign of zero", "dtype", "same bytes, other dtype", "shape", "name", "place", "scalar", "missing", "empty"],
)  # fmt: skip
def test_digest_changes(change):
    changed = tree()
    change(changed)
    assert digest(changed) != digest(tree())


def test_digest_is_of_the_arrays_only():
    same = {"step": jnp.int32(7), "params": {name: jnp.asarray(a) for name, a in sorted(tree()["params"].items())}}
    assert digest(same) == digest(tree())
    same["params"]["kernel"] = np.asfortranarray(tree()["params"]["kernel"])
    assert digest(same) == digest(tree())


# ------------------------------------------------------------------------------------------------- save and restore


def test_round_trip_keeps_the_newest(tmp_path):
    store = Checkpoints(tmp_path / "a" / "b", meta={"stage": "teacher"}, keep=2)
    assert store.restore() is None
    for epoch in (1, 2, 3):
        store.save(epoch, tree() | {"step": np.int32(epoch)}, {"epoch": epoch})
    found, meta = store.restore()
    assert_equal(found, tree() | {"step": np.int32(3)})
    assert meta == {"stage": "teacher", "epoch": 3, "digest": seal(found, meta, 3)}
    assert sorted(path.name for path in store.directory.iterdir()) == ["2", "3"]


def test_names_with_dots_and_slashes(tmp_path):
    """Orbax has one file name for `a.b` and for `b` in `a`."""
    names = {
        "a.b": np.float32(1),
        "a/b": np.float32(2),
        "a": {"b": np.float32(3)},
        "a%2Eb": np.float32(4),
        ".": {"%25": np.float32(5)},
    }
    Checkpoints(tmp_path).save(1, names, {})
    assert_equal(Checkpoints(tmp_path).restore()[0], names)


def test_restoring_changes_nothing_on_disk(tmp_path):
    """Another run's folder may be in use: what it is just writing has to stay."""
    store = Checkpoints(tmp_path)
    store.save(1, tree(), {})
    (tmp_path / "2.orbax-checkpoint-tmp" / "tree").mkdir(parents=True)
    (tmp_path / "2.orbax-checkpoint-tmp" / "tree" / "half").write_bytes(b"half")
    before = content(tmp_path)
    assert Checkpoints(tmp_path).restore() is not None
    assert content(tmp_path) == before


@pytest.mark.devices(8)
@pytest.mark.parametrize("spec", [P(), P("batch")])
def test_saved_from_eight_devices_restored_on_one(tmp_path, spec):
    assert jax.device_count() == 8
    mesh = Mesh(np.array(jax.devices()), ("batch",), axis_types=(AxisType.Auto,))
    spread = jax.device_put({"x": np.arange(16.0, dtype=np.float32)}, NamedSharding(mesh, spec))
    assert len(spread["x"].sharding.device_set) == 8
    Checkpoints(tmp_path).save(1, spread, {})
    found, _ = Checkpoints(tmp_path).restore()
    assert isinstance(found["x"], np.ndarray)
    assert np.array_equal(found["x"], np.arange(16))
    assert not any("sharding" in path for path in content(tmp_path)), "host arrays know no devices"


# ---------------------------------------------------------------------------------------------------------- damage


def test_a_damaged_checkpoint_is_skipped_by_name(tmp_path, caplog):
    store = Checkpoints(tmp_path)
    for epoch in (1, 2):
        store.save(epoch, tree(), {"epoch": epoch})
    damage(tmp_path / "2")
    with caplog.at_level(logging.WARNING, "delete_jax"):
        for _ in range(2):
            assert store.restore()[1]["epoch"] == 1
    (record,) = [record for record in caplog.records if record.name.startswith("delete_jax")]  # said once
    assert str(tmp_path / "2") in record.getMessage()


@pytest.mark.parametrize("file", ["tree/_METADATA", "tree/manifest.ocdbt", "meta/metadata"])
@pytest.mark.parametrize("how", ["missing", "empty", "garbage"])
def test_any_damaged_file_is_noticed(tmp_path, file, how):
    store = Checkpoints(tmp_path)
    for epoch in (1, 2):
        store.save(epoch, tree(), {"epoch": epoch})
    path = tmp_path / "2" / file
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "empty" else b"\0garbage" * 20)
    found, meta = Checkpoints(tmp_path).restore()
    assert_equal(found, tree())
    assert meta["epoch"] in (1, 2)  # not every file is needed for the arrays: then they are right
    if file == "meta/metadata":
        assert meta["epoch"] == 1


def test_a_changed_digest_is_noticed(tmp_path):
    store = Checkpoints(tmp_path)
    for epoch in (1, 2):
        store.save(epoch, tree(), {"epoch": epoch})
    path = tmp_path / "2" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps(meta | {"digest": "0" * 64}))
    assert store.restore()[1]["epoch"] == 1


def test_all_damaged_is_an_error_that_names_each(tmp_path):
    store = Checkpoints(tmp_path)
    for epoch in (1, 2):
        store.save(epoch, tree(), {"epoch": epoch})
        damage(tmp_path / str(epoch))
    with pytest.raises(CheckpointError) as caught:
        store.restore()
    assert str(tmp_path / "1") in str(caught.value)
    assert str(tmp_path / "2") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_written_checkpoints_do_not_count(tmp_path):
    store = Checkpoints(tmp_path)
    half = tmp_path / "3.orbax-checkpoint-tmp"
    half.mkdir(parents=True)
    (half / "_CHECKPOINT_METADATA").write_text("{")
    assert store.restore() is None
    store.save(2, tree(), {"epoch": 2})
    assert store.restore()[1]["epoch"] == 2
    store.save(3, tree(), {"epoch": 3})
    assert store.restore()[1]["epoch"] == 3


def test_saving_again_over_a_damaged_one(tmp_path):
    store = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        store.save(epoch, tree(), {"epoch": epoch})
    damage(tmp_path / "3")
    for epoch, step in ((3, 30), (4, 40)):
        store.save(epoch, tree() | {"step": np.int32(step)}, {"epoch": epoch})
        found, meta = store.restore()
        assert (int(found["step"]), meta["epoch"]) == (step, epoch)
    assert (tmp_path / "damaged-3-0").is_dir()  # kept for whoever wants to look
    damage(tmp_path / "4")
    damage(tmp_path / "3")
    store.save(3, tree(), {"epoch": 3})
    assert store.restore()[1]["epoch"] == 3
    assert (tmp_path / "damaged-3-1").is_dir()


# ------------------------------------------------------------------------------------------------- training goes on


@pytest.mark.parametrize("problem", ["bit", "tmp", "all"])
def test_training_continues_to_the_same_parameters(tmp_path, problem, caplog):
    model, variables = network()
    images, labels = samples(64)

    def run(folder, epochs):
        return dj.unlearn(
            model, variables, images, labels, forget=[1], epochs=epochs, lr=0.05, batch_size=8, parallel="jit",
            store=Checkpoints(folder / "checkpoints"), log=JsonLog(folder / "metrics.jsonl", "unlearned"), method="delete", batch_norm="train",
        )  # fmt: skip

    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "broken", 3)
    newest = tmp_path / "broken" / "checkpoints" / "3"
    if problem == "tmp":
        newest.rename(newest.with_name("3.orbax-checkpoint-tmp"))
    else:
        damage(newest)
    if problem == "all":
        damage(newest.with_name("2"))
        before = content(tmp_path)
        with pytest.raises(CheckpointError):
            run(tmp_path / "broken", 4)
        assert content(tmp_path) == before
        return
    caplog.clear()
    with caplog.at_level(logging.WARNING, "delete_jax"):
        again = run(tmp_path / "broken", 4)
    said = [record.getMessage() for record in caplog.records]
    assert [str(newest) in line for line in said] == [True] * (problem == "bit"), said
    assert_equal(jax.device_get(again.variables), jax.device_get(whole.variables))
    assert again.history == whole.history
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "broken")]
    assert rows[0] == rows[1]


def test_a_train_state_round_trips(tmp_path):
    _, variables = network()
    state = init_state(variables, sgd(0.9))
    store = Checkpoints(tmp_path)
    store.save(1, as_saved(jax.device_get(state)), {})
    assert_equal(from_saved(store.restore()[0], state), state)


def test_where_checkpoints_lie(tmp_path, monkeypatch):
    """A URL stays one, and no folder called "gs:" is made; what is local becomes absolute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, expected in (
        ("gs://bucket/run", "gs://bucket/run"),
        ("run", tmp_path / "run"),
        ("~/run", tmp_path / "run"),
        ("a/../run", tmp_path / "run"),
    ):
        assert os.fspath(Checkpoints(given).directory) == str(expected)
    assert not list(tmp_path.iterdir())


def test_every_bit_of_what_is_said_counts(tmp_path):
    """A flipped bit in the JSON beside the arrays is harmless (white space, say) or the checkpoint is skipped. Here a sample;
    `make soak` tries all."""
    store = Checkpoints(tmp_path, meta={"stage": "teacher", "network": {"mean": [0.25], "class_names": ["a", "b"]}})
    for epoch in (1, 2):
        store.save(epoch, tree(), {"epoch": epoch, "seconds": 1.5})
    path = tmp_path / "2" / "meta" / "metadata"
    original, (found, said) = path.read_bytes(), store.restore()
    rng, skipped = np.random.default_rng(0), 0
    for bit in rng.choice(8 * len(original), 20, replace=False):
        flipped = bytearray(original)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        restored, meta = Checkpoints(tmp_path).restore()
        assert_equal(restored, found)
        assert meta["epoch"] == 1 or meta == said
        skipped += meta["epoch"] == 1
    assert skipped > 13


def test_a_checkpoint_under_another_number_is_skipped(tmp_path):
    store = Checkpoints(tmp_path)
    store.save(1, tree(), {"epoch": 1})
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    assert store.restore()[1]["epoch"] == 1


def test_of_two_writers_one_is_refused(tmp_path):
    first, second = Checkpoints(tmp_path), Checkpoints(tmp_path)
    first.save(1, tree(), {"epoch": 1})
    first.save(2, tree(), {"epoch": 2})
    before = content(tmp_path)
    with pytest.raises(CheckpointError, match=r"2 is whole and not older than 1|1 is whole .*another process"):
        second.save(1, tree(), {"epoch": 1})
    assert content(tmp_path) == before


def test_a_checkpoint_of_an_earlier_version_can_be_read(tmp_path):
    """Its digest is of the arrays alone."""
    store = Checkpoints(tmp_path)
    store.save(1, tree(), {"epoch": 1})
    path = tmp_path / "1" / "meta" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": digest(tree())}))
    assert_equal(store.restore()[0], tree())


# ------------------------------------------------------------------------------------------- written beside the training


def slowly(store: Checkpoints, may_write: threading.Event) -> None:
    """Lets a store write when it is allowed to."""
    write = store._write

    def later(*args):
        assert may_write.wait(120)
        write(*args)

    store._write = later


def test_an_asynchronous_save_returns_before_it_has_written(tmp_path):
    store, may_write = Checkpoints(tmp_path, asynchronous=True), threading.Event()
    slowly(store, may_write)
    given = tree()
    store.save(1, given, {"epoch": 1})
    given["params"]["kernel"][:] = 0  # as the next step does to the devices' memory
    assert not list(tmp_path.iterdir())
    may_write.set()
    store.wait()
    found, meta = Checkpoints(tmp_path).restore()
    assert_equal(found, tree())
    assert meta["epoch"] == 1


def unlearned(store, epochs: int = 3, **more):
    model, variables = network()
    images, labels = samples(64)
    settings = {"forget": [1], "epochs": epochs, "lr": 0.05, "batch_size": 8, "parallel": "jit"}
    return dj.unlearn(
        model, variables, images, labels, store=store, **{"method": "delete", "batch_norm": "train"} | settings | more
    )


def test_training_goes_on_while_a_state_is_written(tmp_path):
    """And the last one is on disk at the end, all of them as if they had been waited for."""
    store, may_write = Checkpoints(tmp_path / "beside", asynchronous=True, keep=9), threading.Event()
    slowly(store, may_write)

    def progress(step, num_steps, metrics, rate, epoch_done=False):
        if step == 4 and not may_write.is_set():  # the second epoch's last one; the first state is not written yet
            assert not (tmp_path / "beside").exists()
            may_write.set()

    result = unlearned(store, progress=progress)
    assert may_write.is_set()
    unlearned(Checkpoints(tmp_path / "waited", keep=9))
    assert sorted(path.name for path in (tmp_path / "beside").iterdir()) == ["1", "2", "3"]
    for epoch in ("1", "2", "3"):
        states = []
        for name in ("beside", "waited"):
            alone = tmp_path / f"{name}-{epoch}" / epoch
            shutil.copytree(tmp_path / name / epoch, alone)
            states.append(Checkpoints(alone.parent).restore()[0])
        assert_equal(*states)
    assert_equal(states[0]["params"], jax.device_get(result.variables)["params"])


@pytest.mark.parametrize("epochs", [1, 3], ids=["at the end", "at the next save"])
def test_an_asynchronous_save_that_fails_ends_the_run(tmp_path, epochs):
    (tmp_path / "file").write_text("")
    store = Checkpoints(tmp_path / "file" / "states", asynchronous=True)
    with pytest.raises(CheckpointError, match=r"checkpoint 1 could not be saved \(Not a directory\)"):
        unlearned(store, epochs)
    store.wait()  # it is said once


def test_a_training_that_fails_leaves_what_was_saved_before(tmp_path):
    def progress(step, num_steps, metrics, rate, epoch_done=False):
        if step > 4:
            raise RuntimeError("in the third epoch")

    with pytest.raises(RuntimeError, match="third epoch"):
        unlearned(Checkpoints(tmp_path, asynchronous=True), progress=progress)
    assert Checkpoints(tmp_path).restore()[1]["epoch"] == 2


def test_a_resumed_training_has_all_rows(tmp_path):
    """Also without a log: its states keep them. The result says where they are, in one line."""
    evaluate = lambda variables: {"norm": np.float32(jnp.sum(variables["params"]["Dense_0"]["kernel"]))}  # noqa: E731
    whole = unlearned(None, 3, evaluate=evaluate)
    unlearned(Checkpoints(tmp_path / "trained"), 2, evaluate=evaluate)
    for _ in range(2):  # the second finds it finished
        resumed = unlearned(Checkpoints(tmp_path / "trained"), 3, evaluate=evaluate)
        assert resumed.history == whole.history
        assert [row["epoch"] for row in resumed.evaluations] == [0, 1, 2, 3]
        assert resumed.evaluations == [{**row, "norm": float(row["norm"])} for row in whole.evaluations]
        assert resumed.source == str(tmp_path / "trained")
    assert whole.source == ""
    assert repr(resumed) == (
        f"Result(124 parameters, 6 steps, loss {whole.history[0]['loss']:.4g} to {whole.history[-1]['loss']:.4g}, lr 0.05, "
        f"{resumed.seconds:.1f} s)"
    )
    for _ in range(2):
        edited = unlearned(Checkpoints(tmp_path / "edited"), 1, evaluate=evaluate, method="pour")
        assert [row["epoch"] for row in edited.evaluations] == [0, 1]
        assert edited.source == str(tmp_path / "edited")


def test_fewer_epochs_than_are_there(tmp_path):
    unlearned(Checkpoints(tmp_path), 2)
    with pytest.raises(
        ValueError,
        match="holds the network after 4 steps, and 2 were asked for: choose another folder, or ask for at least 4 steps",
    ):
        unlearned(Checkpoints(tmp_path), 1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"keep": 0}, "keep must be at least 1, got 0"), ({"keep": "x"}, "keep must be an integer"), ({"directory": ""}, "the path of a folder"),
        ({"directory": "~no_such_user/x"}, "the path of a folder"), ({"directory": 5}, "the path of a folder"), ({"meta": {"a": {1}}}, "meta must be plain JSON"),
    ],
)  # fmt: skip
def test_stores_that_are_none(given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        Checkpoints(**{"directory": tmp_path / "store"} | given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("found", [None, 5, {1: 2.0}, {"step": 3}])
def test_evaluations_that_are_none(found):
    with pytest.raises(ValueError, match="evaluate must return a dict of numbers by name"):
        unlearned(None, evaluate=lambda variables: found)


def test_killed_while_a_state_is_written_beside_the_training(tmp_path):
    """What is there is whole, and the same call ends with the same bits."""
    code = (
        "import sys; from tests.test_checkpoint import *; unlearned(Checkpoints(sys.argv[1], asynchronous=True), 2000)"
    )
    killed = tmp_path / "killed"
    running = start([sys.executable, "-c", code, killed], env=environment(XLA_FLAGS=os.environ["XLA_FLAGS"]))
    wait_until(lambda: (killed / "3").exists() and bool(list(killed.glob("*tmp"))), running)
    running.kill()
    (ended,) = finish(running)
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, "")
    _, meta = Checkpoints(tmp_path / "killed").restore()
    assert meta["epoch"] >= 3
    epochs = meta["epoch"] + 2
    resumed = unlearned(Checkpoints(tmp_path / "killed", asynchronous=True), epochs)
    assert [row["step"] for row in resumed.history] == list(range(1, 2 * epochs + 1))  # also those before it was killed
    assert_equal(jax.device_get(resumed.variables), jax.device_get(unlearned(None, epochs).variables))


# -------------------------------------------------------------------------------------------------- whose they are


def test_a_store_of_something_else_is_refused(tmp_path):
    """Another request, other samples, another network, another rate: never the states of the first."""
    model, variables = network()
    images, labels = samples(64)
    first = {"forget": [1], "epochs": 1, "lr": 0.05, "batch_size": 8, "parallel": "jit"}

    def run(images=images, variables=variables, **other):
        return dj.unlearn(
            model,
            variables,
            images,
            labels,
            store=Checkpoints(tmp_path),
            **{"method": "delete", "batch_norm": "train"} | first | other,
        )

    run()
    assert_equal(run().variables, run().variables)  # the same request resumes
    assert len(run(epochs=2).history) == 2 * 8 // 4  # and may go on for longer
    before = content(tmp_path)
    others = {
        "forget was": {"forget": [2]},
        "samples was": {"images": images + 1},
        "original was": {"variables": jax.tree.map(lambda leaf: leaf + 1, variables)},
        "settings.lr was 0.05, now 0.1": {"lr": 0.1},
        "settings.seed was 0, now 1": {"seed": 1},
        "method.name was delete": {"method": "random_label"},
        "method.temperature was 1.0, now 2.0": {"method": dj.methods.delete(temperature=2)},
    }
    for words, other in others.items():
        with pytest.raises(ValueError, match=f"{tmp_path} holds a network that was made from something else .*{words}"):
            run(**other)
    assert content(tmp_path) == before


def test_a_store_of_unknown_origin_is_refused(tmp_path):
    """As earlier versions wrote it: it might be the network of any request."""
    model, variables = network()
    images, labels = samples(64)
    state = as_saved(jax.device_get(init_state(variables, sgd())))
    Checkpoints(tmp_path).save(1, state, {"epoch": 1, "seconds": 0.0, "compile_seconds": 0.0})
    with pytest.raises(ValueError, match=f"{tmp_path} holds a network that does not say what it was made from"):
        dj.unlearn(model, variables, images, labels, forget=[1], epochs=1, batch_size=8, store=Checkpoints(tmp_path))


def test_a_method_of_a_version_without_some_of_its_hyperparameters(tmp_path):
    """What a state does not say of its method is what it was: the default. What it does say must still agree."""
    model, variables = network()
    images, labels = samples(32)

    def run(**more):
        store = Checkpoints(tmp_path / "states")
        return dj.unlearn(
            model, variables, images, labels, forget=[1], epochs=1, batch_size=8, store=store, **tiny.PAPER | more
        )

    first = run()
    checkpoints = Checkpoints(tmp_path / "states")
    saved, meta = checkpoints.restore()
    assert meta["identity"]["method"].pop("dispersion") == 0.0
    shutil.rmtree(tmp_path / "states")
    Checkpoints(tmp_path / "states").save(1, saved, meta)
    again = run()
    assert digest(jax.device_get(again.variables)) == digest(jax.device_get(first.variables))
    with pytest.raises(ValueError, match=r"method.dispersion was 0.0, now 0.1"):
        run(method=dj.methods.delete(dispersion=0.1))
