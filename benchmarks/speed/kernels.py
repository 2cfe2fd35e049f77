"""Where the time of a step goes: the kernels of a call of several steps by kind, and the gaps between them, as JAX's profiler sees them.

    python benchmarks/speed/kernels.py --out=runs/kernels                    # on a machine with a GPU or TPU
    python benchmarks/speed/kernels.py --out=runs/kernels --only augmented
    python benchmarks/speed/kernels.py --out=runs/kernels --toy              # the same at a size for a CPU

The forms are those of `forms.py`. A kernel is sorted by what XLA's program says of it (`hlo.py`). Gaps are the time in which no kernel
runs, between the first and the last of a call. `kernels.md` and `kernels.json` in OUT have each form as soon as it is done; the record
names the longest kernels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from heapq import nlargest
from pathlib import Path
from typing import Any, NamedTuple

import jax
from forms import FORMS, LIBRARY, Form, make_module, make_program, make_setting
from hlo import KINDS, NO_KERNELS, Sorter
from timing import Growing, first_line, make_out_parser, run_script

PROFILED = ("answers known", "augmented", "augmented, kernels chosen by timing", "ViT-S/16 at 224")
LONGEST = 30


class Kernel(NamedTuple):
    """A kernel that ran. instruction: of XLA's program, "" if unknown. Times are in nanoseconds."""

    name: str
    instruction: str
    start: float
    duration: float


def main() -> int:
    parser = make_out_parser(__doc__)
    known = [form.says for form in FORMS if form.loop != LIBRARY]
    parser.add_argument("--only", choices=known, nargs="+", default=PROFILED, metavar="FORM")
    parser.add_argument("--toy", action="store_true", help="small networks and images, for a CPU")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    below = "Milliseconds a step, and kernels a step in parentheses; one call of several steps."
    table = Growing(options.out, "kernels", ["form", *KINDS, "gaps", "all"], below)
    for form in FORMS:
        if form.says not in options.only:
            continue
        try:
            found = profiled(form.toy() if options.toy else form)
        except Exception as error:  # XLA's are of several classes; what comes after this form is measured all the same
            table.add([form.says, f"failed: {first_line(error)}"], form=form.says, error=first_line(error))
            continue
        kinds = [found["kinds"].get(kind) for kind in KINDS]
        shown = ["" if kind is None else f"{kind['ms']:.3f} ({kind['kernels']:.0f})" for kind in kinds]
        whole = f"{found['ms']:.3f} ({found['kernels']:.0f})"
        table.add([form.says, *shown, f"{found['gaps_ms']:.3f}", whole], form=form.says, **found)


def profiled(form: Form) -> dict[str, Any]:
    """Milliseconds and kernels of a step, in all and by kind; the clock runs from the first kernel of a call to the end of its last."""
    program = make_program(form, make_setting(form))
    program.call()
    with tempfile.TemporaryDirectory() as folder:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        with jax.profiler.trace(folder, profiler_options=options):
            program.call()
        (path,) = Path(folder).glob("**/*.xplane.pb")
        kernels = list(read(path))
    if not kernels:
        raise ValueError("the profiler has seen no kernel")
    sorter = Sorter(program.text, type(make_module(form)).__name__)
    times, longest, numbers = defaultdict[str, float](float), defaultdict[str, float](float), Counter[str]()
    sorts: dict[str, str] = {}
    for kernel in kernels:
        kind = sorts[kernel.name] = sorter.kind(kernel.name, kernel.instruction)
        times[kind] += kernel.duration
        numbers[kind] += 1
        longest[kernel.name] += kernel.duration
    clock = max(kernel.start + kernel.duration for kernel in kernels) - min(kernel.start for kernel in kernels)
    a_step = 1e-6 / form.steps
    return {
        "ms": clock * a_step,
        "gaps_ms": (clock - busy(kernels)) * a_step,
        "kernels": len(kernels) / form.steps,
        "kinds": {kind: {"ms": ns * a_step, "kernels": numbers[kind] / form.steps} for kind, ns in times.items()},
        "longest": [
            [name[:150], sorts[name], ns * a_step]
            for name, ns in nlargest(LONGEST, longest.items(), key=lambda item: item[1])
        ],
    }


def read(path: Path) -> Iterator[Kernel]:
    """The kernels of a trace: on an accelerator what its streams or cores ran, on a CPU what its threads ran of XLA's program."""
    planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    lines = [line for plane in planes if plane.name.startswith("/device:") for line in plane.lines]
    ran = [line for line in lines if (line.name or "").startswith("Stream")] or [
        line for line in lines if line.name == "XLA Ops"
    ]
    for line in ran or [line for plane in planes for line in plane.lines]:
        for event in line.events:
            instruction = str(dict(event.stats).get("hlo_op", ""))
            if (ran or instruction) and event.name.partition(".")[0] not in NO_KERNELS:
                yield Kernel(event.name, instruction, event.start_ns, event.duration_ns)


def busy(kernels: Iterable[Kernel]) -> float:
    """Nanoseconds in which at least one of them runs."""
    total, until = 0.0, 0.0
    for kernel in sorted(kernels, key=lambda kernel: kernel.start):
        end = kernel.start + kernel.duration
        total += max(end - max(kernel.start, until), 0)
        until = max(until, end)
    return total


if __name__ == "__main__":
    sys.exit(main())
