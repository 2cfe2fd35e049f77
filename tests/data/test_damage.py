"""Prepared data that is damaged, a disk that is full, remains of earlier attempts: one line, or none of it is noticed."""

import os
import random
import shutil
import sys
from pathlib import Path

import pytest
from test_datasets import prepare_cifar
from test_maps import prepare_pets

from delete_jax.data import load, prepare
from delete_jax.data.pets import read_pets
from tests.processes import finish, printed_by, run_code, start

TRAIN = "digits-train.array_record-00000-of-00001"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    load("digits", data_dir=root)
    return root / "digits/1.0.0"


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "digits/1.0.0"))


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace(old: str, new: str):
    def spoil(path: Path) -> None:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return spoil


SPOILT = [
    *((file, spoil) for file in (TRAIN, TRAIN.replace("train", "test"), "dataset_info.json", "features.json",
                                 "label.labels.txt") for spoil in (half, empty, Path.unlink, folder)),
    ("dataset_info.json", lambda path: path.write_text("[]")),
    ("dataset_info.json", lambda path: path.write_text("[" * 100_000)),
    ("dataset_info.json", lambda path: path.write_bytes(b"\xff")),
    ("dataset_info.json", replace('"digits"', '"mnist"')),
    ("dataset_info.json", replace("1.0.0", "1.0.1")),
    ("dataset_info.json", replace('"1437"', '"1037"')),  # TFDS would read 1037
    ("dataset_info.json", replace('"1437"', '"2000"')),
    ("dataset_info.json", replace('"train"', '"train2"')),
    ("features.json", replace("image_feature.Image", "image_feature.Imagf")),
    ("features.json", replace('"uint8"', '"uint9"')),
    ("features.json", replace('"8"', '"4"')),
    ("features.json", replace('"image"', '"jmage"')),
    ("label.labels.txt", lambda path: path.write_text("0\n1\n2\n3\n4\n")),
    ("label.labels.txt", replace("8", "3")),
    ("label.labels.txt", replace("8", "eight")),
    ("label.labels.txt", lambda path: path.write_bytes(path.read_bytes() + b"\xff\n")),
]  # fmt: skip


@pytest.mark.parametrize(("file", "spoil"), SPOILT)
def test_damaged(copy, file, spoil, capfd):
    spoil(copy / file)
    with pytest.raises(ValueError, match="is damaged") as caught:
        load("digits", data_dir=copy.parents[1])
    assert str(caught.value).startswith(f"{copy}: is damaged (")
    assert str(caught.value).endswith("): delete it, it is prepared again")
    assert str(caught.value).isprintable()
    assert capfd.readouterr() == ("", "")
    shutil.rmtree(copy)  # as it says
    assert len(load("digits", data_dir=copy.parents[1]).test.labels) == 360


