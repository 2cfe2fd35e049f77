"""Attacks the command: kills it, damages its files, fills its disk, signals it, starts it twice.

make soak                                      all of it, about 15 minutes on two cores
python tests/soak.py --only signals --count 5  one part, less of it

Every process is the real command, on a copy of the package, with a network so small that a whole run takes four seconds.
Afterwards the same command finishes the folder, which must then be that of an undisturbed run: the same digests of the three
networks, the same figures in report.json, the same rows in metrics.jsonl, and no other files. Instants and bits are drawn
from a fixed seed; what a process is doing at an instant is the machine's. It ends with a table; the exit code is 1 if
anything was not as it has to be.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import json
import logging
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
PRIVATE_MOUNTS = "DELETE_JAX_SOAK_PRIVATE_MOUNTS"
STAGES = {"teacher": 2, "retrained": 2, "unlearned": 3}  # with their epochs
SIZES = (4, 60, 140, 240, 340, 460, 560, 700)  # kB: full at config.json, in each stage, at the report
DELAYS = (0.0, 0.2, 0.5, 1.0, 1.5)  # s
ANSWERS = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("terminated", 143)}
SETTINGS = {"data.validation": 0.5, "train.epochs": 2, "unlearn.epochs": 3, "parallel": "jit"}


class Ended(NamedTuple):
    """A process of the command that ended."""

    code: int
    error: str

    def __str__(self) -> str:
        lines = self.error.splitlines()
        return f"code {self.code}, {len(lines)} lines on stderr: {' … '.join([*lines[:1], *lines[1:][-1:]]):.400}"


class Tally:
    """What came of the attempts of one part."""

    def __init__(self, title: str):
        self.title, self.seconds, self.skipped, self.failures = title, 0.0, "", []  # type: ignore[var-annotated]
        self.outcomes: collections.Counter[str] = collections.Counter()

    def check(self, holds: bool, failure: str) -> bool:
        if not holds and len(self.failures) < 20:  # one fault may fail thousands of attempts
            print(f"  FAILED: {failure}", flush=True)
        self.failures += [failure] * (not holds)
        return holds


class Soak:
    """The folders and processes of all parts."""

    def __init__(self, scratch: pathlib.Path):
        self.scratch, self.number = scratch, 0
        for name in ("delete_jax", "configs"):  # a copy: whoever edits the code meanwhile disturbs nothing
            shutil.copytree(ROOT / name, scratch / "package" / name, ignore=shutil.ignore_patterns("__pycache__"))
        sys.path.insert(0, str(scratch / "package"))
        dropped = ("XLA_FLAGS", "NPROC", "PYTHONDONTWRITEBYTECODE", "NO_COLOR", "TTY_COMPATIBLE", "FORCE_COLOR")
        self.environment = {key: value for key, value in os.environ.items() if key not in dropped} | {
            "PYTHONPATH": str(scratch / "package"),
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(scratch / "xla"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "DELETE_JAX_DATA_DIR": str(scratch / "data"),
            "TERM": "xterm",
        }
        for _ in range(2):  # the first prepares the data and compiles, the second is measured
            shutil.rmtree(scratch / "whole", ignore_errors=True)
            started = time.monotonic()
            assert (whole := self.run(scratch / "whole")).code == 0, whole
        self.usual = time.monotonic() - started
        self.expected = result(scratch / "whole")
        print(f"an undisturbed run takes {self.usual:.1f} s", flush=True)

    def new(self) -> pathlib.Path:
        """A folder for a run; its name is one that formatting, globbing and shells would read otherwise."""
        self.number += 1
        return self.scratch / f"run {self.number} [" / "i]*"

    def start(self, workdir: pathlib.Path, stdout: int = subprocess.PIPE) -> subprocess.Popen:
        argv = ["-m", "delete_jax.main", f"--config={ROOT}/examples/outside/my_network.py", f"--workdir={workdir}"]
        argv = [sys.executable, *argv, *(f"--config.{name}={value}" for name, value in SETTINGS.items())]
        return subprocess.Popen(argv, env=self.environment, text=True, stdout=stdout, stderr=subprocess.PIPE)

    def run(self, workdir: pathlib.Path) -> Ended:
        return finish(self.start(workdir))

    def must_end_equal(self, tally: Tally, workdir: pathlib.Path, after: str) -> None:
        """The same command finishes the folder, says nothing on stderr, and ends as the undisturbed run did."""
        ended = self.run(workdir)
        if not tally.check((ended.code, ended.error) == (0, ""), f"after {after}: {ended}"):
            return
        found = result(workdir)
        other = [name for name in found if found[name] != self.expected[name]]
        if tally.check(not other, f"after {after}: other {' and '.join(other)} in {workdir}"):
            shutil.rmtree(workdir)


def finish(process: subprocess.Popen) -> Ended:
    try:
        _, error = process.communicate(timeout=300)
        return Ended(process.returncode, error)
    except subprocess.TimeoutExpired:
        process.kill()
        return Ended(process.wait(), "it hung")


def result(workdir: pathlib.Path) -> dict[str, Any]:
    """Of a finished run, what depends neither on the clock nor on the folder, and which files there are."""
    record = json.loads((workdir / "report.json").read_text())
    for name in ("created", "command", "cost", "digest"):
        record.pop(name)
    for network in record["networks"].values():
        network.pop("source")
    files = [path.relative_to(workdir) for path in workdir.rglob("*") if not path.name.startswith("damaged-")]
    return {
        "figures": record,
        "rows": sorted((workdir / "metrics.jsonl").read_text().splitlines()),
        "files": sorted(str(path) for path in files if len(path.parts) <= 3),  # Orbax draws the names below
    }


def content(folder: pathlib.Path) -> dict[str, str]:
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() if f.is_file() else "" for f in folder.rglob("*")}


def flip(path: pathlib.Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def kills(soak: Soak, tally: Tally, count: int, rng: np.random.Generator) -> None:
    """Chains of up to five on one folder: at any instant, or while a checkpoint or the report is written."""
    while tally.outcomes.total() < count:
        workdir, chain = soak.new(), []
        for _ in range(5):
            kind = str(rng.choice(["any instant", "a checkpoint", "the report"], p=[0.5, 0.35, 0.15]))
            pattern = {"a checkpoint": "checkpoints/*/*.orbax-checkpoint-tmp", "the report": ".report.*.tmp"}.get(kind)
            nth, after = int(rng.integers(1, 4)), rng.uniform(0, 0.03)
            seen: set[pathlib.Path] = set()
            process, instant = soak.start(workdir), time.monotonic() + rng.uniform(0, soak.usual)
            while process.poll() is None and (len(seen) < nth if pattern else time.monotonic() < instant):
                seen |= set(workdir.glob(pattern)) if pattern else set()
                time.sleep(0.0005)
            time.sleep(after if pattern else 0)
            process.kill()
            ended = finish(process)
            if ended.code == 0 or tally.outcomes.total() == count:  # it was finished before
                break
            tally.outcomes[f"at {kind}"] += 1
            chain.append(kind)
            tally.check((ended.code, ended.error) == (-signal.SIGKILL, ""), f"killed at {chain}: {ended}")
        soak.must_end_equal(tally, workdir, f"kills at {chain}")


def metadata(soak: Soak, tally: Tally, count: int, rng: np.random.Generator) -> None:
    """Every bit of the JSON beside the arrays, one at a time, in this process."""
    reader = Reader(soak, tally)
    path = reader.newest / "meta" / "metadata"
    reader.read([(path, bit) for bit in rng.permutation(8 * path.stat().st_size)[:count]])


def arrays(soak: Soak, tally: Tally, count: int, rng: np.random.Generator) -> None:
    """Random bits of all other files of a checkpoint: first each file is as likely, then each bit."""
    reader = Reader(soak, tally)
    files = [path for path in sorted(reader.newest.rglob("*")) if path.is_file() and path.name != "metadata"]
    sizes = np.array([path.stat().st_size for path in files])
    chosen = *rng.choice(len(files), count // 2), *rng.choice(len(files), count - count // 2, p=sizes / sizes.sum())
    reader.read([(files[i], rng.integers(8 * sizes[i])) for i in chosen])


class Reader(logging.Handler):
    """Reads a stage's checkpoints as a run would, and gathers what is said meanwhile."""

    def __init__(self, soak: Soak, tally: Tally):
        super().__init__(logging.WARNING)
        from delete_jax import checkpoint

        self.module: Any = checkpoint
        self.folder, self.tally = soak.new(), tally
        self.lines: list[str] = []
        shutil.copytree(soak.scratch / "whole" / "checkpoints" / "unlearned", self.folder)
        self.newest, aside = self.folder / "3", self.folder / "aside"
        self.same = self.restore()
        self.newest.rename(aside)
        self.older = self.restore()
        aside.rename(self.newest)

    def restore(self) -> tuple[str, dict]:
        tree, meta = self.module.Checkpoints(self.folder).restore()
        return self.module.digest(tree), meta

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def read(self, bits: list[tuple[pathlib.Path, Any]]) -> None:
        logging.getLogger().handlers = [self]
        logging.captureWarnings(True)
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # as the command does
        sys.unraisablehook = lambda found: self.lines.append(repr(found.exc_value))
        # After a failed read it waits for half a second; here whatever comes late counts against the next.
        self.module.time = type("NoTime", (), {"sleep": staticmethod(lambda seconds: None)})
        for path, bit in bits:
            flip(path, int(bit))
            self.lines.clear()
            what = f"bit {bit} of {path.relative_to(self.newest)}"
            try:
                found = self.restore()
            except Exception as error:
                self.tally.check(False, f"{what}: {type(error).__name__}: {error}")
                continue
            finally:
                flip(path, int(bit))
            named = [line for line in self.lines if str(self.newest) in line]
            right = found == self.same if not named else found == self.older and len(named) == 1
            self.tally.outcomes[("named and skipped" if named else "harmless") if right else "wrong"] += 1
            self.tally.check(right, f"{what}: passed as epoch {found[1].get('epoch')}, said {self.lines}")
            self.tally.check(len(self.lines) == len(named), f"{what}: noise, {self.lines!s:.300}")


