"""From a network of some framework to a `Model`: two pure functions."""

from __future__ import annotations

import functools
import inspect
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from delete_jax.model import Model, Variables, as_given, without_params

if TYPE_CHECKING:
    import chex
    from flax import nnx


def from_linen(module: nn.Module, classifier: str | None = None, streams: tuple[str, ...] = ("dropout",)) -> Model:
    """Converts a Linen module whose `__call__(x, train: bool)` returns logits. Equal arguments return the same `Model`.

    Collections that the network only writes, such as sown values, are not updated from step to step.

    Args:
      module: the network.
      classifier: the path of its last layer, such as "head" or "decoder/head" (see `Model.classifier`).
      streams: the random streams that it draws from in training, such as ("dropout", "drop_path"). Each gets its own key.

    Raises:
      ValueError: the argument is not a Linen module.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from delete_jax import models
      >>> class Net(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x, train: bool):
      ...         return nn.Dense(10, name="head")(x.mean((1, 2)))
      >>> net = Net()
      >>> model = models.from_linen(net, classifier="head")
      >>> variables = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
      >>> model.apply(variables, jnp.zeros((5, 8, 8, 3))).shape
      (5, 10)
    """
    if not isinstance(module, nn.Module):
        hint = (
            "call it first, such as from_linen(Net())" if inspect.isclass(module) else "give an instance of nn.Module"
        )
        raise ValueError(f"from_linen needs a Linen module, got {_shown(module)}: {_other(module) or hint}")
    try:
        hash(module)
    except TypeError:  # a list or a dict among its fields
        return _from_linen(_Itself(module), classifier, tuple(streams))
    return _from_linen(module, classifier, tuple(streams))


