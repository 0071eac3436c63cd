"""The 2D baseline: a warp is the same on an image of any size."""

import jax
import jax.numpy as jnp
import numpy as np

from rtgaze_jax.geometry.camera import frontal_camera
from rtgaze_jax.models import warp
from rtgaze_jax.models.layers import shrink

EYES = jnp.array([[[0.085, 0.05, 0.07], [-0.085, 0.05, 0.07]]])


def test_an_image_of_half_the_size_is_warped_alike():
    config = warp.WarpConfig("tiny", 256, "float32", (32, 48), (8, 16), 16)
    params = warp.init_warp(config, jax.random.key(0))
    params["out"]["bias"] = jnp.array([0.5, -0.3, 0.1, 0.0, -0.1])  # the same flow everywhere, and a tint
    rows, columns = jnp.meshgrid(*[jnp.linspace(0, 9, 256)] * 2, indexing="ij")
    image = jnp.stack([jnp.sin(rows + k) * jnp.cos(columns * (1 + 0.2 * k)) for k in range(3)], -1)[None]
    gazes = jnp.zeros((1, 2)), jnp.array([[0.1, 0.3]])

    def redirect(picture):
        return np.asarray(warp.redirect_eyes(params, config, picture, EYES, frontal_camera()[None], *gazes))

    whole, half = redirect(image), redirect(shrink(image, 2))
    change = np.abs(whole - image)
    assert change.max() > 0.1
    assert (change > 1e-6).mean() < 2.2 * 32 * 48 / 256**2  # nothing but two patches
    miss = np.abs(half - shrink(jnp.asarray(whole), 2))
    assert miss.mean() < 0.25 * change.mean()  # patches begin at whole pixels
