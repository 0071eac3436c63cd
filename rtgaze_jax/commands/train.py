"""Train a network: start, continue or extend the run in a folder.

  rtgaze train --config configs/rtgaze.py:small --workdir runs/small [--config.optim.lr=1e-4 ...]

The same command continues after a kill, a crash or SIGTERM, to the bit, on any number of devices. Every key of the
configuration can be set as --config.KEY=VALUE. A run refuses to continue with other values unless they are named in
--allow_change=KEY,KEY. WORKDIR gets checkpoints/, metrics.jsonl, images/, result.json and finally weights.safetensors.
"""

import argparse

PASS_UNKNOWN = True  # --config.KEY=VALUE is not argparse's


def arguments(parser: argparse.ArgumentParser) -> None:
    """--config, --workdir, --allow_change."""
    parser.add_argument(
        "--config", required=True, metavar="FILE.py:PRESET", help="configs/rtgaze.py, portrait.py or estimator.py"
    )
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="the run's folder; continued if it has checkpoints"
    )
    parser.add_argument(
        "--allow_change", default="", metavar="KEYS", help="keys that may differ from the run's first start"
    )


def run(args: argparse.Namespace) -> None:
    """Hands over to the absl entry."""
    from rtgaze_jax.training import main

    flags = [f"--config={args.config}", f"--workdir={args.workdir}"]
    if args.allow_change:
        flags.append(f"--allow_change={args.allow_change}")
    main.run([*flags, *args.rest])
