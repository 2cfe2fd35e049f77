"""PyTorch's weights as they are found: in checkpoints, shards and damaged files, with values that are no weights."""

import dataclasses
import json
import logging
import pathlib
import re
import sys
import time
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from delete_jax import main as command
from delete_jax import models
from delete_jax.data.images import MAX_SIDE
from delete_jax.identity import digest
from delete_jax.models import Network
from delete_jax.models.state_dicts import arrays
from delete_jax.models.weights import TorchInfo, load_torch, save_torch
from delete_jax.run import networks
from tests.test_weights import assert_equal, variables_of

K = 3
NET = models.ResNet(K, (1, 1), (4, 6))
VARIABLES = variables_of(NET)
NAMES = ("ant", "bee", "cat")
ERASED = [{"forget": [1], "method": "delete", "batch_norm": "frozen"}]


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> dict[str, np.ndarray]:
    """The network's state dict."""
    path = tmp_path_factory.mktemp("state") / "a.safetensors"
    save_torch(NET, VARIABLES, path)
    return load_file(path)


@pytest.fixture
def row(monkeypatch):
    """The network in place of the default one."""
    small = Network(lambda num_classes, dtype=None: NET.clone(num_classes=num_classes), "fc", layers=("layer1",))
    monkeypatch.setitem(models.NETWORKS, "resnet_tiny", small)


def refused(call, words: str) -> str:
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def convert(path: pathlib.Path, out: pathlib.Path, *options: str) -> int:
    return command.main(["delete-jax", "convert", "--arch=resnet_tiny", str(path), str(out), *options])


# ---------------------------------------------------------------------------------------------------------------- values


def changed(value, dtype):
    return value.astype(dtype)


