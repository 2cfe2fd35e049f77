"""DELETE's step in many forms, one after the other in one process: what XLA's settings, the loop and the optimiser cost or gain.

    python benchmarks/speed/forms.py --out=runs/forms --seconds=240          # on a machine with a GPU or TPU
    python benchmarks/speed/forms.py --out=runs/forms --only=graphs
    python benchmarks/speed/forms.py --out=runs/forms --toy                  # the same at a size for a CPU

"As the library takes it" is the loop of `delete_jax.unlearn`, with what it does around its steps. The other forms are calls of several steps
whose batches are ready. Images and the teacher's logits are random: the time does not depend on them. The most telling forms are first,
and a form that this jaxlib cannot compile is a row that says why. `forms.md` and `forms.json` in OUT have each form as soon as it is done.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from hlo import count_kernels
from jax.flatten_util import ravel_pytree
from step_ideas import of_vector, otherwise
from step_time import LR, NUM_CLASSES, peak, step_operations, to_forget, trained
from timing import Growing, count, first_line, make_out_parser, run_script

import delete_jax as dj
from delete_jax.columns import is_lazy
from delete_jax.compiling import compiler_options
from delete_jax.data import augmentation, normalize
from delete_jax.models.layers import BatchNorm
from delete_jax.parallel import make_trainer, run_key, scalars
from delete_jax.step import init_state, make_train_step, sgd

CALLS, EPOCHS = 8, 4
TOY = "toy"
LIBRARY, SCAN, UNTIL, SINGLE = "library", "a scan", "a loop with a traced end", "single steps"
IN_GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONVOLUTION"
GRAPHS = {"xla_gpu_enable_command_buffer": IN_GRAPHS, "xla_gpu_graph_min_graph_size": 1}
LOOP_IN_GRAPHS = GRAPHS | {"xla_gpu_enable_command_buffer": f"{IN_GRAPHS},WHILE"}


class Form(NamedTuple):
    """A way to make the step.

    augment: flips and crops, so that the teacher is in the step; otherwise its answers are known.
    loop: what takes the steps of a call. steps: of a call, on an accelerator.
    timed: XLA chooses kernels by timing them, where the library's steps have the same bits each time. xla: settings for XLA besides.
    one_vector: parameters, gradients and the optimiser's state are a vector each. with_norm: the norm of the gradients is computed.
    folded: the teacher's batch norms are biases, as if they were part of its kernels, and its weights have the dtype of its computation. It
        answers otherwise than the original; only the time counts.
    """

    says: str
    augment: bool = False
    loop: str = SCAN
    timed: bool = False
    xla: dict[str, Any] = {}  # noqa: RUF012
    one_vector: bool = False
    with_norm: bool = True
    folded: bool = False
    batch_norm: str = "train"
    network: str = "resnet18"
    dtype: str = "bfloat16"
    size: int = 32
    batch: int = 128
    steps: int = 16

    def toy(self) -> Form:
        """The same for a CPU."""
        return self._replace(network=TOY, dtype="float32", size=8, batch=self.batch // 32, steps=2)


FORMS = [
    Form("answers known, as the library takes it", loop=LIBRARY),
    Form("augmented, as the library takes it", augment=True, loop=LIBRARY),
    Form("answers known"),
    Form("augmented", augment=True),
    Form("kernels chosen by timing", timed=True),
    Form("convolutions in graphs", xla=GRAPHS),
    Form("kernels chosen by timing, convolutions in graphs", timed=True, xla=GRAPHS),
    Form("batch 512", batch=512, steps=4),
    Form("ViT-S/16 at 224", network="vit_s16", size=224, steps=4),
    Form("ResNet-50 at 224", network="resnet50_imagenet", size=224, steps=4),
    Form("augmented, kernels chosen by timing", augment=True, timed=True),
    Form("augmented, kernels chosen by timing, convolutions in graphs", augment=True, timed=True, xla=GRAPHS),
    Form("batch 512, kernels chosen by timing", timed=True, batch=512, steps=4),
    Form(UNTIL, loop=UNTIL),
    Form(SINGLE, loop=SINGLE),
    Form("convolutions and the loop in graphs", xla=LOOP_IN_GRAPHS),
    Form("no operation that may give other bits", timed=True, xla={"xla_gpu_exclude_nondeterministic_ops": True}),
    Form("no kernel chosen by timing", timed=True, xla={"xla_gpu_autotune_level": 0}),
    Form("fused convolutions", timed=True, xla={"xla_gpu_experimental_enable_conv_fusion": True}),
    Form("parameters as one vector", one_vector=True),
    Form("augmented, teacher folded", augment=True, folded=True),
    Form("augmented, teacher folded, convolutions in graphs", augment=True, folded=True, xla=GRAPHS),
    Form("frozen statistics", batch_norm="frozen"),
    Form("no norm of the gradients", with_norm=False),
    Form("float32", dtype="float32"),
]
"""The most telling first. What has not its own entry is as in the library: `compiler_options`, ResNet-18, 32×32, batch 128, bfloat16."""


class Program(NamedTuple):
    """A compiled form. call: takes its steps, and gives their last loss. text: XLA's, of the compiled program. trace_s, compile_s: seconds."""

    call: Callable[[], float]
    text: str
    trace_s: float
    compile_s: float


