"""The pose head: where the source camera stands, where the eyes are, and where they look, from the encoder's own
features."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.geometry.camera import FOCAL, RADIUS
from rtgaze_jax.models.layers import LECUN, conv, dense

EYE_DEPTH = 0.07  # the eyeballs' centres lie about this far in front of the head's origin, world units


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


class PoseHead(nn.Module):
    """Predicts, in the SOURCE frame (the world in which the source camera is the frontal one):

    rotation [B, 3, 3], position [B, 3]: the rigid map from the head frame to the source frame;
    eyes [B, 2, 3]: the eyeballs' centres (subject's left, right); gaze [B, 2]: (pitch, yaw) of the source, in radians.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, grid: Float[Array, "B G G L"], tokens: Float[Array, "B T T D"]) -> dict[str, Array]:
        x = nn.relu(conv(64, 3, 2, dtype=self.dtype)(grid))
        x = nn.relu(conv(64, dtype=self.dtype)(x))
        where = conv(
            2,
            init=LECUN,
            dtype=jnp.float32,
            name="heatmap",
        )(x.astype(jnp.float32))
        uv = soft_argmax(where)
        pooled = jnp.concatenate([tokens.mean((1, 2)), tokens.max((1, 2)), x.mean((1, 2)), x.max((1, 2))], -1)
        pooled = nn.relu(dense(128, dtype=self.dtype)(pooled)).astype(jnp.float32)
        values = dense(6 + 3 + 2 + 2, init=nn.initializers.zeros)(pooled)
        rotation, position, depth, gaze = jnp.split(values, (6, 9, 11), -1)
        eyes = frontal_points(uv, depth - EYE_DEPTH)
        return {"rotation": rotation_from_6d(rotation), "position": position, "eyes": eyes, "gaze": gaze}


def frontal_points(uv: Float[Array, "... 2"], depth: Float[Array, "..."]) -> Float[Array, "... 3"]:
    """World points that the frontal camera sees at `uv` (normalised) and at distance RADIUS + depth along its axis."""
    away = (RADIUS + depth)[..., None]
    xy = (uv - 0.5) / FOCAL * away * jnp.array([1.0, -1.0])
    return jnp.concatenate([xy, RADIUS - away], -1)