NO_WEIGHTS = {
    **{
        name: (
            lambda value, name=name: value.astype(name),
            f"conv1.weight is {name}, and weights are float16, bfloat16",
        )
        for name in ("int8", "uint8", "bool", "int32", "int64", "uint16", "complex64")
    },
    "float8": (lambda value: value.astype(ml_dtypes.float8_e4m3fn), "conv1.weight is float8_e4m3fn"),
    "int4": (lambda value: value.astype(ml_dtypes.int4), "conv1.weight is int4"),
    "longdouble": (lambda value: value.astype(np.longdouble), "conv1.weight is float128|conv1.weight is longdouble"),
    "text": (lambda value: value.astype(str), "conv1.weight is text"),
    "objects": (lambda value: value.astype(object), "conv1.weight is object"),
    "records": (lambda value: np.zeros(value.shape, [("a", "f4")]), r"conv1.weight is void32"),
    "masked": (lambda value: np.ma.masked_array(value, value > 1), "conv1.weight must not be a masked array"),
    "NaN": (lambda value: np.where(value > 1, np.nan, value), "conv1.weight has NaN or infinite values"),
    "infinite": (
        lambda value: np.where(value > 1, np.inf, value).astype(ml_dtypes.bfloat16),
        "conv1.weight has NaN or",
    ),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_what_is_no_weight(kind, state):
    """In a state dict, and in variables to be written."""
    change, words = NO_WEIGHTS[kind]
    with np.errstate(all="ignore"):
        refused(lambda: load_torch(NET, state | {"conv1.weight": change(state["conv1.weight"])}), words)
        kernel = change(np.asarray(VARIABLES["params"]["conv1"]["kernel"]))
    variables = {**VARIABLES, "params": {**VARIABLES["params"], "conv1": {"kernel": kernel}}}
    path = pathlib.Path("never.safetensors")
    refused(lambda: save_torch(NET, variables, path), words)
    assert not path.exists()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", ">f4"])
def test_what_is_one(dtype, state):
    """Integers may be among what is handed through."""
    whole = {key: np.round(value * 4) / 4 for key, value in state.items()}  # which all of them hold
    given = {key: value.astype(dtype) for key, value in whole.items()} | {"bn1.num_batches_tracked": np.array(3)}
    found, info = load_torch(NET, given)
    assert_equal(found, load_torch(NET, whole)[0])
    assert info.keys["conv1.weight"] == np.dtype(dtype).newbyteorder("=").name
    assert info.extra["bn1.num_batches_tracked"] == 3


def test_a_negative_variance(state):
    refused(
        lambda: load_torch(NET, state | {"bn1.running_var": -state["bn1.running_var"]}),
        r"bn1.running_var has negative values, such as -[\d.]+: a variance is at least 0",
    )


def test_files_with_values_that_are_no_weights(state, tmp_path, row, capsys):
    """convert and --config.teacher, in one line; the key is named."""
    for dtype, said in ((np.int8, "int8"), (ml_dtypes.float8_e4m3fn, "F8_E4M3"), (ml_dtypes.float8_e5m2, "F8_E5M2")):
        path = tmp_path / f"{said}.safetensors"
        save_file({key: value.astype(dtype) if value.ndim > 1 else value for key, value in state.items()}, path)
        assert convert(path, tmp_path / "out") == 2
        assert re.fullmatch(rf"delete-jax: error: \S+: \S+weight is {said}, [^\n]+\n", capsys.readouterr().err)
        refused(
            lambda path=path: networks.load_teacher(str(path), "resnet_tiny"), f"--config.teacher=.*weight is {said}"
        )
    assert not (tmp_path / "out").exists()


def test_values_that_are_too_large_for_their_dtype(state, tmp_path):
    """float16 ends at 65504."""
    found, info = load_torch(NET, {key: value.astype(np.float16) for key, value in state.items()})
    path = tmp_path / "half.safetensors"
    found["batch_stats"]["bn1"]["var"] += 1e5
    refused(
        lambda: save_torch(NET, found, path, info),
        r"bn1.running_var holds 10\d+\.\d+, and the largest float16 is 65504: leave out like",
    )
    assert not path.exists()
    save_torch(NET, found, path)
    assert_equal(load_torch(NET, path)[0], found)


def test_variables_of_another_network(tmp_path):
    """Nothing is written that could not be read."""
    path = tmp_path / "a.safetensors"
    refused(lambda: save_torch(NET, {"params": {}}, path), "another network's than this one's: missing: ")
    refused(lambda: save_torch(NET, [1], path), r'variables must be {"params"')
    wider = variables_of(NET.clone(features=(4, 8)))
    refused(lambda: save_torch(NET, wider, path), "another network's .* misshapen: .* expected")
    refused(lambda: load_torch(NET, path, 0), "num_classes must be at least 1, got 0")
    refused(lambda: load_torch(NET, 5), "source must be a file or a state dict, got a int")
    assert not path.exists()


# ----------------------------------------------------------------------------------------------------------- what is told

NOT_TOLD = {
    "two names": ({"class_names": ["a", "b"]}, "class_names has 2 names for 3 classes"),
    "numbers": ({"class_names": [0, 1, 2]}, "class_names must be strings"),
    "a text": ({"class_names": "abc"}, "class_names must be a list"),
    "a set": ({"class_names": {"a", "b", "c"}}, "class_names must be a list"),
    "an empty name": ({"class_names": ["a", "", "c"]}, ".*the name of class 1 is empty"),
    "numbered names": ({"class_names": ["0 ant", "1 bee", "2 cat"]}, ".*numbers in front"),
    "a gap": ({"class_names": {0: "a", 1: "b", 3: "c"}}, ".*the numbers 0 to 2"),
    "NaN": ({"mean": [np.nan] * 3}, r"mean=\[nan, nan, nan\]: give finite"),
    "a huge number": ({"mean": [10**400] * 3}, "mean=.*: give finite"),
    "no deviation": ({"std": [0, 1, 1]}, r"std=\[0, 1, 1\]: give finite numbers, above 0"),
    "a mean of bytes": (
        {"mean": [123, 116, 103]},
        r"mean=\[123.0, 116.0, 103.0\]: pixels are in \[0, 1\] here; divide",
    ),
    "a deviation of bytes": ({"std": [58.4, 57.1, 57.4]}, r"std=\[58.4, 57.1, 57.4\]: pixels are in \[0, 1\]"),
    "one for three": ({"mean": [0.5]}, "mean has 1 numbers for 3 channels"),
    "four": ({"std": np.ones(4)}, "std has 4 numbers for 3 channels"),
    "words": ({"mean": ["a", "b", "c"]}, "mean must be a list of numbers"),
    "truth values": ({"mean": [True, False, True]}, "mean must be a list of numbers"),
    "a set of numbers": ({"std": {1, 2, 3}}, "std must be a list of numbers"),
    "a masked mean": ({"mean": np.ma.masked_array(np.ones(3), [1, 0, 0])}, "mean must be a list of numbers"),
    "two axes": ({"mean": np.ones((1, 3))}, "mean must be a list of numbers"),
    "no side": ({"image_size": 0}, "image_size must be at least 1"),
    "half a pixel": ({"image_size": 32.5}, "image_size must be an integer"),
}


@pytest.mark.parametrize("kind", NOT_TOLD)
def test_what_cannot_be_told(kind, state, tmp_path):
    """To either function, and in a file that somebody wrote."""
    told, words = NOT_TOLD[kind]
    path = tmp_path / "a.safetensors"
    refused(lambda: load_torch(NET, state, **told), words)
    refused(lambda: save_torch(NET, VARIABLES, path, **told), words)
    assert not path.exists()
    ((name, value),) = told.items()
    try:
        text = json.dumps(value)
    except TypeError:  # JSON has neither sets nor arrays
        return
    save_file(state, path, {name: text})
    refused(lambda: load_torch(NET, path), f"a.safetensors: its metadata: {words}")


@pytest.mark.parametrize(
    "names", [NAMES, list(NAMES), dict(enumerate(NAMES)), {n: i for i, n in enumerate(NAMES)}, np.array(NAMES)]
)
def test_names_are_read_as_they_were_written(names, tmp_path):
    path = tmp_path / "a.safetensors"
    save_torch(
        NET,
        VARIABLES,
        path,
        class_names=names,
        mean=np.full(3, 0.5, np.float32),
        std=(0.25,) * 3,
        image_size=np.int64(8),
    )
    _, info = load_torch(NET, path)
    assert (info.class_names, info.mean, info.std, info.image_size) == (NAMES, (0.5,) * 3, (0.25,) * 3, 8)
    save_torch(NET, VARIABLES, path, class_names=["same", "same", "cat\0"])
    assert load_torch(NET, path)[1].class_names == ("same", "same", "cat\0")


def test_names_for_other_classes_are_not_written(state, tmp_path):
    """Those that came with the weights do not fit a network with more classes."""
    _, info = load_torch(NET, state, class_names=NAMES)
    wider = variables_of(NET.clone(num_classes=5))
    refused(lambda: save_torch(NET, wider, tmp_path / "a.safetensors", info), "class_names has 3 names for 5 classes")
    save_torch(NET, wider, tmp_path / "a.safetensors", info, class_names=["a", "b", "c", "d", "e"])
    assert load_torch(NET, tmp_path / "a.safetensors")[1].num_classes == 5


@pytest.mark.parametrize("name", ["class_names", "mean", "image_size"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "half", "", "9" * 5000])
def test_hostile_metadata(name, text, state, tmp_path):
    save_file(state, tmp_path / "a.safetensors", {name: text})
    assert len(refused(lambda: load_torch(NET, tmp_path / "a.safetensors"), "a.safetensors: its metadata")) < 400


def test_options_of_convert(state, tmp_path, row, capsys):
    """Names in any encoding that can be told, many names, and sides without the memory for such an image."""
    path = tmp_path / "a.safetensors"
    save_file(state, path)
    for number, encoding in enumerate(("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1")):
        names = tmp_path / f"{encoding}.txt"
        names.write_bytes("ant\nbée\ncat\n".encode(encoding))
        if convert(path, tmp_path / f"out{number}", f"--class_names={names}") == 0:
            found = networks.load_teacher(str(tmp_path / f"out{number}"), "").description["class_names"]
            assert (encoding in ("utf-8", "utf-8-sig", "utf-16"), found) == (True, ["ant", "bée", "cat"])
        else:
            assert names.name in capsys.readouterr().err
            assert encoding in ("utf-16-le", "latin-1")
    long = ",".join(letter * 120 for letter in "abc")
    assert convert(path, tmp_path / "long", f"--class_names={long}") == 0
    capsys.readouterr()
    for option, words in (
        (f"--class_names={long},d", "class_names has 4 names for 3 classes"),
        (f"--class_names={'a' * 300}", "there is no such file"),
        ("--class_names=ant,,bee", "the name of class 1 is empty"),
        ("--class_names=0 ant,1 bee,2 cat", "numbers in front"),
        ("--class_names=~no_such_user/names", "there is no home folder ~no_such_user"),
        ("--image_size=100000", f"image_size=100000: images have at most {MAX_SIDE} pixels"),
        (f"--image_size={10**20}", f"a whole number of pixels, at most {MAX_SIDE}"),
        ("--image_size=٣٢", "a whole number of pixels"),
        ("--image_size=-8", "a whole number of pixels"),
    ):
        assert convert(path, tmp_path / "out", option) == 2
        error = capsys.readouterr().err
        assert re.fullmatch(r"delete-jax: error: [^\n]+\n", error), error
        assert words in error
    assert convert(path, tmp_path / "side", f"--image_size={MAX_SIDE}", "--mean=0,0,0", "--std=1,1,1") == 0
    assert convert(pathlib.Path("~no_such_user/a.safetensors"), tmp_path / "out") == 2
    assert "~no_such_user/a.safetensors: there is no home folder" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- checkpoints and their prefixes

AVERAGED = {
    "beside the raw weights": ({"state_dict": 0, "state_dict_ema": 1}, "state_dict", "state_dict_ema"),
    "timm's older name": ({"model_ema": 1, "model": 0, "epoch": 3}, "model", "model_ema"),
    "within an entry": ({"ema": {"decay": 0.9, "shadow": 1}, "net": 0}, "net", "ema"),
    "alone": ({"state_dict_ema": 0, "epoch": 3}, "state_dict_ema", None),
    "params": ({"params": 0, "params_ema": 1}, "params", "params_ema"),
    "weights": ({"weights": 0}, "weights", None),
    "another name, and an optimiser": ({"trained": 0, "optimizer": {"state": {0: {"a": np.ones(2)}}}}, "trained", None),
    "nested": ({"model": {"state_dict": 0}, "args": {"lr": 0.1}}, "model.state_dict", None),
}


@pytest.mark.parametrize("kind", AVERAGED)
def test_the_state_dict_of_a_checkpoint(kind, state, caplog):
    """What was taken is in `info`, and what was not is said."""

    def filled(part):
        if isinstance(part, dict):
            return {key: filled(value) for key, value in part.items()}
        return (
            [state, {key: value + 1 for key, value in state.items()}][part] if type(part) is int and part < 2 else part
        )

    checkpoint, entry, left = AVERAGED[kind]
    checkpoint = filled(checkpoint)
    with caplog.at_level(logging.WARNING):
        found, info = load_torch(NET, checkpoint)
    assert_equal(found, VARIABLES)
    assert info.entry == entry
    assert TorchInfo.from_json(info.to_json()) == info
    said = [record.getMessage() for record in caplog.records]
    assert said == ([f"the state dict: took {entry} of it, and not {left}"] if left else [])


def test_checkpoints_that_leave_it_open(state):
    refused(
        lambda: load_torch(NET, {"student": state, "teacher": state}),
        "several state dicts: student, teacher: give the one",
    )
    refused(lambda: load_torch(NET, {"state_dict": {}}), "no state dict: state_dict are no tensors")
    refused(lambda: load_torch(NET, {}), "no state dict: it is empty")
    refused(lambda: load_torch(NET, {"epoch": 3}), "no state dict: epoch are no tensors")
    cyclic: dict = {"epoch": 3}
    cyclic["model"] = cyclic
    refused(lambda: load_torch(NET, cyclic), "no state dict")


@pytest.mark.parametrize("prefix", ["net.", "backbone.", "encoder.", "module.model.", "1.", "my_network.", "a.b.c."])
def test_any_prefix(prefix, state, tmp_path):
    """The whole network under it; it is written again."""
    path = tmp_path / "a.safetensors"
    save_file({prefix + key: value for key, value in state.items()}, path, {"format": "pt"})
    found, info = load_torch(NET, path)
    assert_equal(found, VARIABLES)
    assert info.prefix == prefix
    save_torch(NET, found, tmp_path / "b.safetensors", info)
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()


def test_tensors_outside_the_prefix(state, tmp_path):
    """An averaged model's counter is kept; what nobody knows is named."""
    path = tmp_path / "a.safetensors"
    averaged = {"n_averaged": np.array(5), **{f"module.{key}": value for key, value in state.items()}}
    save_file(averaged, path, {"format": "pt"})
    found, info = load_torch(NET, path)
    assert_equal(found, VARIABLES)
    assert info.outside == {"n_averaged": 5}
    save_torch(NET, found, tmp_path / "b.safetensors", TorchInfo.from_json(info.to_json()))
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()
    refused(lambda: load_torch(NET, averaged | {"steps": np.array(5)}), "surplus: steps$")
    both = averaged | {f"ema.{key}": value for key, value in state.items()}
    refused(lambda: load_torch(NET, both), r"surplus: (ema|module)\.conv1.weight|surplus: (ema|module)\.")


@pytest.mark.parametrize("key", ["normalize.", "module.norm.", "normalizer.", "0.", ""])
def test_a_layer_that_normalises(key, state, tmp_path):
    """Its buffers say how images are prepared, unless the caller does; they are written again."""
    mean, std = (np.array(values, np.float32) for values in ([0.25, 0.5, 0.75], [0.5, 0.25, 0.125]))
    network = {"0.": "1.", "module.norm.": "module."}.get(key, "")
    whole = {network + name: value for name, value in state.items()}
    whole |= {f"{key}mean": mean.reshape(1, 3, 1, 1), f"{key}std": std}
    path = tmp_path / "a.safetensors"
    save_file(whole, path, {"format": "pt"})
    found, info = load_torch(NET, path)
    assert_equal(found, VARIABLES)
    assert (info.mean, info.std) == (tuple(mean), tuple(std))
    save_torch(NET, found, tmp_path / "b.safetensors", info)
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()
    assert load_torch(NET, path, mean=[0.5] * 3, std=[1] * 3)[1].mean == (0.5,) * 3
    refused(lambda: load_torch(NET, whole | {f"{key}std": std * 0}), f"{key}std: std=.* above 0")
    refused(lambda: load_torch(NET, whole | {f"{key}mean": mean[:2]}), f"{key}mean: mean has 2 numbers for 3 channels")
    refused(lambda: load_torch(NET, {name: whole[name] for name in whole if name != f"{key}std"}), "surplus: .*mean$")


# ----------------------------------------------------------------------------------------------------------------- shards


def sharded(folder: pathlib.Path, state, prefix="model") -> pathlib.Path:
    keys = sorted(state)
    places = {}
    for number in (1, 2, 3):
        name = f"{prefix}-{number:05}-of-00003.safetensors"
        save_file({key: state[key] for key in keys[number - 1 :: 3]}, folder / name, {"format": "pt"})
        places |= dict.fromkeys(keys[number - 1 :: 3], name)
    index = folder / f"{prefix}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def test_shards(state, tmp_path, row, capsys):
    """Their index is read, a folder with one, and no shard alone; by the command, too."""
    index = sharded(tmp_path, state)
    for source in (index, tmp_path):
        assert_equal(load_torch(NET, source)[0], VARIABLES)
        assert_equal(networks.load_teacher(str(source), "resnet_tiny").variables, VARIABLES)
    assert convert(index, tmp_path / "out") == 0
    refused(
        lambda: load_torch(NET, tmp_path / "model-00002-of-00003.safetensors"),
        "this is one of 3 shards: name their index, model.safetensors.index.json",
    )
    save_file(state, tmp_path / "model-00001-of-00001.safetensors")
    assert_equal(load_torch(NET, tmp_path / "model-00001-of-00001.safetensors")[0], VARIABLES)
    (tmp_path / "empty").mkdir()
    refused(lambda: load_torch(NET, tmp_path / "empty"), "a folder without one index of weights")


WRONG_INDEX = {
    "a folder above": ({"a": "../a.safetensors"}, r"its shard '../a.safetensors' must be a file in the folder"),
    "an absolute path": ({"a": "/etc/a.safetensors"}, "must be a file in the folder of the index"),
    "a way round": ({"a": "b/../../a.safetensors"}, "must be a file in the folder of the index"),
    "another disk": ({"a": "C:\\a.safetensors"}, "must be a file in the folder of the index"),
    "the folder": ({"a": ".."}, "must be a file in the folder of the index"),
    "itself": ({"a": "model.safetensors.index.json"}, "must be a file in the folder of the index"),
    "missing": ({"a": "b.safetensors"}, "its shard b.safetensors: there is no such file"),
    "another kind": ({"a": "a.txt"}, "its shard a.txt: there is no such file"),
    "no names": ({"a": 5}, 'it must have a "weight_map"'),
    "nothing": ({}, 'it must have a "weight_map"'),
}


@pytest.mark.parametrize("kind", WRONG_INDEX)
def test_an_index_that_lies(kind, tmp_path):
    places, words = WRONG_INDEX[kind]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    refused(lambda: load_torch(NET, index), words)


def test_an_index_that_does_not_fit(state, tmp_path):
    index = sharded(tmp_path, state)
    said = json.loads(index.read_text())
    place = said["weight_map"].pop("conv1.weight")
    index.write_text(json.dumps(said))
    refused(lambda: load_torch(NET, index), f"its shard {place} has conv1.weight, which the index does not")
    index.write_text(json.dumps({"weight_map": said["weight_map"] | {"conv1.weight": place, "x": place}}))
    refused(lambda: load_torch(NET, index), f"its shard {place} lacks x")
    index.write_text("[" * 100_000)
    refused(lambda: load_torch(NET, index), "the index is no JSON that can be read")


# ------------------------------------------------------------------------------------------------- files that are otherwise

NONE_OF_THEM = {
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "pointer of Git LFS"),
    "a page": (b"<!DOCTYPE html>\n<html><head>", "this is a page"),
    "a page after blanks": (b"\n  <html lang=en>", "this is a page"),
    "a text": ("héllo, it was not found".encode(), "this is a text file .*: 'héllo"),
    "gzip": (b"\x1f\x8b\x08" + bytes(40), "packed by gzip"),
    "tar": (b"a.txt" + bytes(252) + b"ustar\x0000" + bytes(300), "a tar archive"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
@pytest.mark.parametrize("kind", NONE_OF_THEM)
def test_files_that_are_otherwise(kind, suffix, tmp_path):
    content, words = NONE_OF_THEM[kind]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    refused(lambda: load_torch(NET, path), rf"weights{suffix}: this is .*{words.removeprefix('this is ')}")


def test_a_safetensors_file_by_another_name(state, tmp_path):
    save_file(state, tmp_path / "a.pth")
    refused(lambda: load_torch(NET, tmp_path / "a.pth"), "a.pth: this is a safetensors file: name it .safetensors")


# ---------------------------------------------------------------------------------------------------- networks of the table


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "all_cnn_half",
        pytest.param("resnet18_imagenet", marks=pytest.mark.slow),
        pytest.param("vit_s16", marks=pytest.mark.slow),
        pytest.param("vgg16_bn_small", marks=pytest.mark.slow),
    ],
)
def test_networks_that_fit(name, tmp_path):
    """They are named, for other classes and channels as well, and the command says which setting."""
    module = models.create(name, 7)
    side = 224 if name == "vit_s16" else 32
    channels = 1 if name == "all_cnn_half" else 3
    shapes = models.shapes(module, (side, side, channels))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    path = tmp_path / "a.safetensors"
    save_torch(module, variables, path)
    other = "resnet_tiny"
    assert refused(lambda: load_torch(other, path), "these are no weights|none of its keys").endswith(
        f"; they fit {name}"
    )
    refused(lambda: networks.load_teacher(str(path), other), f"; they fit {name}: give --config.model.name={name}$")
    prefixed = {f"net.{key}": value for key, value in load_file(path).items()} | {
        "net.num_batches_tracked": np.array(1)
    }
    refused(lambda: load_torch(other, prefixed), f"; they fit {name}$")
    assert "they fit" not in refused(lambda: load_torch(other, prefixed | {"net.x": np.ones(1)}), "^the state dict")


