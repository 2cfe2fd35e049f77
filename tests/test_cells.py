"""Finished results, line by line: found by what they are of, on the disk before they are used, and never those of something else."""

import doctest
import json
import os
import sys

import numpy as np
import pytest

from delete_jax.cells import Cells
from delete_jax.identity import IdentityError
from tests.processes import start, stop

OF = {"seed": 0, "method": "delete", "forget": (3, 5)}
PROGRAM = """
import os, sys
from delete_jax.cells import Cells
cells = Cells(sys.argv[1], lambda: {"network": "a"})
for number in range(3):
    cells.get({"number": number}, lambda: number)
print("ready", flush=True)
cells.get({"number": 3}, lambda: os.read(0, 1))  # killed meanwhile
"""


def opened(folder, **identity) -> Cells:
    return Cells(folder, lambda: {"network": "a", "settings": {"epochs": 5}} | identity)


def fails() -> None:
    raise AssertionError("it is kept")


def test_a_result_is_found_by_what_it_is_of(tmp_path):
    cells = opened(tmp_path / "new" / "folder")
    made = {"acc": np.float32(0.5), "counts": [1, 2], "none": None, "whole": np.int64(3)}
    plain = {"acc": 0.5, "counts": [1, 2], "none": None, "whole": 3}
    assert OF not in cells
    assert cells.get(OF, lambda: made) == plain
    assert cells.get({"forget": [3, 5], "method": "delete", "seed": 0}, fails) == plain  # in any order
    assert {**OF, "seed": 1} not in cells
    again = opened(tmp_path / "new" / "folder")
    assert OF in again
    assert again.get(OF, fails) == plain
    head, line = (tmp_path / "new" / "folder" / "cells.jsonl").read_text().splitlines()
    assert json.loads(head) == {"network": "a", "settings": {"epochs": 5}}
    assert json.loads(line) == {"of": {**OF, "forget": [3, 5]}, "cell": plain}


def test_in_memory_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = Cells(None, fails)
    assert cells.get(OF, lambda: 1) == cells.get(OF, fails) == 1
    assert list(tmp_path.iterdir()) == []


def test_it_is_on_the_disk_before_it_is_used(tmp_path, monkeypatch):
    cells, synced, sync = opened(tmp_path), [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: sync(file) or synced.append((tmp_path / "cells.jsonl").read_text()))
    cells.get(OF, lambda: 0.25)
    assert synced[0].endswith('"cell": 0.25}\n')


def test_what_a_killed_process_left(tmp_path):
    process = start([sys.executable, "-c", PROGRAM, tmp_path])
    try:
        assert process.stdout.readline() == "ready\n"
    finally:
        stop(process)
    path = tmp_path / "cells.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"of": {"number": 3}, "ce')
    cells = Cells(tmp_path, lambda: {"network": "a"})
    assert [cells.get({"number": number}, fails) for number in range(3)] == [0, 1, 2]
    assert path.read_text() == whole
    cells.get({"number": 3}, lambda: 3)
    assert path.read_text() == whole + '{"of": {"number": 3}, "cell": 3}\n'


def test_a_failure_keeps_nothing(tmp_path):
    cells = opened(tmp_path)
    for make, error in ((lambda: 1 / 0, ZeroDivisionError), (lambda: {"a": object()}, TypeError)):
        with pytest.raises(error):
            cells.get(OF, make)
        assert OF not in cells
    assert len((tmp_path / "cells.jsonl").read_text().splitlines()) == 1


def test_the_last_of_several_counts(tmp_path):
    opened(tmp_path).get(OF, lambda: 1)
    with (tmp_path / "cells.jsonl").open("a") as file:
        file.write(json.dumps({"of": OF, "cell": 2}) + "\n")
    assert opened(tmp_path).get(OF, fails) == 2


def test_of_something_else(tmp_path):
    opened(tmp_path)
    with pytest.raises(IdentityError, match=r"cells\.jsonl holds another study \(settings\.epochs was 5, now 3\)"):
        opened(tmp_path, settings={"epochs": 3})
    (tmp_path / "cells.jsonl").write_text("")
    with pytest.raises(IdentityError, match="nothing is in it"):
        opened(tmp_path)


@pytest.mark.parametrize("line", ["{damaged", "", "[]", "7", '{"of": {}}', '{"key": "{}", "cell": 1}', "[" * 10**5])
def test_damaged_lines(line, tmp_path):
    opened(tmp_path).get(OF, lambda: 1)
    path = tmp_path / "cells.jsonl"
    head, kept = path.read_text().splitlines()
    path.write_text("\n".join([head, line, kept, ""]))
    with pytest.raises(IdentityError, match=r"cells\.jsonl, line 2 is damaged: delete the line") as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)
    path.write_text("\n".join([line, kept, ""]))
    with pytest.raises(IdentityError):
        opened(tmp_path)


def test_the_example_of_its_docstring():
    test = doctest.DocTestParser().get_doctest(Cells.__doc__, {}, "Cells", None, None)
    assert not doctest.DocTestRunner().run(test).failed
