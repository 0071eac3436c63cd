"""Weights as safetensors: flat tensors, and a header that says what they are.

Parameters are nested dictionaries of arrays in the program and flat tensors named by '/'-joined keys on disk, in
float16. The header (safetensors' `__metadata__`) holds one JSON value per key; `sha256` covers every name, type, shape
and byte of the tensors and is verified on loading. Nothing in such a file can run code.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as _to_bytes

from rtgaze_jax.errors import UserError
from rtgaze_jax.files import write_bytes

FORMAT = "rtgaze-jax weights 1"
SHIPPED = Path(__file__).parent / "shipped"
DEFAULT = SHIPPED / "small.safetensors"
GAZE_CONVENTION = (
    "(pitch, yaw) in radians, ETH-XGaze sign: g = -(cos p sin y, sin p, cos p cos y) in the OpenCV axes of the "
    "frontal camera of the world frame; (0, 0) looks into the lens, +pitch up, +yaw to image left"
)


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Nested dictionaries of arrays -> {'a/b/c': array}."""
    flat: dict[str, np.ndarray] = {}
    for key, value in params.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise ValueError(f"parameter name {key!r} must be a non-empty string without '/'")
        flat |= flatten(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {prefix + key: np.asarray(value)}
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{'a/b/c': value} -> nested dictionaries: the inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split("/")
        inner = nested
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return nested


def tensors_sha256(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over name, type, shape and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {tensor.dtype.str} {list(tensor.shape)}\n".encode())
        digest.update(tensor.data if tensor.size else b"")
    return digest.hexdigest()


def _stored(name: str, tensor: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The array as it goes to disk: floats in `dtype`, in float32 if `dtype` cannot hold them."""
    if not np.issubdtype(tensor.dtype, np.floating):  # ml_dtypes' bfloat16 is no NumPy float
        if tensor.dtype.name != "bfloat16":
            return tensor
        tensor = tensor.astype(np.float32)
    if not np.isfinite(tensor).all():
        raise ValueError(f"parameter {name} is not finite")
    with np.errstate(over="ignore"):
        small = tensor.astype(dtype)
    return small if np.isfinite(small).all() else tensor.astype(np.float32)


def save(path: str | os.PathLike, params: Mapping[str, Any], header: Mapping[str, Any], dtype: str = "float16") -> str:
    """Writes parameters and header atomically; returns the tensors' SHA-256.

    `header` values are anything JSON can hold. For a model: config (nested dict), frame ("head" or "source"), licence,
    training_data; gaze, format, parameters and sha256 are added here. Raises ValueError for parameters that are not
    finite.
    """
    # safetensors writes the memory of an array as it lies, so transposed views must be laid out anew
    tensors = {
        name: np.array(_stored(name, tensor, np.dtype(dtype)), order="C") for name, tensor in flatten(params).items()
    }
    digest = tensors_sha256(tensors)
    count = sum(int(tensor.size) for tensor in tensors.values())
    full = {"gaze": GAZE_CONVENTION} | dict(header) | {"format": FORMAT, "parameters": count, "sha256": digest}
    write_bytes(path, _to_bytes(tensors, {key: json.dumps(value) for key, value in full.items()}))
    return digest


def _open(path: str | os.PathLike):
    if not Path(path).is_file():
        raise UserError(f"no weights at {path}; name a .safetensors file")
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a complete safetensors file ({' '.join(str(error).split())[:100]})") from error


def _header(path: str | os.PathLike, raw: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        header = {key: json.loads(value) for key, value in (raw or {}).items()}
    except json.JSONDecodeError:
        header = {}
    if header.get("format") != FORMAT:
        raise UserError(f"{path} holds no weights of this program (convert other files with 'rtgaze weights convert')")
    return header


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """The header of a weights file, without reading the tensors. Raises UserError if it is no such file."""
    with _open(path) as file:
        return _header(path, file.metadata())


def tensor_shapes(path: str | os.PathLike) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a weights file, without reading them."""
    with _open(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def load(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, header): nested dictionaries of float32 arrays (integers as they are), and the header.

    Raises UserError if the file is missing, damaged, of another kind, or if its tensors do not match their SHA-256.
    """
    with _open(path) as file:
        header = _header(path, file.metadata())
        try:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error})") from error
    if tensors_sha256(tensors) != header.get("sha256"):
        raise UserError(f"{path} is damaged: its tensors do not match the SHA-256 in its header; fetch the file again")
    floats = {n: t.astype(np.float32) if np.issubdtype(t.dtype, np.floating) else t for n, t in tensors.items()}
    return unflatten(floats), header
