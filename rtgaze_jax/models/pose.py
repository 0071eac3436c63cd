"""The pose head: where the source camera stands, where the eyes are, and where they look."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.geometry.camera import EYE_PLANE, FOCAL, RADIUS, frontal_camera
from rtgaze_jax.models.crops import eye_crops
from rtgaze_jax.models.layers import LECUN, ResidualBlock, conv, dense, shrink, with_coordinates

_EYE_CROP = 64  # side of the crops from which the gaze is read
_SQUEEZED = 24  # channels of a map that is read as a whole
_EYE_SPAN = 0.2  # world units they cover: an eye and its lids, with room for a misplaced centre


def rotation_from_6d(x: Float[Array, "... 6"]) -> Float[Array, "... 3 3"]:
    """Gram-Schmidt on two 3-vectors, added to the identity's first two columns (Zhou et al. 2019); zeros give the
    identity."""
    a = x[..., :3] + jnp.array([1.0, 0.0, 0.0])
    b = x[..., 3:] + jnp.array([0.0, 1.0, 0.0])
    a = a / jnp.linalg.norm(a, axis=-1, keepdims=True)
    b = b - (a * b).sum(-1, keepdims=True) * a
    b = b / jnp.linalg.norm(b, axis=-1, keepdims=True)
    return jnp.stack([a, b, jnp.cross(a, b)], -1)


def soft_argmax(logits: Float[Array, "B H W K"]) -> Float[Array, "B K 2"]:
    """The expected (u, v) under a softmax over the map; normalised image coordinates."""
    b, h, w, k = logits.shape
    weights = nn.softmax(logits.reshape(b, h * w, k).astype(jnp.float32), 1).reshape(b, h, w, k)
    columns = (jnp.arange(w) + 0.5) / w
    rows = (jnp.arange(h) + 0.5) / h
    return jnp.stack([jnp.einsum("bhwk,w->bk", weights, columns), jnp.einsum("bhwk,h->bk", weights, rows)], -1)


class Trunk(nn.Module):
    """Residual blocks, halving the resolution at each width.

    Returns the map after each halving, the finest first, and the last one as a vector (not averaged: places matter).
    """

    widths: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "N H W 3"]) -> tuple[list[Float[Array, "N h w C"]], Float[Array, "N D"]]:
        x, maps = with_coordinates(image).astype(self.dtype), []
        for width in self.widths:
            x = nn.relu(conv(width, 3, 2, dtype=self.dtype)(x))
            x = ResidualBlock(width, dtype=self.dtype)(x)
            maps.append(x)
        return maps, conv(_SQUEEZED, 1, dtype=self.dtype, name="squeeze")(x).reshape(x.shape[0], -1)


class PoseHead(nn.Module):
    """Predicts, in the SOURCE frame (geometry.camera.source_frame: the source camera is the frontal one):

    rotation [B, 3, 3], position [B, 3]: the rigid map from the head frame to the source frame;
    eyes [B, 2, 3]: the eyeballs' centres (subject's left, right); gaze [B, 2]: (pitch, yaw) of the source, in radians.

    It sees the image itself: the encoder's features are made for another purpose and know too little of the gaze.
    """

    width: int = 16
    view: int = 128  # side of the shrunk image from which camera and eyes are read
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B S S 3"]) -> dict[str, Array]:
        """`image` in [-1, 1]."""
        (b, size), w = image.shape[:2], self.width
        maps, whole = Trunk((w, 2 * w, 4 * w, 8 * w), self.dtype, name="face")(shrink(image, max(1, size // self.view)))
        heat = conv(2, init=LECUN, dtype=jnp.float32, name="heatmap")(maps[1].astype(jnp.float32))
        coarse = conv(2, init=LECUN, dtype=jnp.float32, name="heatmap_coarse")(maps[3].astype(jnp.float32))
        uv = soft_argmax(heat + jax.image.resize(coarse, heat.shape, "bilinear"))
        pooled = nn.relu(dense(8 * w, dtype=self.dtype)(whole)).astype(jnp.float32)
        values = dense(6 + 3 + 2, init=nn.initializers.zeros)(pooled)
        rotation, position, depth = jnp.split(values, (6, 9), -1)
        eyes = frontal_points(uv, depth - depth.mean(-1, keepdims=True) - EYE_PLANE)  # their middle defines the frame
        camera = jnp.broadcast_to(frontal_camera(), (b, 25))
        crops = eye_crops(image, jax.lax.stop_gradient(eyes), camera, _EYE_SPAN, _EYE_CROP)
        _, looks = Trunk((2 * w, 4 * w, 6 * w), self.dtype, name="eye")(crops)
        looks = jnp.concatenate([looks.reshape(b, -1), pooled.astype(self.dtype)], -1)
        gaze = dense(2, init=nn.initializers.zeros)(nn.relu(dense(8 * w, dtype=self.dtype)(looks)).astype(jnp.float32))
        return {"rotation": rotation_from_6d(rotation), "position": position, "eyes": eyes, "gaze": gaze}


def frontal_points(uv: Float[Array, "... 2"], depth: Float[Array, "..."]) -> Float[Array, "... 3"]:
    """World points that the frontal camera sees at `uv` (normalised) and at distance RADIUS + depth along its axis."""
    away = (RADIUS + depth)[..., None]
    xy = (uv - 0.5) / FOCAL * away * jnp.array([1.0, -1.0])
    return jnp.concatenate([xy, RADIUS - away], -1)
