"""Counts what an NVIDIA GPU would be told to launch for a JAX program, on a machine without a GPU (deviceless AOT compilation).

    PYTHONPATH=/work/main nice -n 10 /tmp/aot/venv/bin/python /tmp/aot/kernels.py resnet18 --scan=16 [--aug] [--only=default]
    PYTHONPATH=/work/main nice -n 10 /tmp/aot/venv/bin/python /tmp/aot/kernels.py toy

Or from a script (import this module before jax is used; it sets JAX_PLATFORMS=cpu and XLA_FLAGS):

    from kernels import count, report
    report(function, arguments, compiler_options={...}, donate_argnums=0)   # arguments: arrays or ShapeDtypeStructs

Counted are XLA's thunks (`*.thunk_sequence*.txt`, which `xla_dump_to` writes), not lines of HLO: a thunk is what the runtime executes.
"""

import argparse
import collections
import dataclasses
import os
import pathlib
import re
import shutil
import tempfile
import time

DUMP = pathlib.Path(tempfile.mkdtemp(prefix="aot_dump_"))
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + f" --xla_dump_to={DUMP} --xla_dump_hlo_as_text --xla_gpu_autotune_level=0"

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

TARGET = pathlib.Path(os.environ.get("AOT_TARGET", pathlib.Path(__file__).with_name("h200.txtpb")))
GRAPH = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONVOLUTION"
OPTIONS = {
    "default": {},
    "deterministic": {"xla_gpu_deterministic_ops": True},
    "graphs": {"xla_gpu_enable_command_buffer": GRAPH, "xla_gpu_graph_min_graph_size": 1},
    "deterministic graphs": {"xla_gpu_deterministic_ops": True, "xla_gpu_enable_command_buffer": GRAPH, "xla_gpu_graph_min_graph_size": 1},
    "no graphs": {"xla_gpu_enable_command_buffer": ""},
    "graphs with the loop": {"xla_gpu_enable_command_buffer": GRAPH + ",WHILE", "xla_gpu_graph_min_graph_size": 1},
}
NO_KERNEL = {"kSequential", "kDynamicSliceFusion", "kWhile", "kConditional", "kCommandBuffer", "kWaitForStreams", "kHostExecuteStart"}  # they contain others


def gpu():
    """The device of a described, absent GPU."""
    return topologies.get_topology_desc(platform="cuda", target_config=TARGET.read_text(), topology="1x1x1").devices[0]


_DEVICE = None


def compile_for_gpu(function, arguments, compiler_options=None, **jit):
    """Returns (the compiled program, seconds tracing, seconds compiling, the dumped files' common prefix)."""
    global _DEVICE
    _DEVICE = _DEVICE or gpu()
    to = jax.sharding.SingleDeviceSharding(_DEVICE)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype, sharding=to), arguments)
    for old in DUMP.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    start = time.perf_counter()
    lowered = jax.jit(function, **jit).trace(*shapes).lower(lowering_platforms=("cuda",))
    middle = time.perf_counter()
    compiled = lowered.compile(compiler_options=compiler_options or None)
    return compiled, middle - start, time.perf_counter() - middle


@dataclasses.dataclass
class Node:
    kind: str
    text: str
    children: list = dataclasses.field(default_factory=list)


def thunks():
    """The tree of thunks of the last program compiled, after the passes that make CUDA graphs where there were any."""
    found = sorted(DUMP.glob("*thunk_sequence_after_thunk_passes.txt")) or sorted(DUMP.glob("*thunk_sequence.txt"))
    path = max(found, key=lambda p: p.stat().st_size)
    root = Node("root", "")
    stack, loops = [(-1, root)], []
    for line in path.read_text().splitlines():
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        match = re.match(r"\s*\d+: (k\w+)\s*(.*)", line)
        if not match:  # "condition:" and "body:" of the loop before them; XLA does not indent the first one
            if line.strip() == "condition:":
                loops.append(next(e for e in reversed(stack) if e[1].kind == "kWhile"))
            if line.strip() in ("condition:", "body:") and loops:
                indent = loops[-1][0]
                if line.strip() == "body:":
                    loops.pop()
                while stack[-1][0] > indent:
                    stack.pop()
                node = Node("label", line.strip())
                stack[-1][1].children.append(node)
                stack.append((indent + 0.5, node))
            continue
        node = Node(match[1], match[2])
        while stack[-1][0] >= indent:
            stack.pop()
        stack[-1][1].children.append(node)
        stack.append((indent, node))
    return root, path


