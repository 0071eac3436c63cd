"""Weights without a run around them: exported for use, imported to continue elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rtgaze_jax.errors import FailureError, UserError
from rtgaze_jax.training.state import TrainState, export_params
from rtgaze_jax.weights import io


def export(
    path: Path, state: TrainState, position: Any, objective: Any, metrics: Mapping[str, float] | None = None
) -> str:
    """Writes the state's parameters (their average where one is kept) as float16 safetensors; returns their SHA-256.

    objective.exports names the top-level group that a user needs ("" for all); objective.header is added to the header.
    The header's "training" holds what a continuation needs, step, loader position and group, and the last metrics.
    """
    params = jax.device_get(export_params(state))
    group = getattr(objective, "exports", "")
    training = {"step": int(state.step), "position": position, "group": group, "metrics": dict(metrics or {})}
    header = {**getattr(objective, "header", {}), "training": training}
    try:
        return io.save(path, params[group] if group else params, header)
    except ValueError as error:
        raise FailureError(f"weights cannot be exported: {error}") from error


def merge(params: Mapping[str, Any], weights: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """`params` with every leaf replaced that `weights` has in the same place and shape, and the names of the others."""
    given = io.flatten(weights)
    merged, fresh = {}, []
    for name, leaf in io.flatten(params).items():
        if name in given and given[name].shape == leaf.shape:
            merged[name] = given[name].astype(leaf.dtype)
        else:
            merged[name] = leaf
            fresh.append(name)
    return io.unflatten(merged), fresh


def import_params(path: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """(parameters, the file's "training" header, a line about it): `params` with the weights of a file in their place.

    Leaves that the file lacks, or has in another shape, keep their initial values. UserError if it fits nowhere.
    """
    weights, header = io.load(path)
    training = {"step": 0, "position": None, "group": ""} | header.get("training", {})
    tree = {training["group"]: weights} if training["group"] in params else weights
    merged, fresh = merge(params, tree)
    total = len(jax.tree.leaves(params))
    if len(fresh) == total:
        raise UserError(
            f"{path} has no tensor that fits this model; choose the preset it was made with, or other weights"
        )
    line = f"weights from {path} (step {training['step']}): {total - len(fresh)} of {total} tensors"
    if fresh:
        line += f"; fresh: {', '.join(fresh[:4])}{', ...' if len(fresh) > 4 else ''}"
    return merged, training, line


def host(params: Any) -> Any:
    """Parameters as nested dictionaries of NumPy arrays."""
    return jax.tree.map(np.asarray, jax.device_get(params))