def command(soak: Soak, tally: Tally, count: int, rng: np.random.Generator) -> None:
    """Damage that the command finds: one stage's checkpoint in place of another's, or a flipped bit of the newest one."""
    places = [(stage, number) for stage, last in STAGES.items() for number in (last - 1, last)]
    copies = [(a, b) for a in places for b in places if a[0] != b[0]]
    for i, chosen in enumerate(rng.permutation(len(copies))[:count]):
        workdir, (source, target) = soak.new(), copies[chosen]
        shutil.copytree(soak.scratch / "whole", workdir, ignore=shutil.ignore_patterns("report.*"))
        stages, stage = workdir / "checkpoints", target[0]
        if i % 2:
            files = (stages / stage / str(STAGES[stage])).rglob("metadata" if i % 4 == 1 else "*")
            path = max(files, key=lambda path: path.stat().st_size if path.is_file() else 0)
            flip(path, bit := int(rng.integers(8 * path.stat().st_size)))
            what = f"bit {bit} of {path.relative_to(stages)}"
        else:
            for number in range(target[1], STAGES[stage] + 1):
                shutil.rmtree(stages / stage / str(number))
            shutil.copytree(stages / source[0] / str(source[1]), stages / stage / str(target[1]))
            what = f"{source} in place of {target}"
        before, ended = content(workdir), soak.run(workdir)
        lines = ended.error.splitlines()
        named = len(lines) == 1 and str(stages / stage) in lines[0]
        if ended.code == 2 and named:
            tally.outcomes["refused in one line"] += 1
            tally.check(content(workdir) == before, f"{what}: refused, and yet files changed")
            shutil.rmtree(stages / stage)  # as the line says
            soak.must_end_equal(tally, workdir, what)
        elif tally.check(ended.code == 0 and (named or not lines), f"{what}: {ended}"):
            tally.outcomes["skipped in one line" if lines else "harmless"] += 1
            soak.must_end_equal(tally, workdir, what)


