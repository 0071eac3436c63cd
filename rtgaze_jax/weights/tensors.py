"""Trees of arrays in safetensors files: names joined by "/", facts about the file (kind, source, licence) in its
header."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from rtgaze_jax.errors import UserError
from rtgaze_jax.files import write_bytes


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = np.ascontiguousarray(value)
    return flat


def unflatten(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """{"a/b": x} -> {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def write_tree(path: str | os.PathLike, tree: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Writes a tree of arrays and its header atomically. Raises FailureError where the disk refuses."""
    write_bytes(path, save(flatten(tree), dict(metadata)))


def read_tree(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, str]]:
    """The tree of arrays of a safetensors file and its header. Raises UserError where it cannot be read."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return unflatten({name: file.get_tensor(name) for name in file.offset_keys()}), dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}; a .safetensors file is needed") from error
