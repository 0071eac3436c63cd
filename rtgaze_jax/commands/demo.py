"""Make a sheet of redirected gazes from one photo.

Without a photo, takes the astronaut of the repository's examples folder.
"""

import argparse
from pathlib import Path

from rtgaze_jax.errors import UserError

_EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "astronaut.png"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("photo", metavar="PHOTO", nargs="?", help="a photo with a face")
    parser.add_argument("-o", "--out", metavar="DIR", default="demo", help="folder to write to (default: demo)")
    parser.add_argument("--weights", metavar="FILE", help="weights to use instead of those that come with the package")


def run(args: argparse.Namespace) -> None:
    """Writes the pictures."""
    photo = Path(args.photo) if args.photo else _EXAMPLE
    if not photo.is_file():
        raise UserError(f"{photo}: no such file; name a photo with a face")

    from rtgaze_jax.inference.demo import make_demo
    from rtgaze_jax.inference.redirector import load

    make_demo(load(args.weights), photo, Path(args.out))