class _Itself:
    """A module that cannot be hashed: equal to itself alone."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __hash__(self) -> int:
        return id(self.module)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.module is other.module


@functools.lru_cache(maxsize=64)
def _from_linen(given: nn.Module | _Itself, classifier: str | None, streams: tuple[str, ...]) -> Model:
    module = given.module if isinstance(given, _Itself) else given

    def apply(variables: Variables, x: chex.Array) -> chex.Array:
        return module.apply(variables, x, train=False)

    def apply_train(variables: Variables, x: chex.Array, key: chex.PRNGKey) -> tuple[chex.Array, Variables]:
        train = functools.partial(module.apply, variables, x, train=True, rngs=_keys(streams, key))
        try:
            try:
                logits, updated = train(mutable=_read(apply, variables, x))
            except flax.errors.ModifyScopeVariableError:  # one that is of use in training alone
                logits, updated = train(mutable=list(without_params(variables)))
        except flax.errors.InvalidRngError as error:
            raise ValueError(
                f"{str(error).split(' (https')[0]}, and from_linen was told of {', '.join(streams) or 'none'}: name each random "
                "stream, such as from_linen(net, streams=('dropout', 'drop_path'))"
            ) from error
        updated = {name: as_given(tree, variables[name]) for name, tree in updated.items() if name in variables}
        return logits, {**variables, **updated}

    return Model(apply, apply_train, tuple(classifier.split("/")) if classifier else None)


def _keys(streams: Iterable[str], key: chex.PRNGKey) -> dict[str, chex.PRNGKey]:
    """A key for each random stream, by its name."""
    return {name: key if name == "dropout" else jax.random.fold_in(key, zlib.crc32(name.encode())) for name in streams}


def _read(apply: Callable, variables: Variables, x: chex.Array) -> list[str]:
    """The collections that the network does not answer without: all but the parameters and what it only writes."""

    def answers_without(*names: str) -> bool:
        try:
            jax.eval_shape(apply, {name: tree for name, tree in variables.items() if name not in names}, x)
        except Exception:  # of Flax, or of what the network does with a missing value
            return False
        return True

    others = list(without_params(variables))
    if not others or answers_without(*others):
        return []
    return others if len(others) == 1 else [name for name in others if not answers_without(name)]


def from_nnx(module: nnx.Module, classifier: str | None = None) -> tuple[Model, Variables]:
    """Converts an NNX module whose `__call__(x)` returns logits, and whose `train()` and `eval()` set its mode.

    All random streams are seeded from the step's key. Values that the module sows are not kept.

    Args:
      module: the network. It is not changed, and you may change it later.
      classifier: the path of its last layer, such as "head" (see `Model.classifier`).

    Returns:
      the model, and copies of the module's variables as nested dicts of arrays: `params`, and `state` for everything else
      (running statistics). To write results back, call `nnx.update(module, variables["params"], variables["state"])`.

    Raises:
      ValueError: the argument is not an NNX module.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from delete_jax import models
      >>> class Net(nnx.Module):
      ...     def __init__(self, rngs):
      ...         self.head = nnx.Linear(3, 10, rngs=rngs)
      ...     def __call__(self, x):
      ...         return self.head(x.mean((1, 2)))
      >>> model, variables = models.from_nnx(Net(nnx.Rngs(0)), classifier="head")
      >>> model.apply(variables, jnp.zeros((5, 8, 8, 3))).shape
      (5, 10)
    """
    from flax import nnx  # here, because few need it and it takes long to import

    if not isinstance(module, nnx.Module):
        hint = "call it first, such as from_nnx(Net(nnx.Rngs(0)))" if inspect.isclass(module) else "give an nnx.Module"
        raise ValueError(f"from_nnx needs an NNX module, got {_shown(module)}: {_other(module) or hint}")
    kinds = (nnx.Param, nnx.RngState, nnx.Intermediate, ...)

    def copied(state: nnx.State) -> dict[str, Any]:
        return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), nnx.to_pure_dict(state))

    graph, *parts = nnx.split(module, *kinds)
    params, *unseen, state = parts
    # The variables are the caller's, the rest is frozen here: neither may share anything with the module.
    random, sown = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), unseen)
    variables = {"params": copied(params), "state": copied(state)}

    def merge(variables: Variables) -> nnx.Module:
        # copy: without it the merged module shares Variables with the caller's trace
        return nnx.merge(graph, variables["params"], random, sown, variables["state"], copy=True)

    def apply(variables: Variables, x: chex.Array) -> chex.Array:
        network = merge(variables)
        network.eval()
        return network(x)

    def apply_train(variables: Variables, x: chex.Array, key: chex.PRNGKey) -> tuple[chex.Array, Variables]:
        network = merge(variables)
        network.train()
        streams = {node.key.tag for _, node in nnx.iter_graph(network) if isinstance(node, nnx.RngStream)}
        nnx.reseed(network, policy="match_shape", **_keys(streams, key))  # type: ignore[arg-type]
        logits = network(x)
        updated = nnx.to_pure_dict(nnx.split(network, *kinds)[-1])
        return logits, {**variables, "state": _within(variables["state"], updated)}

    return Model(apply, apply_train, tuple(classifier.split("/")) if classifier else None), variables


def _within(given: Any, updated: Any) -> Any:
    """`given` with the values that `updated` has in the same places: without what was sown on the way."""
    if isinstance(given, dict) and isinstance(updated, dict):
        return {name: _within(value, updated[name]) if name in updated else value for name, value in given.items()}
    same = jax.tree.map(jnp.shape, given) == jax.tree.map(jnp.shape, updated)
    return as_given(updated, given) if same else given


def _shown(value: Any) -> str:
    return f"the class {value.__name__}" if inspect.isclass(value) else f"a {type(value).__name__}"


def _other(value: Any) -> str:
    """Says which function to use for a module of another framework, or part of Flax; "" for something else."""
    bases = (value if inspect.isclass(value) else type(value)).__mro__
    for library, name in (("flax.linen", "linen"), ("flax.nnx", "nnx"), ("torch", "torch"), ("keras", "keras")):
        if any(base.__module__.startswith(f"{library}.") for base in bases):
            return f"use models.from_{name} for a module of {library}"
    return ""