def tally(node, where="entry", found=None, graph=False):
    """{(where, kind, in a graph?): number}; where is "entry" or "while body"."""
    found = collections.Counter() if found is None else found
    for child in node.children:
        if child.kind != "label":
            found[where, child.kind, graph] += 1
        inner = where
        if child.kind == "label":
            inner = "while body" if child.text == "body:" else "while condition"
        tally(child, inner, found, graph or child.kind == "kCommandBuffer")
    return found


BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}


def sizes(text):
    """Bytes of all arrays in a type, `(bf16[2,3]{1,0}, f32[])`."""
    return sum(BYTES.get(t, 1) * int(np.prod([int(n) for n in d.split(",") if n] or [1])) for t, d in re.findall(r"\b(\w+)\[([\d,]*)\]", text))


def hlo(compiled):
    """Of each computation that is executed (the entry, bodies of loops): instructions as (opcode, output bytes, operand bytes, target)."""
    text = compiled.as_text()
    parts = re.split(r"\n(?=(?:ENTRY )?%[\w.\-]+ \()", text)
    named, entry, bodies = {}, None, []
    for part in parts:
        head = re.match(r"(ENTRY )?%([\w.\-]+) \(", part)
        if head:
            named[head[2]] = part
            entry = head[2] if head[1] else entry
    def instructions(name):
        types, rows = {}, []
        for line in named[name].splitlines()[1:]:
            m = re.match(r"\s*(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)", line)
            if not m:
                continue
            types[m[1]] = m[2]
            operands = re.findall(r"%([\w.\-]+)", m[4].split("), ")[0])
            rows.append((m[3], sizes(m[2]), sum(sizes(types.get(o, "")) for o in operands), m[1], line))
            if m[3] == "while":
                bodies.append(re.search(r"body=%([\w.\-]+)", line)[1])
        return rows
    out = {"entry": instructions(entry)}
    for body in list(bodies):
        out[f"while body"] = out.get("while body", []) + instructions(body)
    return out


NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "after-all", "partition-id", "iota-id"}


def report(function, arguments, compiler_options=None, label="", detail=False, **jit):
    compiled, traced, took = compile_for_gpu(function, arguments, compiler_options, **jit)
    root, path = thunks()
    found = tally(root)
    print(f"\n== {label}: trace+lower {traced:.1f} s, compile {took:.1f} s; {path.name.split('.')[-2]}")
    for where in dict.fromkeys(key[0] for key in found):
        kinds = collections.Counter()
        for (place, kind, graph), n in found.items():
            if place == where:
                kinds[kind + (" in graphs" if graph else "")] += n
        launched = sum(n for (place, kind, _), n in found.items() if place == where and kind not in NO_KERNEL)
        graphs = sum(n for (place, kind, _), n in found.items() if place == where and kind == "kCommandBuffer")
        outside = sum(n for (place, kind, graph), n in found.items() if place == where and not graph and kind not in NO_KERNEL)
        print(f"  {where}: {launched} thunks with work, of them {outside} outside graphs + {graphs} graphs = {outside + graphs} launches by the host | " + ", ".join(f"{k} {n}" for k, n in kinds.most_common()))
    for where, rows in hlo(compiled).items():
        work = [r for r in rows if r[0] not in NOTHING]
        ops = collections.Counter(r[0] + (":" + re.search(r'custom_call_target="([^"]+)"', r[4])[1] if r[0] == "custom-call" else ":" + re.search(r"kind=(\w+)", r[4])[1] if r[0] == "fusion" else "") for r in work)
        moved = sum(r[1] + r[2] for r in work)
        print(f"  HLO {where}: {len(work)} instructions, {moved / 1e6:.0f} MB in and out ({moved / 4.8e9:.2f} ms at 4.8 TB/s) | " + ", ".join(f"{k} {n}" for k, n in ops.most_common()))
        if detail:
            for r in sorted(work, key=lambda r: -r[1] - r[2])[:25]:
                print(f"      {(r[1] + r[2]) / 1e6:8.1f} MB {r[0]} {r[3]}")
    stats = compiled.memory_analysis()
    print(f"  memory: arguments {stats.argument_size_in_bytes / 1e6:.0f} MB, temporary {stats.temp_size_in_bytes / 1e6:.0f} MB; PTX kernels {len(re.findall('[.]entry', ''.join(p.read_text() for p in DUMP.glob('*.ptx'))))}")
    return compiled, found


