"""Images and labels as arrays in one file of NumPy's."""

import numpy as np
import pytest

from delete_jax.data import load

GOOD = {
    "x_train": np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4),
    "y_train": np.array([0, 1, 2, 0, 1, 2]),
    "x_test": np.zeros((2, 4, 4), np.uint8),
    "y_test": np.array([2, 1], np.uint8),
}


def test_arrays(tmp_path):
    np.savez(tmp_path / "grey.npz", **GOOD)
    found = load(f"arrays:{tmp_path}/grey.npz", validation=0)
    assert found.class_names == ("0", "1", "2")
    assert found.train.images.shape == (6, 4, 4, 1)
    assert (found.train.images[..., 0] == GOOD["x_train"]).all()
    assert found.test.labels.tolist() == [2, 1]
    assert found.test.labels.dtype == found.train.labels.dtype == np.int32
    rgb = {name: np.repeat(a[..., None], 3, -1) if name.startswith("x") else a for name, a in GOOD.items()}
    np.savez_compressed(tmp_path / "rgb.npz", **rgb, class_names=["ant", "bee", "cat"])
    found = load(f"arrays:{tmp_path}/rgb.npz", validation=0)
    assert found.class_names == ("ant", "bee", "cat")
    assert found.train.images.shape == (6, 4, 4, 3)


def test_a_class_whose_samples_were_deleted_keeps_its_number(tmp_path):
    """The labels of the others stay. Where they were counted anew, nothing is guessed, also not for want of names."""

    def saved(*kept, **changed):
        arrays = dict(GOOD)
        for part in ("train", "test"):
            which = np.isin(arrays[f"y_{part}"], kept)
            arrays |= {f"{axis}_{part}": arrays[f"{axis}_{part}"][which] for axis in "xy"}
        np.savez(tmp_path / "a.npz", **arrays | changed)
        return f"arrays:{tmp_path}/a.npz"

    found = load(saved(0, 2), validation=0, erased={1: "1"})
    assert (found.class_names, found.train.labels.tolist()) == (("0", "1", "2"), [0, 2, 0, 2])
    names = {"class_names": ["ant", "bee", "cat"]}
    found = load(saved(1, 2, **names), validation=0, erased={0: "ant"})
    assert (found.class_names, found.train.labels.tolist()) == (("ant", "bee", "cat"), [1, 2, 1, 2])
    found = load(saved(0, 1, **names, y_test=np.array([1])), validation=0, erased={2: "cat"})
    assert (found.class_names, found.train.labels.tolist()) == (("ant", "bee", "cat"), [0, 1, 0, 1])
    with pytest.raises(
        ValueError,
        match=r"class 2 of the network that forgot it is '2', and here there are 2 classes: .*class_names must name",
    ):
        load(saved(0, 1), validation=0, erased={2: "2"})
    with pytest.raises(ValueError, match="class 1 of the network that forgot it is 'bee', and here that is 'cat'"):
        load(saved(0, 2, class_names=["ant", "cat"], y_train=[0, 1, 0, 1], y_test=[1]), validation=0, erased={1: "bee"})
    with pytest.raises(ValueError, match=r"class 0 \(0\) has no training sample"):
        load(saved(2), validation=0, erased={1: "1"})


WRONG = {
    "missing": ({"y_test": None}, "it has no array y_test: it must have x_train, y_train, x_test, y_test"),
    "floats": ({"x_train": np.zeros((6, 4, 4), np.float32)}, r"x_train is float32 \[6, 4, 4\]: give uint8 images"),
    "axes": ({"x_test": np.zeros((2, 16), np.uint8)}, r"x_test is uint8 \[2, 16\]: give uint8"),
    "float labels": ({"y_train": np.zeros(6)}, r"y_train is float64 \[6\]: give an integer for each of the 6"),
    "count": ({"y_test": np.zeros(3, int)}, r"y_test is int64 \[3\]: give an integer for each of the 2 images"),
    "negative": ({"y_train": np.array([0, 1, 2, -1, 1, 2])}, "y_train has labels from -1 to 2: .* from 0"),
    "sizes": ({"x_test": np.zeros((2, 5, 4), np.uint8)}, r"images of \[4, 4, 1\], and x_test of \[5, 4, 1\]"),
    "few names": ({"class_names": ["ant"]}, "class_names has 1 names for 3 classes"),
    "names of objects": ({"class_names": np.array(["ant", None, 3], object)}, "cannot be read as a file of arrays"),
    "a class too much": ({"class_names": ["ant", "bee", "cat", "dog"]}, r"class 3 \(dog\) has no training sample"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arrays_are_named(name, tmp_path):
    change, message = WRONG[name]
    np.savez(tmp_path / "a.npz", **{key: a for key, a in (GOOD | change).items() if a is not None})
    with pytest.raises(ValueError, match=message) as caught:
        load(f"arrays:{tmp_path}/a.npz")
    assert "a.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"no arrays", "one array", "half"])
def test_files_that_are_none(content, tmp_path):
    file = tmp_path / "a.npz"
    if content == "one array":
        with file.open("wb") as opened:
            np.save(opened, np.zeros(3))
    elif content == "half":
        np.savez(file, **GOOD)
        file.write_bytes(file.read_bytes()[:300])
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: (there is no such file|cannot be read as a file of arrays)"):
        load(f"arrays:{file}")
