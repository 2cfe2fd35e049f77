"""What a compiled program is made of, read from its text: how many kernels it starts, of which kind each is, and what they read and write."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

# What starts no kernel by itself: names for arrays, and what calls another computation.
NO_KERNELS = {
    "after-all", "bitcast", "call", "conditional", "constant", "get-tuple-element", "parameter", "partition-id", "replica-id", "tuple",
    "while",
}  # fmt: skip
FORWARD, WEIGHTS, INPUTS = (
    f"convolutions, {what}" for what in ("forward", "gradients of weights", "gradients of inputs")
)
PRODUCTS, REDUCTIONS, CASTS, COPIES = "matrix products", "reductions", "casts", "copies"
LAYERS, REST = "elementwise, of layers", "updates and the rest"
KINDS = (FORWARD, WEIGHTS, INPUTS, PRODUCTS, REDUCTIONS, LAYERS, CASTS, COPIES, REST)

# Words in what cuDNN and XLA call a kernel or a library's function.
WORDS = {
    "backwardfilter": WEIGHTS, "wgrad": WEIGHTS, "backwardinput": INPUTS, "dgrad": INPUTS, "conv": FORWARD, "fprop": FORWARD,
    "gemm": PRODUCTS, "matmul": PRODUCTS, "nvjet": PRODUCTS, "cutlass": PRODUCTS, "reduce": REDUCTIONS, "memcpy": COPIES,
    "memset": COPIES, "copy": COPIES,
}  # fmt: skip


T = TypeVar("T")


class Instruction(NamedTuple):
    """A line of a computation. `operands`: names of instructions; `calls`: the computations that it runs; `bytes`: of what it gives."""

    name: str
    opcode: str
    line: str
    operands: tuple[str, ...]
    calls: tuple[str, ...]
    bytes: int


class Program(NamedTuple):
    """The computations of a compiled program, by name."""

    computations: Mapping[str, tuple[Instruction, ...]]
    entry: str


def read(text: str) -> Program:
    """Reads `compiled.as_text()`."""
    computations: dict[str, list[Instruction]] = {}
    entry, name = "", ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = head[2]
            computations[name] = []
            entry = name if head[1] else entry
        elif (found := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)) and (
            opcode := re.search(r"(?<= )([a-z][\w\-]*)\(", line[found.end() - 1 :])
        ):
            calls = re.findall(r"(?:calls|to_apply|body|(?:true|false)_computation)=%?([\w.\-]+)", line)
            for several in re.findall(r"branch_computations=\{([^}]*)\}", line):
                calls += re.findall(r"[\w.\-]+", several)
            given, rest = line[found.end() : found.end() - 1 + opcode.start()], line[found.end() - 1 + opcode.end() :]
            operands = tuple(re.findall(r"%([\w.\-]+)", rest.partition(")")[0]))
            one = Instruction(found[1], opcode[1], line, operands, tuple(calls), _bytes(given))
            computations[name].append(one)
    return Program({name: tuple(found) for name, found in computations.items()}, entry)


def _bytes(type_: str) -> int:
    """Of all arrays of a type, as in `(bf16[2,3]{1,0}, f32[])`; a byte for an element of less."""
    arrays = re.findall(r"\b([a-z]+)(\d*)[a-z0-9]*\[([\d,]*)\]", type_)
    return sum(
        max(int(bits or 8) // 8, 1) * math.prod(int(size) for size in sizes.split(",") if size)
        for kind, bits, sizes in arrays
        if kind != "token"
    )


def _started(program: Program, name: str) -> Iterator[Instruction]:
    """The instructions of a computation and of those that it calls or repeats, each once; not what is inside a kernel."""
    for one in program.computations.get(name, ()):
        yield one
        if one.opcode in NO_KERNELS:
            for called in one.calls:
                yield from _started(program, called)


def kernels_of_a_step(program: Program) -> list[Instruction]:
    """The kernels that one step starts: those of the loop, where most are in one, else all. A library's call is one."""
    everything = list(_started(program, program.entry))
    bodies = [list(_started(program, one.calls[0])) for one in everything if one.opcode == "while" and one.calls]
    whole, *loops = ([one for one in found if one.opcode not in NO_KERNELS] for found in (everything, *bodies))
    return of_a_step(whole, loops)


def of_a_step(whole: list[T], loops: Iterable[list[T]]) -> list[T]:
    """What one step is of a program: its largest loop, where most of the whole is in that."""
    most = max(loops, key=len, default=[])
    return most if 2 * len(most) > len(whole) else whole


def count_kernels(text: str) -> int:
    """Counts the kernels that one step starts."""
    return len(kernels_of_a_step(read(text)))


def count_bytes(program: Program, kernels: Iterable[Instruction]) -> int:
    """Counts the bytes that kernels read and write. An array counts whole, also where a kernel needs a part of it."""
    known = {one.name: one.bytes for found in program.computations.values() for one in found}
    return sum(one.bytes + sum(known.get(name, 0) for name in one.operands) for one in kernels)


class Sorter:
    """Says of which kind the kernels of a program are."""

    def __init__(self, text: str, network: str):
        """`network`: the name of its module's class, which XLA keeps with what the module computes."""
        self._program, self._network = read(text), re.compile(rf'op_name="[^"]*\b{network}\b')
        found = [one for computation in self._program.computations.values() for one in computation]
        kernels = [one for one in found if one.opcode not in NO_KERNELS]
        self._of = {re.sub(r"\W", "_", one.name): one for one in kernels} | {one.name: one for one in kernels}

    def kind(self, kernel: str, instruction: str = "") -> str:
        """Sorts a kernel by the instruction that started it, where that is known or the kernel is called like it, else by its name."""
        one = self._of.get(instruction) or self._of.get(kernel)
        if one is None:
            return _by_words(kernel) or REST
        parts = [part for name in one.calls for part in self._program.computations.get(name, ())] or [one]
        target = re.search(r'custom_call_target="([^"]*)"', one.line)
        by_target = _by_words(target[1]) if target else None
        work = {part.opcode for part in parts} - NO_KERNELS
        if by_target == FORWARD or "convolution" in work:
            return _convolution(next((part for part in parts if part.opcode == "convolution"), one))
        if by_target is not None:
            return by_target
        if work & {"dot", "reduce", "reduce-window"}:
            return PRODUCTS if "dot" in work else REDUCTIONS
        if work <= {"convert"}:
            return CASTS
        if work <= {"copy", "reshape", "reverse", "transpose"}:
            return COPIES
        return LAYERS if self._network.search(one.line) else REST


def _convolution(one: Instruction) -> str:
    """Which of the three it is that a layer takes: autodiff names the gradients, and that of a kernel has the kernel's axes."""
    by_name = re.search(r'op_name="([^"]*)"', one.line)
    if one.opcode == "convolution" and (by_name is None or re.search(r"dim_labels=\S*->\d", one.line)):
        return WEIGHTS  # a CPU's, with its axes exchanged, has lost its name
    return INPUTS if by_name is not None and "transpose(" in by_name[1] else FORWARD


def _by_words(name: str) -> str | None:
    return next((kind for word, kind in WORDS.items() if word in name.lower()), None)
