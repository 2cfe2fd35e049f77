"""Any PyTorch network as a `Model`: torchax runs its own code on JAX arrays, under its own names."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.model import Model, Variables
from delete_jax.models import torch_convolutions, torch_norms
from delete_jax.models.torch_checks import check_module, explained, import_torch

if TYPE_CHECKING:
    import chex
    import torch

LOGITS = ("out", "logits")
"""Under which of its names the answer is, where a network returns several: torchvision's segmentation, transformers."""


def from_torch(module: torch.nn.Module, classifier: str | None = None) -> tuple[Model, Variables]:
    """Converts a PyTorch network from torchvision, timm or your own code. Needs the extra `torch` (torch and torchax).

    The network takes images `[b, h, w, c]`; PyTorch's code receives `[b, c, h, w]`. It returns logits `[b, k]`, or `[b, h, w, k]` if
    PyTorch's are `[b, k, h, w]`. From a dict, the entry "out" or "logits" is used. Running statistics, dropout and stochastic
    depth behave as in PyTorch's training mode; under `pmap`, statistics are those of all devices.

        module = torchvision.models.resnet18(weights="DEFAULT")
        model, variables = dj.models.from_torch(module)
        result = dj.unlearn(model, variables, images, labels, forget=[3])
        module.load_state_dict(dj.models.to_state_dict(result.variables))

    Args:
      module: the network. It is not changed, and you may change it later. If it is in training mode, its parts keep their modes,
        such as a BatchNorm set to `eval()`. Otherwise `train()` sets the mode of all parts.
      classifier: the name of its last layer, such as "fc" or "head" (see `Model.classifier`).

    Returns:
      the model, and float32 copies of the module's state dict, under the same names. `params` are trained. `buffers` are the
      running statistics, other buffers, and the parameters that require no gradient. Integers and booleans keep their dtype. A
      parameter with several names appears under the first.

    Raises:
      ValueError: torch or torchax is missing, JAX cannot run the network, or it has no such layer.
    """
    network = _Network(module)
    path = None if classifier is None else (network.kernel(classifier),)

    def apply(variables: Variables, x: chex.Array) -> chex.Array:
        return network.run(variables, x)[0]

    def apply_train(variables: Variables, x: chex.Array, key: chex.PRNGKey) -> tuple[chex.Array, Variables]:
        logits, buffers = network.run(variables, x, key)
        return logits, {**variables, "buffers": buffers}

    return Model(apply, apply_train, path), network.variables


def to_state_dict(variables: Variables, module: torch.nn.Module | None = None) -> dict[str, torch.Tensor]:
    """Converts variables in the form of `from_torch` to a state dict for `Module.load_state_dict`.

    Args:
      variables: from `from_torch`, or the result of unlearning with them.
      module: the network that they came from. With it, the result has the dtypes of its state dict and every name of a shared
        parameter. Without it, floats are float32 and integers int64; `load_state_dict` converts them.

    Returns:
      PyTorch tensors on the CPU, by name. They share no memory with the variables.

    Raises:
      ValueError: torch is missing, or the variables are not in this form or belong to another module.
    """
    torch = import_torch()
    if not isinstance(variables, Mapping) or not all(isinstance(tree, Mapping) for tree in variables.values()):
        raise ValueError(
            f"to_state_dict needs the variables of from_torch, {{'params': …, 'buffers': …}}, got a {type(variables).__name__}"
        )
    arrays = {name: np.array(leaf) for tree in variables.values() for name, leaf in tree.items()}
    wide = {name: array.astype(np.int64) if array.dtype == np.int32 else array for name, array in arrays.items()}
    tensors = {name: torch.from_numpy(array) for name, array in wide.items()}
    if module is None:
        return tensors
    wanted = module.state_dict(keep_vars=True)
    first = {id(tensor): name for name, tensor in reversed([*_tensors(module)])}
    names = {name: first.get(id(tensor), name) for name, tensor in wanted.items() if torch.is_tensor(tensor)}
    wrong = {
        "missing": [name for name in names.values() if name not in tensors],
        "surplus": [name for name in tensors if name not in names.values()],
        "misshapen": [
            name for key, name in names.items() if name in tensors and tensors[name].shape != wanted[key].shape
        ],
    }
    if any(wrong.values()):
        said = "; ".join(f"{what}: {', '.join(found[:3])}" for what, found in wrong.items() if found)
        raise ValueError(f"the variables are another network's than this {type(module).__name__}: {said}")
    return {key: tensors[name].to(wanted[key].dtype, copy=True) for key, name in names.items()}


