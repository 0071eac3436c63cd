"""Training speed: samples a second, where a step's time goes, memory, and scaling over devices.

  python experiments/benchmark_training.py --config configs/rtgaze.py:small --json training_small.json
  python experiments/benchmark_training.py --config configs/rtgaze.py:paper --devices 1 2 4 --config.batch_size=8

The configuration's batch size is that of ONE device; with n devices the batch is n times as large (weak scaling).
Batches are random images held on the host, so that data costs nothing but the copy; `--source` takes the
configuration's own source and shows whether it keeps up. Times are medians over `--steps` steps after warm-up:

  data    waiting for the next batch (0 where the source keeps up)
  host    dispatching the step. On GPUs it is about as long as the step, as loops wait for their condition; a profile
          (--trace) tells whether the device ever waits
  step    from one step's end to the next one's, with the device always busy

Ratios are against the first row of the same run. `--trace DIR` also records five steps of the last row for a profiler.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def random_batch(config: Any, rows: int) -> dict[str, np.ndarray]:
    """Noise with the shapes, types and sane cameras of data/pairs.py."""
    from rtgaze_jax.geometry.camera import frontal_camera

    draw, side = np.random.default_rng(0), config.model.image_size
    camera = np.tile(np.asarray(frontal_camera()), (rows, 1)).astype(np.float32)
    image = lambda: draw.integers(0, 256, (rows, side, side, 3), dtype=np.uint8)  # noqa: E731
    parts = draw.integers(0, 10, (rows, side, side), dtype=np.uint8)
    angles = lambda: draw.uniform(-0.3, 0.3, (rows, 2)).astype(np.float32)  # noqa: E731
    eyes = np.array([[0.09, 0.04, 0.2], [-0.09, 0.04, 0.2]], np.float32)
    return {
        "source_image": image(), "source_camera": camera, "source_gaze": angles(), "source_parts": parts,
        "target_image": image(), "target_camera": camera, "target_gaze": angles(), "target_parts": parts,
        "target_depth": np.full((rows, side, side), 2.5, np.float16),
        "target_face_mask": parts > 0, "target_eye_mask": (parts == 2) | (parts == 3),
        "eye_centers": np.tile(eyes, (rows, 1, 1)), "person": np.arange(rows, dtype=np.int32),
        "frontal_image": image(), "frontal_camera": camera,
    }  # fmt: skip


class Repeat:
    """A source that has its only batch ready."""

    def __init__(self, batch: dict[str, np.ndarray]):
        self._batch = batch

    def __next__(self) -> dict[str, np.ndarray]:
        return self._batch

    def get_state(self) -> int:
        """Always at the beginning."""
        return 0

    def set_state(self, state: int) -> None:
        """Nothing to set."""

    def close(self) -> None:
        """Nothing to close."""


def measure(
    config: Any, devices: int, steps: int, warmup: int, own_source: bool, trace: Path | None = None
) -> dict[str, Any]:
    """One row: the configuration on so many devices."""
    import jax

    from rtgaze_jax.training import objective, optim, parallel, sources, state, step
    from rtgaze_jax.training.logging import device_memory

    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.batch_size *= devices
        config.parallel.devices = devices
    goal = objective.build(config)
    spread = parallel.make_parallel(config.parallel)
    rows = spread.local_batch(config.batch_size, config.accumulate)
    optimizer = optim.make_optimizer(config.optim)
    schedule = optim.make_schedule(config.optim, config.total_steps)
    run = spread.compile(
        lambda axis: step.make_step(
            goal.loss, optimizer, schedule, accumulate=config.accumulate, ema_decay=config.ema_decay, axis_name=axis
        )
    )
    params = goal.init(jax.random.key(0))
    now = spread.replicate(state.create(params, optimizer, seed=0, ema=config.ema_decay > 0))
    frozen = spread.replicate(goal.frozen)
    own = sources.make_source(config, rows, frontal="frontal" in goal.needs) if own_source else None
    feed = sources.Prefetcher(own or Repeat(random_batch(config, rows)), spread.place, config.data.prefetch)
    began = time.monotonic()
    now, metrics = run(now, frozen, next(feed).batch)
    jax.block_until_ready(metrics)
    compiled = time.monotonic() - began
    data, host, whole, pending = [], [], [], metrics
    mark = time.monotonic()
    for _ in range(warmup + steps):
        began = time.monotonic()
        item = next(feed)
        drawn = time.monotonic()
        now, metrics = run(now, frozen, item.batch)
        dispatched = time.monotonic()
        jax.device_get(pending["loss"])  # one step late, as the loop does
        pending, ended = metrics, time.monotonic()
        data.append(drawn - began)
        host.append(dispatched - drawn)
        whole.append(ended - mark)
        mark = ended
    jax.block_until_ready(metrics)
    if trace:
        with jax.profiler.trace(str(trace)):
            for _ in range(5):
                now, metrics = run(now, frozen, next(feed).batch)
            jax.block_until_ready(metrics)
    feed.close()
    if own is not None:
        own.close()
    median = {
        name: 1000 * statistics.median(values[warmup:])
        for name, values in (("data", data), ("host", host), ("step", whole))
    }
    return {
        "devices": devices, "kind": jax.devices()[0].device_kind, "mode": config.parallel.mode, "preset":
        config.model.preset, "image_size": config.model.image_size, "batch_size": config.batch_size,
        "samples_per_second": config.batch_size * 1000 / median["step"], "compile_seconds": compiled,
        **{f"ms_{name}": value for name, value in median.items()}, "memory_peak_gib": device_memory()[1],
        "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(params)),
    }  # fmt: skip


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", required=True, metavar="FILE.py:PRESET", help="further --config.KEY=VALUE may follow"
    )
    parser.add_argument("--devices", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--source", action="store_true", help="the configuration's data instead of a batch held ready")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--trace", type=Path, metavar="DIR", help="for xprof or TensorBoard")
    args, overrides = parser.parse_known_args()

    import jax

    from rtgaze_jax.training import main as entry

    config, _, _ = entry.parse([f"--config={args.config}", "--workdir=unused", *overrides])
    if config.compile_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compile_cache).absolute()))
    rows: list[dict[str, Any]] = []
    for devices in args.devices:
        row = measure(
            config, devices, args.steps, args.warmup, args.source, args.trace if devices == args.devices[-1] else None
        )
        first = rows[0] if rows else row
        row["scaling"] = row["samples_per_second"] / first["samples_per_second"] * first["devices"]
        rows.append(row)
        print(
            f"{row['preset']} {row['image_size']} on {devices} x {row['kind']} ({row['mode']}), "
            f"batch {row['batch_size']}: {row['samples_per_second']:.1f} samples/s, "
            f"step {row['ms_step']:.1f} ms (data {row['ms_data']:.2f}, host {row['ms_host']:.2f}), "
            f"{row['memory_peak_gib']:.1f} GiB, compiled in {row['compile_seconds']:.0f} s, "
            f"{row['scaling']:.2f}x one device",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps({"jax": jax.__version__, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