def resnet18(net="resnet18", size=32, batch=128, scan=16, dtype="bfloat16", aug=False, method="delete"):
    """(function, arguments, jit's options) of `scan` steps as `delete_jax.parallel` makes them (no loop for 1)."""
    import delete_jax as dj
    from delete_jax.data import augmentation, normalize
    from delete_jax.parallel import run_key
    from delete_jax.step import init_state, make_train_step, sgd
    from delete_jax.streams import split_streams

    shape = (size, size, 3)
    module = dj.models.create(net, 10, dtype)
    model = dj.models.from_linen(module)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape), jnp.float32), train=False))
    n = scan * batch
    stream = split_streams(np.zeros((n, *shape), np.uint8), np.full(n, 1), [1], 10, ["forget"])["forget"]
    columns = {name: np.asarray(column[np.arange(n)]) for name, column in stream.items()}
    if not aug:
        columns["teacher_logits"] = np.zeros((n, 10), np.float32)
    batches = {"forget": {k: c.reshape(scan, batch, *c.shape[1:]) for k, c in columns.items()}}
    method, tx = getattr(dj.methods, method)(), sgd()
    step = make_train_step(model, method, tx, preprocess=normalize(np.full(3, 0.3, np.float32), np.full(3, 0.35, np.float32)), augment=augmentation(("flip", "crop") if aug else ()))
    state = jax.eval_shape(lambda v: init_state(v, tx), variables)

    def take(state, networks, batches, lr, seed):
        key = run_key(seed)
        if scan == 1:
            return step(state, networks, jax.tree.map(lambda c: c[0], batches), lr, key)
        return jax.lax.scan(lambda carry, batch: step(carry, networks, batch, lr, key), state, batches)

    return take, (state, {"original": variables} if aug else {}, batches, np.float32(1e-3), np.uint32(0)), {"donate_argnums": 0}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", help="toy, or a network of delete_jax")
    for name, default in (("size", 32), ("batch", 128), ("scan", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--aug", action="store_true")
    parser.add_argument("--detail", action="store_true")
    parser.add_argument("--keep", default="", help="copy the dump of the last program here")
    parser.add_argument("--only", default="", help="comma separated names of OPTIONS")
    o = parser.parse_args()
    if o.what == "toy":
        x = jnp.zeros((256, 256), jnp.bfloat16)
        function, arguments, jit = (lambda x, y: jax.nn.relu(x @ y)), (x, x), {}
    else:
        function, arguments, jit = resnet18(o.what, o.size, o.batch, o.scan, o.dtype, o.aug)
    print(jax.__version__, TARGET.name, vars(o))
    for label in o.only.split(",") if o.only else OPTIONS:
        try:
            report(function, arguments, OPTIONS[label], label, o.detail, **jit)
        except Exception as error:
            print(f"\n== {label}: {error!r}"[:1500])
    if o.keep:
        shutil.copytree(DUMP, o.keep, dirs_exist_ok=True)


if __name__ == "__main__":
    try:
        main()
    finally:
        shutil.rmtree(DUMP, ignore_errors=True)
