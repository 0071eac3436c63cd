"""The methods under evaluation, all with one interface: a batch of pairs -> predictions of the target images."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rtgaze_jax.data.transform import to_frame
from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation.protocol import Batch
from rtgaze_jax.geometry.camera import project, transform_camera, unpack_camera
from rtgaze_jax.geometry.gaze import gaze_from_world, head_gaze_to_vector
from rtgaze_jax.models.config import ModelConfig
from rtgaze_jax.models.config import from_dict as model_config
from rtgaze_jax.models.crops import sample_image
from rtgaze_jax.models.portrait import PortraitGenerator
from rtgaze_jax.models.rtgaze import RTGaze
from rtgaze_jax.models.warp import WarpConfig, config_from_dict, redirect_eyes
from rtgaze_jax.rendering.rays import camera_rays
from rtgaze_jax.weights import io

WARP = io.SHIPPED / "warp.safetensors"
_LABELS = ("source_camera", "target_camera", "target_gaze", "eye_centers")
_SIDE_STEP = np.radians(8.0)  # to the other view that consistency_3d compares with
_SAME_SURFACE = 0.02  # world units (7 mm) between the two views' depths


class Predictor(Protocol):
    """One method. Its results are image uint8 [b, S, S, 3] and optionally depth [b, S, S] and consistency_3d [b]."""

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]: ...


def copy_source(batch: Batch) -> dict[str, np.ndarray]:
    """The source image as it is: what doing nothing scores."""
    return {"image": batch["source_image"]}


class Student:
    """RTGaze weights. Cameras and eye centres are the labels', as in the lineage, unless `own_eyes`: then the network's
    own pose head says where the eyes are."""

    def __init__(self, params: Mapping[str, Any], config: ModelConfig, *, own_eyes: bool = False):
        self.params, self.config, self.own_eyes = jax.device_put(params), _for_device(config), own_eyes

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        """Renders the targets, and each once more from the side."""
        moved = _moved({k: batch[k] for k in _LABELS}, self.config.frame)
        scene = _student_scene(self.params, self.config, batch["source_image"], moved, self.own_eyes)
        camera = moved["target_camera"]
        out = _student_view(self.params, self.config, scene, camera)
        aside = transform_camera(jnp.asarray(_turn(_SIDE_STEP))[None], camera)
        other = _student_view(self.params, self.config, scene, aside)
        agreement = _agreement(out, camera, other, aside, batch["target_face_mask"])
        out["depth"] /= moved["scale"][:, None, None]
        return jax.device_get(out | {"consistency_3d": agreement})

    def path(self, batch: Batch, gazes: Float[np.ndarray, "t 2"]) -> np.ndarray:
        """Images uint8 [t, S, S, 3] of the first pair's source looking along `gazes` (head frame, radians), seen by the
        target camera. They are made as many at a time as the batch has rows."""
        rows = len(batch["source_image"])
        repeated = {k: np.repeat(batch[k][:1], rows, 0) for k in (*_LABELS, "source_image")}
        frames = []
        for first in range(0, len(gazes), rows):
            wanted = np.minimum(np.arange(first, first + rows), len(gazes) - 1)
            labels = {k: repeated[k] for k in _LABELS} | {"target_gaze": gazes[wanted].astype(np.float32)}
            moved = _moved(labels, self.config.frame)
            scene = _student_scene(self.params, self.config, repeated["source_image"], moved, self.own_eyes)
            frames.append(np.asarray(_student_view(self.params, self.config, scene, moved["target_camera"])["image"]))
        return np.concatenate(frames)[: len(gazes)]


class Look:
    """The student's eyes in the source picture itself, as photos and videos are edited. It cannot change the view."""

    def __init__(self, student: Student):
        self.student = student

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        """Gives the source images other eyes."""
        s = self.student
        moved = _moved({k: batch[k] for k in _LABELS}, s.config.frame)
        return {"image": np.asarray(_student_look(s.params, s.config, batch["source_image"], moved, s.own_eyes))}


class Portrait:
    """The teacher, which knows no gaze: what 3D reconstruction alone scores."""

    def __init__(self, params: Mapping[str, Any], config: ModelConfig):
        self.params, self.config = jax.device_put(params), _for_device(config)

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        """Renders the sources as they are at the targets' cameras."""
        moved = _moved({k: batch[k] for k in _LABELS}, self.config.frame)
        return {"image": np.asarray(_portrait_view(self.params, self.config, batch["source_image"], moved))}


class Warp:
    """2D warping of the eye region (models/warp.py): the source picture with other eyes. It cannot change the view; the
    eyes are made to look where the target looks, relative to the camera."""

    def __init__(self, params: Mapping[str, Any], config: WarpConfig):
        if jax.default_backend() == "cpu":
            config = dataclasses.replace(config, dtype="float32")
        self.params, self.config = jax.device_put(params), config

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        """Warps the eyes of the source images."""
        names = (*_LABELS, "source_image", "source_gaze")
        return {"image": np.asarray(_warped(self.params, self.config, {k: batch[k] for k in names}))}


def _for_device(config: ModelConfig) -> ModelConfig:
    # processors emulate bfloat16, slowly
    return dataclasses.replace(config, dtype="float32") if jax.default_backend() == "cpu" else config


@functools.partial(jax.jit, static_argnums=1)
def _moved(batch, frame):
    return to_frame(batch, frame)


