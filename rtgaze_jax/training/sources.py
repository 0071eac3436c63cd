"""Where batches come from, and the thread that has the next ones on the devices before they are asked for."""

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

HostBatch = Mapping[str, np.ndarray]


class Source(Protocol):
    """An endless iterator over this process's share of each batch.

    The state is a JSON value, the same on all processes of a run and independent of how many there are, so that a run
    can be continued on other machines.
    """

    def __next__(self) -> HostBatch: ...

    def get_state(self) -> Any:
        """The position after the last batch returned."""

    def set_state(self, state: Any) -> None:
        """Continues after that position."""

    def close(self) -> None:
        """Stops workers."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One batch: on the devices, on the host, and the source's position after it."""

    batch: dict[str, jax.Array]
    host: HostBatch
    position: Any


class Prefetcher:
    """Draws and places up to `depth` batches ahead in a thread, in order; an error there is raised here."""

    def __init__(self, source: Source, place: Callable[[HostBatch], dict[str, jax.Array]], depth: int = 2):
        self._queue: queue.Queue[Item | BaseException] = queue.Queue(maxsize=depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source, place), name="prefetch", daemon=True)
        self._thread.start()

    def _run(self, source: Source, place: Callable[[HostBatch], dict[str, jax.Array]]) -> None:
        while not self._stopped.is_set():
            item: Item | BaseException
            try:
                host = next(source)
                item = Item(place(host), host, source.get_state())
            except BaseException as error:  # StopIteration as well: it must reach the loop, not end a silent thread
                item = error
            while not self._stopped.is_set():
                try:
                    self._queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stops the thread; batches drawn but not used are dropped (positions are saved per batch, so none is lost)."""
        self._stopped.set()
        self._thread.join()
