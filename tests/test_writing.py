"""Files that are written whole or not at all: whatever else has their names, or writes them at the same time."""

import errno
import os
import pathlib
import secrets
import signal
import stat
import sys

import pytest

from delete_jax import models
from delete_jax.reports.compare_page import write_comparison
from delete_jax.run.log import JsonLog
from delete_jax.writing import making, write_all, writing
from tests import tiny
from tests.processes import finish, start
from tests.test_compare import sample_comparison

LEFT = ".a.txt.0123456789abcdef.tmp"


def write(path: pathlib.Path, text: str, replace: bool = True) -> None:
    with writing(path, replace) as file:
        file.write(text.encode())


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_or_kept(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "first")
    write(path, "second")
    with pytest.raises(FileExistsError):
        write(path, "third", replace=False)
    write(tmp_path / "b.txt", "third", replace=False)
    assert (path.read_text(), names(tmp_path)) == ("second", ["a.txt", "b.txt"])


@pytest.mark.parametrize("links", [True, False])
def test_two_at_once(tmp_path, links, monkeypatch):
    """The one that ends first stays, also where the file system has no hard links."""
    if not links:
        monkeypatch.setattr(
            os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "Operation not permitted"))
        )
    path = tmp_path / "a.txt"

    def first_and_second():
        with writing(path, replace=False) as file:
            file.write(b"second")
            write(path, "first", replace=False)

    with pytest.raises(FileExistsError):
        first_and_second()
    assert (path.read_text(), names(tmp_path)) == ("first", ["a.txt"])


def test_no_link_is_followed(tmp_path, monkeypatch):
    """Neither at the temporary name, if somebody could foresee it, nor at the file's."""
    (tmp_path / "victim").write_text("precious")
    with monkeypatch.context() as then:
        then.setattr(secrets, "token_hex", lambda _: "0123456789abcdef")
        (tmp_path / LEFT).symlink_to("victim")
        with pytest.raises(FileExistsError) as caught:
            write(tmp_path / "a.txt", "mine")
        assert caught.value.filename == str(tmp_path / "a.txt")
    for target in ("victim", "nowhere"):
        (tmp_path / "a.txt").symlink_to(target)
        with pytest.raises(FileExistsError):
            write(tmp_path / "a.txt", "mine", replace=False)
        write(tmp_path / "a.txt", "mine")
        assert not (tmp_path / "a.txt").is_symlink()
        (tmp_path / "a.txt").unlink()
    assert (tmp_path / "victim").read_text() == "precious"
    assert names(tmp_path) == [LEFT, "victim"]


def test_what_a_killed_process_left(tmp_path):
    """It goes with the next file of that name; another file's, and one that is being written, stay."""
    path = tmp_path / "a.txt"
    code = "import sys, pathlib, time; from delete_jax.writing import writing\n"
    code += "with writing(pathlib.Path(sys.argv[1])) as file: print('there', flush=True); time.sleep(60)"
    process = start([sys.executable, "-c", code, path])
    assert process.stdout.readline() == "there\n"
    (left,) = names(tmp_path)
    write(path, "mine")
    assert names(tmp_path) == [left, "a.txt"]
    process.send_signal(signal.SIGKILL)
    finish(process)
    others = [".b.txt.0123456789abcdef.tmp", ".a.txt.tmp", ".a.txt.fedcba.tmp"]
    for name in others:
        (tmp_path / name).touch()
    write(path, "mine")
    assert names(tmp_path) == sorted([*others, "a.txt"])


def test_all_or_none(tmp_path, monkeypatch):
    content = {tmp_path / "a.txt": b"a", tmp_path / "b.txt": b"b"}
    write(tmp_path / "a.txt", "older")
    order, replace = [], os.replace
    with monkeypatch.context() as then:
        calls = iter([None, OSError(errno.ENOSPC, "No space left on device")])

        def fsync(_):
            if error := next(calls):
                raise error

        then.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space left"):
            write_all(content)
    assert ((tmp_path / "a.txt").read_text(), names(tmp_path)) == ("older", ["a.txt"])
    monkeypatch.setattr(os, "replace", lambda old, new: order.append(new.name) or replace(old, new))
    write_all(content)
    assert order == ["a.txt", "b.txt"]
    assert names(tmp_path) == ["a.txt", "b.txt"]


def test_folders_that_are_not_needed_go_again(tmp_path):
    (tmp_path / "there").mkdir()

    def fail(folder: pathlib.Path) -> None:
        with making(folder):
            raise ValueError("something else")

    for folder in ("there", "there/a/b", "c"):
        with pytest.raises(ValueError, match="something else"):
            fail(tmp_path / folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    with making(tmp_path / "there" / "a"):
        pass
    assert (tmp_path / "there" / "a").is_dir()


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_permissions(tmp_path, umask):
    """As the umask has them, for every kind of file."""
    model, variables = tiny.network()
    net = models.ResNet(num_classes=3, stages=(1,), features=(4,))
    log = JsonLog(tmp_path / "metrics.jsonl", "teacher")
    before = os.umask(umask)
    try:
        models.save_exported(model, variables, tmp_path / "a.jax", (6, 6, 1))
        models.save_torch(net, models.init(net, (8, 8, 1), 0), tmp_path / "a.safetensors")
        write_comparison(sample_comparison(mapped=False), tmp_path / "a.html")
        log.append([{"step": 1, "epoch": 1}, {"step": 2, "epoch": 2}], [])
        log.resume(1)  # written again, without the second
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["a.jax", "a.safetensors", "a.html", "metrics.jsonl"], 0o666 & ~umask)
