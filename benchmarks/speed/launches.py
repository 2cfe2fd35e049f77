"""What an NVIDIA H200 would be told to launch for each form of the step, counted on a machine without a GPU.

    python benchmarks/speed/launches.py --out=runs/launches
    python benchmarks/speed/launches.py --out=runs/launches --only=graphs
    python benchmarks/speed/launches.py --out=runs/launches --toy            # the same with a small network

XLA compiles for a GPU that it is only told of (`h200.txtpb`) and says what the program will do: its thunks, each of which is a kernel, a
library's call or a copy. Those in a CUDA graph are launched by one call of the host, the others by one each. The forms are those of
`forms.py`. No kernel can be chosen by timing it here: of forms that differ in that only, the first counts. The kinds are those of
`kernels.py`. An array of which a kernel reads or writes a part counts whole. With a GPU at hand, `kernels.py` says what the launches take.

Needed is JAX's plugin for CUDA, in an environment of its own, since JAX would use it in all programs: pip install "jax[cuda12]".
`launches.md` and `launches.json` in OUT have each form as soon as it is done.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import string
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from forms import FORMS, Form, make_call, make_module, make_setting
from hlo import KINDS, Sorter, count_bytes, kernels_of_a_step, of_a_step
from hlo import read as read_program
from timing import Growing, first_line, make_out_parser, run_script

from delete_jax.compiling import DETERMINISTIC
from delete_jax.pooling import add_in_order_on_gpus

H200 = Path(__file__).with_name("h200.txtpb")
PACKAGES = {"plugin": "jax-cuda12-plugin", "cuda": "nvidia-cuda-runtime-cu12", "cudnn": "nvidia-cudnn-cu12"}
GRAPH, LOOP = "kCommandBuffer", "kWhile"
WAITING = {"kWaitForStreams", "kRecvDone", "kSendDone", "kHostExecuteDone"}  # they launch nothing


class Thunk(NamedTuple):
    """What the runtime does. kind: XLA's, or "condition" or "body" of a loop. parts: those of a graph, of a loop or of a sequence."""

    kind: str
    parts: list[Thunk]


class Launches(NamedTuple):
    """Of one step. thunks: with work; in_graphs: those of them that lie in a CUDA graph; by_host: what the host launches."""

    thunks: int
    in_graphs: int
    by_host: int


def main() -> int:
    parser = make_out_parser(__doc__)
    parser.add_argument("--only", default="", help="forms whose names contain this")
    parser.add_argument("--toy", action="store_true", help="small networks and images")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    versions = installed()
    jax.config.update("jax_platforms", "cpu")  # also where the plugin finds a GPU: nothing runs on it
    device = absent(versions)
    where = f"{device.device_kind}, which is not here; jax {jax.__version__}, CUDA {versions['cuda']}, cuDNN {versions['cudnn']}"
    counts = ["thunks a step", "in graphs", "launches by the host"]
    below = "Thunks a step, in all and by kind. Seconds are this machine's. Compiled for"
    heads = ["form", *counts, *KINDS, "MB in and out", "tracing, s", "compiling, s"]
    table = Growing(options.out, "launches", heads, below)
    for form in (form for form in distinct(FORMS) if options.only in form.says):
        try:
            found = counted(form.toy() if options.toy else form, device)
        except Exception as error:  # XLA's are of several classes; what comes after this form is counted all the same
            table.add([form.says, f"failed: {first_line(error)}"], where, form=form.says, error=first_line(error))
            continue
        kinds = [str(found["kinds"].get(kind, "")) for kind in KINDS]
        numbers = [str(found[name]) for name in Launches._fields]
        more = [f"{found['bytes'] / 1e6:,.0f}", f"{found['trace_s']:.1f}", f"{found['compile_s']:.1f}"]
        table.add([form.says, *numbers, *kinds, *more], where, form=form.says, **found)


def distinct(forms: Iterable[Form]) -> list[Form]:
    """The forms without those that differ from one before them only in that kernels are chosen by timing."""
    first: dict[str, Form] = {}
    for form in forms:
        first.setdefault(repr(form._replace(says="", timed=False)), form)
    return list(first.values())


def installed() -> dict[str, str]:
    """The versions of what XLA needs to compile for a GPU.

    Raises:
      ValueError: something is missing.
    """
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise ValueError(
                f'{package} is not installed, without which XLA cannot compile for a GPU: pip install "jax[cuda12]=={jax.__version__}", '
                "in an environment of its own"
            ) from None
    return found


