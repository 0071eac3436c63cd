"""What a run tells: a console line, metrics.jsonl, pictures, and TensorBoard behind its extra."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rtgaze_jax import files
from rtgaze_jax.errors import UserError

METRICS = "metrics.jsonl"
_SHOWN = 6  # of the loss's own metrics on the console


def device_memory() -> tuple[float, float]:
    """(in use, peak) GiB on this process's first device; zeros where the platform does not tell."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_in_use", 0) / 2**30, stats.get("peak_bytes_in_use", 0) / 2**30


def clock(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The complete lines of WORKDIR/metrics.jsonl."""
    path = workdir / METRICS
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # a kill in the middle of a write
            continue
    return rows


class Means:
    """Means of metrics over the steps since the last `take`."""

    def __init__(self):
        self._sums: dict[str, float] = {}
        self._finite = 0
        self.steps = 0  # also those that do not count

    def add(self, metrics: Mapping[str, float]) -> None:
        """One step's metrics; those of skipped steps (not finite) do not count."""
        self.steps += 1
        if all(np.isfinite(value) for value in metrics.values()):
            self._sums = {name: self._sums.get(name, 0.0) + value for name, value in metrics.items()}
            self._finite += 1

    def take(self) -> dict[str, float]:
        """The means, and starts anew; empty if no finite step was added."""
        means = {name: total / self._finite for name, total in self._sums.items()}
        self._sums, self._finite, self.steps = {}, 0, 0
        return means


class Log:
    """The outputs of the first process; on others nothing is written.

    config: every (steps per line), images_every (steps per picture, 0: none), tensorboard (bool).
    """

    def __init__(
        self, config: Any, workdir: Path, *, step: int, total_steps: int, batch_size: int, deadline: float | None
    ):
        """Continues the files of `workdir` from `step`: lines of steps that a kill undid are dropped.

        `deadline` is the time.monotonic() at which the run will end by itself, if any.
        """
        self._workdir, self._total, self._batch, self._deadline = workdir, total_steps, batch_size, deadline
        self._active = jax.process_index() == 0
        self._step, self._time = step, time.monotonic()
        self._board = None
        self.last: dict[str, float] = {}  # the newest line kept
        if not self._active:
            return
        if config.tensorboard:
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise UserError("log.tensorboard needs the extra: pip install 'rtgaze-jax[tensorboard]'") from error
            self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step)
        kept = [row for row in read_metrics(workdir) if row["step"] <= step]
        self.last = {k: v for k, v in kept[-1].items() if k != "step"} if kept else {}
        files.write_bytes(workdir / METRICS, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = open(workdir / METRICS, "a")  # noqa: SIM115  (closed in close())

    def restart_clock(self) -> None:
        """Leaves the time until now (compilation) out of the next rate."""
        self._time = time.monotonic()

    def metrics(self, step: int, values: Mapping[str, float], split: Mapping[str, float]) -> None:
        """One line: means of metrics and the milliseconds a step spent in each part of the host's loop."""
        now = time.monotonic()
        rate = (step - self._step) / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        if not self._active:
            return
        left = (self._total - step) / max(rate, 1e-9)
        if self._deadline is not None:
            left = min(left, self._deadline - now)
        used, peak = device_memory()
        row = {
            "step": step,
            **values,
            "samples_per_second": rate * self._batch,
            "memory_gib": used,
            "memory_peak_gib": peak,
            **{f"ms_{name}": value for name, value in split.items()},
        }
        self._file.write(json.dumps({k: v if isinstance(v, int) else float(f"{v:.6g}") for k, v in row.items()}) + "\n")
        self._file.flush()
        common = ("loss", "grad_norm", "learning_rate", "skipped", "streak")
        own = " ".join(f"{k} {v:.4g}" for k, v in [(k, v) for k, v in values.items() if k not in common][:_SHOWN])
        memory = f" | {peak:.1f} GiB" if peak else ""
        self.say(
            f"step {step}/{self._total} loss {values.get('loss', float('nan')):.4f} {own} | gradient "
            f"{values.get('grad_norm', float('nan')):.3g} rate {values.get('learning_rate', 0):.2e} | "
            f"{rate * self._batch:.1f} samples/s{memory} | {clock(left)} left"
        )
        if self._board:
            for name, value in row.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Pictures uint8 [H, W, 3] as WORKDIR/images/STEP_NAME.png."""
        from PIL import Image

        for name, picture in pictures.items():
            picture = np.asarray(picture)
            with files.atomic_path(self._workdir / "images" / f"{step:07d}_{name}.png") as temporary:
                Image.fromarray(picture).save(temporary)
            if self._board:
                self._board.add_image(name, picture, step, dataformats="HWC")

    def say(self, text: str) -> None:
        """A line on the console, of the first process."""
        if self._active:
            print(text, flush=True)

    def close(self) -> None:
        """Closes the files."""
        if self._active:
            self._file.close()
        if self._board:
            self._board.close()
