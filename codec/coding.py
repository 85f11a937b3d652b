"""THE coding loop: slices x passes, once for encoding, decoding and training.

The network answers with the parameters of a pass, the mode turns them into y_hat: by quantizing and writing symbols,
by reading them, or by counting likelihoods. Nothing here knows numpy from torch.
"""

from __future__ import annotations

from typing import Any, Protocol

Array = Any
HYPER = -1  # the "slice" number under which z is coded


class Network(Protocol):
    """What the loop asks of a runtime. Shapes are the executor's; values are real numbers, y_hat and means in steps.

    place: the decoded values of a pass on the whole grid: anchors beside zeros, then the others beside the `known`
    anchors. t and inter are what `anchors` answered, for networks that correct values by them.
    """

    slices: int

    def z_parameters(self, qp: Any) -> tuple[Array, Array]: ...
    def hyper(self, z_hat: Array, qp: Any) -> Array: ...
    def anchors(self, i: int, psi: Array, before: Array | None, qp: Any) -> tuple[Array, Array, Array, Array]: ...
    def others(self, i: int, t: Array, inter: Array, anchor: Array, qp: Any) -> tuple[Array, Array]: ...
    def place(self, coded: Array, known: Array | None, i: int, t: Array, inter: Array) -> Array: ...
    def join(self, slices: list[Array]) -> Array | None: ...


class Mode(Protocol):
    def code(self, i: int, half: int, mean: Array, index: Array) -> Array:
        """Means and scale indexes of a pass -> its decoded values, in steps. half: 0 anchors, 1 others."""
        ...


def code_latents(net: Network, mode: Mode, qp: Any) -> tuple[Array, Array]:
    """Code z and y. Returns (y_hat in steps, Psi)."""
    psi = net.hyper(mode.code(HYPER, 0, *net.z_parameters(qp)), qp)
    done: list[Array] = []
    for i in range(net.slices):
        t, inter, mean, index = net.anchors(i, psi, net.join(done), qp)
        anchor = net.place(mode.code(i, 0, mean, index), None, i, t, inter)
        mean, index = net.others(i, t, inter, anchor, qp)
        done.append(net.place(mode.code(i, 1, mean, index), anchor, i, t, inter))
    return net.join(done), psi
