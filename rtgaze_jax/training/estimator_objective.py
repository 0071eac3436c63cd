"""What the gaze estimator minimises. It must judge renders, photos and the softer images that networks make."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.data import transform
from rtgaze_jax.data.record import PARTS
from rtgaze_jax.geometry.camera import project, unpack_camera
from rtgaze_jax.geometry.gaze import head_gaze_to_vector, vector_angle_deg
from rtgaze_jax.models.estimator import EstimatorConfig, GazeEstimator, config_from_dict, init_estimator, take_crops
from rtgaze_jax.models.layers import grow, shrink
from rtgaze_jax.training.objective import Objective, image_grid
from rtgaze_jax.training.terms import Metrics

HEAD_WEIGHT = 0.5
EYE_JITTER = 0.006  # image widths, of both eyes together and of each: together about 1 %
SCALE_JITTER = 0.06
_WORLD_FORWARD = (0.0, 0.0, 1.0)


def samples(batch: dict[str, Array]) -> dict[str, Array]:
    """A batch of pairs as twice as many single images, sources first.

    image [2B, S, S, 3] in [0, 1]; parts; eyes [2B, 2, 2] normalised; gaze, head [2B, 3] unit vectors in camera axes.
    """
    both = lambda name: jnp.concatenate([batch[f"source_{name}"], batch[f"target_{name}"]])  # noqa: E731
    camera = both("camera")
    to_camera = jnp.swapaxes(unpack_camera(camera)[0][:, :3, :3], 1, 2)
    turn = lambda vector: (to_camera * vector[:, None, :]).sum(-1)  # noqa: E731
    centers = jnp.concatenate([batch["eye_centers"]] * 2)
    return {
        "image": both("image"),
        "parts": both("parts"),
        "eyes": project(centers, camera)[0],
        "gaze": turn(head_gaze_to_vector(both("gaze"))),
        "head": turn(jnp.broadcast_to(jnp.array(_WORLD_FORWARD), (len(camera), 3))),
    }


def mask_background(image: Float[Array, "S S 3"], parts: Array, key: Array) -> Float[Array, "S S 3"]:
    """Half of the time everything but the head becomes one colour, often white: as images are masked for evaluation."""
    coin, white, colour = jax.random.split(key, 3)
    fill = jnp.where(jax.random.bernoulli(white), 1.0, jax.random.uniform(colour, (3,)))
    head = (parts != int(PARTS.background)) & (parts != int(PARTS.clothes))
    keep = head[..., None] | jax.random.bernoulli(coin)
    return jnp.where(keep, image, fill)


def photograph(
    eyes: Float[Array, "2 h w 3"], face: Float[Array, "f f 3"], key: Array
) -> tuple[Float[Array, "2 h w 3"], Float[Array, "f f 3"]]:
    """One image's crops with random exposure, tint, gamma, contrast, softness and noise, the same for all of them."""
    gain_key, tint_key, gamma_key, contrast_key, soft_key, mix_key, noise_key = jax.random.split(key, 7)
    gain = jnp.exp(jax.random.uniform(gain_key, (), minval=-0.4, maxval=0.25))
    tint = jnp.exp(jax.random.uniform(tint_key, (3,), minval=-0.12, maxval=0.12))
    gamma = jnp.exp(jax.random.uniform(gamma_key, (), minval=-0.35, maxval=0.35))
    contrast = jax.random.uniform(contrast_key, (), minval=0.75, maxval=1.15)
    # half of the images stay sharp; the others lose up to a half or three quarters of their resolution
    factor = jax.random.choice(soft_key, jnp.array([1, 2, 4]), p=jnp.array([0.5, 0.35, 0.15]))
    mix = jnp.where(factor > 1, jax.random.uniform(mix_key), 0.0)
    level_key, eye_key, face_key = jax.random.split(noise_key, 3)
    level = jnp.square(jax.random.uniform(level_key)) * 0.06

    def develop(crop: Array, blurred: Array, key: Array) -> Array:
        crop = crop + mix * (blurred - crop)
        crop = 0.5 + contrast * (jnp.power(jnp.clip(crop, 0, 1) + 1e-4, gamma) * gain * tint - 0.5)
        return jnp.clip(crop + jax.random.normal(key, crop.shape) * level, 0, 1)

    blur = lambda x, n: grow(shrink(x, n), n)  # noqa: E731
    soft = jnp.where(factor > 2, blur(eyes, 4), blur(eyes, 2))
    return develop(eyes, soft, eye_key), develop(face, blur(face[None], 2)[0], face_key)  # faces are coarse already


