"""Rows of other packages: found by their entry points, imported when they are asked for, named where they are broken."""

import importlib
import sys

import pytest

import delete_jax as dj
from delete_jax import data, metrics, models, tasks
from delete_jax import main as command
from delete_jax.plugins import Table

MODULE = '''
from delete_jax.data import KINDS, Kind, Split
from delete_jax.methods import METHODS, delete
from delete_jax.metrics import MEASURES
from delete_jax.models import NETWORKS
from delete_jax.tasks import TASKS

assert "delete" in METHODS and list(TASKS)  # a package may look at the tables while it is imported

def warm(temperature: float = 3.0):
    """Deletes at another temperature."""
    return delete(temperature=temperature)._replace(name="warm")

def read(name, where):
    raise ValueError(f"{name} is not there")

kind = Kind(read, (), prefix=True)
network = NETWORKS["resnet_tiny"]
task = TASKS["classification"]._replace(name="mine")
measure = MEASURES["acc_ft"]._replace(name="left_over", text="What is left over.")
'''
ENTRIES = {
    "methods": [
        "warm = plugged:warm",
        "absent = plugged_nowhere:warm",
        "delete = plugged:warm",
        "number = plugged:no_such",
    ],
    "datasets": ["far = plugged:kind", "near = plugged:task"],
    "networks": ["other = plugged:network"],
    "tasks": ["mine = plugged:task", "yours = plugged:task"],
    "measures": ["left_over = plugged:measure", "leaving = plugged_exit:measure"],
}
TABLES = {
    "methods": dj.methods.METHODS, "datasets": data.KINDS, "networks": models.NETWORKS, "tasks": tasks.TASKS, "measures": metrics.MEASURES,
}  # fmt: skip


@pytest.fixture
def plugged(tmp_path, monkeypatch, tables):
    """A package that is installed beside this one, whose rows are not looked for yet."""
    (tmp_path / "plugged.py").write_text(MODULE)
    (tmp_path / "plugged_exit.py").write_text("raise SystemExit('line one\\nline two')\n")
    info = tmp_path / "plugged_rows-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-rows\nVersion: 1.5\n")
    groups = [f"[delete_jax.{group}]\n" + "\n".join(entries) for group, entries in ENTRIES.items()]
    (info / "entry_points.txt").write_text("\n\n".join(groups) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for table in TABLES.values():
        for name, value in (("_is_loaded", False), ("_sources", {}), ("_failed", {})):
            monkeypatch.setattr(table, name, value)
    yield
    for name in ("plugged", "plugged_exit"):
        sys.modules.pop(name, None)


def test_rows_of_a_package_are_imported_when_they_are_asked_for(plugged):
    assert "delete" in dj.methods.METHODS
    assert dj.methods.create("delete").name == "delete"
    assert "plugged" not in sys.modules  # nobody has asked for what this package has not
    assert dj.methods.create("warm").hyperparameters["temperature"] == 3.0
    assert "plugged" in sys.modules
    assert dj.methods.METHODS.sources == {"warm": "plugged-rows 1.5"}
    assert dj.methods.create("delete").hyperparameters["temperature"] == 1.0  # no package replaces a row
    first, *_, last = dj.methods.METHODS
    assert (first, last) == ("delete", "warm")
    assert "warm" not in dj.methods.METHODS.own
    assert metrics.MEASURES["left_over"].text == "What is left over."
    assert models.NETWORKS["other"] is models.NETWORKS["resnet_tiny"]
    assert tasks.TASKS["mine"].name == "mine"
    with pytest.raises(ValueError, match="here is not there"):
        data.load("far:here")
    assert "far:PATH" in data.loading.names()


@pytest.mark.parametrize(
    ("table", "name", "reason"),
    [
        ("methods", "absent", "ModuleNotFoundError: No module named 'plugged_nowhere'"),
        ("methods", "number", "AttributeError: module 'plugged' has no attribute 'no_such'"),
        ("datasets", "near:", "TypeError: plugged:task is no row of delete_jax.datasets"),
        ("tasks", "yours", "ValueError: plugged:task is called 'mine'"),
        ("measures", "leaving", "SystemExit: line one line two"),
    ],
)
def test_a_broken_row_is_one_line_that_names_the_package(plugged, table, name, reason):
    for ask in (TABLES[table].__getitem__, TABLES[table].__contains__):
        with pytest.raises(
            ValueError, match=f"^'{name.rstrip(':')}' of the package plugged-rows 1.5 cannot be used"
        ) as caught:
            ask(name)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
    assert name not in list(TABLES[table])  # which harms nobody who asks for others
    with pytest.raises(KeyError):
        TABLES[table]["no such row"]


def test_the_command_lists_them_with_where_they_come_from(plugged, capsys):
    for table, said in {
        "methods": (
            "warm: Deletes at another temperature.",
            "'delete' of the package plugged-rows 1.5 cannot be used (ValueError: ",
        ),
        "datasets": ("far:PATH", "far: is from the package plugged-rows 1.5", "'near' of the package"),
        "networks": ("other (a class per image)", "from the package plugged-rows 1.5"),
        "tasks": ("mine, Classification:",),
        "measures": ("left_over: ", "'leaving' of the package plugged-rows 1.5 cannot be used"),
    }.items():
        assert command.main(["delete-jax", f"--list={table}"]) == 0
        out = capsys.readouterr().out
        assert [part for part in said if part not in out] == []
    assert command.main(["delete-jax", "--config=digits", "--config.unlearn.method=absent", "--workdir=nowhere"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "delete-jax: error: 'absent' of the package plugged-rows 1.5 cannot be used (ModuleNotFoundError"
    )
    assert error.count("\n") == 1


def test_a_table_is_a_dict_to_those_who_add_rows():
    table = Table("nothing", {"b": 1, "a": 2}, lambda row: True)
    table["c"], table["a"] = 3, 4
    assert (list(table.items()), len(table), table.own) == ([("b", 1), ("a", 4), ("c", 3)], 3, {"b": 1, "a": 2})
    del table["b"]
    assert dict(table) == {"a": 4, "c": 3}
    assert str(table) == "Table('delete_jax.nothing': a, c)"
