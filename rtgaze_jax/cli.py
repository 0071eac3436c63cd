"""The `rtgaze` command: finds the subcommand, imports only that, and turns errors into one line.

Every module `rtgaze_jax/commands/NAME.py` is one subcommand; `data_heads.py` is `rtgaze data heads`. A
command module has a
docstring (its help), `arguments(parser)` and `run(args)`, and imports heavy packages inside `run` only.
"""

import argparse
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence

from rtgaze_jax import __version__, commands
from rtgaze_jax.errors import UserError


def command_names() -> list[tuple[str, ...]]:
    """All subcommands as tuples of words, sorted."""
    return sorted(tuple(m.name.split("_")) for m in pkgutil.iter_modules(commands.__path__))


def _load(words: tuple[str, ...]):
    return importlib.import_module(f"rtgaze_jax.commands.{'_'.join(words)}")


def _overview() -> str:
    lines = ["usage: rtgaze COMMAND ...", "", "commands:"]
    for words in command_names():
        lines.append(f"  {' '.join(words):<18}{(_load(words).__doc__ or '').strip().splitlines()[0]}")
    lines += ["", "`rtgaze COMMAND --help` explains a command; `rtgaze --version` prints the version."]
    return "\n".join(lines)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(f"{message} (see '{self.prog} --help')")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code: 0 done, 1 failed, 2 bad input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [a for a in argv if a != "--debug"]
    if argv in ([], ["-h"], ["--help"]):
        print(_overview())
        return 0
    if argv == ["--version"]:
        print(f"rtgaze {__version__}")
        return 0
    try:
        words = max((w for w in command_names() if tuple(argv[: len(w)]) == w), key=len, default=None)
        if words is None:
            raise UserError(f"unknown command '{' '.join(argv[:2])}' (see 'rtgaze --help')")
        module = _load(words)
        parser = _Parser(
            prog=f"rtgaze {' '.join(words)}",
            description=module.__doc__,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(parser)
        if getattr(module, "PASS_UNKNOWN", False):  # train hands --config.x=y on to absl
            args, rest = parser.parse_known_args(argv[len(words) :])
            args.rest = rest
        else:
            args = parser.parse_args(argv[len(words) :])
        return module.run(args) or 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("rtgaze: interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # the one place where any error becomes one line
        if debug:
            traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"rtgaze: {text if len(text) <= 500 else text[:497] + '...'}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1


if __name__ == "__main__":
    sys.exit(main())