class Call(NamedTuple):
    """What takes the steps of a form, not compiled yet.

    function: `(state, *arguments) -> (state, metrics)`, the state donated. arguments: of each call.
    """

    function: Callable[..., tuple[Any, Any]]
    state: Any
    arguments: list[tuple[Any, ...]]


class Setting(NamedTuple):
    """The network, the samples and the step of a form."""

    model: dj.Model
    variables: Any
    streams: Any
    preprocess: Callable
    augment: Callable | None
    step: Callable
    tx: optax.GradientTransformation


def main() -> int:
    parser = make_out_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no form after that")
    parser.add_argument("--only", default="", help="forms whose names contain this")
    parser.add_argument("--calls", type=count, default=CALLS, help="of each program; the median counts")
    parser.add_argument("--toy", action="store_true", help="small networks and images, for a CPU")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    began = time.perf_counter()
    forms = [form for form in FORMS if options.only in form.says]
    below = f"DELETE, medians of {options.calls} calls. Seconds of tracing and compiling are those of a process that has compiled the forms above."
    heads = ["form", "ms a step", "images/s", "share of the peak", "tracing, s", "compiling, s", "kernels a step"]
    table = Growing(options.out, "forms", heads, below)
    for number, form in enumerate(forms):
        if time.perf_counter() - began > options.seconds:
            print(f"no time for {', '.join(form.says for form in forms[number:])}")
            break
        try:
            figures = measured(form.toy() if options.toy else form, options.calls)
        except Exception as error:  # XLA's are of several classes; what comes after this form is measured all the same
            table.add([form.says, f"failed: {first_line(error)}"], form=form.says, error=first_line(error))
            continue
        shown = [
            f"{figures['ms']:.2f}", f"{figures['images_s']:,.0f}", shown_if("{:.1%}", figures.get("share")),
            shown_if("{:.1f}", figures.get("trace_s")), f"{figures['compile_s']:.1f}", shown_if("{}", figures.get("kernels")),
        ]  # fmt: skip
        table.add([form.says, *shown], form=form.says, **figures)


def shown_if(form: str, value: Any) -> str:
    return "" if value is None else form.format(value)


def measured(form: Form, calls: int) -> dict[str, Any]:
    """What a form takes, and what compiling it takes; the library's compiling includes tracing."""
    setting = make_setting(form)
    flops = step_operations(setting.step, init_state(setting.variables, setting.tx), setting.streams, form.batch)
    if form.loop == LIBRARY:
        taken = [as_library(form, setting) for _ in range(1 + min(calls, 3))]
        steps, seconds = len(taken[0].history), [result.seconds for result in taken[1:]]
        found = {"compile_s": taken[0].compile_seconds, "loss": taken[-1].history[-1]["loss"]}
    else:
        program = make_program(form, setting)
        steps, seconds = form.steps, []
        program.call()
        for _ in range(calls):
            started = time.perf_counter()
            loss = program.call()
            seconds.append(time.perf_counter() - started)
        found = {
            "trace_s": program.trace_s, "compile_s": program.compile_s, "kernels": count_kernels(program.text), "loss": loss,
        }  # fmt: skip
    a_step = float(np.median(seconds)) / steps
    top, _ = peak(form.dtype)
    share = {} if top is None else {"share": flops / a_step / top}
    times = {"ms": 1e3 * a_step, "least_ms": 1e3 * min(seconds) / steps, "images_s": form.batch / a_step}
    return times | share | {"flops": flops} | found


def make_module(form: Form) -> nn.Module:
    if form.network == TOY:
        return dj.models.ResNet(NUM_CLASSES, stages=(1,), features=(8,))
    return dj.models.create(form.network, NUM_CLASSES, form.dtype)


