"""Where batches come from, and the thread that has the next ones on the devices before they are asked for."""

import dataclasses
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from rtgaze_jax.errors import UserError

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


class StreamBatches:
    """rtgaze_jax.data.heads.stream as a Source; rendering starts with the first batch. State: the next unseen person.

    Which people meet in a batch depends on timing, so a continued run sees other batches than an undisturbed one would.
    """

    def __init__(self, start: int = 0, **options: Any):
        """`options` are StreamSource's; several processes render different people."""
        self._start, self._options = start, options
        self._stream: Any = None

    def __next__(self) -> HostBatch:
        if self._stream is None:
            from rtgaze_jax.data.heads.stream import StreamSource

            index, count = jax.process_index(), jax.process_count()
            self._stream = StreamSource(**self._options, start=self._start + index, stride=count)
        return next(self._stream)

    def example(self) -> HostBatch:
        """A batch of zeros: what batches look like, long before the first one is drawn."""
        from rtgaze_jax.data.pairs import empty_arrays, gather

        numbers = np.zeros((self._options["batch_size"], 3), int)
        return gather(empty_arrays(1, self._options["resolution"]), numbers, self._options.get("frontal", False))

    def get_state(self) -> dict[str, int]:
        """The next person of the first process, before which all have been rendered."""
        return {"start": self._start if self._stream is None else self._stream.state()["start"] - jax.process_index()}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Goes on with unseen people; before the first batch only."""
        self._start = state["start"]

    def stats(self) -> dict[str, float]:
        """How often an image was used so far, and images rendered per second."""
        if self._stream is None:
            return {}
        stats = self._stream.stats()
        return {"data/reuse": stats.reuse, "data/images_per_second": stats.images_per_second}

    def close(self) -> None:
        """Ends the rendering processes."""
        if self._stream is not None:
            self._stream.close()


class RecordBatches:
    """A data set on disk (rtgaze_jax.data.pipeline) as a Source. State: the number of batches drawn.

    Batch n depends on nothing but data, seed and batch size, so a continued run sees what an undisturbed one would.
    """

    def __init__(self, directory: str, **options: Any):
        """`options` are pair_dataset's."""
        self._directory, self._options = directory, options
        self._count = 0
        self._iterator: Any = None

    def __next__(self) -> HostBatch:
        if self._iterator is None:
            from rtgaze_jax.data.pipeline import pair_dataset

            index, count = jax.process_index(), jax.process_count()
            place = {"start": self._count, "process_index": index, "process_count": count}
            self._iterator = iter(pair_dataset(self._directory, **self._options, **place))
        batch = next(self._iterator)
        self._count += 1
        # Worker processes hand over views of shared memory that they will use again.
        return {name: np.array(value) for name, value in batch.items()}

    def get_state(self) -> dict[str, int]:
        """Batches drawn."""
        return {"batches": self._count}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Goes on after that many batches."""
        self.close()
        self._count = state["batches"]

    def close(self) -> None:
        """Ends the decoding processes."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def _require_depth(directories: str) -> None:
    """Raises UserError where one of the data sets (separated by commas) has no depth."""
    from rtgaze_jax.data.storage import manifests

    for directory in directories.split(","):
        if any("depth" in manifest.absent for manifest in manifests(directory).values()):
            raise UserError(f"{directory} has no depth to learn from: give --config.distill.source=teacher (or none)")


def make_source(config: Any, rows: int, *, frontal: bool = False) -> Source:
    """The batches that `config.data` names: source "stream" (rendered people) or "records" (a data set in data.dir;
    several, separated by commas, take turns).

    rows: this process's share of the batch; frontal: with the frontal image that the teacher sees.
    """
    data = config.data
    if data.source == "stream":
        return StreamBatches(
            resolution=config.model.image_size,
            batch_size=rows,
            workers=data.workers or max(1, (os.cpu_count() or 2) - 1),
            gazes=data.gazes,
            views=data.views,
            capacity=data.capacity,
            minimum=data.minimum,
            same_view=data.same_view,
            frontal=frontal,
            seed=config.seed,
            limit=data.people,
            devices=tuple(data.gpus),
            threads=2 * len(jax.local_devices()),
        )
    if data.source == "records":
        if not data.dir:
            raise UserError(
                "data.source=records needs data.dir, a folder made by 'rtgaze data heads' or 'data prepare'"
            )
        if config.get("distill", {}).get("source") == "ground_truth":
            _require_depth(data.dir)
        return RecordBatches(
            data.dir,
            batch_size=config.batch_size,
            seed=config.seed,
            same_view=data.same_view,
            frontal=frontal,
            workers=data.workers,
        )
    raise UserError(f"data.source is '{data.source}'; choose stream or records")
