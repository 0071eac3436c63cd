"""Prepare a data set of real people that you have: crops, exact cameras, gaze in head and camera frames.

NAME is eth_xgaze, mpii_face_gaze, columbia_gaze or folder (your own portraits); docs/datasets/NAME.md says what
SOURCE must hold. Killed or interrupted, the same command goes on where it was; the result is the same to the byte.
Pictures that cannot be used are listed with reasons in OUT/quarantine-SPLIT.json.
"""

import argparse
import os
import sys
import time

SHOWN = 10  # rejected pictures listed on the screen


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--source", required=True, metavar="DIR", help="the data set as you have it")
    parser.add_argument("--out", required=True, metavar="DIR", help="where to put the records")
    parser.add_argument("--split", help="default: train for eth_xgaze, test for the others")
    parser.add_argument("--subset", default="all", help="all, or paper: 10 moments of each person (default: all)")
    parser.add_argument("--people", type=int, nargs="+", default=[], metavar="P", help="only these people")
    parser.add_argument("--resolution", type=int, default=512, metavar="R", help="pixels a side (default: 512)")
    parser.add_argument("--span", type=float, metavar="MM", help="how much of the head a crop shows (default: 234)")
    parser.add_argument("--jpeg", type=int, default=95, metavar="Q", help="quality; 0: lossless PNG (default: 95)")
    parser.add_argument(
        "--origin", default="face", help="where gaze starts: face (the data sets' convention) or eyes (default: face)"
    )
    parser.add_argument("--workers", type=int, metavar="W", help="processes (default: one for each core)")


def run(args: argparse.Namespace) -> None:
    """Prepares what is missing."""
    from rtgaze_jax.data.datasets.normalized import SPAN
    from rtgaze_jax.data.datasets.prepare import Options, Progress, prepare
    from rtgaze_jax.errors import UserError

    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers must be at least 1, not {args.workers}")
    split = args.split or ("train" if args.name == "eth_xgaze" else "test")
    options = Options(
        split, tuple(args.people), args.subset, args.resolution, args.span or SPAN, args.jpeg, args.origin
    )  # fmt: skip
    began = time.monotonic()

    def report(progress: Progress) -> None:
        rate = progress.made / max(time.monotonic() - began, 1e-9)
        left = (progress.total - progress.done) / rate if rate else 0
        eta = f", {rate:.1f} records/s, {int(left // 3600)}:{int(left % 3600 // 60):02} h left" if rate else ""
        print(
            f"{progress.done}/{progress.total} pictures, {progress.rejected} rejected{eta}", file=sys.stderr, flush=True
        )

    manifest, rejected = prepare(
        args.name, args.source, args.out, options, workers=args.workers or os.cpu_count() or 1, report=report
    )
    size = sum(shard.bytes for shard in manifest.shards)
    print(f"{args.out}: {manifest.records} records of '{split}', {size / 1e6:.1f} MB")
    print(f"contents: {manifest.identity}")
    for entry in rejected[:SHOWN]:
        print(f"  rejected: {entry.item}: {entry.reason}")
    if len(rejected) > SHOWN:
        print(f"  ... and {len(rejected) - SHOWN} more, see {args.out}/quarantine-{split}.json")
