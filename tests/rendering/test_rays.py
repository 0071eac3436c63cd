"""Rays: pixel centres, unit directions, batches."""

import jax
import jax.numpy as jnp
import numpy as np

from rtgaze_jax.geometry import camera
from rtgaze_jax.rendering import rays


def test_frontal_rays():
    origins, directions = rays.camera_rays(camera.frontal_camera(), 5)
    assert origins.shape == directions.shape == (5, 5, 3)
    np.testing.assert_allclose(origins, np.broadcast_to([0, 0, 2.7], (5, 5, 3)), atol=1e-7)
    np.testing.assert_allclose(jnp.linalg.norm(directions, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(directions[2, 2], [0, 0, -1], atol=1e-7)  # the middle pixel's centre
    x, y, z = np.moveaxis(np.asarray(directions), -1, 0)
    assert (np.diff(x / -z, axis=1) > 0).all()  # columns run to world +x
    assert (np.diff(y / -z, axis=0) < 0).all()  # rows run down, world y up
    np.testing.assert_allclose((x / -z)[:, 4], 0.4 / camera.FOCAL, rtol=1e-5)  # (4.5 / 5 - 0.5) / focal


def test_any_points_of_a_batch():
    label = camera.orbit_camera(jnp.array([10.0, -30.0]), jnp.array([5.0, 20.0]))
    uv = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 3, 4, 2)), jnp.float32)
    origins, directions = jax.jit(rays.rays_at)(label, uv)
    for n in range(2):
        one_origins, one_directions = rays.rays_at(label[n], uv[n])
        np.testing.assert_allclose(origins[n], one_origins, rtol=1e-6)
        np.testing.assert_allclose(directions[n], one_directions, atol=1e-6)