def _redirected(params, config, image, labels, own_eyes, method):
    apply = functools.partial(RTGaze(config).apply, {"params": params})
    features = apply(image.astype(jnp.float32) / 127.5 - 1, method="encode")
    eyes = None if own_eyes else labels["eye_centers"]
    return apply(features, labels["prompt"], eyes, labels["source_camera"], method=method)


@functools.partial(jax.jit, static_argnums=(1, 4))
def _student_scene(params, config, image, labels, own_eyes):
    return _redirected(params, config, image, labels, own_eyes, "redirect")


@functools.partial(jax.jit, static_argnums=(1, 4))
def _student_look(params, config, image, labels, own_eyes):
    return _to_uint8(_redirected(params, config, image, labels, own_eyes, "look"))


@functools.partial(jax.jit, static_argnums=1)
def _student_view(params, config, scene, camera):
    out: Any = RTGaze(config).apply({"params": params}, scene, camera, method="render")
    return {"image": _to_uint8(out["image"]), "depth": out["depth"].astype(jnp.float32)}


@functools.partial(jax.jit, static_argnums=1)
def _portrait_view(params, config, image, labels):
    model = PortraitGenerator(config)
    source = image.astype(jnp.float32) / 127.5 - 1
    out: Any = model.apply({"params": params}, source, labels["source_camera"], labels["target_camera"])
    return _to_uint8(out["image"])


@functools.partial(jax.jit, static_argnums=1)
def _warped(params, config, batch):
    def seen(gaze: str, camera: str) -> Array:
        return gaze_from_world(head_gaze_to_vector(batch[gaze]), unpack_camera(batch[camera])[0])

    return _to_uint8(
        redirect_eyes(
            params,
            config,
            batch["source_image"].astype(jnp.float32) / 127.5 - 1,
            batch["eye_centers"],
            batch["source_camera"],
            seen("source_gaze", "source_camera"),
            seen("target_gaze", "target_camera"),
        )
    )


@jax.jit
def _agreement(view, camera, other, other_camera, mask):
    """PSNR in dB between a view and another one sampled where the view's depth says, over what both see of the head."""
    b, size = mask.shape[:2]
    origins, directions = camera_rays(camera, size)
    points = (origins + view["depth"][..., None] * directions).reshape(b, -1, 3)
    uv, distance = project(points, other_camera)
    sampled = sample_image(jnp.concatenate([other["image"] / 255.0, other["depth"][..., None]], -1), uv)
    colour, depth = sampled[..., :3], sampled[..., 3]
    inside = (jnp.abs(uv - 0.5) < 0.5).all(-1) & (jnp.abs(depth - distance) < _SAME_SURFACE)
    both = inside.reshape(mask.shape) & mask & (view["depth"] > 0)
    error = jnp.square(view["image"] / 255.0 - colour.reshape(*mask.shape, 3)).mean(-1)
    pixels = both.sum((1, 2))
    mean = (error * both).sum((1, 2)) / jnp.maximum(pixels, 1)
    return jnp.where(pixels > 0.05 * mask.sum((1, 2)), -10 * jnp.log10(mean + 1e-8), jnp.nan)


def _turn(angle: float) -> Float[np.ndarray, "4 4"]:
    """A rotation of the world around its vertical axis."""
    matrix = np.eye(4, dtype=np.float32)
    matrix[0, 0] = matrix[2, 2] = np.cos(angle)
    matrix[0, 2], matrix[2, 0] = np.sin(angle), -np.sin(angle)
    return matrix


def _to_uint8(image: Float[Array, "..."]) -> Array:
    return jnp.clip(jnp.round((image + 1) * 127.5), 0, 255).astype(jnp.uint8)


def load_model(path: str | os.PathLike, *, own_eyes: bool = False) -> Student:
    """The student of a weights file. Raises UserError where it is missing or of another kind."""
    params, header = io.load(path)
    if header.get("kind", "student") != "student":
        raise UserError(
            f"{path} holds a network of kind '{header['kind']}', not a gaze redirector ('rtgaze info' tells)"
        )
    return Student(params, _model_config(path, header), own_eyes=own_eyes)


def load_portrait(path: str | os.PathLike) -> Portrait:
    """The teacher of a weights file (configs/portrait.py). Raises UserError where it is missing or of another kind."""
    params, header = io.load(path)
    if header.get("kind") != "portrait":
        raise UserError(f"{path} is no teacher; train one with 'rtgaze train --config configs/portrait.py:small ...'")
    return Portrait(params, _model_config(path, header))


def load_baselines(
    warp: str | os.PathLike | None = None, teacher: str | os.PathLike | None = None
) -> dict[str, Predictor]:
    """The baselines by name: copy always, warp where its weights are named or come with the package, teacher if named.

    Raises UserError for named files that are missing or of another kind.
    """
    found: dict[str, Predictor] = {"copy": copy_source}
    if warp is not None or WARP.is_file():
        params, header = io.load(warp or WARP)
        if header.get("kind") != "warp":
            raise UserError(
                f"{warp} is no warping network; train one with 'rtgaze train --config configs/warp.py:small'"
            )
        found["warp"] = Warp(params, config_from_dict(header["config"]))
    if teacher is not None:
        found["teacher"] = load_portrait(teacher)
    return found


def _model_config(path: str | os.PathLike, header: Mapping[str, Any]) -> ModelConfig:
    try:
        return model_config(header["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not describe a network of this program ({error})") from error
