"""Folders of pictures on a Ray cluster: two nodes of one processor each on this machine, of which one is lost."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import codec
from codec import cluster, crew
from codec.errors import BadInput, CodecError
from tests.codec.commands import ROOT, need_bundle

ray = pytest.importorskip("ray", reason="needs Ray: pip install -e '.[cluster]'")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield made
    made.shutdown()


@contextlib.contextmanager
def second_node(nodes: Any) -> Iterator[Callable[[], None]]:
    """Added; calling what this gives kills it."""
    there = [nodes.add_node(num_cpus=1)]

    def kill() -> None:
        nodes.remove_node(there.pop(), allow_graceful=False)

    yield kill
    if there:
        kill()


def test_a_node_that_is_lost_loses_nothing_and_nothing_comes_twice(nodes: Any) -> None:
    def work(data: bytes) -> tuple[str, bytes]:
        import time

        import ray

        time.sleep(0.05)
        return (
            ray.get_runtime_context().get_node_id(),
            data * 1000,
        )  # large ones stay on the node until they are asked for

    given_out = [b"%0300d" % i for i in range(80)]
    read = 0

    def items() -> Iterator[tuple[int, bytes]]:
        nonlocal read
        for item, data in enumerate(given_out):
            read = item + 1
            yield item, data

    answers: dict[int, bytes] = {}
    places: list[str] = []
    with second_node(nodes) as kill, contextlib.closing(cluster.shared(work, items(), nodes.address, 1)) as coming:
        for item, (place, answer) in coming:
            assert item not in answers and read <= len(answers) + 1 + 2 * 2
            answers[item] = answer
            places.append(place)
            if len(answers) == 30:
                assert len(set(places)) == 2
                kill()
    assert answers == {i: data * 1000 for i, data in enumerate(given_out)}
    assert len(set(places[-20:])) == 1


def test_a_piece_that_fails_there_is_told(nodes: Any) -> None:
    def work(data: bytes) -> bytes:
        if data == b"bad":
            raise ValueError("not this one")
        return data

    answers = dict(cluster.shared(work, enumerate([b"a", b"bad", b"c"]), nodes.address, 1))
    assert (answers[0], answers[2]) == (b"a", b"c")
    assert isinstance(answers[1], crew.Lost) and "not this one" in str(answers[1])


def test_clusters_that_cannot_be_used(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="has 64 cores: ask for fewer threads"):
        list(cluster.shared(bytes, [(0, b"a")], nodes.address, 64))
    start = time.monotonic()
    with pytest.raises(BadInput, match=r"no Ray cluster answers at 127\.0\.0\.1:1: "):
        list(cluster.shared(bytes, [(0, b"a")], "127.0.0.1:1", 1))
    assert time.monotonic() - start < 20
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CodecError, match=r"pip install -e '\.\[cluster\]'"):
        list(cluster.shared(bytes, [(0, b"a")], nodes.address, 1))


DRIVER = """
import signal, sys
from pathlib import Path
from codec import batch, files
signal.signal(signal.SIGTERM, signal.default_int_handler)
write = files.write
def told(target, data):
    write(target, data)
    print("wrote", Path(target).name, flush=True)
files.write = told
source, out, model, address = sys.argv[1:]
try:
    sys.exit(batch.command("encode", Path(source), Path(out), {"quality": 30, "model": model}, ray=address))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def encoding(tmp_path: Path, nodes: Any) -> Iterator[subprocess.Popen[str]]:
    """`codec encode -r --ray` of 60 pictures, with a model file of its own; stdout names each file as it is written."""
    (tmp_path / "in").mkdir()
    for i in range(60):
        Image.effect_mandelbrot((64 + i, 64), (-2, -1, 1, 1), 50).convert("RGB").save(tmp_path / "in" / f"{i}.png")
    shutil.copy(codec.installed_models()[0]["path"], tmp_path / "copy.safetensors")
    line = [sys.executable, "-c", DRIVER, *map(str, (tmp_path / "in", tmp_path / "out", tmp_path / "copy.safetensors"))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*line, nodes.address], env=env, **pipes) as child:
        yield child
        child.kill()


@need_bundle
def test_a_node_that_is_lost_loses_no_file(nodes: Any, tmp_path: Path, encoding: subprocess.Popen[str]) -> None:
    with second_node(nodes) as kill:
        said = [encoding.stdout.readline() for _ in range(10)]
        (tmp_path / "copy.safetensors").unlink()  # the nodes have it: they share no disk with us
        kill()
        said += encoding.stdout.readlines()  # to its end; `communicate` would miss what is buffered here
        err = encoding.stderr.read()
        encoding.wait(60)
    assert encoding.returncode == 0, err
    assert err.startswith("encoded 60 of 60 files; ") and err.count("\n") == 1
    written = Counter(line for line in said if line.startswith("wrote "))  # Ray says that a node is lost
    assert written == Counter(f"wrote {i}.mlic\n" for i in range(60))
    for i in (0, 30, 59):
        assert (tmp_path / "out" / f"{i}.mlic").read_bytes() == codec.encode(tmp_path / "in" / f"{i}.png", 30)


@need_bundle
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_whole_files(
    nodes: Any, tmp_path: Path, encoding: subprocess.Popen[str], sent: signal.Signals
) -> None:
    assert sum(1 for _ in itertools.takewhile(lambda line: line != "wrote 2.mlic\n", encoding.stdout)) >= 2
    encoding.send_signal(sent)
    _, err = encoding.communicate(timeout=60)
    assert encoding.returncode == 130 and "Traceback" not in err and "encoded " in err
    made = list((tmp_path / "out").iterdir())
    assert 3 <= len(made) < 60 and all(codec.info(p.read_bytes())["checksums"] == "ok" for p in made)
