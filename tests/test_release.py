"""What a release says of itself agrees in every file: the version, the Pythons that are tested, the files that it needs."""

import re
import tomllib

import pytest
import yaml

import delete_jax as dj
from delete_jax.models.torch_files import INDEX, SUFFIXES
from tests.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = ROOT / ".github" / "workflows"


def workflow(name: str) -> dict:
    return yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())["jobs"]


def test_version():
    """The newest heading of the changelog with a number is this version's; what comes after it is unreleased."""
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[:2] == ["Unreleased", dj.__version__]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == dj.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert "2503.23751" in citation["preferred-citation"]["url"]


def test_each_python_that_is_claimed_is_tested():
    claimed = [text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"] if "Python :: 3." in text]
    assert PROJECT["project"]["requires-python"] == f">={claimed[0]}"
    for job in (workflow("tests")["tests"], workflow("release")["check"]):
        assert job["strategy"]["matrix"]["python-version"] == claimed


def test_the_versions_of_jax_that_the_readme_names():
    (needed,) = (text for text in PROJECT["project"]["dependencies"] if re.match(r"jax\b", text))
    first, beyond = re.fullmatch(r"jax>=0\.(\d+),<0\.(\d+)", needed).groups()
    said = f"Python {PROJECT['project']['requires-python'].removeprefix('>=')} or newer, JAX 0.{first} to 0.{int(beyond) - 1}\n"
    assert said in (ROOT / "README.md").read_text()
    assert said.replace(", JAX", " and JAX").replace("\n", ".") in (ROOT / "docs" / "faq.md").read_text()


def test_a_release_is_checked_before_it_is_published():
    """By a tag alone, which is the version; with no secret; and what is installed is the wheel, away from the checkout."""
    jobs = workflow("release")
    assert (jobs["check"]["needs"], jobs["publish"]["needs"]) == ("build", "check")
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    text = (WORKFLOWS / "release.yml").read_text()
    assert re.search(r'^  push:\n    tags: \["v\*"\]\n', text, re.MULTILINE)
    assert "secrets" not in text
    assert not any("checkout" in step.get("uses", "") for step in jobs["check"]["steps"])
    version = re.search(r"^__version__ = .*$", (ROOT / "delete_jax" / "__init__.py").read_text(), re.MULTILINE)[0]
    (tag,) = (step["run"] for step in jobs["build"]["steps"] if step.get("name") == "the tag is the version")
    asked = (
        re.search(r'grep -qx "(.*)" delete_jax', tag)[1]
        .replace("\\", "")
        .replace("${GITHUB_REF_NAME#v}", dj.__version__)
    )
    assert asked == version


def test_one_job_takes_the_newest_versions_that_are_allowed():
    steps = [step.get("run", "") for step in workflow("tests")["newest"]["steps"]]
    assert any("pip install --upgrade" in run for run in steps)
    assert not any("constraints" in run or run.startswith("make") for run in steps)


@pytest.mark.parametrize("name", ["CITATION.cff", "SECURITY.md", "CHANGELOG.md", "LICENSE"])
def test_the_source_distribution_has_it(name):
    assert (ROOT / name).exists()
    assert name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]


def test_the_page_on_security_names_every_kind_of_file_that_is_read():
    page = (ROOT / "SECURITY.md").read_text()
    assert {".safetensors", ".pth", ".ckpt"} <= set(SUFFIXES)
    for suffix in {*SUFFIXES} - {INDEX}:
        assert f"`{suffix}`" in page, suffix
