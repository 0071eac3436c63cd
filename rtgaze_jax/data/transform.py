"""What happens to a batch on the device: world frame, mirroring, colour. Pure JAX; every example has its own random
key."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rtgaze_jax.data.record import PARTS
from rtgaze_jax.geometry.camera import (
    pack_camera,
    scale_of,
    source_frame,
    transform_camera,
    transform_points,
    transform_vector,
    unpack_camera,
)
from rtgaze_jax.geometry.gaze import head_gaze_to_vector, vector_to_head_gaze
from rtgaze_jax.models.layers import grow, shrink

Frame = Literal["head", "source"]
_FLIP = np.array([-1.0, 1.0, 1.0])
_IMAGES = (
    "source_image",
    "target_image",
    "frontal_image",
    "target_depth",
    "target_parts",
    "target_face_mask",
    "target_eye_mask",
    "source_parts",
)


def example_keys(key: Array, batch: dict[str, Array]) -> Array:
    """One key per example, from its place in the global batch: the same however the batch is cut over devices."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(batch["index"])


def to_float(batch: dict[str, Array]) -> dict[str, Array]:
    """Images to float32 in [0, 1], depth to float32, masks to float32."""
    out = dict(batch)
    for name, value in batch.items():
        if name.endswith("_image"):
            out[name] = value.astype(jnp.float32) / 255
        elif name.endswith(("_mask", "_depth")):
            out[name] = value.astype(jnp.float32)
    return out


def mirror_camera(camera: Float[Array, "25"]) -> Float[Array, "25"]:
    """The camera that takes the mirrored picture of the mirrored world (x -> -x)."""
    pose, k = unpack_camera(camera)
    flip = jnp.array([-1.0, 1.0, 1.0, 1.0])
    k = k.at[0, 2].set(1 - k[0, 2]).at[0, 1].multiply(-1)
    return pack_camera(pose * flip[:, None] * flip[None, :], k)


def mirror(example: dict[str, Array]) -> dict[str, Array]:
    """One example (no batch axis) with left and right exchanged: images, cameras, gaze, eyes and part names."""
    out = dict(example)
    for name, value in example.items():
        if name in _IMAGES:
            out[name] = value[:, ::-1]
        elif name.endswith("_camera"):
            out[name] = mirror_camera(value)
        elif name.endswith("_gaze"):
            out[name] = value * jnp.array([1.0, -1.0])
    left, right = int(PARTS.left_eye), int(PARTS.right_eye)
    for name in ("source_parts", "target_parts"):
        if name in out:
            parts = out[name]
            out[name] = jnp.where(parts == left, right, jnp.where(parts == right, left, parts)).astype(parts.dtype)
    out["eye_centers"] = (example["eye_centers"] * _FLIP)[::-1]
    return out


def recolour(example: dict[str, Array], key: Array) -> dict[str, Array]:
    """Random gain, tint and gamma shared by all images of an example; noise and softness on the source only, as photos
    have them."""
    keys = jax.random.split(key, 6)
    gain = jax.random.uniform(keys[0], (3,), minval=0.88, maxval=1.12) * jax.random.uniform(
        keys[1], (), minval=0.75, maxval=1.2
    )
    gamma = jnp.exp(jax.random.uniform(keys[2], (), minval=-0.3, maxval=0.3))
    out = dict(example)
    for name in ("source_image", "target_image", "frontal_image"):
        if name in out:
            out[name] = jnp.clip(jnp.power(out[name] + 1e-4, gamma) * gain, 0, 1)
    image = out["source_image"]
    soft = grow(shrink(image[None], 2), 2)[0]
    amount = jax.random.uniform(keys[3]) * (jax.random.uniform(keys[4]) < 0.3)
    noise_key, level_key = jax.random.split(keys[5])
    noise = jax.random.normal(noise_key, image.shape) * 0.02 * jax.random.uniform(level_key)
    out["source_image"] = jnp.clip(image + amount * (soft - image) + noise, 0, 1)
    return out


def augment(batch: dict[str, Array], key: Array) -> dict[str, Array]:
    """Mirrors half of the examples and recolours all. `batch` after to_float; needs `index`."""

    def one(example: dict[str, Array], key: Array) -> dict[str, Array]:
        coin, colour = jax.random.split(key)
        flipped = mirror(example)
        turn = jax.random.bernoulli(coin)
        return recolour(jax.tree.map(lambda a, b: jnp.where(turn, b, a), example, flipped), colour)

    return jax.vmap(one)(batch, example_keys(key, batch))


def to_frame(batch: dict[str, Array], frame: Frame) -> dict[str, Array]:
    """Moves cameras, eye centres, depth and gaze into the weights' world frame; adds `prompt`, the target gaze as its
    frontal camera sees it, and `scale` [B], the frame's units for one of the batch's.

    "head": the frame the batch is in. "source": that of the source image (geometry.camera.source_frame).
    """
    out = dict(batch)
    gaze = head_gaze_to_vector(batch["target_gaze"])
    out["scale"] = jnp.ones(gaze.shape[:-1], jnp.float32)
    if frame == "source":
        move = source_frame(batch["source_camera"], batch["eye_centers"])
        out["scale"] = scale_of(move)
        if "target_depth" in batch:
            out["target_depth"] = batch["target_depth"] * out["scale"][:, None, None]
        for name in batch:
            if name.endswith("_camera"):
                out[name] = transform_camera(move, batch[name])
        out["eye_centers"] = transform_points(move, batch["eye_centers"])
        gaze = transform_vector(move, gaze)
    out["prompt"] = vector_to_head_gaze(gaze)
    return out
