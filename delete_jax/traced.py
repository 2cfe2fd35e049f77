"""What functions compute, as digests: a store must tell apart two requests that differ in a function alone.

Functions of arrays are traced, so that other code for the same computation is the same. An own method's functions, whose arguments
exist during a training only, are known by their code and what they close over.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import re
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import delete_jax
from delete_jax.identity import digest
from delete_jax.methods import METHODS, Method, create
from delete_jax.model import Model, Variables, leaf_name, plain_key
from delete_jax.optimisers import take_update
from delete_jax.options import Options
from delete_jax.parallel import run_key
from delete_jax.step import init_state

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
INSTALLED = (
    str(Path(delete_jax.__file__).parent),
    *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")},
)
"""Where the code of libraries lies."""
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
    preprocess, tx = options.preprocess, options.tx
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
    if not is_ours(method):
        found["method"] = _short("\n".join(code(getattr(method, name)) for name in FUNCTIONS))
    return found


def _one_update(tx: optax.GradientTransformation, variables: Variables) -> Any:
    state = init_state(variables, tx)
    return state.opt_state, take_update(tx, state.params, state.opt_state, state.params, jnp.float32(0))


def is_ours(method: Method) -> bool:
    """Whether a method is one of this package, which its name and hyper-parameters tell apart."""
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
    """A digest of what a function of arrays computes and how it returns it: of its jaxpr, the arrays that it closes over at any
    depth, and the code of what JAX does not look into (callbacks, own derivatives). Of a function that cannot be traced with these
    arguments, of its code (`code`)."""
    try:
        traced, found = jax.make_jaxpr(function, return_shape=True)(*arguments)
    except Exception:  # one of label maps too, say, which takes more
        return _short(code(function))
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(found)[0]]
    text = re.sub(r" at 0x[0-9a-f]+|\bid=\d+|\bname=\S+", "", f"{traced.jaxpr} {names}")
    text = re.sub(
        r"(frozenset\()?\{([^{}=]*)\}\)?", lambda found: "{" + ", ".join(sorted(found[2].split(", "))) + "}", text
    )
    values, opaque = _inside(traced)
    return _short(f"{text} {digest([plain_key(value) for value in values])} {sorted(opaque)}")


def _inside(traced: Any) -> tuple[list[Any], set[str]]:
    """The arrays that a traced function and those inside of it close over, in order, and the code of somebody's own functions that
    they hand to JAX as they are."""
    jaxpr = getattr(traced, "jaxpr", traced)
    values = [value for value in getattr(traced, "consts", ()) if hasattr(value, "dtype")]
    opaque: set[str] = set()
    for step in jaxpr.eqns:
        values += [v.val for v in step.invars if hasattr(v, "val") and np.ndim(v.val) and hasattr(v.val, "dtype")]
        for part in jax.tree.leaves(list(step.params.values()), is_leaf=lambda leaf: callable(leaf) or _is_jaxpr(leaf)):
            if _is_jaxpr(part):
                more, others = _inside(part)
                values, opaque = values + more, opaque | others
            elif "callback" in step.primitive.name or "custom" in step.primitive.name:
                opaque |= {code(own) for own in _own_functions(part, set())}
    return values, opaque


def _is_jaxpr(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def _own_functions(value: Any, seen: set[int], depth: int = 8) -> list[types.FunctionType]:
    """The functions of no library that a function or an object leads to."""
    if depth == 0 or id(value) in seen:
        return []
    seen.add(id(value))
    if isinstance(value, types.FunctionType) and not value.__code__.co_filename.startswith(INSTALLED):
        return [value]
    parts: list[Any] = []
    if isinstance(value, types.FunctionType):
        parts = _closure(value)
    elif isinstance(value, (tuple, list)):
        parts = list(value)
    elif isinstance(value, functools.partial):
        parts = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, types.MethodType):
        parts = [value.__func__, value.__self__]
    elif not isinstance(value, type) and type(value).__module__.partition(".")[0] == "jax":  # what wraps a function
        parts = [*getattr(value, "__dict__", {}).values(), *_slots(value).values()]
    return [own for part in parts for own in _own_functions(part, seen, depth - 1)]


def code(value: Any) -> str:
    """A text that is the same for functions with the same code and the same values around them: closures, defaults, and what they
    use of their module and of other modules and classes. Functions of libraries are known by their names, arrays by their digests."""
    return _code(value, {})


DEEPEST = 100


def _code(value: Any, seen: dict[int, tuple[int, Any]], depth: int = 0) -> str:
    if id(value) in seen:
        return f"<{seen[id(value)][0]}>"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, bytearray, types.ModuleType)):
        return value.__name__ if isinstance(value, types.ModuleType) else repr(value)
    if depth > DEEPEST:
        return type(value).__qualname__
    seen[id(value)] = len(seen), value  # which stays alive: another value could get its id
    inside = functools.partial(_code, seen=seen, depth=depth + 1)
    if isinstance(value, jax.core.Tracer):
        return "array"
    if isinstance(value, np.ma.MaskedArray):
        return f"{digest(value.data)} {digest(np.ma.getmaskarray(value))}"
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return inside(value.tolist()) if value.dtype == object else digest(plain_key(value))
    if isinstance(value, functools.partial):
        return f"partial({inside(value.func)}, {inside(value.args)}, {inside(value.keywords)})"
    if isinstance(value, (types.MethodType, types.BuiltinMethodType)):
        return f"{inside(getattr(value, '__func__', value.__name__))} of {inside(value.__self__)}"
    if isinstance(value, types.FunctionType):
        return _function(value, inside)
    if isinstance(value, types.CodeType):
        return f"{value.co_code.hex()} {value.co_names} {_all(value.co_consts, inside)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(f"{inside(key)}: {inside(value[key])}" for key in value)) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(inside, value))) + "}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__qualname__}({_all(value, inside)})"
    if isinstance(value, type):
        return _class(value, inside)
    if isinstance(value, logging.Logger):
        return value.name
    if (wrapped := getattr(value, "__wrapped__", None)) is not None:  # of jax.jit, say
        return inside(wrapped)
    if (generator := getattr(value, "bit_generator", None)) is not None:
        return repr(generator.state)
    state = {**getattr(value, "__dict__", {}), **_slots(value)}
    said = "" if state else re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return f"{inside(type(value))} {inside(state)} {said}"


def _slots(value: Any) -> dict[str, Any]:
    names = [name for kind in type(value).__mro__ for name in _names_of(getattr(kind, "__slots__", ()))]
    return {name: getattr(value, name) for name in names if not name.startswith("__") and hasattr(value, name)}


def _names_of(slots: Any) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


def _class(kind: type, inside: Callable[[Any], str]) -> str:
    """A class by its name and, where it is of no library, by what it holds."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.partition(".")[0] in (*LIBRARIES, *sys.stdlib_module_names):
        return name
    kept = ("__call__", "__init__", "__getattr__", "__getitem__")
    held = {key: value for key, value in vars(kind).items() if not key.startswith("__") or key in kept}
    plain = {key: getattr(value, "fget", None) or getattr(value, "__func__", value) for key, value in held.items()}
    members = {key: value for key, value in plain.items() if not isinstance(value, types.MemberDescriptorType)}
    return f"{kind.__qualname__} {inside(members)} {_all(kind.__bases__, inside)}"


def _all(values: Iterable[Any], inside: Callable[[Any], str]) -> str:
    return ", ".join(map(inside, values))


def _closure(function: types.FunctionType) -> list[Any]:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not filled yet
            cells.append(None)
    return cells


def _function(function: types.FunctionType, inside: Callable[[Any], str]) -> str:
    around = f"{_all(_closure(function), inside)}; {inside(function.__defaults__)}; {inside(function.__kwdefaults__)}"
    if (function.__module__ or "").partition(".")[0] in LIBRARIES:
        return f"{function.__module__}.{function.__qualname__} [{around}]"
    names = _names(function.__code__)
    used = {name: function.__globals__[name] for name in names if name in function.__globals__}
    for name, value in list(used.items()):  # what is read of somebody's own modules
        if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] not in (
            *LIBRARIES,
            *sys.stdlib_module_names,
        ):
            used |= {f"{name}.{part}": getattr(value, part) for part in names if hasattr(value, part)}
    return f"{inside(function.__code__)} [{around}; {inside(used)}]"


def _names(code: types.CodeType) -> list[str]:
    """The names that a function and those inside of it look up."""
    inner = [name for part in code.co_consts if isinstance(part, types.CodeType) for name in _names(part)]
    return [*code.co_names, *inner]
