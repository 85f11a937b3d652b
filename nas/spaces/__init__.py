"""Search spaces by name: a builder and the options it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from nas.quantizers import Bits
from nas.space import Architecture, SearchSpace
from nas.spaces import sr

BUILDERS: dict[str, Callable[..., nn.Module]] = {"sr-basic": sr.basic, "sr-rfdn": sr.rfdn}


def space_of(name: str, bits: tuple[Bits, ...] = (4, 8), quantizer: str = "lsq", **options: Any) -> SearchSpace:
    """An empty space of that name. Raises ValueError for an unknown one."""
    if name not in BUILDERS:
        raise ValueError(f"the spaces are {', '.join(BUILDERS)}, not {name!r}")
    return SearchSpace(bits, quantizer=quantizer, name=name, options={**options, "quantizer": quantizer})


def build(space: SearchSpace, architecture: Architecture | None = None) -> nn.Module:
    """The network of a named space: to search in, or the one that an architecture says."""
    options = {k: v for k, v in space.options.items() if k != "quantizer"}
    with space.using(architecture):
        return BUILDERS[space.name](space, **options)


def network(architecture: Architecture) -> nn.Module:
    """The network of an architecture, with its first weights. Raises ValueError where its space is not known or has
    other positions."""
    options = dict(architecture.options)
    quantizer = options.pop("quantizer", "lsq")
    try:
        return build(space_of(architecture.space, quantizer=quantizer, **options), architecture)
    except TypeError as error:
        raise ValueError(f"{architecture.space} takes other options: {error}") from error
