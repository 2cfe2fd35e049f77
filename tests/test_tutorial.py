"""The tutorial's steps, one after the other in an empty folder, end with the files that it names."""

import shlex

import jax
import numpy as np
import pytest
from PIL import Image

from delete_jax.main import main
from delete_jax.models import load_torch
from tests.pages import ROOT, blocks, snippets

PAGE = ROOT / "docs" / "guides" / "tutorial.md"


def test_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (snippet,) = snippets("tutorial", "from pathlib import Path")
    exec(snippet, names := {})
    for split in ("train", "test"):
        expected = getattr(names["digits"], split)
        for class_ in range(10):
            files = sorted((tmp_path / "photos" / split / str(class_)).iterdir())
            assert len(files) == (expected.labels == class_).sum()
        with Image.open(files[0]) as image:
            np.testing.assert_array_equal(np.asarray(image), expected.images[expected.labels == 9][0, ..., 0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:other predictions have moved", "ignore:the network is unsure")
def test_its_commands(tmp_path, monkeypatch, optimised, capsys):
    """Whole but for two epochs in place of twenty: with the network from PyTorch it erases as well as it says."""
    monkeypatch.chdir(tmp_path)
    (folder,) = snippets("tutorial", "from pathlib import Path")
    (weights,) = snippets("tutorial", "module, variables = network.module, network.variables")
    exec(folder, {})
    exec(weights, {})
    commands = [line for block in blocks("", PAGE) for line in block.splitlines() if line.startswith("delete-jax ")]
    assert len(commands) == 3
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as in the command
        for command in commands:
            short = [] if " export " in command else ["--config.train.epochs=2", "--config.parallel=jit"]
            assert main([*shlex.split(command), *short]) == 0, capsys.readouterr().err
            if "--workdir=runs/mine" in command:
                assert "Erased: Class “3” was erased" in capsys.readouterr().out
    for run in ("trained", "mine"):
        assert (tmp_path / "runs" / run / "report.html").stat().st_size > 10_000
    variables, info = load_torch("resnet_tiny", "unlearned.safetensors")
    assert info.class_names == tuple("0123456789")
    assert variables["params"]["fc"]["kernel"].shape == (64, 10)
