"""The suite `devices`: one command for the codec's networks, ShiftQuant's and QuantNAS's, and files of anyone."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.__main__ import main

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bench import devices, subjects  # noqa: E402
from rate.devices import arrays  # noqa: E402
from rate.graph import count, summed  # noqa: E402

FAST = ["--runs", "1", "--threads", "1"]


def small(path: Path, operator: str = "Relu", size: object = "h", domain: str = "") -> Path:
    """A convolution of 3x3 and one more operator, on pictures of a height that is free."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node(operator, ["c"], ["y"], domain=domain),
    ]
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, [1, 3, size, 8])], [info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.linspace(-1, 1, 81, dtype=np.float32).reshape(3, 3, 3, 3), "w")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=8), path)
    return path


def without_qonnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose reports take longer than the rest."""
    for name in ("qonnx", "qonnx.core.modelwrapper"):
        monkeypatch.setitem(sys.modules, name, None)


def rows_of(file: Path) -> dict[str, dict]:
    return {r["name"].removeprefix("devices/"): r for r in json.loads(file.read_text())["rows"]}


def test_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counted and timed; what cannot be is a row that says why."""
    net, file = small(tmp_path / "net.onnx"), tmp_path / "devices.json"
    assert main(["devices", str(net), "--shape", "1,3,16,8", *FAST, "--threads", "1,2", "--json", str(file)]) == 0
    rows = rows_of(file)
    assert rows["net/macs"]["value"] == 81 * 16 * 8 and rows["net/weight-bits"]["value"] == 81 * 32
    assert rows["net/bitops"]["value"] == 1024 * 81 * 16 * 8
    for threads in (1, 2):
        at = f"net/cpu/onnxruntime/{threads}"
        assert 0 < rows[f"{at}/least"]["value"] <= rows[f"{at}/median"]["value"]
        assert rows[f"{at}/speed"]["unit"] == "MP/s" and rows[f"{at}/peak"]["unit"] == "MiB"
    assert rows["net/cpu/torch"]["value"] is None and "is no network of torch" in rows["net/cpu/torch"]["note"]
    if not torch.cuda.is_available():
        assert rows["net/cuda/torch"]["value"] is None and "CUDA" in rows["net/cuda/torch"]["note"]
    told = capsys.readouterr().out
    assert all(name in told for name in rows)
    assert main(["devices", str(net), "--shape", "x=1,3,16,8", *FAST]) == 0


