"""Stages of work that run side by side, each handing its items on in order: threads, bounded queues, constant memory.

Stages are generators that take the one before them and close it when they end. So closing the last one, or an error in
any of them, ends all.
"""

import collections
import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import cv2

AHEAD = 3
"""Items that a stage may be ahead of the next one: enough for a slow one now and then."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Stage: TypeAlias = Generator[Item, None, None]


def ahead(items: Iterable[Item], size: int = AHEAD) -> Stage[Item]:
    """The same items, made by a thread that runs up to `size` items ahead. Its errors come out here; it stops, and
    closes `items`, when this generator is closed.
    """
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(size)
    stop = threading.Event()

    def put(entry: tuple[str, Any]) -> bool:
        while not stop.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(("item", item)):
                    break
            _close(items)
            put(("end", None))
        except BaseException as error:  # handed to the consumer, whatever it is
            put(("error", error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stop.set()
        thread.join()


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Stage[Result]:
    """function(item) for each item, in their order, up to `workers` of them at a time in threads.

    They begin in order, too, so an item's call may wait for something that an earlier item's provides.
    """
    waiting: collections.deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            _close(items)


def _close(items: Iterable[Any]) -> None:
    """Closes a generator; other iterables have nothing to close."""
    if isinstance(items, Generator):
        items.close()


@contextlib.contextmanager
def one_core_a_stage() -> Iterator[None]:
    """OpenCV computes in the thread that asks, meanwhile: its own threads and those of the stages would fight for the
    cores (on 16 of them, twice as slow)."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
