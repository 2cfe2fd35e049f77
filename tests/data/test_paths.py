"""Paths that somebody gives, wherever one can be given."""

import os

import pytest

from delete_jax.data import load, load_faces
from delete_jax.data.paths import local_path, show

FEW = {"pretrain": 1, "people": 1, "unseen": 1, "train_images": 2, "test_images": 1, "size": 8}

WHERE = {
    "folder": lambda path: load(f"folder:{path}"),
    "arrays": lambda path: load(f"arrays:{path}"),
    "voc": lambda path: load(f"voc:{path}"),
    "faces": lambda path: load_faces(path, **FEW),
    "data_dir": lambda path: load("digits", data_dir=path),
    "data_dir of lfw": lambda path: load_faces("lfw", data_dir=path, **FEW),
    "source": lambda path: load("fashion_mnist", data_dir="/nowhere", source=path),
}

BAD = {
    "no such home": ("~nouser/x", "there is no home folder for ~nouser"),
    "another place": ("gs://bucket/x", "only files of this machine are read"),
    "NUL": ("/tmp/a\0b", "cannot hold a NUL byte"),
    "no UTF-8": (os.fsdecode(b"/tmp/\xff"), "cannot hold bytes that are not UTF-8"),
    "too long": ("/tmp/" + 300 * "x", "File name too long"),
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", BAD)
def test_bad_paths(where, name):
    path, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        WHERE[where](path)
    assert where.split()[0] in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("home", ["", None])
def test_no_home(monkeypatch, tmp_path, home):
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "DELETE_JAX_DATA_DIR", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # no entry in the password file, as in a container
    with pytest.raises(
        ValueError, match="there is no home folder for ~: give the whole path, or set DELETE_JAX_DATA_DIR"
    ):
        load("digits")
    with pytest.raises(ValueError, match="there is no home folder for ~"):
        load("folder:~/x")
    assert not list(tmp_path.iterdir())


def test_the_environment_is_checked_like_the_rest(monkeypatch):
    monkeypatch.setenv("DELETE_JAX_DATA_DIR", "~nouser/x")
    with pytest.raises(ValueError, match="DELETE_JAX_DATA_DIR=~nouser/x: there is no home folder"):
        load("digits")


def test_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/a", "x") == tmp_path / "a"
    assert str(local_path("a/~/b", "x")) == "a/~/b"
    assert local_path(tmp_path, "x") == tmp_path
    for wrong in (None, 5, b"/tmp"):
        with pytest.raises(ValueError, match="give a path, as text"):
            local_path(wrong, "x")


def test_show():
    assert show("a/é 名") == "a/é 名"
    assert show("a\nb\udcff\x1b[2J") == r"a\nb\udcff\x1b[2J"
