"""What an auditor can check: a run against its digests, what was exported of it against the run, and all of it without this package."""

import hashlib
import json
import pathlib
import re
import shlex
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import delete_jax as dj
from delete_jax import data, models
from delete_jax import main as command
from delete_jax.checkpoint import Checkpoints
from delete_jax.data.dataset import take
from delete_jax.identity import digest
from delete_jax.models import Network, ResNet
from delete_jax.reports import export as drawing
from delete_jax.reports.record import digest as digest_of
from delete_jax.run import arguments, provenance, stages
from delete_jax.run.compare import Views
from delete_jax.run.finished import read_finished
from delete_jax.tasks.classification.page import verdict
from tests import processes
from tests.pages import ROOT, blocks, snippets
from tests.test_command import CONFIG, make_images, snapshot
from tests.test_evaluation import evaluated, plain

SMALL = ResNet(3, stages=(1,), features=(4,))
RUN = ["--config=tiny.py", "--workdir=run", "--config.parallel=jit"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images in three classes and a finished run on them, of which all paths are relative."""
    folder = tmp_path_factory.mktemp("place")
    make_images(folder / "images")
    (folder / "tiny.py").write_text(CONFIG.format(images="images"))
    row = Network(lambda num_classes, dtype=None: SMALL.clone(num_classes=num_classes), "fc", layers=("layer1",))
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setitem(models.NETWORKS, "resnet_tiny", row)
        patch.setattr(drawing, "svg", lambda panel, name: drawing.Drawing("0 0 1 1", ""))  # drawing takes seconds
        patch.setattr(drawing, "png", lambda parts: b"")
        patch.setattr(command, "_keep_programs", lambda: None)  # those of the tests are kept elsewhere
        patch.chdir(folder)
        assert command.main(["delete-jax", *RUN]) == 0
        yield folder


@pytest.fixture
def copied(place, tmp_path, monkeypatch):
    """A copy of the run in a folder from which the data is seen as from the first one."""
    shutil.copytree(place / "run", tmp_path / "run")
    shutil.copytree(place / "images", tmp_path / "images")
    shutil.copy(place / "tiny.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def verify(capfd, *arguments) -> tuple[int, list[str]]:
    """The exit code and the lines, without those that hold."""
    capfd.readouterr()
    code = command.main(["delete-jax", "verify", *map(str, arguments)])
    out, error = capfd.readouterr()
    assert error == ""
    return code, [line for line in out.splitlines() if not line.startswith("holds")]


def edit(file: pathlib.Path, change) -> None:
    said = json.loads(file.read_text())
    change(said)
    file.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def forge(record: dict) -> None:
    """Edits a figure, and computes the digest again."""
    record["networks"]["unlearned"]["metrics"]["acc_ft"] = 0.125
    record["digest"] = digest_of(record)


def test_a_run_is_as_it_was_written(place, capfd, tmp_path, monkeypatch):
    """In its place with everything checked; as a copy elsewhere without its data."""
    monkeypatch.chdir(place)
    code, (last,) = verify(capfd, "run")
    assert (code, last) == (0, "As it was written: run (12 holds)")
    shutil.copytree("run", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere" / "checkpoints" / "retrained")
    monkeypatch.chdir(tmp_path)
    code, lines = verify(capfd, "elsewhere")
    assert code == 0
    retrained, data, samples, last = lines
    assert retrained == "not checked  retrained network: there is no checkpoints/retrained"
    assert re.match(r"not checked  data: folder:images is not here, or not whole \(images/train: no such folder", data)
    assert samples == "not checked  forget samples: they are part of folder:images"
    assert last == "As it was written: elsewhere (9 holds, 3 not checked)"
    text = (place / "run" / "report.json").read_text() + (place / "run" / "report.html").read_text()
    assert str(place) not in text
    assert (
        json.loads((place / "run" / "report.json").read_text())["networks"]["original"]["source"]
        == "checkpoints/teacher"
    )


def test_what_was_edited_is_named(copied, capfd):
    """A figure; the same with a new digest; settings; the page; checkpoints; an image."""
    edit(copied / "report.json", lambda record: record["networks"]["unlearned"]["metrics"].update(acc_ft=0.125))
    with (copied / "report.html").open("a") as page:
        page.write("<!-- -->")
    checkpoints = copied / "checkpoints"
    shutil.rmtree(checkpoints / "unlearned")
    shutil.copytree(checkpoints / "teacher", checkpoints / "unlearned")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("images/train/bee/0.png")
    code, lines = verify(capfd, "run")
    assert code == 1
    for words in (
        r"DIFFERS      report.json: it was edited: its digest is \w+, and it says \w+",
        r"DIFFERS      report.json: it was edited: its SHA-256 is \w+, and SHA256SUMS says \w+",
        r"DIFFERS      report.html: it was edited: .*",
        r"DIFFERS      unlearned network: checkpoints/unlearned has the digest \w+: that of the original network, .*",
        r"DIFFERS      data: folder:images has the digest \w+, and report.json says \w+",
        r"DIFFERS      forget samples: they have the digest \w+, .*",
        r"NOT as it was written: run \(6 DIFFERS, \d holds\)",
    ):
        assert sum(bool(re.fullmatch(words, line)) for line in lines) == 1, (words, lines)
    assert len(lines) == 7

    edit(copied / "report.json", forge)
    edit(copied / "config.json", lambda config: config["unlearn"].update(forget=[2]))
    damaged = next((checkpoints / "retrained").iterdir())
    shutil.rmtree(damaged / "tree")
    shutil.copytree(next((checkpoints / "teacher").iterdir()) / "tree", damaged / "tree")
    code, lines = verify(capfd, "run")
    assert code == 1
    assert "DIFFERS      report.json: it was edited: its SHA-256 is" in "\n".join(lines)
    assert "DIFFERS      config.json: it is not the config of this report" in "\n".join(lines)
    assert "DIFFERS      retrained network: checkpoints/retrained: no whole checkpoint is left" in "\n".join(lines)
    (copied / "SHA256SUMS").unlink()
    code, lines = verify(capfd, "run")
    assert code == 1
    assert lines[0].startswith("MISSING      SHA256SUMS: there is no list")


def test_a_run_that_was_edited_is_not_done(copied, capfd):
    """The same command says so, and writes nothing."""
    assert command.main(["delete-jax", *RUN]) == 0
    first, *warned, last = capfd.readouterr().out.splitlines()
    assert first == "already done: run/report.html"
    judged = verdict(json.loads((copied / "report.json").read_text()))
    assert warned == [f"warning: {lost}" for lost in judged.lost]
    assert last == f"{judged.label}: {judged.headline}"
    edits = [
        (
            "report.json",
            lambda record: record["networks"]["unlearned"]["metrics"].update(acc_ft=0.125),
            "its digest is",
        ),
        ("report.json", forge, "its SHA-256 is"),
    ]
    for file, change, words in edits:
        edit(copied / file, change)
        before = snapshot(copied)
        assert command.main(["delete-jax", *RUN]) == 2
        out, error = capfd.readouterr()
        assert out == ""
        assert re.fullmatch(rf"delete-jax: error: run: {file}: it was edited: {words} [^\n]*\n", error)
        assert snapshot(copied) == before


def test_a_report_of_an_earlier_version(copied, capfd):
    """It has no digest of itself: nothing is known of it, and the run is still done, without a verdict."""
    edit(copied / "report.json", lambda record: (record.pop("digest"), record.pop("run")))
    (copied / "SHA256SUMS").unlink()
    code, lines = verify(capfd, "run")
    assert code == 1
    assert (
        lines[0]
        == "DIFFERS      report.json: it has no digest of itself: it was edited, or an earlier version wrote it"
    )
    assert command.main(["delete-jax", *RUN]) == 0
    assert capfd.readouterr().out == "already done: run/report.html\n"


def test_a_report_of_the_library(tmp_path, monkeypatch, capfd):
    """It has the list of its files, and nothing says where its networks and its data are."""
    monkeypatch.setattr(drawing, "svg", lambda panel, name: drawing.Drawing("0 0 1 1", ""))
    monkeypatch.setattr(drawing, "png", lambda parts: b"")
    monkeypatch.chdir(tmp_path)
    model, variables = plain()
    dj.report(evaluated(model, {"original": variables, "unlearned": variables}), "mine")
    pathlib.Path("a.safetensors").touch()
    code, (networks, file, last) = verify(capfd, "mine", "a.safetensors")
    assert code == 0
    assert networks.startswith("not checked  networks and data: delete_jax.evaluate was given them")
    assert file == "not checked  a.safetensors: no run is reported here that it could be of"
    assert last == "As it was written: mine (4 holds, 2 not checked)"
    edit(pathlib.Path("mine/report.json"), forge)
    code, lines = verify(capfd, "mine")
    assert code == 1
    assert lines[0].startswith("DIFFERS      report.json: it was edited: its SHA-256 is")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: RUN"),
        (["nowhere"], "nowhere: no such folder; name the folder of a finished run"),
        (["images"], "images is not a finished run (it has no report.json)"),
        (["run", "--sums"], "unknown flag --sums"),
        (["run", "a.onnx"], "a.onnx: the name of an exported file ends in .safetensors or .pth or .jax"),
        (["run", "a.jax"], "a.jax: there is no such file"),
    ],
)
def test_wrong_input(arguments, words, place, monkeypatch, capfd):
    monkeypatch.chdir(place)
    assert command.main(["delete-jax", "verify", *arguments]) == 2
    assert re.fullmatch(rf"delete-jax: error: [^\n]*{re.escape(words)}[^\n]*\n", capfd.readouterr().err)


def test_a_report_that_is_no_report(copied, capfd):
    (copied / "report.json").write_text("{")
    code, lines = verify(capfd, "run")
    assert code == 1
    assert lines[0] == "DIFFERS      report.json: it is damaged, no JSON can be read there"
    assert "so that nothing else can be checked" in lines[-2]
    assert Checkpoints(copied / "checkpoints" / "unlearned").restore() is not None


def test_a_second_request_after_the_samples_of_the_first_were_deleted(copied, monkeypatch, capfd):
    """The class keeps its number and is not measured, neither as 0 % nor as erased; what else changed in the data is refused."""
    second = ["delete-jax", "--config=tiny.py", "--workdir=second", RUN[2]]
    second += ["--config.teacher=run/checkpoints/unlearned"]

    def refused(*more: str, forget: str = "cat") -> str:
        capfd.readouterr()
        assert command.main([*second, f"--config.unlearn.forget={forget}", *more]) == 2
        assert not pathlib.Path("second").exists()
        (line,) = capfd.readouterr().err.splitlines()
        return line

    parsed = arguments.parse([*second, "--config.unlearn.forget=cat"])[0]
    shutil.rmtree("images/train/bee")
    run, teacher = stages.prepared(parsed)  # its test images are still there
    assert set(run.data.dataset.test.labels) == {0, 1, 2}
    assert not any("nothing says" in said for said in stages.earlier_warnings(run, teacher))
    nothing_known = teacher._replace(remaining={})  # an earlier version's
    with pytest.raises(ValueError, match="its training samples are not those of this run"):
        stages._check_held_out(run.data, nothing_known)
    shutil.rmtree("images/test/bee")
    run, _ = stages.prepared(parsed)
    stages._check_held_out(run.data, nothing_known)
    said = stages.earlier_warnings(run, nothing_known)[-1]
    assert said.startswith(
        "nothing says that run/checkpoints/unlearned was trained on this run's training samples of the"
    )
    assert "has 3 classes, this run 2" in refused("--config.teacher=run")  # its original, which has forgotten nothing
    other_split = refused("--config.seed=5")
    assert "run/checkpoints/unlearned: its training samples are not those of this run" in other_split
    shutil.copytree("images/train/ant", "images/train/aunt")
    shutil.copytree("images/test/ant", "images/test/aunt")
    assert "class 1 of the network that forgot it is 'bee', and here that is 'aunt'" in refused()
    for split in ("train", "test"):
        pathlib.Path(f"images/{split}/aunt").rename(f"images/{split}/dog")
    assert "has 3 classes, this run 4" in refused()
    for split in ("train", "test"):
        pathlib.Path(f"images/{split}/dog").rename(f"images/{split}/cat.old")
        pathlib.Path(f"images/{split}/cat").rename(f"images/{split}/.cat")
    assert "class_names ['ant', 'bee', 'cat'], this run ['ant', 'bee', 'cat.old']" in refused(forget="ant")
    for split in ("train", "test"):
        shutil.rmtree(f"images/{split}/cat.old")
        pathlib.Path(f"images/{split}/.cat").rename(f"images/{split}/cat")

    assert command.main([*second, "--config.unlearn.forget=cat"]) == 0
    said = capfd.readouterr().out
    not_measured = "“bee”, erased before, is not measured: no test images of it are left"
    assert f"note: {not_measured}" in said
    assert "nothing says" not in said
    written = pathlib.Path("second/report.json").read_text()
    assert "NaN" not in written
    record = json.loads(written)
    assert record["dataset"]["class_names"] == ["ant", "bee", "cat"]
    assert (record["forget"]["names"], record["forget"]["erased"]) == (["cat"], [1])
    for network in record["networks"].values():
        assert network["metrics"]["per_class"][1] is None
        assert network["metrics"].get("acc_erased_before") is None
    found = verdict(record)
    assert f"; {not_measured}." in found.headline
    assert "the other class is recognised in" in found.headline
    assert f"{not_measured}. This report does not show whether this request brought back" in " ".join(found.notes)
    page = pathlib.Path("second/report.html").read_text()
    assert not_measured in page
    row = re.search(r"<tr>(?:(?!</tr>).)*✕ bee.*?</tr>", page, re.DOTALL)[0]
    assert (row.count("not measured"), "%" in row) == (3, False)
    retrained = Checkpoints(pathlib.Path("second/checkpoints/retrained")).restore()[1]["identity"]
    ants, _ = data.forget_remain(data.load("folder:images", validation=0.25, erased={1: "bee"}).train, [0])
    assert retrained["split"] == data.split_digest(ants)
    assert verify(capfd, "second") == (0, ["As it was written: second (12 holds)"])
    finished = read_finished("second")
    answers, _ = Views([finished])._look(finished, "original")  # made with more samples than this run has
    assert len(answers) == 4
    shutil.rmtree("run")  # the data is found without the teacher
    code, lines = verify(capfd, "second")
    assert (code, lines[-1]) == (0, "As it was written: second (11 holds, 1 not checked)")
    assert lines[0].startswith("not checked  original network: it was given to the run, and is not here")


def test_a_run_of_named_samples(place, monkeypatch, capfd):
    """The names are in its report; with another list, it is not done; verify finds the samples by the names."""
    monkeypatch.chdir(place)
    (place / "samples.py").write_text(
        (place / "tiny.py").read_text().replace("return Config(", "from delete_jax.tasks import Instances\n    return Config(task=Instances(),")
        .replace("forget=(1,), ", "")
    )  # fmt: skip
    train = data.load("folder:images", validation=0.25).train.files
    pathlib.Path("list.txt").write_text(f"{train[4]}\n{train[7]}\n")
    argv = ["delete-jax", "--config=samples.py", "--workdir=named", RUN[2], "--config.task.files=list.txt"]
    argv += ["--config.teacher=run", "--config.retrain=false"]
    assert command.main(argv) == 0
    record = json.loads(pathlib.Path("named/report.json").read_text())
    assert record["forget"]["files"] == [train[4], train[7]]
    assert record["forget"]["what"] == "2 training samples, by name"
    assert record["forget"]["digest"] == data.split_digest(
        take(data.load("folder:images", validation=0.25).train, [4, 7])
    )
    assert f"{train[4]}, {train[7]}" in pathlib.Path("named/report.html").read_text()
    assert verify(capfd, "named")[0] == 0
    pathlib.Path("list.txt").write_text(f"{train[4]}\n")
    assert command.main(argv) == 2
    assert (
        "named holds a run that forgot other samples: the data, or the list of names, has changed"
        in capfd.readouterr().err
    )
    pathlib.Path("list.txt").unlink()  # the report has the names
    assert verify(capfd, "named")[0] == 0

    def rename(record: dict) -> None:
        record["forget"]["files"][1] = train[5]
        record["digest"] = digest_of(record)

    edit(pathlib.Path("named/report.json"), rename)
    code, lines = verify(capfd, "named")
    assert code == 1
    assert lines[1].startswith("DIFFERS      forget samples: they have the digest")


# ---------------------------------------------------------------------------------------------------------- exported files


@pytest.fixture(scope="module")
def exports(place):
    """Files of the run, and a second run, whose original came in float16, with a file of its own."""
    call("export", "run", "unlearned.safetensors")
    call("export", "run", "retrained.safetensors", "--stage=retrained")
    call("export", "run", "original.safetensors", "--stage=teacher")
    call("export", "run", "unlearned.jax")
    half = {key: value.astype(np.float16) for key, value in load_file("original.safetensors").items()}
    save_file(half, "half.safetensors", {"format": "pt"})
    settings = ["--config.teacher=half.safetensors", "--config.unlearn.forget=2", "--config.retrain=false"]
    call(RUN[0], "--workdir=second", RUN[2], *settings)
    call("export", "second", "second.safetensors")
    return place


def call(*arguments) -> None:
    assert command.main(["delete-jax", *arguments]) == 0


def metadata(path: pathlib.Path) -> dict[str, str]:
    with safe_open(path, framework="numpy") as file:
        return file.metadata()


def test_exported_files_say_which_run_they_are_of(exports, capfd, monkeypatch):
    monkeypatch.chdir(exports)
    record = json.loads(pathlib.Path("run/report.json").read_text())
    variables, info = models.load_torch(SMALL, "unlearned.safetensors")
    function, said = models.load_exported("unlearned.jax")
    expected = {
        "stage": "unlearned",
        "network": record["networks"]["unlearned"]["digest"],
        "run": record["run"]["id"],
        "report": record["digest"],
        "request": {
            "classes": ["bee"],
            "num_samples": record["forget"]["num_samples"],
            "samples": record["forget"]["digest"],
            "method": "delete",
        },
    }
    assert {key: value for key, value in info.provenance.items() if key != "tensors"} == expected
    assert {key: value for key, value in said.items() if key != "function"} == expected
    assert digest(variables) == expected["network"]
    assert info.provenance["tensors"] == digest(load_file("unlearned.safetensors"))
    alone = jax.export.deserialize(bytearray(pathlib.Path("unlearned.jax").read_bytes()))
    images = np.zeros((2, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(alone.call(images), function.call(images))
    assert models.load_torch(SMALL, "original.safetensors")[1].provenance["request"] is None

    loaded, load = [], provenance.load_stage
    monkeypatch.setattr(provenance, "load_stage", lambda *given: loaded.append(given[1]) or load(*given))
    code, lines = verify(
        capfd, "run", "unlearned.safetensors", "retrained.safetensors", "unlearned.jax", "unlearned.jax"
    )
    assert (code, lines) == (0, ["As it was written: run (16 holds)"])
    assert sorted(loaded) == ["checkpoints/retrained", "checkpoints/teacher", "checkpoints/unlearned"]  # each once
    code, lines = verify(capfd, "second", "second.safetensors")  # its original is a file
    assert (code, lines) == (0, ["As it was written: second (12 holds)"])
    code, lines = verify(capfd, "run", "second.safetensors")
    assert code == 1
    words = r"DIFFERS      second.safetensors: it is not of this run: the report has no network with the digest that it says, \w+; "
    words += r"its run is \w{16}, not \w{16}; its report is \w{64}, not \w{64}; its request is {'classes': \['cat'\].*"
    assert re.fullmatch(words, lines[0])


def test_what_was_changed_in_exported_files(exports, copied, capfd):
    """Weights; weights with their digest; a function; what nobody said anything of; and where there is no network any more."""
    for name in ("unlearned.safetensors", "unlearned.jax", "second.safetensors"):
        shutil.copy(exports / name, name)
    tensors, texts = load_file("unlearned.safetensors"), metadata("unlearned.safetensors")
    save_file(tensors, "bare.safetensors", {"format": "pt"})
    tensors["fc.bias"] = tensors["fc.bias"] + 1
    save_file(tensors, "changed.safetensors", texts)
    said = json.loads(texts["provenance"]) | {"tensors": digest(tensors)}
    save_file(tensors, "forged.safetensors", texts | {"provenance": json.dumps(said)})
    content = bytearray(pathlib.Path("unlearned.jax").read_bytes())
    content[len(content) // 3] ^= 1
    pathlib.Path("changed.jax").write_bytes(content)
    files = ["bare.safetensors", "changed.safetensors", "forged.safetensors", "changed.jax"]
    code, lines = verify(capfd, "run", *files)
    assert code == 1
    for file, words, line in zip(
        files,
        (
            "nothing in it says of which run it is",
            "its weights were changed: they have the digest",
            "its weights are not those of the unlearned network, though it says so",
            "it was changed: its function has the digest",
        ),
        lines[:-1],
        strict=True,
    ):
        assert line.startswith(f"DIFFERS      {file}: {words}"), line
    with pytest.raises(ValueError, match=r"changed.jax: its function has the digest \w+, and the file says \w+"):
        models.load_exported("changed.jax")
    # Weights in float32 are checked without the network, a function is not.
    shutil.rmtree(copied / "checkpoints")
    code, lines = verify(capfd, "run", "unlearned.safetensors", "unlearned.jax")
    assert code == 0
    assert lines[-2].startswith("not checked  unlearned.jax: the unlearned network of this run, as it says")
    assert len(lines) == 5  # three networks, and the function
    code, lines = verify(capfd, "run", "forged.safetensors", "second.safetensors")
    assert code == 1
    assert sum(line.startswith("DIFFERS") for line in lines) == 2
    # A file of what it was exported from says so again; of other weights, nothing.
    variables, info = models.load_torch(SMALL, "unlearned.safetensors")
    models.save_torch(SMALL, variables, "again.safetensors", info)
    assert pathlib.Path("again.safetensors").read_bytes() == pathlib.Path("unlearned.safetensors").read_bytes()
    variables["params"]["fc"]["bias"] += 1
    models.save_torch(SMALL, variables, "again.safetensors", info)
    assert "provenance" not in metadata("again.safetensors")


def test_a_state_dict_of_torch(copied, capfd):
    """It says so in an attribute; a weight that was changed is noticed, also where the attribute was kept."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    call("export", "run", "unlearned.pth")
    assert verify(capfd, "run", "unlearned.pth") == (0, ["As it was written: run (13 holds)"])
    state = torch.load("unlearned.pth", weights_only=True)
    state["fc.bias"] += 1
    torch.save(state, "changed.pth")
    torch.save(dict(state), "bare.pth")
    code, lines = verify(capfd, "run", "changed.pth", "bare.pth")
    assert code == 1
    assert lines[0].startswith("DIFFERS      changed.pth: its weights were changed")
    assert lines[1].startswith("DIFFERS      bare.pth: nothing in it says of which run it is")


def test_an_edited_report_is_not_exported(copied, capfd):
    edit(copied / "report.json", forge)
    assert command.main(["delete-jax", "export", "run", "a.safetensors"]) == 2
    assert re.fullmatch(r"delete-jax: error: run: report.json: it was edited: [^\n]*\n", capfd.readouterr().err)
    assert not pathlib.Path("a.safetensors").exists()


# ------------------------------------------------------------------------------------------------- without this package


def test_ten_lines_without_this_package(exports, tmp_path, monkeypatch):
    """Those of the documentation: they hold, and do not where a figure or a weight was changed."""
    (snippet,) = snippets("report", "import hashlib, json, pathlib")
    assert len([line for line in snippet.splitlines() if line]) <= 11
    assert "delete_jax" not in snippet
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exports / "run", "runs/digits")
    shutil.copy(exports / "unlearned.safetensors", "unlearned.safetensors")
    exec(snippet, {})
    tensors, texts = load_file("unlearned.safetensors"), metadata("unlearned.safetensors")
    save_file(tensors | {"fc.bias": tensors["fc.bias"] + 1}, "unlearned.safetensors", texts)
    with pytest.raises(AssertionError):
        exec(snippet, {})
    shutil.copy(exports / "unlearned.safetensors", "unlearned.safetensors")
    edit(pathlib.Path("runs/digits/report.json"), lambda record: record["cost"].update(unlearn_seconds=0.5))
    with pytest.raises(AssertionError):
        exec(snippet, {})


