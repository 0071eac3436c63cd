"""Check a data set: checksums, ranges, masks, depth between views, gaze against the drawn irises, repetitions.

Exits with 1 if anything is wrong.
"""

import argparse
import dataclasses
import os
import sys

SHOWN = 20  # problems listed on the screen


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--split", help="check this split only (default: all)")
    parser.add_argument("--workers", type=int, metavar="W", help="processes (default: one for each core)")
    parser.add_argument("--json", metavar="FILE", help="write all problems and measurements here")


def run(args: argparse.Namespace) -> int:
    """Checks and reports; returns the exit code."""
    import json

    from rtgaze_jax.data import check, storage
    from rtgaze_jax.files import write_bytes

    found = storage.manifests(args.directory)
    splits = [storage.only_split(args.directory, args.split)] if args.split else sorted(found)
    results, problems = {}, 0
    for split in splits:

        def report(done: int, total: int, split: str = split) -> None:
            print(f"{split}: {done}/{total} files", file=sys.stderr, flush=True)

        result = check.check_split(args.directory, split, workers=args.workers or os.cpu_count() or 1, report=report)
        print("\n".join(f"{split}: {line}" for line in result.lines()))
        for problem in result.problems[:SHOWN]:
            place = "" if problem.record is None else f"record {problem.record}: "
            print(f"  {problem.check}: {place}{problem.message}")
        if len(result.problems) > SHOWN:
            print(f"  ... and {len(result.problems) - SHOWN} more")
        problems += len(result.problems)
        keep = ("records", "problems", "gaze_errors", "depth_shares")
        results[split] = {key: value for key, value in dataclasses.asdict(result).items() if key in keep}
    if args.json:
        write_bytes(args.json, json.dumps(results, indent=1).encode())
    return 1 if problems else 0
