"""Measure weights against ground truth and baselines.

  rtgaze data heads --out data/test --split test --people 50
  rtgaze evaluate --data data/test --json result.json --report report/
  rtgaze evaluate runs/small/weights.safetensors --data data/test --pairs 200

Prints the table; --json has every figure with its 95 % interval over people, --report also charts and the worst cases.
The same command gives the same JSON. Gaze errors come from an estimator, whose own error is always given.
"""

import argparse
import os
import sys
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help=".safetensors (default: the package's own)")
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="a data set ('rtgaze data heads|prepare' makes them)"
    )
    parser.add_argument("--split", help="default: test, or the only one there")
    parser.add_argument("--pairs", type=int, metavar="N", help="how many pairs (default: the protocol's, at most 1000)")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--report", metavar="DIR", help="write report.md with charts and the worst cases")
    parser.add_argument("--estimator", metavar="FILE", help="gaze estimator (default: the package's own)")
    parser.add_argument("--warp", metavar="FILE", help="weights of the 2D baseline (default: the package's own)")
    parser.add_argument("--teacher", metavar="FILE", help="weights of a teacher, as another baseline")
    parser.add_argument("--vgg16", metavar="FILE", help="converted VGG16: adds LPIPS")
    parser.add_argument("--inception", metavar="FILE", help="converted Inception: adds FID")
    parser.add_argument("--own-eyes", action="store_true", help="the network finds the eyes, instead of the labels")


def run(args: argparse.Namespace) -> None:
    """Measures, prints, writes."""
    from rtgaze_jax.errors import UserError

    if args.pairs is not None and args.pairs < 1:
        raise UserError(f"--pairs must be at least 1, not {args.pairs}")
    flags = os.environ.get("XLA_FLAGS", "")  # read when JAX starts: the same command, the same figures
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()

    from rtgaze_jax import files
    from rtgaze_jax.evaluation import report
    from rtgaze_jax.evaluation import run as evaluation
    from rtgaze_jax.evaluation.gaze import ESTIMATOR, load_estimator
    from rtgaze_jax.evaluation.predictors import Look, Predictor, load_baselines, load_model
    from rtgaze_jax.evaluation.protocol import from_directory
    from rtgaze_jax.evaluation.scores import References
    from rtgaze_jax.inference.network import use_compilation_cache
    from rtgaze_jax.weights import io

    use_compilation_cache()
    weights = args.weights or io.DEFAULT
    model = load_model(weights, own_eyes=args.own_eyes)
    methods: dict[str, Predictor] = {"model": model, "look": Look(model), **load_baselines(args.warp, args.teacher)}
    estimator = load_estimator(args.estimator)
    pairs = from_directory(args.data, args.pairs, args.split)

    def progress(done: int, total: int) -> None:
        end = "\n" if done == total else "\r"
        print(f"{done}/{total} pairs", end=end, file=sys.stderr, flush=True)

    references = References(args.vgg16, args.inception)
    measured = evaluation.measure(pairs, methods, estimator, progress=progress, references=references)
    about = {
        "weights_sha256": io.read_header(weights)["sha256"],
        "estimator_sha256": io.read_header(args.estimator or ESTIMATOR)["sha256"],
        "eyes": "found by the network" if args.own_eyes else "from the labels",
    }
    jitter = evaluation.temporal_jitter(model, pairs, estimator)
    result = evaluation.result(measured, pairs, about, jitter)
    print(report.table(result))
    own = result["estimator_error_deg"]["mean"]
    print(f"the estimator's own error on the true images: {own:.2f} degrees")
    if args.json:
        files.write_bytes(args.json, report.as_json(result))
    if args.report:
        print(report.write_report(Path(args.report), result, measured, pairs, model))
