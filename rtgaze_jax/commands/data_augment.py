"""Make a redirected training set for gaze estimation from a prepared data set, in ETH-XGaze's h5 format.

Every record gets new gazes; pictures that the gaze estimator does not agree with are left out. Labels are (pitch, yaw)
in the normalised camera as in the ETH-XGaze release; every file says what it was made from.
"""

import argparse
import sys
import time


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("directory", metavar="DIR", help="made by 'rtgaze data prepare' or 'rtgaze data heads'")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--split", help="needed if DIR holds several splits")
    parser.add_argument("--weights", metavar="FILE", help="the redirecting network (default: the one of the package)")
    parser.add_argument("--estimator", metavar="FILE", help="the judging network (default: the one of the package)")
    parser.add_argument("--gazes", type=int, default=2, metavar="K", help="new gazes of every record (default: 2)")
    parser.add_argument(
        "--frame", default="camera", help="camera ((0, 0) looks into the lens) or head (default: camera)"
    )
    parser.add_argument("--pitch", type=float, default=20, metavar="DEG", help="up to this up and down (default: 20)")
    parser.add_argument("--yaw", type=float, default=30, metavar="DEG", help="up to this to both sides (default: 30)")
    parser.add_argument(
        "--agreement", type=float, default=10, metavar="DEG", help="largest error the estimator may see (default: 10)"
    )
    parser.add_argument("--size", type=int, default=224, help="pixels a side, 224 or 448 (default: 224)")
    parser.add_argument("--seed", type=int, default=0, metavar="S")


def run(args: argparse.Namespace) -> None:
    """Redirects, judges and writes."""
    from rtgaze_jax.data.augment import Progress, Settings, augment
    from rtgaze_jax.evaluation.gaze import ESTIMATOR, load_estimator
    from rtgaze_jax.files import sha256
    from rtgaze_jax.inference.network import use_compilation_cache
    from rtgaze_jax.inference.redirect_crops import crop_redirector
    from rtgaze_jax.weights import io

    settings = Settings(args.gazes, args.frame, args.pitch, args.yaw, args.agreement, args.size, args.seed)
    settings.check()
    use_compilation_cache()
    estimate, redirect = load_estimator(args.estimator), crop_redirector(args.weights or io.DEFAULT)
    checksums = {
        "weights_sha256": sha256(args.weights or io.DEFAULT),
        "estimator_sha256": sha256(args.estimator or ESTIMATOR),
    }
    began = time.monotonic()

    def report(progress: Progress) -> None:
        left = (time.monotonic() - began) / progress.done * (progress.total - progress.done)
        print(
            f"{progress.done}/{progress.total} records, {progress.kept} of {progress.made} pictures kept, "
            f"{int(left // 3600)}:{int(left % 3600 // 60):02} h left",
            file=sys.stderr,
            flush=True,
        )

    done = augment(args.directory, args.split, args.out, settings, redirect, estimate, checksums, report)
    print(f"{args.out}: {done.kept} pictures of {done.total} records ({done.made - done.kept} left out)")
