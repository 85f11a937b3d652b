"""Many pieces of work in processes of this machine, none of which can hang this one or outlive it.

Not concurrent.futures: its workers answer through one pipe, and one that the kernel kills in the middle of an answer
leaves it half full, on which the reader waits for ever. Here each has a pipe of its own, which ends with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing import connection, resource_tracker
from typing import Generic, TypeVar

from codec.interrupts import SIGNALS, held, noted

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Lost(Exception):
    """The process at work on this was killed, and so was another that tried again. The message says how."""


def shared(
    work: Callable[[bytes], Answer], items: Iterable[tuple[Item, bytes]], jobs: int
) -> Generator[tuple[Item, Answer | Lost], None, None]:
    """Each item with `work` of its bytes, as they come, from at most so many processes (1: this one). Our choice.

    `work` is pickled; it must not raise, which ends its process, nor give None. `items` is read when there is someone
    to work on the next, so that at most `jobs` of them are held. Where a process dies, the others end what they have,
    then the piece is tried once more with the machine to itself, and answered by Lost if that dies as well. However
    the iterator ends, its processes are gone then.
    """
    if jobs == 1:
        yield from _here(work, items)
        return
    coming = iter(items)
    crew: list[_Worker[Item, Answer]] = []
    lost: list[tuple[Item, bytes]] = []
    answers: list[tuple[Item, Answer | Lost]] = []
    try:
        while True:
            if not lost:
                _hand_out(coming, crew, work, jobs)
            yield from answers  # the caller may take its time over these: everybody is at work again
            answers.clear()
            if busy := [w for w in crew if w.task]:
                ready = connection.wait([w.line for w in busy])
                for worker in (w for w in busy if w.line in ready):
                    task, answer = worker.take()
                    if answer is None:
                        crew.remove(worker)
                        worker.end()
                        lost.append(task)
                    else:
                        answers.append((task[0], answer))
            elif lost:
                while crew:
                    crew.pop().end()
                answers.append(_once_more(work, *lost.pop()))
            else:
                return
    finally:
        for worker in crew:
            worker.end()


def _here(
    work: Callable[[bytes], Answer], items: Iterable[tuple[Item, bytes]]
) -> Generator[tuple[Item, Answer], None, None]:
    with noted() as came:
        for item, data in items:
            answer = work(data)
            if came:
                raise KeyboardInterrupt
            yield item, answer


def _hand_out(
    coming: Iterator[tuple[Item, bytes]], crew: list[_Worker[Item, Answer]], work: Callable[[bytes], Answer], jobs: int
) -> None:
    """Until everybody has something, or nothing comes."""
    while (idle := [w for w in crew if not w.task]) or len(crew) < jobs:
        if (task := next(coming, None)) is None:
            return
        if not idle:
            idle = [_Worker(work)]
            crew += idle
        idle[0].give(task)


def _once_more(work: Callable[[bytes], Answer], item: Item, data: bytes) -> tuple[Item, Answer | Lost]:
    worker: _Worker[Item, Answer] = _Worker(work)
    try:
        worker.give((item, data))
        answer = worker.take()[1]
    finally:
        code = worker.end()
    if answer is not None:
        return item, answer
    how = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
    hint = ": perhaps there was not enough memory" if how == "SIGKILL" else ""
    return item, Lost(f"its process died twice, by {how}{hint}")


class _Worker(Generic[Item, Answer]):
    """A process, and what it is at work on."""

    def __init__(self, work: Callable[[bytes], Answer]):
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
        self.task: tuple[Item, bytes] | None = None
        self.line, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        # Of an interrupt a process in the making would die with a traceback, or be forgotten.
        resource_tracker.ensure_running()  # which `start` would call, and which unblocks the signals
        with held():
            self.process.start()
        theirs.close()  # so that the pipe ends with the process

    def give(self, task: tuple[Item, bytes]) -> None:
        """To be called when there is no other task."""
        self.task = task
        with contextlib.suppress(ConnectionError):  # it died while it had nothing to do: `take` finds out
            self.line.send_bytes(task[1])

    def take(self) -> tuple[tuple[Item, bytes], Answer | None]:
        """The task and its answer, which is waited for; None if the process died."""
        assert self.task is not None
        task, self.task = self.task, None
        try:
            return task, self.line.recv()
        except (EOFError, OSError):
            self.process.join()
            return task, None

    def end(self) -> int | None:
        """Now; returns the exit code. Nothing is lost: what a worker makes is in its memory only."""
        self.process.kill()
        self.process.join()
        self.line.close()
        return self.process.exitcode


def _serve(work: Callable[[bytes], Answer], line: connection.Connection) -> None:
    """In a worker: it leaves Ctrl-C to its parent, and ends with it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            line.send(work(line.recv_bytes()))


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)
