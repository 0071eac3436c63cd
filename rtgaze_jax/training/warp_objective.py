"""What the 2D baseline minimises: pairs of one view, the eye patches of the target from those of the source."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from rtgaze_jax import losses
from rtgaze_jax.data import transform
from rtgaze_jax.geometry.camera import unpack_camera
from rtgaze_jax.geometry.gaze import gaze_from_world, head_gaze_to_vector
from rtgaze_jax.models.eyes import patch_origins, take_patches
from rtgaze_jax.models.warp import WarpConfig, config_from_dict, init_warp, warp_patches
from rtgaze_jax.training.objective import Objective, image_grid
from rtgaze_jax.training.terms import Metrics

EYE_WEIGHT = 3.0  # of the eyeballs' pixels, on top of the face's


def warp(config: WarpConfig, *, augment: bool = True) -> Objective:
    """L1 and gradients of the patches. Needs pairs whose source and target share the view (data.same_view = 1)."""

    def predict(params: Any, batch: dict[str, Array]) -> tuple[Array, Array, Array, Array]:
        """(prediction, source, truth, weight) patches [2B, h, w, ...]; images in [0, 1]."""
        camera = batch["source_camera"]
        cam2world, _ = unpack_camera(camera)
        gaze = {n: gaze_from_world(head_gaze_to_vector(batch[f"{n}_gaze"]), cam2world) for n in ("source", "target")}
        origins = patch_origins(batch["eye_centers"], camera, config.image_size, config.patch)
        cut = lambda name: take_patches(batch[name], origins, config.patch)  # noqa: E731
        source = cut("source_image")
        out = warp_patches(params["model"], config, source * 2 - 1, gaze["source"], gaze["target"])
        weight = cut("target_face_mask") * (1 + EYE_WEIGHT * cut("target_eye_mask"))
        flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
        return flat((out + 1) / 2), flat(source), flat(cut("target_image")), flat(weight)

    def loss(params: Any, frozen: Any, batch: dict[str, Array], key: Array, step: Array) -> tuple[Array, Metrics]:
        batch = transform.to_float(batch)
        if augment:
            batch = transform.augment(batch, key)
        out, source, truth, weight = predict(params, batch)
        l1 = losses.masked_mean(jnp.abs(out - truth).mean(-1), weight)
        doing_nothing = losses.masked_mean(jnp.abs(source - truth).mean(-1), weight)
        gradient = losses.gradient_loss(out, truth, jnp.minimum(weight, 1.0))
        return l1 + 0.5 * gradient, {"l1": l1, "l1_copy": doing_nothing}

    def images(params: Any, frozen: Any, batch: dict[str, Array], key: Array) -> dict[str, Array]:
        out, source, truth, _ = predict(params, transform.to_float(batch))
        return {"eyes": image_grid([source, out, truth])}

    header = {
        "kind": "warp",
        "config": dataclasses.asdict(config),
        "frame": "camera",
        "licence": "Apache-2.0",
        "training_data": "gaze_heads (synthetic people, rtgaze_jax.data.heads, split train)",
    }
    return Objective(lambda key: {"model": init_warp(config, key)}, loss, images, {}, header)


def build(config: Any) -> Objective:
    """The objective of configs/warp.py: reads `model` and `augment`."""
    return warp(config_from_dict(config.model), augment=config.augment)
