"""Where people in images look and where their heads point: the estimator behind gaze_error_deg and head_error_deg."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from rtgaze_jax.errors import UserError
from rtgaze_jax.models.estimator import EstimatorConfig, config_from_dict, estimate
from rtgaze_jax.weights import io

ESTIMATOR = io.SHIPPED / "estimator.safetensors"
TRAIN = "rtgaze train --config configs/estimator.py:small --workdir runs/estimator"

Images = UInt8[np.ndarray, "n S S 3"]
Directions = dict[str, Float[np.ndarray, "n 3"]]
Estimator = Callable[[Images, Float[np.ndarray, "n 2 2"]], Directions]
"""(images uint8, eye centres in them (subject's left, right; normalised x, y)) -> unit vectors "gaze" and "head" in the
camera's OpenCV axes."""


def load_estimator(path: str | os.PathLike | None = None, batch: int = 16) -> Estimator:
    """The estimator of a weights file (default: the one that comes with the package), computing `batch` images at once.

    Raises UserError where there is none or the file is of another kind.
    """
    if path is None and not ESTIMATOR.is_file():
        raise UserError(f"no gaze estimator at {ESTIMATOR}; train one with '{TRAIN}' and copy its weights there")
    params, header = io.load(path or ESTIMATOR)
    if header.get("kind") != "estimator":
        raise UserError(f"{path} is no gaze estimator; train one with '{TRAIN}'")
    return make_estimator(params, config_from_dict(header["config"]), batch)


def make_estimator(params: Mapping[str, Any], config: EstimatorConfig, batch: int = 16) -> Estimator:
    """The estimator with these parameters."""
    if jax.default_backend() == "cpu":
        config = dataclasses.replace(config, dtype="float32")  # processors emulate bfloat16, slowly
    params = jax.device_put(params)
    return functools.partial(_estimate, params, config, batch)


def _estimate(
    params: Any, config: EstimatorConfig, batch: int, images: Images, eyes: Float[np.ndarray, "n 2 2"]
) -> Directions:
    found = []
    for first in range(0, len(images), batch):
        rows = np.minimum(np.arange(first, first + batch), len(images) - 1)  # the last batch is filled up
        out = jax.device_get(_one_batch(params, config, images[rows], np.asarray(eyes, np.float32)[rows]))
        found.append({name: value[: len(images) - first] for name, value in out.items()})
    return {name: np.concatenate([part[name] for part in found]) for name in ("gaze", "head")}


@functools.partial(jax.jit, static_argnums=1)
def _one_batch(params, config, images, eyes):
    return estimate(params, config, images.astype(jnp.float32) / 255, eyes)
