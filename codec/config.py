"""The numbers that make a network of the MLICv2 family: what a bundle's manifest stores and a checkpoint needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

QPS = 64  # rate levels of one weight file
QP_ANCHORS = 9  # per-QP vectors are learned at so many levels and interpolated in between
LAMBDA_RANGE = (0.0005, 0.36)  # of the loss bpp + lambda * 255^2 * MSE at QP 0 and QP 63 (our choice)


def rate_lambda(qp: float) -> float:
    """The Lagrange multiplier of a QP in the unit lambda * 255^2 * MSE + bpp, log-spaced (our choice)."""
    low, high = LAMBDA_RANGE
    return float(low * (high / low) ** (qp / (QPS - 1)))


@dataclass(frozen=True)
class Config:
    """Widths and depths: numbers of channels and of blocks, but for name and version."""

    name: str
    version: int = 0
    width: int = 128  # transforms at 1/8 resolution
    latents: int = 320  # y, at 1/16
    hyper: int = 96  # z, at 1/64
    features: int = 128  # Psi, what the hyperprior tells the slices, at 1/16
    analysis: tuple[int, int] = (6, 1)  # token-mixing blocks of g_a at 1/8 and at 1/16
    synthesis: tuple[int, int] = (2, 8)  # of g_s at 1/16 and at 1/8
    slices: tuple[int, ...] = (16, 16, 32, 48, 208)
    trunk: int = 2  # blocks per slice
    context: int = 64  # width of each local and global context
    heads: int = 4
    head_anchor: int = 160  # hidden width of the parameter nets
    head_other: int = 192

    def __post_init__(self) -> None:
        if sum(self.slices) != self.latents:
            raise ValueError(f"slices {self.slices} do not add up to {self.latents} latent channels")
        if self.heads < 1 or self.context % self.heads:
            raise ValueError(f"{self.context} channels of context do not make {self.heads} heads")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Config:
        """Raises ValueError for what is no configuration of these networks."""
        try:
            typed: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
            return cls(**typed)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"not a configuration of this codec's networks: {error}") from error


CONFIGS = {
    c.name: c
    for c in (
        Config("mlicv2-s"),
        Config(
            "mlicv2-m", width=192, features=192, hyper=128, analysis=(7, 1), synthesis=(2, 9),
            slices=(16, 16, 32, 64, 192), head_anchor=224, head_other=256,
        ),
        # For tests: every mechanism, hardly any weights.
        Config(
            "tiny", width=16, latents=48, hyper=8, features=16, analysis=(1, 1), synthesis=(1, 1),
            slices=(8, 16, 24), trunk=1, context=16, heads=2, head_anchor=16, head_other=16,
        ),
    )
}  # fmt: skip
