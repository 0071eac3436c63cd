"""The trained network as four compiled functions, for one face at a time.

Everything here is in the SOURCE frame, the world whose frontal camera took the face crop: so "camera" angles and the
gaze of this frame are the same thing, whatever world frame the weights use inside ("head" or "source", weights'
header).
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from rtgaze_jax.errors import UserError
from rtgaze_jax.geometry.camera import (
    frontal_camera,
    invert_rigid,
    transform_camera,
    transform_points,
    transform_vector,
)
from rtgaze_jax.geometry.gaze import head_gaze_to_vector, vector_to_head_gaze
from rtgaze_jax.models.config import ModelConfig, from_dict
from rtgaze_jax.models.pose import frontal_points
from rtgaze_jax.models.rtgaze import RTGaze, head_to_source


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that only the first run ever pays for compilation."""
    if jax.config.values.get("jax_compilation_cache_dir"):
        return  # the user chose a place
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "rtgaze_jax" / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a read-only home: compile every time
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class Network:
    """Weights, and the functions of one face that they define; every array has a leading batch axis of 1."""

    def __init__(self, params: Mapping[str, Any], config: ModelConfig):
        if jax.default_backend() == "cpu":
            config = dataclasses.replace(config, dtype="float32")  # processors emulate bfloat16, slowly
        self.config = config
        self.size = config.image_size
        self._params = jax.device_put(params)
        self._encode = jax.jit(self._encode_face)
        self._redirect = jax.jit(self._redirect_face)
        self._render = jax.jit(self._render_view)

    @classmethod
    def from_weights(cls, params: Mapping[str, Any], header: Mapping[str, Any]) -> "Network":
        """The network that a weights file (weights/io.py) describes. Raises UserError if it is no redirector."""
        try:
            config = from_dict(header["config"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"these weights are for another network ({error}); RTGaze weights are needed") from error
        return cls(params, config)

    def encode(self, image: UInt8[Array, "1 S S 3"]) -> dict[str, Any]:
        """Everything that depends on the face alone. `pose` holds rotation [1, 3, 3] (head to source), eyes, gaze."""
        return self._encode(self._params, image)

    def redirect(
        self, features: dict[str, Any], gaze: Float[Array, "1 2"], eye_points: Float[Array, "1 2 2"]
    ) -> dict[str, Array]:
        """The scene with a new gaze (radians, source frame). `eye_points`: eyeballs in the crop, normalised."""
        return self._redirect(self._params, features, gaze, eye_points)

    def render(
        self, features: dict[str, Any], scene: dict[str, Array], camera: Float[Array, "1 25"]
    ) -> dict[str, Array]:
        """Image u8[1, S, S, 3] and depth f32[1, S, S] (ray length) at a camera of the source frame."""
        return self._render(self._params, features["pose"], scene, camera)

    def _apply(self, params: Any, *args: Any, method: str) -> Any:
        return RTGaze(self.config).apply({"params": params}, *args, method=method)

    def _to_world(self, pose: dict[str, Array]) -> Float[Array, "1 4 4"]:
        """The rigid map from the source frame to the weights' world frame."""
        if self.config.frame == "source":
            return jnp.eye(4)[None]
        return invert_rigid(head_to_source(pose))

    def _encode_face(self, params: Any, image: UInt8[Array, "1 S S 3"]) -> dict[str, Any]:
        return self._apply(params, image.astype(jnp.float32) / 127.5 - 1, method="encode")

    def _redirect_face(self, params: Any, features: dict[str, Any], gaze: Array, eye_points: Array) -> dict[str, Array]:
        pose = features["pose"]
        to_world = self._to_world(pose)
        # landmarks know better where an eye is in the image, the pose head how far away it is
        eyes = transform_points(to_world, frontal_points(eye_points, -pose["eyes"][..., 2]))
        prompt = vector_to_head_gaze(transform_vector(to_world, head_gaze_to_vector(gaze)))
        camera = transform_camera(to_world, frontal_camera()[None])
        return self._apply(params, features, prompt, eyes, camera, method="redirect")

    def _render_view(
        self, params: Any, pose: dict[str, Array], scene: dict[str, Array], camera: Array
    ) -> dict[str, Array]:
        out = self._apply(params, scene, transform_camera(self._to_world(pose), camera), method="render")
        image = jnp.clip(jnp.round((out["image"] + 1) * 127.5), 0, 255).astype(jnp.uint8)
        return {"image": image, "depth": out["depth"].astype(jnp.float32)}


def head_to_camera_gaze(gaze: Float[Array, "1 2"], pose: dict[str, Array]) -> Float[Array, "1 2"]:
    """Head-frame angles (radians) as the crop's camera sees them, by the predicted head pose."""
    return vector_to_head_gaze(transform_vector(head_to_source(pose), head_gaze_to_vector(gaze)))
