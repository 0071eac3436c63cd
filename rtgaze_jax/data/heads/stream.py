"""Synthetic people straight from the renderer into training, through memory: no disk, new people all the time.

`stream_captures` yields whole records in order. `StreamSource` keeps the newest captures in a ring of fixed size
and draws batches of pairs from it, so that training never waits for the renderer: a slow renderer only means that a
capture is used more often (`StreamSource.stats`).
"""

import functools
import itertools
import logging
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rtgaze_jax.data.heads.workers import WorkerPool, read_arrays, write_arrays
from rtgaze_jax.data.pairs import draw_pairs, empty_arrays, gather, pack
from rtgaze_jax.data.record import FIELDS, Grid, Record, validate

_log = logging.getLogger(__name__)

# What renders: built once in each process from resolution and GPU (None: the default), then called for each capture.
RenderFunction = Callable[..., list[Record]]
MakeRenderer = Callable[[int, int | None], RenderFunction]


def head_renderer(resolution: int, device: int | None = None, degraded: bool = True) -> RenderFunction:
    """`render_capture` of the synthetic heads with its own renderer: (split, person, capture=0, *, gazes, views)."""
    from rtgaze_jax.data.heads.capture import render_capture
    from rtgaze_jax.data.heads.renderer import Renderer

    return functools.partial(render_capture, Renderer(resolution, device=device), degraded=degraded)


# Nobody can predict a target's noise; sources are degraded on the device (data/transform.py).
clean_head_renderer: MakeRenderer = functools.partial(head_renderer, degraded=False)


def stream_captures(
    split: str,
    *,
    resolution: int,
    gazes: int,
    views: int,
    workers: int,
    start: int = 0,
    count: int | None = None,
    devices: Sequence[int] = (),
    make_renderer: MakeRenderer = head_renderer,
) -> Iterator[list[Record]]:
    """Yields the records of person `start`, `start + 1`, ...: `count` of them, or for ever.

    `workers` processes render and share the GPUs `devices` (EGL numbers; none: the default one) evenly; the
    order does not depend on them. People who cannot be rendered are reported and left out.
    """
    people = range(start, sys.maxsize if count is None else start + count)
    arguments = (make_renderer, devices, resolution, split, gazes, views, True)
    with WorkerPool(_render_into, arguments, workers, gazes * views * (11 * resolution**2 + 8192)) as pool:
        waiting: dict[int, list[Record]] = {}
        following = iter(people)
        turn = next(following, None)
        for outcome, memory in pool.run(people):
            if outcome.error is None:
                arrays = {key: view.copy() for key, view in read_arrays(memory, outcome.result).items()}
                waiting[outcome.task] = [{key: arrays[key][i] for key in FIELDS} for i in range(gazes * views)]
            else:
                _log.warning("person %d of %s is left out: %s", outcome.task, split, outcome.error)
                waiting[outcome.task] = []
            while turn in waiting:
                if records := waiting.pop(turn):
                    yield records
                turn = next(following, None)


def _render_into(
    memory: np.ndarray,
    number: int,
    make_renderer: MakeRenderer,
    devices: Sequence[int],
    resolution: int,
    split: str,
    gazes: int,
    views: int,
    whole: bool,
) -> Callable[[int], Any]:
    """A worker's function: renders a person into shared memory, whole records or what training needs of them."""
    render = make_renderer(resolution, devices[number % len(devices)] if devices else None)

    def work(person: int) -> Any:
        records = render(split, person, gazes=gazes, views=views)
        if len(records) != gazes * views:
            raise ValueError(f"{len(records)} records, not {gazes} x {views}")
        for record in records:
            validate(record)
        arrays = {k: np.stack([r[k] for r in records]) for k in FIELDS} if whole else pack(records)
        return write_arrays(memory, arrays)

    return work


class StreamStats(NamedTuple):
    """How a StreamSource is doing."""

    captures: int  # rendered so far
    images_per_second: float  # rendered lately
    batches: int  # assembled so far
    megabytes_per_second: float  # of batches, by one assembling thread while it works
    reuse: float  # how many times an image was used on average so far, as source or target
    skipped: int  # people who could not be rendered
    restarts: int  # of rendering processes that died