def estimator(config: EstimatorConfig, *, augment: bool = True) -> Objective:
    """Mean chord between predicted and true unit vectors (the angle in radians, but smooth), gaze plus half of head."""
    model = GazeEstimator(config)

    def init(key: Array) -> Any:
        return {"model": init_estimator(config, key)}

    def crops_of(batch: dict[str, Array], key: Array | None) -> tuple[Array, Array, dict[str, Array]]:
        batch = transform.to_float(batch)
        if key is None:
            data = samples(batch)
            return *take_crops(data["image"], data["eyes"], config), data
        keys = transform.example_keys(key, batch)
        turn = jax.vmap(lambda k: jax.random.bernoulli(jax.random.fold_in(k, 0)))(keys)
        flipped = jax.vmap(transform.mirror)(batch)
        choose = lambda a, b: jnp.where(turn.reshape(-1, *[1] * (a.ndim - 1)), b, a)  # noqa: E731
        data = samples(jax.tree.map(choose, batch, flipped))
        keys = jnp.concatenate([jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(keys) for i in (1, 2)])
        place, scale, back, photo = jnp.moveaxis(jax.vmap(lambda k: jax.random.split(k, 4))(keys), 1, 0)
        jitter = jax.vmap(lambda k: jax.random.normal(k, (3, 2)))(place) * EYE_JITTER
        data["eyes"] = data["eyes"] + jitter[:, :1] + jitter[:, 1:]
        scale = jax.vmap(lambda k: 1 + SCALE_JITTER * jax.random.uniform(k, minval=-1, maxval=1))(scale)
        image = jax.vmap(mask_background)(data["image"], data["parts"], back)
        eyes, face = take_crops(image, data["eyes"], config, scale)
        eyes, face = jax.vmap(photograph)(eyes, face, photo)
        return eyes, face, data

    def loss(params: Any, frozen: Any, batch: dict[str, Array], key: Array, step: Array) -> tuple[Array, Metrics]:
        eyes, face, data = crops_of(batch, jax.random.fold_in(key, 1) if augment else None)
        out: Any = model.apply({"params": params["model"]}, eyes * 2 - 1, face * 2 - 1, data["eyes"])
        chord = {n: jnp.sqrt(jnp.square(out[n] - data[n]).sum(-1) + 1e-6).mean() for n in ("gaze", "head")}
        errors = {f"{n}_error_deg": vector_angle_deg(out[n], data[n]).mean() for n in ("gaze", "head")}
        return chord["gaze"] + HEAD_WEIGHT * chord["head"], errors

    def images(params: Any, frozen: Any, batch: dict[str, Array], key: Array) -> dict[str, Array]:
        eyes, _, _ = crops_of(batch, key if augment else None)
        return {"eyes": image_grid([eyes[:, 0], eyes[:, 1]])}

    header = {
        "kind": "estimator",
        "config": dataclasses.asdict(config),
        "frame": "camera",
        "licence": "Apache-2.0",
        "training_data": "gaze_heads (synthetic people, rtgaze_jax.data.heads, split train)",
    }
    return Objective(init, loss, images, {}, header)


def build(config: Any) -> Objective:
    """The objective of configs/estimator.py: reads `model` and `augment`."""
    return estimator(config_from_dict(config.model), augment=config.augment)
