"""Open a local page: drag where a face looks, turn it in 3D, use a webcam, redirect a video.

  rtgaze app
  rtgaze app --port 8000 --open

Only this computer can reach it (127.0.0.1). Nothing is sent anywhere, nothing is kept after the server ends.
"""

import argparse
import sys

from rtgaze_jax.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--port", type=int, default=7860, help="port to listen on; 0 takes a free one (default 7860)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to bind; others than the default let other computers in"
    )
    parser.add_argument("--weights", metavar="FILE", help="weights to use instead of those that come with the package")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def run(args: argparse.Namespace) -> int:
    """Serves the page until Ctrl-C."""
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port takes a number from 0 to 65535, not {args.port}")

    from rtgaze_jax.inference.app import Server
    from rtgaze_jax.inference.redirector import load

    with Server(load(args.weights), args.host, args.port) as server:
        if args.host not in ("127.0.0.1", "localhost", "::1"):
            print(f"rtgaze: warning: everyone who can reach {args.host} can use this page", file=sys.stderr)
        print(f"{server.address} (Ctrl-C ends it; the first picture takes longer: the network is compiled)", flush=True)
        if args.open:
            import webbrowser

            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
