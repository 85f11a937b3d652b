"""One verb: a torch model's layers become low-bit ones, in place."""

from __future__ import annotations

from typing import Any

from torch import nn

from quant.activation import ReLU
from quant.config import ShiftQuantConfig
from quant.conv import Conv2d
from quant.linear import Linear
from quant.norm import L1BatchNorm2d, L1LayerNorm

KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: Linear, nn.Conv2d: Conv2d}
NORMS: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm2d: L1BatchNorm2d, nn.LayerNorm: L1LayerNorm}


def _converted(name: str, module: nn.Module, config: ShiftQuantConfig) -> nn.Module | None:
    """The low-bit twin, which takes over parameters and buffers; None for what stays as it is."""
    kind = type(module)
    others = {nn.ReLU: ReLU} | (NORMS if config.norm == "l1" else {})
    if kind not in KINDS | others:
        return None
    made: Any = object.__new__((KINDS | others)[kind])
    made.__dict__.update(module.__dict__)
    if kind in KINDS:
        made.config = config
        try:
            made.check()
        except ValueError as error:
            raise ValueError(f"{name}: {error}; name it in skip to keep it as it is") from error
    return made


def quantize_(model: nn.Module, config: ShiftQuantConfig) -> nn.Module:
    """Replace every Linear, Conv2d and, if config.norm is "l1", BatchNorm2d and LayerNorm below `model`, but for the
    names in config.skip. Parameters stay the same objects, so optimizers and state dicts go on. Returns the model.

    Subclasses stay as they are, and so does what does not call its layers, such as MultiheadAttention's projections.
    Raises ValueError, before anything is changed, for layers no kernel does, for names in skip that are not there, and
    where there is nothing to convert.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if type(model) in KINDS | NORMS | {nn.ReLU: ReLU}:
        raise ValueError("the model is a layer itself: put it into a Sequential")
    if unknown := [name for name in config.skip if name not in modules]:
        raise ValueError(f"skip names {', '.join(unknown)}, which the model does not have")
    kept = {id(m) for name in config.skip for m in modules[name].modules()}
    twins = {
        id(module): twin  # a module that the model has under several names stays one
        for name, module in modules.items()
        if id(module) not in kept and (twin := _converted(name, module, config)) is not None
    }
    if not any(isinstance(twin, Linear | Conv2d | L1BatchNorm2d | L1LayerNorm) for twin in twins.values()):
        raise ValueError(
            "the model has no Linear, Conv2d or norm left to convert (subclasses and what is in skip stay as they are)"
        )
    for name, module in modules.items():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # else torch goes around its layers where no gradients are wanted
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # which only torch's own layers take
        if id(module) in twins:
            parent, _, last = name.rpartition(".")
            setattr(modules[parent], last, twins[id(module)])
    return model