@pytest.mark.parametrize(("options", "message"), [
    (["{net}"], "free sizes (1, 3, h, 8): give its shape"),
    (["{net}", "--shape", "1,3,16,9"], "input x is (1, 3, h, 8), not (1, 3, 16, 9)"),
    (["{net}", "--shape", "z=1,3,16,8"], "the graph has no input z: it has x"),
    (["{net}", "--shape", "1,3,-1,8"], "--shape takes positive numbers"),
    (["{net}", "--size", "768"], "--size is a width and a height"),
    (["{net}", "--runs", "0"], "--runs at least 1"),
    (["{folder}/gone.onnx"], "gone.onnx"),
    (["{folder}"], "has neither config.json of quant.train nor arch.json of nas.train"),
    (["{folder}/text.onnx"], "is not a graph of ONNX"),
    (["mlicv9-xl"], "no model mlicv9-xl: installed are"),
    (["{bundle}", "--size", "100x100"], "multiples of 64 pixels, not 100x100"),
    (["{folder}/celu.onnx"], "no rule counts the operator Celu (node y)"),
    (["{folder}/own.onnx"], "no rule counts the operator my.own::Magic (node y)"),
])  # fmt: skip
def test_what_is_wrong_is_one_line(
    options: list[str], message: str, tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing was measured before."""
    (tmp_path / "text.onnx").write_text("no graph")
    small(tmp_path / "celu.onnx", "Celu", 16)
    small(tmp_path / "own.onnx", "Magic", 16, "my.own")
    net = small(tmp_path / "net.onnx")
    line = [o.format(net=net, folder=tmp_path, bundle=tiny_bundle) for o in options]
    assert main(["devices", str(small(tmp_path / "good.onnx", size=16)), *line, *FAST] if len(line) == 1 else
                ["devices", *line, *([] if "--runs" in line else FAST)]) == 1  # fmt: skip
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and message in said.err


def test_tools_that_are_absent_are_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, file = small(tmp_path / "net.onnx", size=16), tmp_path / "devices.json"
    without_qonnx(monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["devices", str(net), *FAST, "--json", str(file)]) == 0
    rows = rows_of(file)
    for at, how in (("qonnx/macs", "qonnx"), ("cpu/onnxruntime", "onnxruntime"), ("cuda/onnxruntime", "onnxruntime")):
        assert rows[f"net/{at}"]["value"] is None
        assert f"{how} is not installed: pip install {how}" in rows[f"net/{at}"]["note"]
    assert rows["net/macs"]["value"] == 81 * 16 * 8


def test_the_codec(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its three parts, counted from their graphs as codec.ops.shapes counts the network."""
    without_qonnx(monkeypatch)
    from codec.bundle import Bundle
    from codec.ops.shapes import count as count_shapes

    file, pixels, cfg = tmp_path / "devices.json", 128 * 64, Bundle(tiny_bundle).config
    assert main(["devices", str(tiny_bundle), "--size", "128x64", *FAST, "--json", str(file)]) == 0
    rows, counts = rows_of(file), {name: c.macs * pixels for name, c in count_shapes(cfg).items()}
    assert rows["tiny.analysis/macs"]["value"] == counts["g_a"] + counts["h_a"]
    assert rows["tiny.synthesis/macs"]["value"] == counts["g_s"]
    gates = 2 * len(cfg.slices) * 2 * cfg.context * (cfg.context // 2)  # at one position, where shapes has none
    assert rows["tiny.entropy/macs"]["value"] == counts["h_s"] + counts["slices"] + gates
    assert rows["tiny.entropy/weight-bits"]["value"] == 8 * rows["tiny.entropy/weights"]["value"]
    assert 0 < rows["tiny.entropy/weight-entropy-bits"]["value"] < rows["tiny.entropy/weight-bits"]["value"]
    for part in ("analysis", "entropy", "synthesis"):
        for way in ("onnxruntime", "torch"):
            assert rows[f"tiny.{part}/cpu/{way}/1/median"]["value"] > 0
            assert rows[f"tiny.{part}/cpu/{way}/1/speed"]["value"] > 0


def test_the_codecs_graphs_compute_what_the_codec_does(tiny_bundle: Path, tmp_path: Path) -> None:
    """Their arrays are inside here, and weights integers: no number changes. torch has the same ones too."""
    from codec.bundle import Bundle
    from codec.modes import UNIT
    from codec.runtime.onnx import OnnxRuntime
    from codec.runtime.walk import PSI
    from rate import devices as ways

    bundle = Bundle(tiny_bundle)
    runtime = OnnxRuntime(bundle)
    units = {"h": [PSI], "a": [PSI, PSI, UNIT, 1], "o": [UNIT, 1]}
    for s in subjects.find(str(tiny_bundle), (128, 64), {}):
        files = [tmp_path / f"{i}.onnx" for i in range(len(s.graphs))]
        for model, path in zip(s.graphs, files, strict=True):
            onnx.save(model, path)
        found = ways.OnnxRuntime(files, s.feeds).open(1)()
        part = s.name.rpartition(".")[2]
        names = [part] if part != "entropy" else [
            "hyper", *(f"{half}{i}" for i in range(runtime.slices) for half in ("anchors", "others"))
        ]  # fmt: skip
        exact = part == "entropy"
        by_torch = s.torch("cpu").open(1)()
        for name, feed, ours, theirs in zip(names, s.feeds, found, by_torch, strict=True):
            for a, b in zip(ours, runtime.run(name, **feed), strict=True):
                assert np.array_equal(a, b) if exact else np.allclose(a, b, atol=1e-3)
            tensors = theirs if isinstance(theirs, tuple) else (theirs,)
            scales = units[name[0]] if exact else [1] * len(tensors)
            for a, t, unit in zip(ours, tensors, scales, strict=True):
                b = (t * unit).permute(0, 3, 1, 2).numpy()
                assert np.array_equal(a, b) if exact else np.allclose(a, b, atol=1e-2)


def test_a_shiftquant_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a run: QCDQ runs, QONNX is counted."""
    without_qonnx(monkeypatch)
    from quant.train import main as train

    for i in range(20):
        (tmp_path / f"m{i}.py").write_text(f"x = {i}\n" * 400)
    line = ["--data", f"text:{tmp_path}", "--model", "char", "--batch", "4", "--epochs", "1", "--subset", "2000"]
    assert train([*line, "--bits", "6", "--out", str(tmp_path / "run")]) == 0
    file, folder = tmp_path / "devices.json", str(tmp_path / "run" / "seed-0")
    assert main(["devices", folder, *FAST, "--json", str(file)]) == 0
    rows = rows_of(file)
    assert rows["char/macs"]["value"] > 0 and rows["char/cpu/torch/1/median"]["value"] > 0
    assert "char/cpu/onnxruntime/1/speed" not in rows  # there is no picture
    # Norms are floating point: a code may fall to the other side.
    assert 0 <= rows["char/cpu/onnxruntime/vs-torch"]["value"] < 1


def searched(folder: Path) -> Path:
    """What nas.train leaves, but that it was not trained."""
    from nas.baselines import uniform
    from nas.runs import save
    from nas.spaces import build, network, space_of

    space = space_of("sr-basic", (4,), "lsq", scale=2, width=6, cells=1)
    architecture = uniform(build(space), space, "conv3 g3", 4)
    torch.manual_seed(0)
    net = network(architecture)
    net(torch.rand(1, 3, 16, 16))
    folder.mkdir()
    (folder / "arch.json").write_text(architecture.to_json())
    save(folder / "network.pt", {"architecture": architecture.to_json(), "state": net.state_dict()})
    return folder


def test_a_searched_network_and_its_twin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = searched(tmp_path / "net"), tmp_path / "devices.json"
    line = ["devices", str(folder), str(folder), "--size", "64x32", *FAST, "--json", str(file)]
    assert main(line) == 0
    rows = rows_of(file)
    assert rows["sr-basic-x2/bitops"] | {"name": ""} == rows["sr-basic-x2#2/bitops"] | {"name": ""}
    assert rows["sr-basic-x2/cpu/onnxruntime/vs-torch"]["value"] < 0.1
    middle, speed = (rows[f"sr-basic-x2/cpu/torch/1/{n}"]["value"] for n in ("median", "speed"))
    assert speed == pytest.approx(64 * 32 / 1e3 / middle, rel=0.01)  # pixels of the picture that comes out
    line[line.index("64x32")] = "63x32"
    assert main(line) == 1 and "it enlarges 2 times" in capsys.readouterr().err


def test_qonnx_stands_beside(tmp_path: Path) -> None:
    """Equal where Quant nodes say the bits; else a note on where it is not."""
    pytest.importorskip("qonnx", reason="qonnx is not installed")
    (subject,) = subjects.find(str(searched(tmp_path / "net")), (32, 32), {})
    parts = [count(m, subject.numbers) for m in subject.counted]
    rows = {r["name"]: r["value"] for r in devices.beside_qonnx("s", subject, parts)}
    whole = summed(parts)
    assert [rows[f"s/qonnx/{n}"] for n in ("macs", "bitops", "weight-bits", "differ")] == [
        whole.macs, whole.bitops, whole.weight_bits, 0,
    ]  # fmt: skip
    other = subjects.Subject("s", [], [], subject.graphs, subject.torch, 0)
    (row,) = devices.beside_qonnx("s", other, [count(m) for m in other.counted])
    assert row["value"] is None and "QONNX cannot report on this graph" in row["note"]  # it has no INT4 of QCDQ


def test_quant_nodes_are_not_for_onnx_runtime(tmp_path: Path) -> None:
    (subject,) = subjects.find(str(searched(tmp_path / "net")), (32, 32), {})
    path, file = tmp_path / "net.qonnx.onnx", tmp_path / "devices.json"
    onnx.save(subject.counted[0], path)
    assert main(["devices", str(path), *FAST, "--json", str(file)]) == 0
    row = rows_of(file)["net.qonnx/cpu/onnxruntime"]
    assert row["value"] is None and "give the network's QCDQ form" in row["note"]
    assert len(arrays([np.zeros(2)])) == 1