def make_setting(form: Form) -> Setting:
    """Makes the network and as many samples as the steps of a call read; `step` is `make_train_step`'s."""
    module, shape = make_module(form), (form.size, form.size, 3)
    model, variables = dj.models.from_linen(module), dj.models.init(module, shape, seed=0)
    samples = form.batch * (5 * form.steps // 2 if form.loop == LIBRARY else form.steps)
    _, mean, std, streams = to_forget(shape, samples)
    preprocess, augment = normalize(mean, std), augmentation(("flip", "crop") if form.augment else ())
    if augment is None:
        logits = np.random.default_rng(0).normal(size=(samples, NUM_CLASSES))
        streams["forget"]["teacher_logits"] = logits.astype(np.float32)
    tx = sgd()
    if form.one_vector:
        vector, as_tree = ravel_pytree(variables["params"])
        model, variables = of_vector(model, as_tree), {**variables, "params": vector}
    if form.folded:
        model = otherwise(model, folded_norm, "apply")
    step = make_train_step(
        model, dj.methods.delete(), tx, preprocess=preprocess, augment=augment, batch_norm=form.batch_norm
    )
    return Setting(model, variables, streams, preprocess, augment, step, tx)


def folded_norm(module: nn.Module, x: jax.Array) -> jax.Array | None:
    """What is left of a batch norm whose factors are in the kernel before it."""
    return x + module.get_variable("params", "bias") if isinstance(module, BatchNorm) else None


def as_library(form: Form, setting: Setting) -> dj.Result:
    """Some epochs, as `dj.unlearn` takes them."""
    how = {"preprocess": setting.preprocess, "augment": setting.augment, "parallel": "jit", "batch_size": form.batch}
    return trained(setting.model, setting.variables, setting.streams, epochs=EPOCHS, **how)


def make_program(form: Form, setting: Setting) -> Program:
    """Compiles the steps of a form."""
    call = make_call(form, setting)
    state, several = call.state, jax.device_put(call.arguments)
    settings = (compiler_options(reproducible=not form.timed) or {}) | form.xla
    started = time.perf_counter()
    lowered = jax.jit(call.function, donate_argnums=0, compiler_options=settings).lower(state, *several[0])
    traced = time.perf_counter()
    compiled = lowered.compile()
    took = traced - started, time.perf_counter() - traced

    def take() -> float:
        nonlocal state
        for arguments in several:
            state, metrics = compiled(state, *arguments)
        return float(np.ravel(metrics["loss"])[-1])  # waits

    return Program(take, compiled.as_text() or "", *took)


def make_call(form: Form, setting: Setting) -> Call:
    """Makes what takes the steps of a form. What the library passes to its program is passed here, too: XLA computes nothing of it
    beforehand."""

    def step(state: Any, batch: Any, networks: Any, lr: jax.Array, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        state, metrics = setting.step(state, networks, batch, lr, key)
        return state, {name: value for name, value in metrics.items() if name != "grad_norm" or form.with_norm}

    def scan(state: Any, batches: Any, *shared: Any) -> tuple[Any, Any]:
        return jax.lax.scan(lambda state, batch: step(state, batch, *shared), state, batches)

    def until(state: Any, batches: Any, end: jax.Array, *shared: Any) -> tuple[Any, Any]:
        def body(number: jax.Array, carry: Any) -> Any:
            state, found = carry
            state, metrics = step(state, jax.tree.map(lambda column: column[number], batches), *shared)
            return state, jax.tree.map(lambda kept, new: kept.at[number].set(new), found, metrics)

        _, metrics = jax.eval_shape(step, state, jax.tree.map(lambda column: column[0], batches), *shared)
        empty = jax.tree.map(lambda value: jnp.zeros((form.steps, *value.shape), value.dtype), metrics)
        return jax.lax.fori_loop(0, end, body, (state, empty))

    def in_batches(column: Any) -> np.ndarray:
        values = np.asarray(column[: form.steps * form.batch])
        return values.reshape(form.steps, form.batch, *values.shape[1:])

    batches = jax.tree.map(in_batches, setting.streams, is_leaf=is_lazy)
    state, networks = init_state(setting.variables, setting.tx), {"original": setting.variables} if form.augment else {}
    if form.folded:
        networks = jax.tree.map(lambda leaf: leaf.astype(form.dtype), networks)
    shared = networks, jnp.float32(LR), run_key(0)
    if form.loop == LIBRARY:
        made = setting.preprocess, setting.augment, form.batch_norm
        trainer = make_trainer(setting.model, dj.methods.delete(), setting.tx, *made, mode="jit")
        constants: dict[str, Any] = {}
        arguments = networks, batches, *scalars(LR, 0), constants, np.int32(form.steps), None
        return Call(trainer.compiled.__wrapped__, state, [arguments])
    functions: dict[str, tuple[Callable, list[tuple[Any, ...]]]] = {
        SCAN: (scan, [(batches, *shared)]),
        UNTIL: (until, [(batches, jnp.int32(form.steps), *shared)]),
        SINGLE: (step, [(jax.tree.map(lambda column: column[n], batches), *shared) for n in range(form.steps)]),
    }
    function, several = functions[form.loop]
    return Call(function, state, several)


if __name__ == "__main__":
    sys.exit(main())
