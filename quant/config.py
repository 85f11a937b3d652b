"""What `quant.quantize_` is told: bits, groups, and what stays as it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from quant.quantizers import largest_code

VERSION = 0
SCHEMES = ("channel", "position", "two_sided")
NORMS = ("l1", "keep")
ROUNDINGS = ("stochastic", "nearest")


def most_groups(bits: int) -> int:
    """Of gradients of so many bits, whose codes fit a byte once shifted."""
    return 8 - largest_code(bits).bit_length()


@dataclass(frozen=True)
class ShiftQuantConfig:
    """bits_w, bits_a, bits_g: of weights, activations and gradients; groups: of ShiftQuant on gradients; scheme: one
    tensor for both backward products, grouped by "channel" (the paper's) or by "position" (of a picture; a row of a
    linear layer's input), or "two_sided", one for each, with exact scales of samples and of channels (of a linear
    layer's rows and of its weights' outputs too, without groups); rounding: of gradients; norm: "l1" replaces batch and
    layer norms; skip: names of modules that stay, with all in them, by default none (the first and last layers of a
    network usually should).

    Raises ValueError for what no kernel can do. All defaults are ours.
    """

    bits_w: int = 4
    bits_a: int = 4
    bits_g: int = 4
    groups: int = 4
    scheme: str = "channel"
    rounding: str = "stochastic"
    norm: str = "l1"
    skip: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for bits in (self.bits_w, self.bits_a, self.bits_g):
            if type(bits) is not int:
                raise ValueError(f"bits are whole numbers, not {bits!r}")
            largest_code(bits)
        if isinstance(self.skip, str):
            raise ValueError(f"skip is a tuple of names, not {self.skip!r}")
        if type(self.groups) is not int or self.groups < 1:
            raise ValueError(f"there is at least one group, not {self.groups}")
        if self.groups > (most := most_groups(self.bits_g)):
            raise ValueError(
                f"{self.bits_g}-bit gradients of {self.groups} groups do not fit a byte once shifted: at most {most}"
            )
        for name, known in (("scheme", SCHEMES), ("rounding", ROUNDINGS), ("norm", NORMS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, not {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """With the version of its form."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, made: dict[str, Any]) -> ShiftQuantConfig:
        """Raises ValueError for another version or unknown fields."""
        fields = dict(made)
        if fields.pop("version", None) != VERSION:
            raise ValueError(f"a config has version {VERSION}, this one {made.get('version')}")
        try:
            return cls(**(fields | {"skip": tuple(fields.get("skip", ()))}))
        except TypeError as error:
            raise ValueError(f"not a config: {error}") from error
