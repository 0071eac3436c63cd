"""Write a network as one file that runs without Flax: compiled-ready programs (StableHLO) and weights.

  rtgaze export -o face.zip                                            the package's weights
  rtgaze export runs/small/weights.safetensors -o face.zip --platforms cpu cuda

In Python: rtgaze_jax.inference.export.load_exported("face.zip") has encode, look, redirect and render, and needs only
jax, flatbuffers and NumPy.
"""

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help=".safetensors (default: the package's own)")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="zip file to write")
    parser.add_argument(
        "--platforms",
        nargs="+",
        metavar="NAME",
        choices=("cpu", "cuda", "rocm", "tpu"),
        default=("cpu", "cuda", "tpu"),
        help="cpu, cuda, rocm, tpu (default: cpu cuda tpu)",
    )


def run(args: argparse.Namespace) -> None:
    """Exports, and says what came out."""
    from pathlib import Path

    from rtgaze_jax.inference.export import export_network
    from rtgaze_jax.inference.network import read_config
    from rtgaze_jax.weights import io

    params, header = io.load(args.weights or io.DEFAULT)
    export_network(args.output, params, read_config(header), header=header, platforms=args.platforms)
    print(f"{args.output}: {Path(args.output).stat().st_size / 2**20:.1f} MiB")