def test_the_list_is_one_that_sha256sum_reads(place):
    lines = dict(reversed(line.split("  ")) for line in (place / "run" / "SHA256SUMS").read_text().splitlines())
    files = ["config.json", "metrics.jsonl", "report.html", "report.json", "report.png"]
    assert lines == {name: hashlib.sha256((place / "run" / name).read_bytes()).hexdigest() for name in files}


ASKS = {"ssh-keygen -t ed25519": "ssh-keygen -q -t ed25519 -N '' -f key", "minisign -G": "minisign -G -W -s key"}
"""What asks for a password, and the same without one, in this folder."""


@pytest.mark.parametrize("program", ["ssh-keygen", "minisign"])
def test_a_signature_of_the_list(program, place, tmp_path, monkeypatch):
    """By the documentation's commands, one after the other; it does not fit an edited list."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    (page,) = (ROOT / "docs").rglob("report.md")
    (block,) = (block for block in blocks("", page) if block.startswith(program))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "run", "runs/digits")

    def code(line: str) -> int:
        line = ASKS.get(line, line).replace("~/.ssh/id_ed25519", "key").replace("minisign -S", "minisign -s key -S")
        return processes.run(["sh", "-c", line], tmp_path).returncode

    *_, check = lines = block.splitlines()
    assert [code(line) for line in lines] == [0] * len(lines)
    with open("runs/digits/SHA256SUMS", "a") as file:
        file.write("\n")
    assert code(check) != 0


def test_the_course_of_a_request(place, tmp_path, monkeypatch, capfd):
    """The commands of the page for data protection officers, one after the other; the first is the run that is there, on small data."""
    (page,) = (ROOT / "docs").rglob("data-protection.md")
    first, *commands = [shlex.split(line) for block in blocks("", page) for line in block.splitlines()]
    kinds = ["--config", "verify", "export", "verify", "--config", "verify", "export"]
    assert [words[1].partition("=")[0] for words in (first, *commands)] == kinds
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "run", first[-1].removeprefix("--workdir="))
    for name in ("images", "tiny.py"):
        (tmp_path / name).symlink_to(place / name)
    small = {"--config=digits": "--config=tiny.py", "--config.unlearn.forget=1": "--config.unlearn.forget=2"}
    for words in commands:
        more = [RUN[2], "--config.retrain=false"] if "--config=digits" in words else []
        assert command.main([small.get(word, word) for word in words] + more) == 0, capfd.readouterr()
    record = json.loads(pathlib.Path("runs/request2/report.json").read_text())
    assert record["forget"] | {"names": ["cat"], "erased": [1]} == record["forget"]
    _, info = models.load_torch(SMALL, "network2.safetensors")
    assert info.provenance["request"]["classes"] == ["cat"]
    assert [request["forget"] for request in info.erased] == [[1], [2]]
    out = capfd.readouterr().out
    assert "holds        network.safetensors: the unlearned network of this run" in out
    assert out.count("As it was written: runs/request") == 3
