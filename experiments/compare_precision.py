"""What bfloat16 costs: the redirector as GPUs compute it against float32, on the fixed pairs of a data set.

  python experiments/compare_precision.py --data DIR [--weights FILE] [--pairs 40] [--json FILE]

Prints the lowest and mean PSNR in dB of one rendering against the other, and the gaze error to the label of both, in
degrees. On processors bfloat16 is emulated: slow, and the same rounding.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from rtgaze_jax.evaluation import protocol
from rtgaze_jax.evaluation.gaze import load_estimator
from rtgaze_jax.evaluation.predictors import Student, load_model
from rtgaze_jax.evaluation.scores import eye_positions, labels, whiten
from rtgaze_jax.files import write_bytes
from rtgaze_jax.geometry.gaze import vector_angle_deg
from rtgaze_jax.inference import measure
from rtgaze_jax.inference.network import use_compilation_cache
from rtgaze_jax.weights import io

TYPES = ("float32", "bfloat16")
_BATCH = 8


def main() -> None:
    """Parses arguments, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", default=io.DEFAULT)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--json", help="write the figures")
    args = parser.parse_args()
    use_compilation_cache()
    jax.config.update("jax_default_matmul_precision", "highest")
    students: dict[str, Student] = {}
    for dtype in TYPES:
        students[dtype] = load_model(args.weights)
        students[dtype].config = dataclasses.replace(students[dtype].config, dtype=dtype)
    estimator, pairs = load_estimator(batch=_BATCH), protocol.from_directory(args.data, args.pairs)
    psnr: list[float] = []
    errors: dict[str, list[float]] = {dtype: [] for dtype in TYPES}
    for first in range(0, len(pairs) - _BATCH + 1, _BATCH):
        batch = pairs.batch(range(first, first + _BATCH))
        images = {dtype: student(batch)["image"] for dtype, student in students.items()}
        psnr += [measure.psnr(*both) for both in zip(images["bfloat16"], images["float32"], strict=True)]
        for dtype, image in images.items():
            read = estimator(whiten(image, batch["target_face_mask"]), eye_positions(batch))["gaze"]
            errors[dtype] += np.asarray(vector_angle_deg(read, labels(batch)["gaze"])).tolist()
    means = {dtype: float(np.mean(values)) for dtype, values in errors.items()}
    found = {"pairs": len(psnr), "psnr_db": {"lowest": min(psnr), "mean": float(np.mean(psnr))}}
    found |= {"gaze_error_label_deg": means, "gaze_difference_deg": abs(means["bfloat16"] - means["float32"])}
    print(json.dumps(found, indent=1))
    if args.json:
        write_bytes(args.json, json.dumps(found, indent=1).encode())


if __name__ == "__main__":
    main()
