"""Redirect the gaze of faces in a video.

  rtgaze video talk.mp4 -o out.mp4 --look-at camera
  rtgaze video talk.mp4 -o out.mp4 --yaw 10 --strength 0:0,2:1 --face all

Sound, subtitles, metadata and the time of every frame are kept. Closed eyes, covered or turned faces stay as they are.
An interrupted run goes on with --resume. The result says in its metadata that it was edited by AI.
"""

import argparse
import sys
import time
from pathlib import Path

from rtgaze_jax.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("video", metavar="IN", help="MP4, MOV, MKV, WebM, AVI, ...")
    parser.add_argument("-o", "--out", metavar="OUT", required=True, help="file to write: .mp4, .mov, .m4v or .mkv")
    parser.add_argument("--pitch", type=float, help="degrees, -30 to 30, up is positive")
    parser.add_argument("--yaw", type=float, help="degrees, -45 to 45, image left is positive")
    parser.add_argument("--look-at", choices=["camera"], help="instead of angles: look into the lens")
    parser.add_argument(
        "--strength", default="1", metavar="S", help="0 to 1, or over time: SECONDS:STRENGTH,... (default 1)"
    )
    parser.add_argument(
        "--look-away", type=float, default=0.0, metavar="SHARE", help="share of time to look away, 0 to 0.6 (default 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses when and where to look away (default 0)")
    parser.add_argument("--face", metavar="N|all", default="1", help="which face: 1 is the largest (default), or all")
    parser.add_argument("--weights", metavar="FILE", help="weights to use instead of those that come with the package")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same command")
    parser.add_argument("--no-provenance", action="store_true", help="do not mark the result as edited by AI")


def run(args: argparse.Namespace) -> int:
    """Redirects one video."""
    if args.look_at and (args.pitch is not None or args.yaw is not None):
        raise UserError("--look-at already says where to look: leave out --pitch and --yaw")
    if not args.look_at and args.pitch is None and args.yaw is None:
        raise UserError("say where to look: --look-at camera, or --pitch and --yaw in degrees")
    if args.face != "all" and not (args.face.isdecimal() and int(args.face) >= 1):
        raise UserError(f"--face takes a number from 1 or 'all', not '{args.face}'")
    if args.seed < 0:
        raise UserError("--seed takes a number from 0")

    from rtgaze_jax.inference.gating import Schedule
    from rtgaze_jax.inference.live import Aim
    from rtgaze_jax.inference.saccades import MAX_SHARE

    if not 0 <= args.look_away <= MAX_SHARE:
        raise UserError(f"--look-away takes a share of time from 0 to {MAX_SHARE:g}, not {args.look_away:g}")
    schedule = Schedule.parse(args.strength)
    aim = Aim(args.pitch or 0.0, args.yaw or 0.0, schedule, args.look_away, args.seed)

    from rtgaze_jax.inference.video import EDIT, VideoJob

    faces = None if args.face == "all" else int(args.face)
    edit = None if args.no_provenance else EDIT
    # wrong files are told before anything slow starts
    job = VideoJob(Path(args.video), Path(args.out), aim, faces, edit, args.resume)
    if args.resume:
        print(f"resuming after {job.resumed} frames" if job.resumed else "nothing to resume: starting at the beginning")

    from rtgaze_jax.inference.redirector import load

    show = _Show(sys.stderr.isatty())
    try:
        counts = job.run(load(args.weights), show)
    except KeyboardInterrupt:
        show.end()
        print(f"interrupted; the same command with --resume goes on ({job.resumed} frames are done)", file=sys.stderr)
        return 130
    show.end()
    if job.video.damaged:
        print(f"rtgaze: warning: {job.video.damaged} damaged packets of {args.video} were skipped", file=sys.stderr)
    if not counts["redirected"]:
        what = "every face was turned away, covered or too small" if counts["left"] else f"there is no face {args.face}"
        print(f"rtgaze: warning: nothing was changed: {what}", file=sys.stderr)
    print(
        f"{args.video} -> {args.out}: {counts['frames']} frames, {counts['redirected']} faces redirected, "
        f"{counts['left']} left alone, {counts['encoded']} encoded, {show.rate:.1f} frames/s"
    )
    return 0


class _Show:
    """Prints progress: on one line of a terminal, or a line every ten seconds in a log."""

    def __init__(self, terminal: bool):
        self._terminal, self._next, self.rate = terminal, time.monotonic() + (0 if terminal else 10), 0.0
        self._written = False

    def __call__(self, progress) -> None:
        self.rate = progress.rate
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (0.2 if self._terminal else 10)
        share = f"/{progress.total} {100 * progress.done / progress.total:.0f} %" if progress.total else ""
        left = "" if progress.left is None else f", {max(progress.left, 0):.0f} s left"
        line = f"frame {progress.done}{share}, {progress.rate:.1f} frames/s{left}"
        print(
            f"\r{line:<70}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr, flush=True
        )
        self._written = True

    def end(self) -> None:
        if self._terminal and self._written:
            print(file=sys.stderr)