def disk(soak: Soak, tally: Tally, count: int, rng: np.random.Generator) -> None:
    """A disk that becomes full, and is then given space: a tmpfs that only this process sees (`main`)."""
    if PRIVATE_MOUNTS not in os.environ:
        tally.skipped = "neither root nor a user namespace may mount a tmpfs here"
        return
    place = soak.scratch / "disk"
    place.mkdir()
    for size in SIZES[:count]:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", place], check=True)
        ended = soak.run(workdir := place / "run")
        saved = sorted(workdir.glob("checkpoints/*/[0-9]"), key=lambda path: path.stat().st_mtime)
        what = f"{size} kB, full after {'/'.join(saved[-1].parts[-2:]) if saved else 'nothing'}"
        right = re.fullmatch(rf"delete-jax: error: [^\n]*{re.escape(str(place))}[^\n]*\n", ended.error)
        if tally.check(ended.code == 2 and bool(right), f"{what}: {ended}"):
            tally.outcomes["one line with the path"] += 1
        subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
        soak.must_end_equal(tally, workdir, what)
        subprocess.run(["umount", place], check=True)


def signals(soak: Soak, tally: Tally, count: int, rng: np.random.Generator) -> None:
    """SIGTERM and SIGINT on a terminal, half of them in the first second, up to five in a chain on one folder."""
    tried = 0
    while tried < count:
        workdir, chain = soak.new(), []
        for _ in range(min(5, count - tried)):
            number = list(ANSWERS)[int(rng.integers(2))]
            instant = rng.uniform(0, 1 if rng.random() < 0.5 else soak.usual)
            controller, terminal = pty.openpty()
            process = soak.start(workdir, terminal)
            os.close(terminal)
            shown: list[bytes] = []
            screen = threading.Thread(target=watch, args=(controller, shown), daemon=True)
            screen.start()
            while process.poll() is None and not answers(process.pid):
                time.sleep(0.001)  # Python is starting, and nobody is there who could answer
            time.sleep(instant)
            process.send_signal(number)
            ended = finish(process)
            screen.join(10)
            text = b"".join(shown)
            if ended.code == 0:  # it was finished before
                break
            word, code = ANSWERS[number]
            chain.append(f"{number.name} after {instant:.2f} s")
            tried += 1
            right = (ended.code, ended.error) == (code, f"delete-jax: {word}; the same command resumes\n")
            right = tally.check(right, f"{chain[-1]}: {ended}")
            cursor = text.rfind(b"\x1b[?25l") <= text.rfind(b"\x1b[?25h")
            if tally.check(cursor, f"{chain[-1]}: the cursor stays hidden") and right:
                tally.outcomes[f"{number.name}: one line, code {code}"] += 1
        soak.must_end_equal(tally, workdir, ", ".join(chain))


