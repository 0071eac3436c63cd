"""Processes that render: one task each at a time, results in shared memory, restarted when they die.

Processes are spawned (a GL context and JAX's threads do not survive a fork) and single-threaded, so that as many of
them as there are cores use the cores fully. They end by themselves when the parent is gone, however it went.
"""

import contextlib
import ctypes
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from rtgaze_jax.errors import FailureError

CONSECUTIVE_FAILURES = 8  # so many tasks failing in a row are no accident
_SINGLE_THREADED = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")
}
_CONTEXT = multiprocessing.get_context("spawn")
_log = logging.getLogger(__name__)

Layout = dict[str, tuple[int, str, tuple[int, ...]]]  # where arrays lie in a memory block: offset, dtype, shape


class Outcome(NamedTuple):
    """What became of a task: a result, or the reason why there is none."""

    task: Any
    result: Any = None
    error: str | None = None


class _Worker:
    def __init__(self, number: int, setup: Callable, arguments: tuple, memory: Any):
        self.number, self.setup, self.arguments, self.memory = number, setup, arguments, memory
        self.start()

    def start(self) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(
            target=_serve, args=(theirs, self.memory, self.number, self.setup, self.arguments), daemon=True
        )
        with _environment(_SINGLE_THREADED):
            self.process.start()
        theirs.close()  # now only the process holds it: its death closes the pipe

    def stop(self, patience: float) -> None:
        self.connection.close()  # an idle process ends by itself
        self.process.join(patience)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class WorkerPool:
    """`workers` processes that each call `setup(memory, number, *arguments)` once, and what it returns for every task.

    `memory` is a block of `memory_bytes` that the process shares with the parent (a uint8 array), `number` counts
    the processes from 0. `setup`, arguments, tasks and results travel between processes: functions by name, the rest
    small.
    """

    def __init__(self, setup: Callable, arguments: tuple, workers: int, memory_bytes: int = 1):
        self.restarts = 0
        # Shared memory without a name: nothing is left behind, even by kill -9.
        blocks = [_CONTEXT.RawArray(ctypes.c_uint8, memory_bytes) for _ in range(workers)]
        self._workers = [_Worker(i, setup, arguments, block) for i, block in enumerate(blocks)]

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self, patience: float = 1.0) -> None:
        """Ends all processes; those still busy after `patience` seconds are killed."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.stop(patience)
        self._workers = []

    def run(self, tasks: Iterable, stop: threading.Event | None = None) -> Iterator[tuple[Outcome, np.ndarray]]:
        """Yields (outcome, memory of the process that did the task) as tasks finish, in any order, until all are done.

        The memory holds the result until the next one is asked for. A task during which its process died is tried
        once more in a new process. `stop` ends the iteration early. Raises FailureError where `setup` fails, and
        where task after task fails.
        """
        pending = iter(tasks)
        busy: dict[Any, tuple[_Worker, Any, int]] = {}
        failures = 0

        def give(worker: _Worker, task: Any, attempt: int) -> None:
            with contextlib.suppress(OSError):  # it died before: found when its pipe is read
                worker.connection.send(task)
            busy[worker.connection] = (worker, task, attempt)

        def give_next(worker: _Worker) -> None:
            for task in pending:
                give(worker, task, 1)
                return

        for worker in self._workers:
            give_next(worker)
        while busy and not (stop is not None and stop.is_set()):
            for connection in multiprocessing.connection.wait(list(busy), timeout=0.2):
                worker, task, attempt = busy.pop(connection)
                kind: str
                value: Any
                try:
                    kind, value = worker.connection.recv()
                except (EOFError, OSError):
                    kind, value = "died", self._restart(worker, task)
                    if attempt == 1:
                        give(worker, task, 2)
                        continue
                if kind == "setup failed":
                    raise FailureError(value)
                failures = 0 if kind == "done" else failures + 1
                outcome = Outcome(task, value) if kind == "done" else Outcome(task, error=value)
                yield outcome, np.frombuffer(worker.memory, np.uint8)
                if failures >= CONSECUTIVE_FAILURES:
                    raise FailureError(f"{failures} tasks failed in a row, the last one ({task}) with: {value}")
                give_next(worker)

    def _restart(self, worker: _Worker, task: Any) -> str:
        worker.process.join()
        reason = f"its process died with exit code {worker.process.exitcode}"
        _log.warning("task %s: %s; starting a new one", task, reason)
        worker.stop(patience=0)
        worker.start()
        self.restarts += 1
        return reason


def write_arrays(memory: np.ndarray, arrays: dict[str, np.ndarray]) -> Layout:
    """Copies arrays into a uint8 block, one after the other, and says where they are. ValueError if too small."""
    layout, offset = {}, 0
    for key, array in arrays.items():
        if offset + array.nbytes > memory.size:
            raise ValueError(f"{key} does not fit into {memory.size} bytes")
        target = memory[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
        np.copyto(target, array)
        layout[key] = (offset, array.dtype.str, array.shape)
        offset += -(-array.nbytes // 64) * 64
    return layout


def read_arrays(memory: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
    """Views of the arrays that write_arrays put into a block."""
    views = {}
    for key, (offset, dtype, shape) in layout.items():
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        views[key] = memory[offset : offset + size].view(dtype).reshape(shape)
    return views


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for processes started meanwhile; the user's own values win."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _serve(connection: Any, memory: Any, number: int, setup: Callable, arguments: tuple) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # the parent closed the pipe, or is gone
        try:
            work = setup(np.frombuffer(memory, np.uint8), number, *arguments)
        except Exception as error:
            connection.recv()  # the answer belongs to a task
            connection.send(("setup failed", _one_line(error)))
            return
        while True:
            task = connection.recv()
            try:
                answer = ("done", work(task))
            except Exception as error:  # this task's problem, not the next one's
                answer = ("failed", _one_line(error))
            connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a child
    parent.join()
    os._exit(1)  # in the middle of whatever was being rendered


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, FailureError) and text else f"{type(error).__name__}: {text}"