class StreamSource:
    """An endless iterator over training batches of freshly rendered people (see `rtgaze_jax.data.pairs` for the batch).

    `workers` processes render person `start`, `start + stride`, ... without a pause; the newest `capacity` captures
    of gazes x views images are kept (6 bytes a pixel, allocated once). `threads` threads draw pairs from all that
    is kept, from the moment `minimum` captures are there, and hold `prefetch` batches ready. The processes share
    the GPUs `devices` (EGL numbers; none: the default one) evenly; after `limit` people they stop (0: never), which
    frees the GPU they draw on. With several hosts give each its own `start` (process index) and `stride` (process
    count). Which captures meet in a batch depends on timing; everything else on `seed`.

    Raises FailureError from `next()` where the renderer does not work at all. Use as a context manager, or call
    `close()`.
    """

    def __init__(
        self,
        split: str = "train",
        *,
        resolution: int,
        batch_size: int,
        workers: int,
        gazes: int = 6,
        views: int = 4,
        capacity: int = 64,
        minimum: int = 8,
        same_view: float = 0.5,
        frontal: bool = False,
        threads: int = 2,
        prefetch: int = 2,
        seed: int = 0,
        start: int = 0,
        stride: int = 1,
        devices: Sequence[int] = (),
        limit: int = 0,
        make_renderer: MakeRenderer = clean_head_renderer,
    ):
        self.split, self.grid, self.batch_size = split, Grid(capacity, gazes, views), batch_size
        self.minimum, self.same_view, self.frontal = min(minimum, capacity), same_view, frontal
        self.seed, self.stride, self.limit = seed, stride, limit
        self._next_person = start
        self._buffer = empty_arrays(capacity * gazes * views, resolution)
        self._live: list[int] = []  # ring places that hold a whole capture
        self._readers = np.zeros(capacity, int)
        self._changed = threading.Condition()  # guards everything above and the counters below
        self._captures = self._batches = self._skipped = self._restarts = 0
        self._arrivals: deque[float] = deque([time.monotonic()], maxlen=65)
        self._assembly_seconds, self._assembly_bytes = 0.0, 0
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._ready: queue.Queue = queue.Queue(max(1, prefetch))
        arguments = (make_renderer, devices, resolution, split, gazes, views, False)
        memory = gazes * views * (6 * resolution**2 + 1024)
        self._threads = [threading.Thread(target=self._guard, args=(self._produce, arguments, workers, memory))]
        self._threads += [threading.Thread(target=self._guard, args=(self._assemble,)) for _ in range(threads)]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def __enter__(self) -> "StreamSource":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __iter__(self) -> "StreamSource":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        while True:
            if self._error is not None:
                self.close()
                raise self._error
            if self._stop.is_set():
                raise StopIteration
            try:
                return self._ready.get(timeout=0.2)
            except queue.Empty:
                continue

    def close(self) -> None:
        """Ends threads and processes. Later calls of next() raise StopIteration."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def state(self) -> dict[str, int]:
        """Where to go on after a restart: `start` of a new StreamSource with unseen people."""
        with self._changed:
            return {"start": self._next_person}

    def stats(self) -> StreamStats:
        """Counters and measured rates."""
        with self._changed:
            lately = len(self._arrivals) - 1
            rate = lately * self.grid.per_capture / max(time.monotonic() - self._arrivals[0], 1e-9)
            images = self._captures * self.grid.per_capture
            return StreamStats(
                self._captures,
                rate,
                self._batches,
                self._assembly_bytes / 1e6 / max(self._assembly_seconds, 1e-9),
                2 * self._batches * self.batch_size / max(images, 1),
                self._skipped,
                self._restarts,
            )

    def _guard(self, work: Callable, *arguments) -> None:
        """Runs a thread's work; what it raises is raised again by next()."""
        try:
            work(*arguments)
        except BaseException as error:
            self._error = error
            self._stop.set()

    def _produce(self, arguments: tuple, workers: int, memory_bytes: int) -> None:
        people: Iterator[int] = itertools.count(self._next_person, self.stride)
        if self.limit:
            people = itertools.islice(people, self.limit)
        with WorkerPool(_render_into, arguments, workers, memory_bytes) as pool:
            for outcome, memory in pool.run(people, self._stop):
                if outcome.error is not None:
                    _log.warning("person %d of %s is left out: %s", outcome.task, self.split, outcome.error)
                else:
                    self._keep(read_arrays(memory, outcome.result))
                with self._changed:
                    self._next_person = max(self._next_person, outcome.task + self.stride)
                    self._skipped += outcome.error is not None
                    self._restarts = pool.restarts

    def _keep(self, arrays: dict[str, np.ndarray]) -> None:
        """Puts a capture into the place of the oldest one."""
        place = self._captures % self.grid.captures
        with self._changed:
            if place in self._live:
                self._live.remove(place)
            self._changed.wait_for(lambda: self._readers[place] == 0)
        first = place * self.grid.per_capture
        for key, array in arrays.items():
            np.copyto(self._buffer[key][first : first + len(array)], array)
        with self._changed:
            self._live.append(place)
            self._captures += 1
            self._arrivals.append(time.monotonic())
            self._changed.notify_all()

    def _assemble(self) -> None:
        while not self._stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: len(self._live) >= self.minimum or self._stop.is_set())
                if self._stop.is_set():
                    return
                rng = np.random.default_rng([self.seed, self._batches])
                self._batches += 1
                # Without repetition as far as there are captures: neighbours in a batch are different people.
                rounds = -(-self.batch_size // len(self._live))
                shuffled = np.concatenate([rng.permutation(self._live) for _ in range(rounds)])
                places = shuffled[: self.batch_size]
                np.add.at(self._readers, places, 1)
            began = time.perf_counter()
            batch = gather(self._buffer, draw_pairs(rng, self.grid, places, self.same_view), self.frontal)
            seconds = time.perf_counter() - began
            with self._changed:
                np.subtract.at(self._readers, places, 1)
                self._assembly_seconds += seconds
                self._assembly_bytes += sum(array.nbytes for array in batch.values())
                self._changed.notify_all()
            self._offer(batch)

    def _offer(self, batch: dict[str, np.ndarray]) -> None:
        while not self._stop.is_set():
            try:
                return self._ready.put(batch, timeout=0.2)
            except queue.Full:
                continue