def torch_features(module: torch.nn.Module, layer: str, outputs: bool = False) -> Model:
    """Returns the network up to one of its layers: `apply` returns what enters it, or leaves it, `[b, d]`, averaged over positions.

    Its variables are those of `from_torch`; errors as there.
    """
    network = _Network(module)
    network.part(layer)

    def apply(variables: Variables, x: chex.Array) -> chex.Array:
        return network.watched(variables, x, layer, outputs)

    return Model(apply, lambda variables, x, key: (apply(variables, x), variables))


class _Network:
    """A copy of a module, and how to run it as a pure function.

    Attributes:
      variables: of the module, as JAX has them.
    """

    def __init__(self, module: torch.nn.Module):
        self.torch = import_torch("torchax")
        check_module(module)
        self.env = _environment()
        try:
            self.module = copy.deepcopy(module)
        except Exception as error:  # of any kind: the module's own code may be called
            raise ValueError(f"the module cannot be copied (copy.deepcopy): {explained(error)}") from error
        self.training = [part.training for part in (self.module if module.training else self.module.train()).modules()]
        saved = set(self.module.state_dict())
        params: Variables = {}
        buffers: Variables = {}
        self.constants: Variables = {}  # buffers that no state dict has
        for name, tensor in dict(_tensors(self.module, once=True)).items():
            trained = isinstance(tensor, self.torch.nn.Parameter) and tensor.requires_grad
            (params if trained else buffers if name in saved else self.constants)[name] = _to_jax(tensor)
        if not params:
            raise ValueError(
                f"no parameter of this {type(module).__name__} requires a gradient: nothing could be trained; call "
                "module.requires_grad_(True) first"
            )
        self.variables: Variables = {"params": params, "buffers": buffers}
        for part in self.module.modules():
            if isinstance(part, self.torch.nn.modules.batchnorm._BatchNorm) and part.momentum is None:
                part.momentum = torch_norms.Cumulative.of(part)
            for name, value in vars(part).items():
                if self.torch.is_tensor(value):  # one that was not registered
                    setattr(part, name, self.env.j2t_iso(_to_jax(value)))

    def part(self, name: str) -> torch.nn.Module:
        """The submodule of that name."""
        parts = dict(self.module.named_modules())
        if not name or name not in parts:
            last = ", ".join([part for part in parts if part][-4:])
            raise ValueError(f"the network has no layer {name!r}: its last ones are {last}")
        return parts[name]

    def kernel(self, layer: str) -> str:
        """The name in `params` of a layer's weight, or of the parameter that is named itself."""
        if layer in self.variables["params"]:
            return layer
        self.part(layer)
        inside = [name for name in self.variables["params"] if name.startswith(f"{layer}.")]
        kernels = [name for name in inside if self.variables["params"][name].ndim > 1]
        if len(kernels) != 1:
            raise ValueError(
                f"the classifier {layer!r} must be a layer with one weight that is trained, [k, d]: it has "
                f"{', '.join(kernels) or 'none'}"
            )
        return kernels[0]

    def run(self, variables: Variables, x: chex.Array, key: chex.PRNGKey | None = None) -> tuple[Any, dict[str, Any]]:
        """Logits and the buffers afterwards; in training mode where there is a key."""
        given = {**variables["params"], **variables["buffers"], **self.constants}
        given = {name: jnp.asarray(leaf) for name, leaf in given.items()}
        with self._ready(key):
            tensors = self.env.j2t_iso(given)
            images = jnp.moveaxis(x, -1, 1) if x.ndim == 4 else x
            answer = self.torch.func.functional_call(self.module, tensors, (self.env.j2t_iso(images),))
            after = self.env.t2j_iso(tensors)
            logits = self.env.t2j_iso(_logits(answer))
        buffers = {name: after[name] for name in variables["buffers"]}
        if key is not None:
            fixed = (name for name in given if name not in buffers)
            changed = [name for name in fixed if after[name] is not given[name]]
            if changed:
                raise ValueError(
                    f"the network's forward pass changes {changed[0]}, which is no buffer of its state dict: use "
                    "register_buffer with persistent=True for what training should update"
                )
        is_map = isinstance(logits, jax.Array) and logits.ndim == 4
        return jnp.moveaxis(logits, 1, -1) if is_map else logits, buffers

    def watched(self, variables: Variables, x: chex.Array, layer: str, outputs: bool) -> chex.Array:
        """What enters or leaves a layer in evaluation mode."""
        seen: list[chex.Array] = []

        def see(_: Any, inputs: tuple[Any, ...], output: Any) -> None:
            seen.append(self.env.t2j_iso(output if outputs else inputs[0]))

        hook = self.part(layer).register_forward_hook(see)
        try:
            self.run(variables, x)
        finally:
            hook.remove()
        if len(seen) != 1:
            raise ValueError(f"a layer that runs once is needed, {layer!r} ran {len(seen)} times")
        # PyTorch has channels second in maps, last in sequences.
        value = seen[0]
        return jnp.mean(value, tuple(range(2, value.ndim)) if value.ndim == 4 else tuple(range(1, value.ndim - 1)))

    @contextlib.contextmanager
    def _ready(self, key: chex.PRNGKey | None) -> Iterator[None]:
        """Sets the parts' modes; torch's operations are torchax's inside, whatever the caller has set for JAX or torch."""
        for part, mode in zip(self.module.modules(), self.training, strict=True):
            part.training = mode and key is not None
        from delete_jax.models.torch_gradients import Gradients  # which imports torch

        with (
            warnings.catch_warnings(),
            _without_collection(),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            self.torch.inference_mode(False),
            self.torch.enable_grad(),
            self.env,
            self.env.override_property(prng=jax.random.key(0) if key is None else key),
            Gradients(),
        ):
            # PyTorch's indices are int64, which JAX narrows.
            warnings.filterwarnings("ignore", "Explicitly requested dtype u?int64", UserWarning)
            try:
                yield
            except Exception as error:  # of the network's own code, of PyTorch, torchax or JAX
                raise ValueError(explained(error)) from error


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Suspends Python's cyclic garbage collector, which takes the array from a tensor of torchax's that only PyTorch holds."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@functools.cache
def _environment() -> Any:
    """torchax with the normalisations and convolutions of this package; the environment that others use stays as it is."""
    import torchax.tensor

    environment = torchax.tensor.Environment()
    for function, ours in (torch_norms.overrides() | torch_convolutions.overrides()).items():
        environment.override_op_definition(function, ours)
    return environment


def _tensors(module: torch.nn.Module, once: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name: under each of their names, or only the first."""
    yield from module.named_parameters(remove_duplicate=once)
    yield from module.named_buffers(remove_duplicate=once)


def _to_jax(tensor: torch.Tensor) -> jax.Array:
    """A copy, in float32 where it is of floats; float64 where JAX has it."""
    values = tensor.detach().cpu()
    if values.is_floating_point() and str(values.dtype) != "torch.float64":
        values = values.float()
    return jnp.array(values.numpy(), copy=True)


def _logits(answer: Any) -> Any:
    """The part of what a network returns that are its logits; all of it where nobody knows."""
    if isinstance(answer, Mapping):
        return next((answer[name] for name in LOGITS if name in answer), dict(answer))
    return getattr(answer, "logits", answer)
