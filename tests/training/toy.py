"""A problem that trains in milliseconds, to test all that surrounds a model; also a program, as `rtgaze train`."""

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a program it is a fresh process, whose devices nobody has chosen yet
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(os.environ.get("TOY_DEVICES", "1")))

import jax
import jax.numpy as jnp
import numpy as np

from rtgaze_jax.training import defaults

TOY = Path(__file__)


@dataclasses.dataclass
class Toy:
    """Noisy regression; the noise comes from per-example keys. `frozen` scales the output."""

    frozen: Any = dataclasses.field(default_factory=lambda: {"scale": np.linspace(0.5, 1.5, 8, dtype=np.float32)})
    exports: str = "model"
    header: dict = dataclasses.field(default_factory=lambda: {"config": {"preset": "toy"}, "frame": "head"})

    def init(self, key):
        kernel = 0.5 * jax.random.normal(key, (4, 8))
        return {"model": {"kernel": kernel, "bias": jnp.zeros(8)}, "critic": {"kernel": jnp.ones((8, 1))}}

    def loss(self, params, frozen, batch, key, step):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(batch["index"])
        noise = 0.1 * jax.vmap(lambda k: jax.random.normal(k, (4,)))(keys)
        hidden = jnp.tanh((batch["x"] + noise) @ params["model"]["kernel"] + params["model"]["bias"]) * frozen["scale"]
        error = jnp.square((hidden @ params["critic"]["kernel"])[:, 0] - batch["y"])
        return jnp.mean(error), {"worst": jnp.mean(jnp.sqrt(error))}

    def images(self, params, frozen, batch, key):
        grey = jnp.clip(batch["x"] * 64 + 128, 0, 255).astype(jnp.uint8)
        return {"rows": jnp.repeat(grey[..., None], 3, -1)}


class ToySource:
    """Batch n is a function of n; rows [first, first + rows) of it belong to this process."""

    def __init__(self, batch_size: int, first: int = 0, rows: int | None = None, poison=(), delay: float = 0.0):
        self.batch_size, self.first, self.rows = batch_size, first, rows or batch_size
        self.poison, self.delay, self.count, self.closed = set(poison), delay, 0, False

    def __next__(self):
        x = np.random.default_rng(self.count).normal(size=(self.batch_size, 4)).astype(np.float32)
        y = np.sin(x.sum(1))
        if self.count in self.poison:
            y[0] = np.nan
        self.count += 1
        time.sleep(self.delay)
        return {"x": x[self.first : self.first + self.rows], "y": y[self.first : self.first + self.rows]}

    def get_state(self):
        return {"batches": self.count}

    def set_state(self, state):
        self.count = state["batches"]

    def close(self):
        self.closed = True


def toy_config(**changes):
    """defaults.base() made small; changes with dots in their names are written with __."""
    config = defaults.base()
    config.update(batch_size=16, total_steps=50)
    config.optim.update(lr=0.05, warmup=5)
    config.checkpoint.update(every_steps=10, every_seconds=0.0)
    config.guards.update(history=5, max_skips=3)
    config.log.every = 10
    for name, value in changes.items():
        *path, last = name.split("__")
        inner = config
        for key in path:
            inner = inner[key]
        inner[last] = value
    return config


def main() -> None:
    """Trains the toy in a folder: for tests that kill processes, run two of them, or sweep."""
    from rtgaze_jax.training import loop, main, parallel

    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0, help="seconds per batch")
    parser.add_argument("--cache", help="folder for compiled programs")
    args, rest = parser.parse_known_args()
    config, workdir, allow_change = main.parse(rest)
    if args.cache:
        jax.config.update("jax_compilation_cache_dir", args.cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    parallel.initialize(config.parallel)
    devices = parallel.make_parallel(config.parallel)
    rows = devices.local_batch(config.batch_size, config.accumulate)
    source = ToySource(config.batch_size, rows * jax.process_index(), rows, delay=args.delay)
    loop.train(config, Toy(), source, workdir, allow_change=allow_change, parallel=devices)


def get_config():
    """For --config=toy.py."""
    return toy_config()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
