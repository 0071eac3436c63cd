"""Evaluate a training run's weights on freshly rendered test people: one JSON line, in under a minute on a GPU host.

python experiments/evaluate_run.py runs/small/weights.safetensors [--estimator FILE] [--json FILE]
"""

import argparse
import json


def main() -> None:
    """Parses arguments, evaluates, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--estimator", help="weights of the gaze estimator (default: those of the package)")
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--json", help="file for the whole result, with intervals")
    args = parser.parse_args()

    # here, not above: rendering processes import this file again and need none of it
    from rtgaze_jax import files
    from rtgaze_jax.evaluation.gaze import load_estimator
    from rtgaze_jax.evaluation.quick import quick_evaluate
    from rtgaze_jax.inference.network import use_compilation_cache
    from rtgaze_jax.models.config import from_dict
    from rtgaze_jax.weights import io

    use_compilation_cache()
    params, header = io.load(args.weights)
    config = from_dict(header["config"])
    found = quick_evaluate(
        params, config, load_estimator(args.estimator, batch=8), args.people, args.pairs, config.image_size
    )
    if args.json:
        files.write_bytes(args.json, json.dumps(found, indent=1).encode())


if __name__ == "__main__":
    main()
