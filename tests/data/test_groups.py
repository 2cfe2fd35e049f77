"""Names for several classes at once."""

import types

import pytest

from delete_jax import tasks
from delete_jax.config import validate
from delete_jax.data.groups import SUPERCLASSES, ungrouped
from delete_jax.run import arguments, stages
from tests import tiny

DIGITS = types.SimpleNamespace(name="digits", class_names=tuple("0123456789"))


def test_superclasses_have_each_class_once():
    members = [name for names in SUPERCLASSES["cifar100"].values() for name in names]
    assert {len(names) for names in SUPERCLASSES["cifar100"].values()} == {5}
    assert len(SUPERCLASSES["cifar100"]) == 20
    assert len({*members}) == 100
    assert not {*members} & {*SUPERCLASSES["cifar100"]}
    cifar = types.SimpleNamespace(name="cifar100", class_names=tuple(sorted(members)))
    assert ungrouped(("flowers", "bee", 7), cifar, {}) == ("orchid", "poppy", "rose", "sunflower", "tulip", "bee", 7)
    assert ungrouped(("pets",), cifar, {"pets": ["hamster", 8]}) == ("hamster", 8)
    with pytest.raises(ValueError, match=r"'flower' is neither a class nor a group .did you mean flowers"):
        ungrouped(("flower",), cifar, {})


def test_groups_of_a_config():
    assert ungrouped(("even", "3"), DIGITS, {"even": [0, 2, 4, 6, 8]}) == (0, 2, 4, 6, 8, "3")
    assert ungrouped(("anything",), DIGITS, {}) == (
        "anything",
    )  # which is said to be unknown where classes are checked
    with pytest.raises(ValueError, match="a group is called '3', and so is a class"):
        ungrouped((1,), DIGITS, {"3": [0]})


def test_groups_in_the_command(monkeypatch, tmp_path):
    tiny.small_runs(monkeypatch)  # classes a to d
    groups = [
        "",
        "--config=digits",
        "--config.unlearn.groups={'ends': ['a', 3], 'inner': ['b', 'c']}",
        f"--workdir={tmp_path}",
    ]
    config, _ = arguments.parse([*groups, "--config.unlearn.forget=ends"])
    validate(config)
    assert tasks.load(config).forget == (0, 3)
    run, _ = stages.prepared(config)
    assert run.data.forget == (0, 3)
    with pytest.raises(ValueError, match="'end' is neither a class nor a group"):
        stages.prepared(arguments.parse([*groups, "--config.unlearn.forget=end"])[0])
    config, _ = arguments.parse(["", "--config=backdoor", *groups[2:], "--config.unlearn.forget=ends"])
    validate(config)
    with pytest.raises(ValueError, match=r"config\.unlearn\.forget is .*: it must be one class"):
        tasks.of_settings(config.task).trainings(config, tasks.load(config))