def test_many_keys_take_no_time():
    """What fits is not looked for among them."""
    began = time.process_time()
    refused(
        lambda: load_torch(NET, {f"layer{i}.conv1.weight": np.ones(1) for i in range(30_000)}),
        "29999 in all",
    )
    assert time.process_time() - began < 10


# -------------------------------------------------------------------------------------------------------------- with torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")


@pytest.fixture
def tensors(torch, state):
    return {key: torch.from_numpy(value.copy()) for key, value in state.items()} | {
        "bn1.num_batches_tracked": torch.tensor(7)
    }


def test_pth_out(torch, tensors, tmp_path, row):
    """Bit for bit, in the dtypes that came, and read by torch as weights only."""
    tensors = {f"module.{key}": value for key, value in tensors.items()} | {"n_averaged": torch.tensor(3)}
    tensors["module.conv1.weight"] = tensors["module.conv1.weight"].bfloat16()
    tensors["module.fc.weight"] = tensors["module.fc.weight"].half()
    torch.save(tensors, tmp_path / "in.pth")
    found, info = load_torch(NET, tmp_path / "in.pth")
    for name in ("out.pth", "out.pt"):
        save_torch(NET, found, tmp_path / name, info, class_names=NAMES, erased=ERASED, provenance={"run": "ab12"})
        back = torch.load(tmp_path / name, weights_only=True)
        assert set(back) == set(tensors)
        assert all(torch.equal(back[key], value) and back[key].dtype == value.dtype for key, value in tensors.items())
    again, same = load_torch(NET, tmp_path / "out.pth")
    assert_equal(again, found)
    told = {"class_names": tuple(NAMES), "erased": tuple(ERASED), "provenance": same.provenance}
    assert same == dataclasses.replace(info, metadata=same.metadata, **told)
    assert same.provenance == {"run": "ab12", "tensors": digest(arrays(back))}
    net = torch.nn.Module()
    net.load_state_dict(back, strict=False)  # what else is said there does not disturb PyTorch
    assert convert(tmp_path / "in.pth", tmp_path / "folder") == 0
    argv = ["delete-jax", "export", str(tmp_path / "folder"), str(tmp_path / "exported.pth"), "--stage=teacher"]
    assert command.main(argv) == 0
    assert_equal(load_torch(NET, tmp_path / "exported.pth")[0], found)


