"""`rtgaze train` (also python -m rtgaze_jax.training.main): reads a configuration, builds what it names, runs the
loop."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rtgaze_jax.errors import UserError

STARTED = time.monotonic()
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@contextlib.contextmanager
def _arguments(argv: Sequence[str]) -> Iterator[None]:
    """ml_collections finds overrides such as --config.optim.lr in sys.argv, wherever the flags come from."""
    before, sys.argv = sys.argv, ["rtgaze train", *argv]
    try:
        yield
    finally:
        sys.argv = before


def parse(argv: Sequence[str]) -> tuple[Any, Path, list[str]]:
    """(configuration, workdir, keys that may differ from the first start). UserError for anything unknown or
    mistyped."""
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "configs/FILE.py:PRESET", flag_values=values, lock_config=True)
    flags.DEFINE_string("workdir", None, "where the run lives", flag_values=values)
    flags.DEFINE_list("allow_change", [], "configuration keys that may differ from the saved ones", flag_values=values)
    try:
        with _arguments(argv):
            rest = values(sys.argv)[1:]
        config = values.config
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"bad arguments: {' '.join(str(error).split())[:300]}") from error
    if rest:
        raise UserError(
            f"unexpected argument '{rest[0]}'; options are --config, --config.KEY=VALUE, --workdir, --allow_change"
        )
    if config is None or not values.workdir:
        raise UserError("needs --config configs/rtgaze.py:small (or another file) and --workdir DIR")
    return config, Path(values.workdir), list(values.allow_change)


def run(argv: Sequence[str], started: float | None = None) -> None:
    """Trains as the arguments say. Raises UserError, FailureError, or KeyboardInterrupt after a Ctrl-C."""
    config, workdir, allow_change = parse(argv)
    if config.quick_compile:  # read when the first device is used
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}"

    import jax
    from absl import flags

    from rtgaze_jax.training import parallel

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's worker processes read absl flags
    if config.compile_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compile_cache).absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    parallel.initialize(config.parallel)
    devices = parallel.make_parallel(config.parallel)
    local = devices.local_batch(config.batch_size, config.accumulate)

    from rtgaze_jax.training import loop, objective, sources

    goal = objective.build(config)
    source = sources.make_source(config, local, frontal="frontal" in goal.needs)
    loop.train(config, goal, source, workdir, allow_change=allow_change, parallel=devices, started=started or STARTED)


if __name__ == "__main__":
    from rtgaze_jax.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