def absent(versions: dict[str, str]) -> jax.Device:
    """The device that `h200.txtpb` describes, with the CUDA and cuDNN of this environment."""
    from jax.experimental import topologies

    numbers: dict[str, str] = {}
    for name in ("cuda", "cudnn"):
        numbers |= zip((f"{name}_major", f"{name}_minor", f"{name}_patch"), versions[name].split(".")[:3], strict=True)
    described = string.Template(H200.read_text()).substitute(numbers)
    (device,) = topologies.get_topology_desc(platform="cuda", target_config=described, topology="1x1x1").devices
    return device


def counted(form: Form, device: jax.Device) -> dict[str, Any]:
    """Compiles a form for a device, and counts what a step of it is."""
    call = make_call(form, make_setting(form))
    to = jax.sharding.SingleDeviceSharding(device)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=to), (call.state, *call.arguments[0])
    )
    with tempfile.TemporaryDirectory() as folder:
        dumped = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True, "xla_gpu_autotune_level": 0}
        settings = {} if form.timed else {DETERMINISTIC: True}
        add_in_order_on_gpus()  # as the library does where it runs on a GPU
        started = time.perf_counter()
        lowered = jax.jit(call.function, donate_argnums=0, compiler_options=settings | form.xla | dumped).lower(*shapes)
        traced = time.perf_counter()
        text = lowered.compile().as_text() or ""
        took = {"trace_s": traced - started, "compile_s": time.perf_counter() - traced}
        launches = count_launches(read(thunk_file(Path(folder)).read_text()))
    program, sorter = read_program(text), Sorter(text, type(make_module(form)).__name__)
    kernels = kernels_of_a_step(program)
    kinds = Counter(sorter.kind(one.name) for one in kernels)
    return launches._asdict() | {"kinds": kinds, "bytes": count_bytes(program, kernels)} | took


def thunk_file(folder: Path) -> Path:
    """What XLA has written of a program's thunks: as they are run, with the graphs where it has made any.

    Raises:
      ValueError: it has written nothing of them.
    """
    for last in ("thunk_sequence_after_thunk_passes", "thunk_sequence"):
        for path in folder.glob(f"*.{last}.txt"):
            return path
    raise ValueError("XLA has written no list of thunks: this jaxlib has another name for it than launches.py knows")


def read(text: str) -> list[Thunk]:
    """Reads a list of thunks: a line each, what lies within one deeper than it, but for the words `condition:` and `body:` of a loop, whose
    depth says nothing."""
    root = Thunk("", [])
    above = [(-1, root)]
    loops: list[tuple[int, Thunk]] = []
    for line in text.splitlines():
        depth, word = len(line) - len(line.lstrip()), line.strip()
        if word in ("condition:", "body:"):
            loop = above[-1] if word == "condition:" else loops.pop()
            if word == "condition:":
                loops.append(loop)
            while above[-1] is not loop:
                above.pop()
            part = Thunk(word[:-1], [])
            loop[1].parts.append(part)
            above.append((loop[0] + 1, part))
        elif found := re.match(r"\s*\d+: (k\w+)", line):
            thunk = Thunk(found[1], [])
            while above[-1][0] >= depth:
                above.pop()
            above[-1][1].parts.append(thunk)
            above.append((depth, thunk))
    return root.parts


def count_launches(thunks: list[Thunk]) -> Launches:
    """Counts those of one step: of the largest loop's body, where most of the program is in that, else of all."""
    bodies = [leaves(part.parts) for part in walk(thunks) if part.kind == "body"]
    step = of_a_step(leaves(thunks), bodies)
    in_graphs = [graph for _, graph in step if graph is not None]
    return Launches(len(step), len(in_graphs), len(step) - len(in_graphs) + len(set(in_graphs)))


def walk(thunks: Iterable[Thunk]) -> Iterator[Thunk]:
    for thunk in thunks:
        yield thunk
        yield from walk(thunk.parts)


def leaves(thunks: Iterable[Thunk], graph: int | None = None) -> list[tuple[str, int | None]]:
    """What does the work: kinds, and of which graph each is, the outermost, by any number of its own; None outside of graphs."""
    found: list[tuple[str, int | None]] = []
    for thunk in thunks:
        inside = id(thunk) if graph is None and thunk.kind == GRAPH else graph
        if thunk.parts:
            found += leaves(thunk.parts, inside)
        elif thunk.kind not in WAITING:
            found.append((thunk.kind, inside))
    return found


if __name__ == "__main__":
    sys.exit(main())
