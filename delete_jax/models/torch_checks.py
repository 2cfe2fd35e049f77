"""What a PyTorch module must be like for JAX to run it, and what is said where it is not, in one line."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from typing import Any

from delete_jax.model import first_line

INSTALL = "pip install 'delete_jax[torch]'"


def import_torch(*others: str) -> Any:
    """Imports torch, and checks that the other packages can be imported.

    Raises:
      ValueError: one of them is missing, or does not fit the torch that is there.
    """
    for name in ("torch", *others):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"PyTorch networks need {name}: {INSTALL}") from error
        except Exception as error:  # torchax reads names of torch's that come and go
            version = importlib.metadata.version("torch")
            raise ValueError(
                f"{name} does not work with torch {version} ({first_line(error)}): {INSTALL} takes versions that fit"
            ) from error
    return importlib.import_module("torch")


def check_module(module: Any) -> None:
    """Raises ValueError unless this is a module that JAX can run as far as it shows before it runs."""
    import torch

    if not isinstance(module, torch.nn.Module):
        what, hint = f"a {type(module).__name__}", "give a torch.nn.Module"
        if inspect.isclass(module):
            what, hint = f"the class {module.__name__}", "call it first, such as from_torch(Net())"
        elif isinstance(module, dict):
            hint = "a state dict has no code: load it into its network, module.load_state_dict(…), or use models.load_torch"
        raise ValueError(f"from_torch needs a PyTorch module, got {what}: {hint}")
    name = type(module).__name__
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise ValueError(
            f"{name} is compiled by torch.jit: JAX needs its Python code, give the module before torch.jit"
        )
    if hasattr(module, "_orig_mod"):
        raise ValueError("the module is compiled by torch.compile: give the one before, module._orig_mod")
    if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        raise ValueError(f"{name} spreads a network over devices: give the network itself, module.module")
    for path, part in module.named_modules():
        if "quantized" in type(part).__module__.split("."):
            raise ValueError(
                f"the layer {path!r} is quantised, and cannot be trained: give the network before quantisation"
            )
    for path, tensor in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
            raise ValueError(
                f"{path} has no shape yet: run the module once on an image, module(torch.zeros(1, c, h, w))"
            )
        if tensor.is_meta:
            raise ValueError(f"{path} is on the device 'meta', without values: load the weights first")
        if tensor.is_complex() or tensor.layout != torch.strided or tensor.is_quantized:
            raise ValueError(f"{path} must be a dense tensor of real numbers, got {tensor.dtype}, {tensor.layout}")


def explained(error: Exception) -> str:
    """Explains in one line what a network's code did that JAX cannot run."""
    import jax
    import torchax.tensor

    reason = first_line(error)
    if isinstance(error, torchax.tensor.OperatorNotFound):
        return f"torchax {torchax.__version__} lacks an operation of the network: {reason}"
    traced = (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
        jax.errors.NonConcreteBooleanIndexError,
    )
    if isinstance(error, traced):
        return (
            "the network's code depends on the values of its tensors (an if, a length, an index), which JAX cannot compile: "
            f"{reason}"
        )
    if "mixed math" in reason:
        return (
            "the network's code mixes in a tensor that PyTorch made: register it with register_buffer, or make it with "
            "device=x.device"
        )
    return reason
