"""Measure speed and memory on this machine: start, latency, frames a second, throughput, share of the roofline.

  rtgaze benchmark                                  the package's weights
  rtgaze benchmark runs/small/weights.safetensors --json speed.json --markdown speed.md
  rtgaze benchmark --preset paper --resolution 512  random parameters: speed does not depend on their values
  rtgaze benchmark --preset small --parts latency   one part only

Parts: start (two fresh processes, without and with compiled programs), latency, sustained (frames of one face),
roofline (against this device's own matrix product and copy), quality (bfloat16 against float32), throughput
(batches). Files are rewritten after every part, so a killed run leaves what it had.
"""

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    from rtgaze_jax.models.config import PRESETS

    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help=".safetensors (default: the package's own)")
    parser.add_argument("--preset", choices=PRESETS, help="a preset with random parameters instead")
    parser.add_argument("--resolution", type=int, metavar="N", help="image side in pixels (default: the network's own)")
    parser.add_argument("--batch", type=int, nargs="+", metavar="N", help="batch sizes of throughput (default: 1 8 32)")
    parser.add_argument("--seconds", type=float, help="of sustained frames (default: 10, on processors 3)")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="default: all")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--markdown", metavar="FILE", help="write a table")
    parser.add_argument("--profile", metavar="DIR", help="also record a few frames for a profiler (xprof, TensorBoard)")


def run(args: argparse.Namespace) -> None:
    """Measures and prints each figure as soon as it is known."""
    from rtgaze_jax.errors import UserError
    from rtgaze_jax.inference import benchmark, benchmark_report
    from rtgaze_jax.inference.network import BUCKETS

    if args.preset and args.weights:
        raise UserError("give weights or --preset, not both")
    if args.seconds is not None and not 0 < args.seconds <= 3600:
        raise UserError(f"--seconds must be above 0 and at most 3600, not {args.seconds:g}")
    for batch in args.batch or ():
        if not 1 <= batch <= BUCKETS[-1]:
            raise UserError(f"--batch takes sizes from 1 to {BUCKETS[-1]}, not {batch}")
    for part in args.parts or ():
        if part not in benchmark.PARTS:
            raise UserError(f"--parts knows {', '.join(benchmark.PARTS)}; not {part}")
    printed: set[str] = set()

    def progress(report: dict) -> None:
        if not printed:
            print(benchmark_report.heading(report))
        for what, figure in benchmark_report.lines(report):
            if what + figure not in printed:
                print(f"{what:<40} {figure}", flush=True)
                printed.add(what + figure)
        benchmark_report.write(report, args.json, args.markdown)

    benchmark.run(
        benchmark.load_subject(args.weights, args.preset, args.resolution),
        batches=args.batch or BUCKETS,
        seconds=args.seconds,
        parts=args.parts or benchmark.PARTS,
        profile=args.profile,
        progress=progress,
    )
