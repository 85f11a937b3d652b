"""Measuring in processes of their own, which end with this one, however that ends."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import multiprocessing
import os
import resource
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from tqdm import tqdm

from codec.interrupts import SIGNALS, held
from codec.runtime import cores

from . import codecs
from .codecs import Spec
from .curves import Measured
from .measure import Codec, Picture, Point, measure
from .report import machine
from .store import Store, key

WAIT = 60  # seconds that processes may take to start


def _start(threads: int, parent: int, stop: Any, ready: Any) -> None:
    """In a worker: it leaves Ctrl-C to its parent, and ends with it, however that ends, after what it has started.

    Not on SIGTERM either, which its pool sends to all as soon as one has ended. What a worker starts does not inherit
    a handler of Python's, as it would SIG_IGN.
    """
    codecs.set_threads(threads)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def watch() -> None:
        while not stop.wait(0.5) and os.getppid() == parent:
            pass
        with codecs.starting:
            codecs.stop_command()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _together(ready)


def _together(ready: Any) -> None:
    """Wait for the others, but not for ever."""
    with contextlib.suppress(threading.BrokenBarrierError):
        ready.wait(WAIT)


def _nothing() -> None:
    """What a worker is started with."""


def _measure(spec: Spec, level: int, picture: Picture, metrics: tuple[str, ...]) -> Point | str:
    """In a worker: the point, or in a line what went wrong."""
    try:
        return measure(picture, codecs.find(spec), level, metrics)
    except Exception as error:  # whatever a codec does wrong is a result
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        return "".join(c if c.isprintable() else "?" for c in line)


def _peak(spec: Spec, level: int, picture: Picture) -> float | None:
    """In a process of its own: MiB at the highest of one encode and decode, libraries and all."""
    try:
        measure(picture, codecs.find(spec), level, ())
    except Exception:  # counted by _measure
        return None
    who = resource.RUSAGE_CHILDREN if spec[0] in ("command", "heic", "avif-aom", "avif-svt") else resource.RUSAGE_SELF
    return resource.getrusage(who).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)


def sweep(
    found: dict[Spec, Codec],
    levels: dict[str, list[int]],
    pictures: dict[str, Picture],
    store: Store,
    metrics: tuple[str, ...],
    jobs: int,
) -> dict[str, Measured]:
    """Measure what the store has not, `jobs` points at a time; every point is kept as it comes. levels: by codec."""
    digests = {name: hashlib.sha256(p.tobytes() + str(p.size).encode()).hexdigest() for name, p in pictures.items()}
    here = {**machine(), "jobs": jobs}
    measured: dict[str, Measured] = {}
    todo = []
    for spec, codec in found.items():
        measured[codec.name] = {f"{codec.letter}{level}": {} for level in levels[codec.name]}
        for level, name in itertools.product(levels[codec.name], pictures):
            known = key(codec, level, digests[name], metrics, here)
            at = measured[codec.name][f"{codec.letter}{level}"]
            at[name] = store.points.get(known, "not measured")
            if known not in store.points:
                todo.append((spec, level, name, known, at))
    spawn = multiprocessing.get_context("spawn")
    share, stop, ready = max(1, cores() // jobs), spawn.Event(), spawn.Barrier(jobs + 1)
    given = (share, os.getpid(), stop, ready)
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_start, initargs=given) as pool:
        try:
            if todo:
                with held():  # a process in the making would end with a traceback
                    for _ in range(jobs):
                        pool.submit(_nothing)
                    _together(ready)
            futures = {pool.submit(_measure, at[0], at[1], pictures[at[2]], metrics): at for at in todo}
            coming = as_completed(futures)
            for done in tqdm(coming, total=len(futures), unit="point", mininterval=1, disable=not futures):
                spec, level, name, known, at = futures[done]
                at[name] = point = done.result()
                if isinstance(point, Point):
                    store.add(known, point)
                else:
                    tqdm.write(f"{found[spec].name} {found[spec].letter}{level} {name}: {point}", file=sys.stderr)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return measured


def peaks(found: dict[Spec, Codec], pictures: dict[str, Picture]) -> dict[str, float | None]:
    """Memory of each codec on the largest picture, at a middle level, each in a fresh process."""
    largest = max(pictures.values(), key=lambda p: p.width * p.height)
    memory = {}
    for spec, codec in found.items():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            value = pool.submit(_peak, spec, codec.levels[len(codec.levels) // 2], largest).result()
        memory[codec.name] = value and round(value, 1)
    return memory
