"""What the README shows works: its Python runs, its commands name files, fields and flags that exist."""

import pathlib
import re
import shlex

import numpy as np

from delete_jax import arguments
from delete_jax.config import validate
from tests import tiny

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
    return [block for name, block in found if name == language]


def test_python():
    net = tiny.Net()
    _, variables = tiny.network(net)
    images, labels = tiny.samples(64)
    (snippet,) = blocks("python")
    names = {"net": net, "variables": variables, "images": images, "labels": labels}
    exec(snippet.replace("epochs=5", "epochs=1"), names)
    assert len(names["result"].history) == 1
    before, after = (v["params"]["Dense_0"]["kernel"] for v in (variables, names["result"].variables))
    assert np.abs(np.asarray(before) - np.asarray(after)).max() > 0


def test_commands(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = [line.split("  #")[0].strip() for block in blocks("") for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("delete-jax ")]
    assert len(commands) >= 3
    for command in commands:
        config, _ = arguments.parse(command)
        validate(config)
    for script in re.findall(r"python (benchmarks/\w+\.py)", README):
        assert (ROOT / script).is_file()
