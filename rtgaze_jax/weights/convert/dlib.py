"""dlib's face recognition ResNet as npm's face-api packs it: a JSON manifest and one binary file of 8-bit numbers
beside it."""

import json
import math
import os
from pathlib import Path

import numpy as np

from rtgaze_jax.errors import UserError
from rtgaze_jax.weights.io import unflatten


def read_quantized(manifest: bytes, content: bytes) -> tuple[dict, dict[str, list[float]]]:
    """The tensors as they are stored, and {name: [scale, minimum]}, which turn 8-bit ones into floats.

    Raises UserError where the two files do not belong together.
    """
    flat, scales, offset = {}, {}, 0
    try:
        for entry in (entry for group in json.loads(manifest) for entry in group["weights"]):
            quantization = entry.get("quantization")
            dtype = np.dtype("u1" if quantization else "<f4")
            count = math.prod(entry["shape"])
            flat[entry["name"]] = np.frombuffer(content, dtype, count, offset).reshape(entry["shape"])
            offset += count * dtype.itemsize
            if quantization:
                scales[entry["name"]] = [quantization["scale"], quantization["min"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"not a face-api manifest and its weights ({error})") from error
    if offset != len(content):
        raise UserError(f"the manifest describes {offset} bytes but the weights have {len(content)}")
    return unflatten(flat), scales


def read_manifest(path: str | os.PathLike) -> tuple[dict, dict[str, list[float]]]:
    """`read_quantized` of face_recognition_model-weights_manifest.json and the .bin file that lies beside it."""
    path = Path(path)
    try:
        manifest = path.read_bytes()
        [name] = json.loads(manifest)[0]["paths"]
        content = (path.parent / Path(name).name).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path} is not a face-api manifest; give ...-weights_manifest.json, its .bin beside it"
        ) from error
    return read_quantized(manifest, content)
