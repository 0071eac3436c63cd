"""The student: one face image + a gaze -> a 3D representation of the same person looking there -> an image at any
camera."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.geometry.camera import (
    frontal_camera,
    invert_rigid,
    transform_camera,
    transform_points,
    view_change,
)
from rtgaze_jax.models.config import ModelConfig
from rtgaze_jax.models.crops import eye_crops, per_eye
from rtgaze_jax.models.encoder import HighEncoder, LowEncoder, TriplaneDecoder
from rtgaze_jax.models.eyes import EyeRenderer, EyeTriplanes, feather, paste_patches
from rtgaze_jax.models.layers import grow
from rtgaze_jax.models.pose import PoseHead
from rtgaze_jax.models.prompt import PromptInjection
from rtgaze_jax.models.renderer import TriplaneRenderer
from rtgaze_jax.rendering import kernels
from rtgaze_jax.rendering.volume import split_key

OWN_VIEW = 0.02
"""Radians (1.1 degrees) around the photo's own view over which its pixels give way to the learned blend: depth errors
move pixels in proportion to the angle, so that near the photo's view nothing drawn anew can be better."""


class RTGaze(nn.Module):
    """encode(image) -> features; redirect(features, gaze) -> scene; render(scene, camera) -> image, depth. All pure.

    encode holds all that depends on the face alone, redirect all that depends on the gaze, render all that depends on
    the view.
    """

    config: ModelConfig
    implementation: kernels.Implementation = kernels.DEFAULT  # of the field; no part of what the weights mean

    def setup(self):
        c = self.config
        dtype = jnp.dtype(c.dtype)
        self.low = LowEncoder(c.encoder, dtype)
        self.high = HighEncoder(c.encoder, dtype)
        self.prompt = PromptInjection(c.prompt, dtype)
        self.planes = TriplaneDecoder(c.encoder, c.render.plane_channels, dtype)
        self.renderer = TriplaneRenderer(c.render, dtype, self.implementation)
        self.pose = PoseHead(c.pose_width, c.pose_view, dtype)
        if c.eyes.enabled:
            self.eye_planes = EyeTriplanes(c.eyes, dtype)
            self.eye_renderer = EyeRenderer(c.eyes, c.image_size, dtype, self.implementation)

    def encode(self, image: Float[Array, "B S S 3"]) -> dict[str, Any]:
        """`image` in [-1, 1]. Returns low and high features on the grid, a context vector, the pose head's outputs
        (models/pose.py)
        and the image itself."""
        low, tokens = self.low(image)
        return {
            "low": low,
            "high": self.high(image),
            "context": tokens.mean((1, 2)),
            "image": image,
            "pose": self.pose(image),
        }

    def source_camera(self, features: dict[str, Any]) -> Float[Array, "B 25"]:
        """The camera that took the image, in the weights' world frame, as the pose head sees it."""
        frontal = jnp.broadcast_to(frontal_camera(), (features["image"].shape[0], 25))
        if self.config.frame == "source":
            return frontal
        return transform_camera(invert_rigid(head_to_source(features["pose"])), frontal)

    def eye_centers(self, features: dict[str, Any]) -> Float[Array, "B 2 3"]:
        """The eyeballs' centres (subject's left, right) in the weights' world frame, as the pose head sees them."""
        eyes = features["pose"]["eyes"]
        if self.config.frame == "source":
            return eyes
        return transform_points(invert_rigid(head_to_source(features["pose"])), eyes)

    def redirect(
        self,
        features: dict[str, Any],
        gaze: Float[Array, "B 2"],
        eye_centers: Float[Array, "B 2 3"] | None = None,
        source_camera: Float[Array, "B 25"] | None = None,
    ) -> dict[str, Any]:
        """`gaze`: (pitch, yaw) in radians in the weights' world frame. Eye centres and source camera default to the
        pose head's.
        Returns the scene: everything that `render` needs."""
        c = self.config
        low, high = features["low"], features["high"]
        if c.prompt.inject == "high":
            high = self.prompt(high, gaze)
        else:
            low = self.prompt(low, gaze)
        return self._surroundings(features, gaze, eye_centers, source_camera) | {"planes": self.planes(low, high)}

    def _surroundings(
        self,
        features: dict[str, Any],
        gaze: Float[Array, "B 2"],
        eye_centers: Float[Array, "B 2 3"] | None,
        source_camera: Float[Array, "B 25"] | None,
    ) -> dict[str, Any]:
        """The scene without the head's own planes."""
        c = self.config
        if eye_centers is None:
            eye_centers = self.eye_centers(features)
        if source_camera is None:
            source_camera = self.source_camera(features)
        source = (features["image"] + 1) / 2
        scene = {"eye_centers": eye_centers, "source": source, "source_camera": source_camera}
        if c.eyes.enabled:
            crops = eye_crops(features["image"], eye_centers, source_camera, c.eyes.box, c.eyes.crop)
            scene["eye_planes"] = self.eye_planes(crops, per_eye(gaze), jnp.repeat(features["context"], 2, 0))
        return scene

    def render(self, scene: dict[str, Any], camera: Float[Array, "B 25"], key: Array | None = None) -> dict[str, Any]:
        """Renders the scene at a camera of the world frame. `key`: stratified samples (training); None: deterministic,
        and the photo's own view is the photo but for the eyes (see OWN_VIEW).

        Returns image [B, S, S, 3] in about [-1, 1], depth [B, S, S] (ray length), opacity [B, R, R], raw [B, R, R, 3]
        in [0, 1] and,
        with the eye branch, base (the image without it) and eyes (see EyeRenderer) for the losses.
        """
        c = self.config
        keys = split_key(key)
        trust = jnp.zeros(camera.shape[0])
        if c.eyes.enabled and key is None:  # without the eye branch the gaze would be lost; training must do without
            trust = jnp.exp(-jnp.square(view_change(camera, scene["source_camera"]) / OWN_VIEW))
        out: dict[str, Any] = self.renderer(
            scene["planes"], camera, scene["source"], scene["source_camera"], keys[0], trust
        )
        image, out["coarse_depth"] = out["image"], out["depth"]
        out["depth"] = grow(out["depth"][..., None], c.image_size // c.render.resolution)[..., 0]
        out["base"] = image * 2 - 1
        if c.eyes.enabled:
            image, out["eyes"] = self._with_eyes(image, scene, camera, keys[1])
        out["image"] = image * 2 - 1
        return out

    def look(
        self,
        features: dict[str, Any],
        gaze: Float[Array, "B 2"],
        eye_centers: Float[Array, "B 2 3"] | None = None,
        source_camera: Float[Array, "B 25"] | None = None,
    ) -> Float[Array, "B S S 3"]:
        """The source image itself with other eyes, in about [-1, 1]: what redirect and render make for the source's own
        camera, but the head is not rendered. Without the eye branch it is. Arguments as of redirect."""
        if source_camera is None:
            source_camera = self.source_camera(features)
        eyes = self.config.eyes
        alone = eyes.enabled and not eyes.shared  # the eyes do not read the head's planes
        make = self._surroundings if alone else self.redirect
        scene = make(features, gaze, eye_centers, source_camera)
        if not eyes.enabled:
            return self.render(scene, source_camera)["image"]
        return self._with_eyes(scene["source"], scene, source_camera)[0] * 2 - 1

    def _with_eyes(
        self,
        image: Float[Array, "B S S 3"],
        scene: dict[str, Any],
        camera: Float[Array, "B 25"],
        key: Array | None = None,
    ) -> tuple[Float[Array, "B S S 3"], dict[str, Array]]:
        """The image with the eye branch's patches pasted in, and what the branch made (see EyeRenderer)."""
        c = self.config
        eyes = self.eye_renderer(
            scene["eye_planes"],
            scene["eye_centers"],
            scene.get("planes"),
            c.render.box,
            camera,
            scene["source"],
            scene["source_camera"],
            key,
        )
        patches = eyes["patches"]
        weights = jnp.broadcast_to(feather(c.eyes.patch), (*patches.shape[:-1], 1))
        return paste_patches(image, patches, weights, eyes["origins"]), eyes

    def __call__(
        self,
        image: Float[Array, "B S S 3"],
        gaze: Float[Array, "B 2"],
        camera: Float[Array, "B 25"],
        eye_centers: Float[Array, "B 2 3"] | None = None,
        source_camera: Float[Array, "B 25"] | None = None,
        key: Array | None = None,
    ) -> dict[str, Any]:
        """encode, redirect and render in one go; returns render's outputs and `pose`."""
        features = self.encode(image)
        return self.render(self.redirect(features, gaze, eye_centers, source_camera), camera, key) | {
            "pose": features["pose"]
        }


def head_to_source(pose: dict[str, Array]) -> Float[Array, "B 4 4"]:
    """The predicted map from the head frame to the source frame, taken as rigid: how large a head is cannot be seen."""
    top = jnp.concatenate([pose["rotation"], pose["position"][..., None]], -1)
    bottom = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0]), (*top.shape[:-2], 1, 4))
    return jnp.concatenate([top, bottom], -2)
