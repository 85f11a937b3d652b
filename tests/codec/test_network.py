"""The network's arithmetic, its size, and its manners."""

import subprocess
import sys
from math import prod

import numpy as np
import pytest

from codec.config import CONFIGS, LAMBDA_RANGE, Config, rate_lambda
from codec.ops.numpy import divide, shift_right
from codec.ops.shapes import count


def test_sizes_that_the_readme_states() -> None:
    parts = count(CONFIGS["mlicv2-s"])
    encode = sum(parts[p].macs for p in ("g_a", "h_a", "h_s", "slices"))
    decode = sum(parts[p].macs for p in ("h_s", "slices", "g_s"))
    parameters = sum(prod(shape) for p in parts.values() for shape in p.layers.values())
    assert (round(encode / 1e3, 1), round(decode / 1e3, 1)) == (22.3, 29.0)
    assert round(parameters / 1e6, 1) == 7.0


def test_config_survives_json_and_checks_itself() -> None:
    import json

    for cfg in CONFIGS.values():
        assert Config.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    with pytest.raises(ValueError, match="add up"):
        Config("bad", slices=(1, 2))


def test_lambdas_span_their_range() -> None:
    assert (rate_lambda(0), rate_lambda(63)) == pytest.approx(LAMBDA_RANGE)


def test_rounding_is_half_up_everywhere() -> None:
    x = np.arange(-40, 41)
    for bits in (1, 3):
        assert np.array_equal(shift_right(x, bits), np.floor(x / 2**bits + 0.5))
    assert np.array_equal(shift_right(x, -2), x * 4)
    for d in (1, 2, 3, 7):
        assert np.array_equal(divide(x, d), np.floor(x / d + 0.5))


def test_weights_in_training_are_the_weights_that_ship() -> None:
    torch = pytest.importorskip("torch")
    from codec.models.ops import to_int8_rows
    from codec.training.export import integer_layer

    torch.manual_seed(0)
    w = torch.randn(40, 30) * torch.logspace(-4, 1, 40)[:, None]
    layer = integer_layer(w, None)
    shipped = layer["weight"] * np.exp2(-layer["exponent"].astype(float))[:, None]
    assert np.array_equal(to_int8_rows(w).numpy(), shipped.astype(np.float32))
    assert np.abs(layer["weight"][w.abs().amax(1) > 0.05]).max(1).min() >= 63  # eight bits are used


def test_sums_that_float32_cannot_hold_are_refused() -> None:
    torch = pytest.importorskip("torch")
    from codec.training.export import integer_layer

    with pytest.raises(SystemExit, match="float32"):
        integer_layer(torch.ones(1, 3000), None)


def test_checkerboard_packing_is_one_to_one() -> None:
    torch = pytest.importorskip("torch")
    from codec import modes
    from codec.models.ops import Arithmetic, TorchOps

    x = np.random.default_rng(0).normal(size=(1, 3, 4, 6)).astype(np.float32)
    halves = [modes.pack(x, half) for half in (0, 1)]
    rows, columns = np.indices((4, 6))
    anchors = modes.place(halves[0], None)
    assert np.array_equal(modes.place(halves[1], anchors), x)
    assert np.array_equal(anchors != 0, np.broadcast_to((rows + columns) % 2 == 1, x.shape))
    o, t = TorchOps(lambda name: None, Arithmetic.FLOAT), torch.from_numpy(x).permute(0, 2, 3, 1)
    for half in (0, 1):
        assert np.array_equal(o.pack(t, half).permute(0, 3, 1, 2).numpy(), halves[half])
    assert torch.equal(o.place(o.pack(t, 1), o.place(o.pack(t, 0), None)), t)


def test_gradients_reach_every_parameter() -> None:
    torch = pytest.importorskip("torch")
    from codec.models.mlicv2 import MLICv2, qp_weights
    from codec.models.ops import Arithmetic

    torch.manual_seed(0)
    model, x = MLICv2(CONFIGS["tiny"]), torch.rand(2, 128, 128, 3) * 2 - 1
    model.fit_to(x)  # else z is zero and nothing of it is seen
    with torch.no_grad():
        for name, a in model.arrays.items():
            if name.endswith(("/out/weight", "/back/weight", "lrp/1/weight")):
                a.normal_(std=0.1)
    for arithmetic in (Arithmetic.CLIP, Arithmetic.ROUND):
        model.set_arithmetic(arithmetic)
        model.zero_grad()
        x_hat, bits = model(x, qp_weights(torch.tensor([5.0, 50.0])))
        (x_hat.square().mean() + sum(b.mean() for b in bits.values())).backward()
        dead = [n for n, p in model.arrays.items() if p.requires_grad and (p.grad is None or not p.grad.any())]
        assert not dead


def test_coding_imports_neither_torch_nor_training() -> None:
    script = """
import sys, codec, numpy
from codec import bundle, picture, pipeline, modes
from codec.runtime import onnx
bad = [m for m in sys.modules if m.split(".")[0] in ("torch", "compressai", "onnx", "nas", "brevitas")]
bad += [m for m in sys.modules if m.startswith(("codec.training", "codec.models"))]
sys.exit(" ".join(bad) or 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