def test_pth_out_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(lambda: save_torch(NET, VARIABLES, tmp_path / "a.pth"), "a .pth file needs torch: pip install")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["0model_SA_best.pth.tar", "last.ckpt", "pytorch_model.bin", "net.PT", "a.tar"])
def test_other_suffixes(name, torch, tensors, tmp_path):
    torch.save({"state_dict": tensors, "epoch": 3, "best_sa": 91.5}, tmp_path / name)
    assert_equal(load_torch(NET, tmp_path / name)[0], VARIABLES)


def same_or_refused(path: pathlib.Path) -> bool:
    """Whether a file gives the network, or else is refused in one line."""
    try:
        found, _ = load_torch(NET, path)
    except ValueError as error:
        return "\n" not in str(error)
    return all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(VARIABLES)))


def records(path: pathlib.Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: pathlib.Path, content, compression=zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in content.items():
            archive.writestr(name, value)


@pytest.mark.parametrize("beside", ["alone", "with an optimiser"])
def test_damaged_archives(beside, torch, tensors, tmp_path):
    """Each record that is cut, and each flipped bit, is found before anything of it is used."""
    path = tmp_path / "a.pth"
    more = {} if beside == "alone" else {"optimizer": {"state": {0: torch.ones(5, dtype=torch.float64)}}, "epoch": 3}
    torch.save({"state_dict": tensors, **more}, path)
    whole, content = path.read_bytes(), records(path)
    data = [name for name in content if "/data/" in name]
    assert len(data) == len(tensors) + len(more) // 2
    for name in data:
        rewrite(path, content | {name: content[name][:-4]})
        refused(lambda: load_torch(NET, path), rf"the file is damaged: {name} has \d+ bytes of \d+")
    rewrite(path, {name: value for name, value in content.items() if name != data[0]})
    refused(lambda: load_torch(NET, path), "a.pth: (the file is damaged|torch cannot read it)")
    rewrite(path, content)
    assert_equal(load_torch(NET, path)[0], VARIABLES)
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if "/data/" in info.filename]
    whole = path.read_bytes()
    for info in infos[:6]:
        start = whole.index(content[info.filename], info.header_offset)
        path.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])
        refused(
            lambda: load_torch(NET, path), f"the file is damaged: Bad CRC-32 for file '{info.filename}'; get it again"
        )
    rng = np.random.default_rng(0)
    torch.save({"state_dict": tensors}, path)
    whole = path.read_bytes()
    for place in rng.integers(0, len(whole), 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.integers(8))]) + whole[place + 1 :])
        assert same_or_refused(path)
    for length in range(0, len(whole), 1 + len(whole) // 20):
        path.write_bytes(whole[:length])
        refused(lambda: load_torch(NET, path), "a.pth: ")


def test_bombs(torch, tensors, tmp_path):
    """A small file that would need much memory: by compression, and by one number that stands for many."""
    path = tmp_path / "a.pth"
    torch.save(tensors, path)
    content = records(path)
    rewrite(path, content, zipfile.ZIP_DEFLATED)
    assert same_or_refused(path)
    rewrite(path, content | {"a/data/99": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    refused(lambda: load_torch(NET, path), "the file is damaged: .* would unpack to")
    torch.save(tensors | {"bn1.num_batches_tracked": torch.zeros(1).expand(10**12)}, path)
    refused(lambda: load_torch(NET, path), "its tensors repeat their values")


def strange(torch):
    """Tensors that NumPy does not have, and what is said of them."""
    ones = torch.ones(4, 3, 3, 3)
    yield ones.to_sparse(), "conv1.weight must be a dense tensor, got a sparse_coo one"
    yield torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8), "conv1.weight .*quantised"
    yield ones.to(torch.float8_e4m3fn), "conv1.weight is float8_e4m3fn"
    yield ones.to("meta"), "conv1.weight must be a dense tensor, got a meta one"
    yield ones.to(torch.int8), "conv1.weight is int8"
    yield ones.bool(), "conv1.weight is bool"
    yield torch.complex(ones, ones), "conv1.weight is complex64"
    yield torch.complex(ones, ones).conj(), "conv1.weight is complex64"


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated", "ignore:.*[Qq]uantiz")
def test_tensors_that_are_no_weights(torch, tensors, tmp_path):
    path = tmp_path / "a.pth"
    for value, words in strange(torch):
        refused(lambda value=value: load_torch(NET, tensors | {"conv1.weight": value}), words)
        torch.save(tensors | {"conv1.weight": value}, path)
        refused(lambda: load_torch(NET, path), f"a.pth: ({words}|torch cannot read it)")
    negative = (
        torch.complex(torch.zeros(4, 3, 3, 3), -tensors["conv1.weight"]).conj().imag
    )  # a view with a sign to come
    assert negative.is_neg()
    assert_equal(load_torch(NET, tensors | {"conv1.weight": negative})[0], VARIABLES)


def test_a_module_in_place_of_its_state(torch):
    refused(lambda: load_torch(NET, torch.nn.Linear(2, 2)), r"got a Linear; give module.state_dict\(\)")


def test_legacy_files(torch, tensors, tmp_path):
    """Of torch before 1.6: no zip archives."""
    path = tmp_path / "a.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    assert_equal(load_torch(NET, path)[0], VARIABLES)
    path.write_bytes(path.read_bytes()[:-40])
    refused(lambda: load_torch(NET, path), "a.pth: torch cannot read it, for it is damaged")


def test_an_old_torch_is_named(torch, tensors, tmp_path, monkeypatch, caplog):
    torch.save(tensors, tmp_path / "a.pth")
    for version, warned in (("2.9.1+cu128", True), ("2.10.0", False), ("2.12.1", False)):
        caplog.clear()
        monkeypatch.setattr(torch, "__version__", version)
        load_torch(NET, tmp_path / "a.pth")
        assert ("CVE-2026-24747" in caplog.text) == warned
