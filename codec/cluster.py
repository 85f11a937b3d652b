"""Many pieces of work on a Ray cluster whose machines share no disk: bytes go there and come back."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterable
from functools import lru_cache
from typing import Any, TypeVar

from codec.crew import Lost
from codec.errors import BadInput, CodecError, install

Item = TypeVar("Item")
Answer = TypeVar("Answer")

RETRIES = 5  # of a piece whose node or process was lost under it
PATIENCE = 10  # seconds until one looks whether there are any nodes left


def shared(
    work: Callable[[bytes], Answer], items: Iterable[tuple[Item, bytes]], address: str, threads: int
) -> Generator[tuple[Item, Answer | Lost], None, None]:
    """Each item with `work` of its bytes, as they come, from the nodes of a Ray cluster. Our choice.

    address: host:port, or auto for the cluster that this machine is of. `work` is sent once, and takes `threads` cores
    of a node for each item. `items` is read when there is room: twice what the nodes can work on is there, so that
    none waits. Where a node is lost, others do its work again, and every item is answered once.
    Raises CodecError without Ray, BadInput where no cluster answers or no node has so many cores.
    """
    ray = connected(address)
    try:
        room = _room(ray, threads)
        if not room:
            raise BadInput(f"no node of the cluster at {address} has {threads} cores: ask for fewer threads")
        remote = ray.remote(num_cpus=threads, max_retries=RETRIES)(_work_on)
        sent = [ray.put(work)]  # in a list Ray leaves it to the node when to fetch it
        coming = iter(items)
        waiting: dict[Any, Item] = {}
        while True:
            while len(waiting) < 2 * room and (task := next(coming, None)) is not None:
                waiting[remote.remote(sent, task[1])] = task[0]
            if not waiting:
                return
            ready, _ = ray.wait(list(waiting), timeout=PATIENCE)
            if not ready and not _room(ray, threads):
                raise CodecError(f"the cluster at {address} has lost its nodes; the same command goes on")
            for one in ready:
                item = waiting.pop(one)
                yield item, _answer(ray, one)
    finally:
        ray.shutdown()  # ends what is under way there


def connected(address: str) -> Any:
    """The module ray, connected to the cluster at host:port, or auto. Raises CodecError without Ray, BadInput where no
    cluster answers."""
    try:
        import ray
    except ImportError as error:
        raise CodecError(f"--ray needs Ray: {install('cluster')}") from error
    host, _, port = address.removeprefix("ray://").rpartition(":")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if port.isdigit():  # Ray itself waits for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInput(f"no Ray cluster answers at {address}: {error}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray puts its own there
    return ray


def _room(ray: Any, threads: int) -> int:
    """So many pieces can be worked on at a time."""
    return sum(int(n["Resources"].get("CPU", 0)) // threads for n in ray.nodes() if n["Alive"])


def _answer(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return Lost(f"the cluster gave it up: {getattr(error, 'cause', None) or error}")


def _work_on(sent: list[Any], data: bytes) -> Any:
    """On a node."""
    return _fetched(sent[0])(data)


@lru_cache(maxsize=1)
def _fetched(reference: Any) -> Any:
    import ray

    return ray.get(reference)
