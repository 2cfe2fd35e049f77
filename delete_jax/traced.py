"""What functions compute, as digests: a store must tell apart two requests that differ in a function alone.

Functions of arrays are traced, so that other code for the same computation is the same. An own method's functions, whose arguments
exist during a training only, are known by their code and what they close over.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import delete_jax
from delete_jax.identity import digest
from delete_jax.methods import METHODS, Method, create
from delete_jax.model import Model, Variables, plain_key
from delete_jax.network_check import as_is
from delete_jax.options import Options
from delete_jax.parallel import run_key
from delete_jax.step import init_state, sgd, take_update

BATCH, DIGITS = 2, 16
LIBRARIES = (
    "builtins",
    "delete_jax",
    "flax",
    "functools",
    "jax",
    "jaxlib",
    "keras",
    "numpy",
    "operator",
    "optax",
    "torch",
)
"""Packages whose functions are known by their names: their code changes with their versions."""
FUNCTIONS = ("loss", "prepare", "check", "reorient", "wrap", "unwrap", "edit")


def functions(model: Model, variables: Variables, method: Method, images: Any, options: Options) -> dict[str, str]:
    """A digest of each function that a request is made of, by what it is. Those of one version of jax, Python and this package can
    be compared.

    Args:
      model, variables: the network.
      method: of unlearning; one of this package is known by its name and hyper-parameters.
      images: `[n, h, w, c]` as they are stored; only shape and dtype count.
      options: with `preprocess`, `augment` and `tx`.
    """
    stored = jax.ShapeDtypeStruct((BATCH, *images.shape[1:]), jax.dtypes.canonicalize_dtype(images.dtype))
    keys = jax.eval_shape(lambda: jax.random.split(run_key(0), BATCH))
    given = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), dict(variables))
    preprocess, tx = options.preprocess or as_is, options.tx or sgd()
    found = {"versions": f"jax {jax.__version__}, Python {sys.version_info.minor}, delete_jax {delete_jax.__version__}"}
    found["preprocess"] = computation(preprocess, stored)
    if options.augment is not None:
        found["augment"] = computation(options.augment, stored, keys)
    found["tx"] = computation(functools.partial(_one_update, tx), given)
    x = jax.eval_shape(preprocess, stored)
    found["network"] = computation(model.apply, given, x)
    if options.batch_norm == "train" and method.edit is None:
        wide = jax.eval_shape(lambda tree: init_state(tree, optax.identity()).variables, given)
        found["training"] = computation(jax.jit(model.apply_train, inline=True), wide, x, run_key(0))
    if not _is_ours(method):
        found["method"] = _short("\n".join(code(getattr(method, name)) for name in FUNCTIONS))
    return found


def _one_update(tx: optax.GradientTransformation, variables: Variables) -> Any:
    state = init_state(variables, tx)
    return state.opt_state, take_update(tx, state.params, state.opt_state, state.params, jnp.float32(0))


def _is_ours(method: Method) -> bool:
    factory = METHODS.get(method.name)
    if factory is None or getattr(factory, "__module__", "").partition(".")[0] != delete_jax.__name__:
        return False
    try:
        return create(method.name, **method.hyperparameters) == method
    except ValueError:
        return False


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def computation(function: Callable, *arguments: Any) -> str:
    """A digest of what a function of arrays computes and how it returns it: of its jaxpr and the arrays that it closes over. Of a
    function that cannot be traced with these arguments, of its code (`code`)."""
    try:
        traced, found = jax.make_jaxpr(function, return_shape=True)(*arguments)
    except Exception:  # one of label maps too, say, which takes more
        return _short(code(function))
    text = re.sub(r" at 0x[0-9a-f]+|\bid=\d+", "", f"{traced.jaxpr} {jax.tree.structure(found)}")
    text = re.sub(
        r"(frozenset\()?\{([^{}=]*)\}\)?", lambda found: "{" + ", ".join(sorted(found[2].split(", "))) + "}", text
    )
    return _short(f"{text} {digest([plain_key(value) for value in traced.consts if hasattr(value, 'dtype')])}")


def code(value: Any) -> str:
    """A text that is the same for functions with the same code and the same values around them: closures, defaults, and what they
    use of their module. Functions of libraries are known by their names, arrays by their digests."""
    return _code(value, {})


def _code(value: Any, seen: dict[int, int]) -> str:
    if id(value) in seen:
        return f"<{seen[id(value)]}>"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, types.ModuleType)):
        return value.__name__ if isinstance(value, types.ModuleType) else repr(value)
    seen[id(value)] = len(seen)
    inside = functools.partial(_code, seen=seen)
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return "array" if isinstance(value, jax.core.Tracer) else digest(plain_key(value))
    if isinstance(value, functools.partial):
        return f"partial({inside(value.func)}, {inside(value.args)}, {inside(value.keywords)})"
    if isinstance(value, types.MethodType):
        return f"{inside(value.__func__)} of {inside(value.__self__)}"
    if isinstance(value, types.FunctionType):
        return _function(value, inside)
    if isinstance(value, types.CodeType):
        return f"{value.co_code.hex()} {value.co_names} {_all(value.co_consts, inside)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {inside(value[key])}" for key in sorted(value, key=repr)) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(inside, value))) + "}"
    if isinstance(value, (tuple, list)):
        return f"({_all(value, inside)})"
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return getattr(value, "__qualname__", type(value).__qualname__)
    if (wrapped := getattr(value, "__wrapped__", None)) is not None:  # of jax.jit, say
        return inside(wrapped)
    return f"{type(value).__qualname__} {inside(vars(value))}"


def _all(values: Iterable[Any], inside: Callable[[Any], str]) -> str:
    return ", ".join(map(inside, values))


def _function(function: types.FunctionType, inside: Callable[[Any], str]) -> str:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not filled yet
            cells.append(None)
    around = f"{_all(cells, inside)}; {inside(function.__defaults__)}; {inside(function.__kwdefaults__)}"
    module = (function.__module__ or "").partition(".")[0]
    if module in LIBRARIES:
        return f"{function.__module__}.{function.__qualname__} [{around}]"
    used = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    return f"{inside(function.__code__)} [{around}; {inside(used)}]"


def _names(code: types.CodeType) -> list[str]:
    """The names that a function and those inside of it look up."""
    inner = [name for part in code.co_consts if isinstance(part, types.CodeType) for name in _names(part)]
    return [*code.co_names, *inner]
