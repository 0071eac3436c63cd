"""What watches a run from the host: non-finite steps, jumps, signals, two runs in one folder."""

import contextlib
import fcntl
import math
import signal
import statistics
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rtgaze_jax import files
from rtgaze_jax.errors import FailureError, UserError


def save_batch(path: Path, batch: Mapping[str, np.ndarray]) -> Path:
    """Writes this process's part of a batch as NPZ; several processes write NAME.PROCESS.npz."""
    if jax.process_count() > 1:
        path = path.with_suffix(f".{jax.process_index()}.npz")
    arrays: dict[str, Any] = dict(batch)
    with files.atomic_path(path) as temporary:
        np.savez(temporary, **arrays)
    return path


class Guards:
    """Looks at each step's metrics once they are on the host (one step late).

    config: max_skips (non-finite steps in a row that stop the run), jump_factor (times the running median of loss or
    grad_norm that counts as a jump; 0: off), history (steps in the median), snapshots (jumps kept per run).
    """

    def __init__(self, config: Any, workdir: Path, pin: Callable[[int], Path | None]):
        """`pin(step)` keeps the newest checkpoint at or before `step` for good and returns where."""
        self._config, self._workdir, self._pin = config, workdir, pin
        self._seen = {name: deque[float](maxlen=config.history) for name in ("loss", "grad_norm")}
        self._snapshots = 0

    def check(self, step: int, metrics: Mapping[str, float], batch: Mapping[str, np.ndarray]) -> list[str]:
        """Warnings about the step that ended at `step`. Raises FailureError once too many in a row were not finite."""
        streak = int(metrics["streak"])
        if streak:
            if streak >= self._config.max_skips:
                saved = save_batch(self._workdir / "bad" / f"step_{step}.npz", batch)
                raise FailureError(
                    f"{streak} steps in a row had a loss or gradient that is not finite; the last batch is in {saved}; "
                    "look at it, or lower optim.lr or optim.clip, and continue with --allow_change=optim"
                )
            return [
                f"step {step}: loss {metrics['loss']:.4g}, gradient norm {metrics['grad_norm']:.4g}: update skipped"
            ]
        return [warning for name in self._seen if (warning := self._jump(name, step, metrics[name], batch))]

    def _jump(self, name: str, step: int, value: float, batch: Mapping[str, np.ndarray]) -> str:
        seen, factor = self._seen[name], self._config.jump_factor
        usual = statistics.median(seen) if len(seen) == seen.maxlen else math.inf
        seen.append(value)
        if not factor or value <= factor * usual:
            return ""
        text = f"step {step}: {name} jumped to {value:.4g} from about {usual:.4g}"
        if self._snapshots < self._config.snapshots:
            self._snapshots += 1
            saved = save_batch(self._workdir / "jumps" / f"step_{step}.npz", batch)
            pinned = self._pin(step - 1)
            text += f"; batch in {saved}" + (f", last checkpoint before it kept in {pinned}" if pinned else "")
        return text


class Signals:
    """Within it, SIGTERM and the first Ctrl-C are remembered in `received` instead of ending the process."""

    def __init__(self):
        self.received: int = 0

    def __enter__(self) -> "Signals":
        self._previous = {}
        with contextlib.suppress(ValueError):  # signals can be handled in the main thread only
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: Any) -> None:
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = number
        print(f"rtgaze: {signal.Signals(number).name}: saving a checkpoint, then stopping", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def sole_user(workdir: Path) -> Iterator[None]:
    """Holds WORKDIR/.lock; the system frees it however the process ends. UserError if another run trains there."""
    if jax.process_index() != 0:
        yield
        return
    with open(workdir / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"another run is training in {workdir}; wait for it, or choose another --workdir"
            ) from error
        yield
