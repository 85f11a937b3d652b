"""The integer convolution by torch's own operators, for devices that cpp_ext has no kernels for: the same integers.

Codes are unfolded and multiplied by torch._int_mm, int8 by int8 to int32. On CUDA that takes multiples of 8 and more
than 16 rows: operands are filled up. quant.conv and quant.linear come here for tensors that are not on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quant.quantizers import largest_code, nearest, peak, reciprocal, stochastic
from quant.shift import activation_range, channel, to_nearest, two_sided, weights


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Codes int8 (m, k) and (k, n) -> int32 (m, n), exact."""
    (m, k), n = a.shape, b.shape[1]
    if not a.is_cuda:
        return torch._int_mm(a, b)
    a = torch.nn.functional.pad(a, (0, -k % 8, 0, max(24 - m, -m % 8)))
    # The right side is fastest, and on some devices only taken, with its columns contiguous.
    b = torch.nn.functional.pad(b.t().contiguous(), (0, -k % 8, 0, -n % 8)).t()
    return torch._int_mm(a, b)[:m, :n]


def unfolded(x: Tensor, ky: int, kx: int, stride: int, padding: int) -> Tensor:
    """Codes (images, height, width, channels) -> (images, rows, columns, ky, kx, channels)."""
    x = torch.nn.functional.pad(x, (0, 0, padding, padding, padding, padding))
    return x.unfold(1, ky, stride).unfold(2, kx, stride).permute(0, 1, 2, 4, 5, 3)


def convolve(
    x: Tensor, w: Tensor, bits_a: int, bits_w: int, stride: int, padding: int, groups: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As quant.conv.convolve, but that the codes of x are kept a byte each."""
    last = x.detach().permute(0, 2, 3, 1).float()
    lowest, largest = activation_range(last, bits_a)
    made, of_w = to_nearest(last, lowest, largest, bits_a), weights(w.detach().float(), bits_w)
    codes = of_w.codes.permute(0, 2, 3, 1).contiguous()
    outputs, ky, kx, of_group = codes.shape
    sums = []
    for g in range(groups):
        part = unfolded(made.codes[..., g * of_group : (g + 1) * of_group], ky, kx, stride, padding)
        right = codes[g * outputs // groups : (g + 1) * outputs // groups].flatten(1).t()
        sums.append(multiply(part.reshape(-1, ky * kx * of_group), right).view(*part.shape[:3], -1))
    y = torch.cat(sums, 3) * (made.scale.view(()) * of_w.scale.view(()))
    found = torch.stack([made.scale.view(()), of_w.scale.view(()), made.scale.new_tensor(float(lowest))])
    return y.to(x.dtype).permute(0, 3, 1, 2), made.codes, codes, found


def gradients(
    dy: Tensor, saved: Tensor, codes: Tensor, found: Tensor, sides: list[int], bits_g: int, groups_g: int,
    scheme: str, seed: Tensor | None, stride: int, padding: int, groups: int, wanted: list[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As quant.conv.gradients, from what `convolve` here kept."""
    largest_code(bits_g)
    last = dy.detach().permute(0, 2, 3, 1).float()
    (images, rows, columns, outputs), chance = last.shape, None if seed is None else int(seed)
    power = 2.0 ** (1 - groups_g)
    if scheme == "two_sided":
        peak(last)
        of_x, of_w = (two_sided(last.flatten(1, 2), bits_g, groups_g, chance, dim) for dim in (2, 0))
        scale_dx, scale_dw = of_x.scale.view(images, 1, 1, 1), of_w.scale.view(outputs, 1, 1, 1)
    else:
        of_x = of_w = channel(last.flatten(0, 2), bits_g, groups_g, chance, dim=0 if scheme == "position" else 1)
        scale_dx = scale_dw = of_x.scale.view(())
    _, ky, kx, of_group = codes.shape
    of_outputs = outputs // groups
    for_dx, for_dw = (made.shifted().reshape(-1, outputs) for made in (of_x, of_w))
    dx_parts, dw_parts = [], []
    for g in range(groups):
        these = slice(g * of_outputs, (g + 1) * of_outputs)
        if wanted[0]:
            taps = multiply(for_dx[:, these], codes[these].flatten(1)).view(images, rows, columns, ky, kx, of_group)
            height, width = sides[0] + 2 * padding, sides[1] + 2 * padding
            sums = taps.new_zeros(images, height, width, of_group)
            for y in range(ky):
                for x in range(kx):
                    at = (
                        slice(y, y + stride * (rows - 1) + 1, stride),
                        slice(x, x + stride * (columns - 1) + 1, stride),
                    )
                    sums[:, at[0], at[1]] += taps[:, :, :, y, x]
            dx_parts.append(sums[:, padding : padding + sides[0], padding : padding + sides[1]])
        if wanted[1]:
            part = unfolded(saved[..., g * of_group : (g + 1) * of_group], ky, kx, stride, padding)
            sums = multiply(for_dw[:, these].t().contiguous(), part.reshape(-1, ky * kx * of_group))
            dw_parts.append(sums.view(-1, ky, kx, of_group))
    dx, dw = dy.new_empty(0), found.new_empty(0)
    if wanted[0]:
        dx = (torch.cat(dx_parts, 3) * (scale_dx * found[1] * power)).to(dy.dtype).permute(0, 3, 1, 2)
    if wanted[1]:
        dw = (torch.cat(dw_parts) * (scale_dw * found[0] * power)).permute(0, 3, 1, 2)
    return dx, dw


def row_ranges(x: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """As quant.product.row_ranges."""
    values = x.float() * factors
    return values.abs().amax(1), (-values).amax(1).clamp(min=0)


def column_range(x: Tensor, factors: Tensor) -> Tensor:
    """As quant.product.column_range."""
    return (x.float() * factors[:, None]).abs().amax(0)


def multiply_rows(
    x: Tensor, codes: Tensor, scale: Tensor, scale_w: Tensor, lowest: int, largest: int
) -> tuple[Tensor, Tensor]:
    """As quant.product.multiply, y and the codes of x, a byte each."""
    made = nearest(x.float(), reciprocal(scale)[:, None], lowest, largest)
    y = multiply(made, codes.t()) * scale[:, None] * scale_w
    return y.to(x.dtype), made


def multiply_rows_backward(
    dy: Tensor, saved: Tensor, codes: Tensor, scale: Tensor, scale_w: Tensor, of_rows: Tensor, of_outputs: Tensor,
    bits_g: int, seed: int | None, wanted: list[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As quant.product.gradients, with the scales that the codes of dy have for the one and the other."""
    q, given = largest_code(bits_g), dy.float()

    def made(inverse: Tensor) -> Tensor:
        return nearest(given, inverse, -q, q) if seed is None else stochastic(given, inverse, bits_g, seed)

    dx, dw = dy.new_empty(0), scale.new_empty(0)
    if wanted[0]:
        dx = (multiply(made(scale_w * reciprocal(of_rows)[:, None]), codes) * of_rows[:, None]).to(dy.dtype)
    if wanted[1]:
        for_dw = made(reciprocal(of_outputs) * scale[:, None])
        dw = multiply(for_dw.t().contiguous(), saved) * of_outputs[:, None]
    return dx, dw