def answers(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM, as Linux tells it."""
    caught = re.search(r"SigCgt:\s*(\w+)", pathlib.Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def watch(terminal: int, parts: list[bytes]) -> None:
    """Reads what comes to a terminal until its other end is closed."""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(terminal, 4096):
            parts.append(part)
    os.close(terminal)


def two(soak: Soak, tally: Tally, count: int, rng: np.random.Generator) -> None:
    """The same command twice at once, the second a little later: one runs, the other says who does."""
    for delay in DELAYS[:count]:
        workdir, what = soak.new(), f"two at once, the second after {delay} s"
        first = soak.start(workdir)
        time.sleep(delay)
        second = soak.start(workdir)
        ended = [(finish(process), process.pid) for process in (first, second)]
        (winner, pid), (loser, _) = sorted(ended)
        line = rf"delete-jax: error: process {pid} is running in {re.escape(str(workdir))}: [^\n]+\n"
        right = (winner.code, winner.error, loser.code) == (0, "", 2) and re.fullmatch(line, loser.error)
        if tally.check(bool(right), f"{what}: {winner}; {loser}"):
            tally.outcomes["one ran, one line"] += 1
        soak.must_end_equal(tally, workdir, what)


PARTS: dict[str, tuple[Callable[[Soak, Tally, int, np.random.Generator], None], int, str]] = {
    "kills": (kills, 100, "SIGKILL"),
    "metadata": (metadata, 10**9, "bits of a checkpoint's JSON"),
    "arrays": (arrays, 500, "bits of its other files"),
    "command": (command, 16, "damage that the command finds"),
    "disk": (disk, len(SIZES), "full disks"),
    "signals": (signals, 20, "SIGTERM and SIGINT"),
    "two": (two, len(DELAYS), "two at once"),
}  # name -> (function, attempts, title)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; may be given again")
    parser.add_argument("--count", type=int, help="attempts in each part")
    options = parser.parse_args()
    if PRIVATE_MOUNTS not in os.environ:  # for `disk`: begin again where mounts are this process' own
        own = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
        with tempfile.TemporaryDirectory() as place:
            probe = [*own, "mount", "-t", "tmpfs", "tmpfs", place]
            if shutil.which("unshare") and not subprocess.run(probe, capture_output=True).returncode:
                os.execvpe(own[0], [*own, sys.executable, *sys.argv], os.environ | {PRIVATE_MOUNTS: "yes"})
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where it was ignored, the processes would ignore it, too
    begun, scratch = time.monotonic(), pathlib.Path(tempfile.mkdtemp(prefix="delete-jax-soak-"))
    soak, tallies = Soak(scratch), []
    for name in options.only or PARTS:
        function, usual, title = PARTS[name]
        print(f"{title} …", flush=True)
        tallies.append(Tally(title))
        started = time.monotonic()
        function(soak, tallies[-1], options.count or usual, np.random.default_rng([*name.encode()]))
        tallies[-1].seconds = time.monotonic() - started
    print(f"\n{'':30}{'right':>6}{'failed':>7}{'seconds':>8}")
    for tally in tallies:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in tally.outcomes.most_common())
        line = f"{tally.title:30}{tally.outcomes.total():6}{len(tally.failures):7}{tally.seconds:8.0f}"
        print(f"{line}  {tally.skipped or outcomes}")
    failed = any(tally.failures for tally in tallies)
    print(f"{(time.monotonic() - begun) / 60:.1f} minutes" + f"; what failed is in {scratch}" * failed)
    if not failed:
        shutil.rmtree(scratch)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
