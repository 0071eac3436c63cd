"""Render a data set of synthetic people with exact ground truth.

Killed or interrupted, the same command goes on where it was; the result is the same to the byte. Other seeds give
other people, and so do the splits.
"""

import argparse
import os
import sys
import time


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--out", required=True, metavar="DIR", help="where to put it; splits may share a folder")
    parser.add_argument("--people", type=int, required=True, metavar="N")
    parser.add_argument("--split", default="train", help="train, validation or test: disjoint people (default: train)")
    parser.add_argument("--gazes", type=int, default=6, metavar="G", help="gazes of each person (default: 6)")
    parser.add_argument("--views", type=int, default=4, metavar="V", help="cameras for each gaze (default: 4)")
    parser.add_argument("--resolution", type=int, default=512, metavar="R", help="pixels a side (default: 512)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which people (default: 0)")
    parser.add_argument("--workers", type=int, metavar="W", help="rendering processes (default: one for each core)")


def run(args: argparse.Namespace) -> None:
    """Renders what is missing."""
    from rtgaze_jax.data.datasets.gaze_heads import Progress, Settings, generate
    from rtgaze_jax.errors import UserError

    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers must be at least 1, not {args.workers}")
    settings = Settings(args.split, args.people, args.gazes, args.views, args.resolution, args.seed)
    began = time.monotonic()

    def report(progress: Progress) -> None:
        rate = progress.images / (time.monotonic() - began)
        print(f"{progress.people}/{args.people} people, {rate:.1f} images/s", file=sys.stderr, flush=True)

    manifest = generate(args.out, settings, workers=args.workers or os.cpu_count() or 1, report=report)
    records, size = (sum(getattr(shard, key) for shard in manifest.shards) for key in ("records", "bytes"))
    print(f"{args.out}: {manifest.grid.captures} people of '{manifest.split}', {records} records, {size / 1e6:.1f} MB")
    print(f"contents: {manifest.identity}")
    if manifest.left_out:
        print(f"left out, as they cannot be rendered: {', '.join(map(str, manifest.left_out))}")