def test_single_bits(whole, tmp_path):
    """Of each file: the right dataset, or a line that names the folder."""
    rng, expected, refused = random.Random(0), load("digits", data_dir=whole.parents[1]).digest, 0
    for file in sorted(whole.iterdir()):
        for i in range(20):
            copy = Path(shutil.copytree(whole, tmp_path / f"{file.name}{i}/digits/1.0.0"))
            content, bit = bytearray(file.read_bytes()), rng.randrange(8 * file.stat().st_size)
            content[bit // 8] ^= 1 << bit % 8
            (copy / file.name).write_bytes(content)
            try:
                found = load("digits", data_dir=copy.parents[1]).digest
            except ValueError as error:
                found, refused = str(error), refused + 1
            assert found == expected or found.startswith(f"{copy}: is "), (file.name, bit, found)
    assert refused > 40


def test_features_import_no_module(copy, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\nclass Zen: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = (copy / "features.json").read_text()
    image = "tensorflow_datasets.core.features.image_feature.Image"
    for key in ("pythonClassName", r"python\u0043lassName", "python_class_name"):
        spoilt = text.replace(f'"pythonClassName": "{image}"', f'"{key}": "evil.Zen"')
        assert spoilt != text
        (copy / "features.json").write_text(spoilt)
        with pytest.raises(ValueError, match=r"names the class 'evil\.Zen', which is not of TFDS' features"):
            load("digits", data_dir=tmp_path)
    assert not (tmp_path / "imported").exists()


def test_what_tfds_prepared_is_not_prepared_here(tmp_path):
    directory = prepare_cifar(tmp_path)
    (directory / "label.labels.txt").unlink()  # TFDS would call the classes 0 to 9
    with pytest.raises(ValueError, match=r"cifar10/3\.0\.2: is damaged .*: delete it, and prepare cifar10 again"):
        load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize(("breeds", "message"), [(254, None), (255, "has 256 classes; label maps can hold 255")])
def test_breeds_that_a_byte_holds(tmp_path, breeds, message):
    directory = prepare_pets(tmp_path)
    (directory / "label.labels.txt").write_text("".join(f"breed {i}\n" for i in range(breeds)))
    replace('"2"', f'"{breeds}"')(directory / "features.json")
    if message is None:
        assert len(read_pets(directory, 8)[2]) == 255
    else:
        with pytest.raises(ValueError, match=message):
            read_pets(directory, 8)


def test_nothing_is_printed(tmp_path):
    code = f"from delete_jax.data import load; load('digits', data_dir={str(tmp_path)!r})"
    assert printed_by(code) == ""


@pytest.mark.parametrize("limit", [0, 250_000])  # of bytes in a file: nothing, almost all of the training data
def test_full_disk(tmp_path, limit):
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit},) * 2)\n"
        f"from delete_jax.data import prepare; sys.exit(prepare.main(['digits', '--data_dir', {str(tmp_path)!r}]))"
    )
    done = run_code(code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}: digits cannot be prepared there (")
    assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "digits").iterdir())
    assert len(load("digits", data_dir=tmp_path).test.labels) == 360


def test_what_interrupted_preparations_left(tmp_path):
    for name in ("incomplete.ABC123_1.0.0", "incomplete.DEF456_1.0.0"):
        (tmp_path / "digits" / name).mkdir(parents=True)
        (tmp_path / "digits" / name / "digits-train.array_record").write_bytes(b"half")
    load("digits", data_dir=tmp_path)
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_what_may_be_in_use_stays_where_locks_do_not_work(tmp_path, monkeypatch):
    monkeypatch.setattr("delete_jax.data.building.fcntl", None)
    new, old = (tmp_path / "digits" / f"incomplete.{name}_1.0.0" for name in ("ABC123", "DEF456"))
    for path in (new, old):
        path.mkdir(parents=True)
    os.utime(old, (1e9, 1e9))
    load("digits", data_dir=tmp_path)
    assert new.exists()
    assert not old.exists()


def test_two_at_once(tmp_path):
    code = f"from delete_jax.data import load; print(load('digits', data_dir={str(tmp_path)!r}).digest)"
    ended = finish(*(start([sys.executable, "-c", code]) for _ in range(2)))
    said = [(process.stdout, process.stderr) for process in ended]
    assert {out for out, _ in said} == {f"{load('digits', data_dir=tmp_path).digest}\n"}
    waited = f"{tmp_path}/digits: another process prepares it; waiting until that one is done\n"
    assert {err for _, err in said} in ({""}, {"", waited})
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["digits", "--nonsense"],
        ["nonsense"],
        ["folder:/nowhere"],
        ["digits", "--data_dir", "~nouser/x"],
        ["digits", "more"],
    ],
)
def test_one_line_and_code_2(arguments, capfd):
    try:
        code = prepare.main(arguments)
    except SystemExit as exit:
        code = exit.code
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_whatever_goes_wrong_is_one_line(monkeypatch, capfd):
    def fail(*_, **__):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(prepare, "load", fail)
    assert prepare.main(["digits"]) == 2
    assert capfd.readouterr().err == "error: RuntimeError: first second\n"
