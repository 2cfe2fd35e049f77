"""The helper for tests that start processes: nothing outlives its limit, and each process imports this checkout."""

import os
import re
import subprocess
import sys
import time

import pytest

from tests import processes
from tests.processes import ROOT, environment, finish, printed_by, run_code, start, stop_all, wait_until

# Prints the number of a process that it has started, which keeps the pipes open.
PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
    "print(child.pid, flush=True); time.sleep(float(sys.argv[1]))"
)


def is_running(pid: int) -> bool:
    """Whether a process does more than wait for its parent to ask how it ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def assert_soon_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def child_of():
    """Starts a process that starts another one -> the process, the number of the other."""
    if not os.path.exists("/proc/self/stat"):
        pytest.skip("finds processes in /proc")

    def begin(seconds: float) -> tuple[subprocess.Popen, int]:
        process = start([sys.executable, "-c", PARENT, seconds])
        child = int(process.stdout.readline())
        assert is_running(child)
        return process, child

    return begin


@pytest.mark.parametrize("seconds", [1000, 0])
def test_the_whole_group_is_killed_at_the_limit(child_of, monkeypatch, seconds):
    """Also where the process itself has ended, and one that it started keeps its pipes."""
    monkeypatch.setattr(processes, "LIMIT", 0.5)
    process, child = child_of(seconds)
    with pytest.raises(subprocess.TimeoutExpired):
        finish(process)
    assert process.returncode == (-9 if seconds else 0)
    assert process.stdout.closed
    assert_soon_gone(child)


def test_what_a_test_leaves_is_killed(child_of):
    process, child = child_of(1000)
    stop_all()
    assert process.returncode == -9
    assert_soon_gone(child)


def test_no_test_starts_processes_otherwise():
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if path.name != "test_processes.py"]
    assert len(tests) > 50
    for path in tests:
        found = re.search(
            r"subprocess\.(run|call|check_\w+|getoutput|Popen\()|os\.(system|popen)|multiprocessing", path.read_text()
        )
        assert found is None, f"{path.name} uses {found[0]}: use tests/processes.py"


def test_outputs_and_codes():
    code = "import sys; print(sys.argv[1]); print('no', file=sys.stderr); sys.exit(int(sys.argv[1]))"
    ended = finish(*(start([sys.executable, "-c", code, i]) for i in (3, 0)))
    assert [(process.returncode, process.stdout, process.stderr) for process in ended] == [
        (3, "3\n", "no\n"),
        (0, "0\n", "no\n"),
    ]
    with pytest.raises(AssertionError, match="no"):
        printed_by(code, 0)


def test_ended_too_early():
    with pytest.raises(AssertionError, match=r"ended too early: .*bye"):
        wait_until(lambda: False, start([sys.executable, "-c", "print('bye')"]))


def test_the_environment(tmp_path):
    """From any folder, this checkout's package; a variable can be taken away."""
    code = "import os, delete_jax; print(delete_jax.__file__, os.environ.get('XLA_FLAGS'))"
    ended = run_code(code, cwd=tmp_path, env=environment(XLA_FLAGS=None))
    assert ended.stdout == f"{ROOT / 'delete_jax' / '__init__.py'} None\n"
    assert "device_count=1 " in printed_by("import os; print(os.environ['XLA_FLAGS'])")
