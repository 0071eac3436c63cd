"""Our face embedding against dlib's own, on pairs of pictures: same chips in, descriptors and cosines compared.

  pip install dlib-bin face_recognition_models
  python experiments/compare_dlib.py --data data/test [--pairs 5]

Ours are face-api's weights of the same network, stored in 8 bits: small differences are expected.
"""

import argparse
from pathlib import Path

import numpy as np


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the rows of two arrays [n, 128]."""
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def main() -> None:
    """Prints one line a pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()

    import importlib.util

    import dlib
    import jax

    from rtgaze_jax.evaluation.features.identity import face_chips, face_embedding, load_face_embedding
    from rtgaze_jax.evaluation.protocol import from_directory
    from rtgaze_jax.evaluation.scores import face_points

    spec = importlib.util.find_spec("face_recognition_models")
    folder = Path(spec.submodule_search_locations[0]) / "models"
    theirs = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))
    pairs = from_directory(args.data)
    # every other pair is of two people: a target of one beside the source of the next
    batch = pairs.batch(np.arange(args.pairs + 1))
    params, found = load_face_embedding(), {}
    embed = jax.jit(face_embedding)
    for which in ("source", "target"):
        image = batch[f"{which}_image"].astype(np.float32)
        points = face_points(batch["eye_centers"], batch[f"{which}_camera"], image.shape[1])
        chips = np.asarray(face_chips(image, points))
        seen = np.clip(np.round(chips), 0, 255).astype(np.uint8)
        ours = np.asarray(embed(params, seen / 127.5 - 1))
        found[which] = ours, np.array([theirs.compute_face_descriptor(chip) for chip in seen])
    shift = np.arange(args.pairs) % 2
    first = np.arange(args.pairs)
    for which, name in enumerate(("ours", "dlib")):
        a, b = found["source"][which][first], found["target"][which][first + shift]
        print(f"{name}: cosines {cosine(a, b).round(4).tolist()}, distances {np.linalg.norm(a - b, axis=1).round(4)}")
    gap = [cosine(*found[which]).min() for which in found]
    print(f"ours against dlib's, cosine of the same picture's descriptors: smallest {min(gap):.6f}")


if __name__ == "__main__":
    main()
