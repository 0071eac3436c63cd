"""Show the version, the device, and what a weights file holds.

rtgaze info                   the weights that come with the package
rtgaze info FILE.safetensors  another file
"""

import argparse
import math
import platform
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "weights",
        metavar="WEIGHTS",
        nargs="?",
        help="a .safetensors file or a training run (default: the shipped weights)",
    )
    parser.add_argument("--config", action="store_true", help="also print the network's configuration")


def run(args: argparse.Namespace) -> None:
    """Prints a report."""
    import jax

    from rtgaze_jax import __version__
    from rtgaze_jax.weights import io

    devices = jax.devices()
    print(f"rtgaze        {__version__}")
    print(f"python, jax   {platform.python_version()}, {jax.__version__}")
    print(f"device        {len(devices)} x {devices[0].device_kind} ({devices[0].platform})")
    path = Path(args.weights or io.DEFAULT)
    if path.is_dir():
        from rtgaze_jax.training.checkpoint import describe_workdir

        print("\n".join(f"{key:<13} {value}" for key, value in describe_workdir(path).items()))
        return
    _, header = io.load(path)  # reads and verifies every byte
    print(f"weights       {path} ({path.stat().st_size / 1e6:.1f} MB)")
    print(f"sha256        {header['sha256']} (verified)")
    for key, value in header.items():
        if key not in ("sha256", "config", "format") and not isinstance(value, dict | list):
            print(f"{key.replace('_', ' '):<13} {value}")
    if "gaze_range_degrees" in header:
        pitch, yaw = header["gaze_range_degrees"]
        print(f"trained gaze  pitch +-{pitch:g}, yaw +-{yaw:g} degrees")
    print("\n".join(parameter_table(io.tensor_shapes(path))))
    if args.config:
        print("\n".join(f"{key:<40} {value}" for key, value in leaves(header.get("config", {}))))


def parameter_table(shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Lines that say how many parameters each top-level part of a network has."""
    parts: dict[str, int] = {}
    for name, shape in shapes.items():
        part = name.split("/")[0]
        parts[part] = parts.get(part, 0) + math.prod(shape)
    rows = [*sorted(parts.items(), key=lambda row: -row[1]), ("all", sum(parts.values()))]
    return [f"{'part':<20} parameters", *(f"{name:<20} {count:>10,}" for name, count in rows)]


def leaves(values: dict, prefix: str = "") -> list[tuple[str, object]]:
    """The values of nested dictionaries with their dotted names."""
    found: list[tuple[str, object]] = []
    for key, value in values.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found
