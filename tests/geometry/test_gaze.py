"""Gaze angles and frames: signs, round trips, and precision where the textbook formulas lose it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax.geometry import camera, gaze


@pytest.fixture
def angles():
    return jnp.asarray(np.random.default_rng(0).uniform([-1.4, -3.1], [1.4, 3.1], (50, 2)), jnp.float32)


def test_signs():
    lens, up, left = gaze.gaze_to_vector(jnp.array([[0.0, 0.0], [0.3, 0.0], [0.0, 0.3]]))
    np.testing.assert_allclose(lens, [0, 0, -1], atol=1e-7)  # camera axes: z points from the camera to the face
    assert up[1] < 0  # y down
    assert left[0] < 0  # x right


def test_round_trips(angles):
    np.testing.assert_allclose(gaze.vector_to_gaze(gaze.gaze_to_vector(angles)), angles, atol=1e-5)
    np.testing.assert_allclose(gaze.vector_to_gaze(7 * gaze.gaze_to_vector(angles)), angles, atol=1e-5)
    np.testing.assert_allclose(gaze.vector_to_head_gaze(gaze.head_gaze_to_vector(angles)), angles, atol=1e-5)
    pose, _ = camera.unpack_camera(camera.orbit_camera(25.0, -10.0))
    world = gaze.gaze_to_world(angles, pose)
    np.testing.assert_allclose(jnp.linalg.norm(world, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(gaze.gaze_from_world(world, pose), angles, atol=1e-5)


def test_head_frame_is_the_frontal_camera(angles):
    pose, _ = camera.unpack_camera(camera.frontal_camera())
    np.testing.assert_allclose(gaze.head_gaze_to_vector(angles), gaze.gaze_to_world(angles, pose), atol=1e-6)
    np.testing.assert_allclose(gaze.head_gaze_to_vector(jnp.zeros(2)), [0, 0, 1], atol=1e-7)


@pytest.mark.parametrize("degrees", [0.0, 0.002, 1.0, 90.0, 179.999])
def test_angular_error_keeps_small_and_large_angles(degrees):
    error = gaze.angular_error_deg(jnp.zeros(2), jnp.array([0.0, np.radians(degrees)]))
    np.testing.assert_allclose(error, degrees, rtol=1e-4, atol=1e-5)


def test_gradients_are_finite_at_agreement_and_poles():
    grad = jax.jit(jax.grad(gaze.angular_error_deg))
    assert np.isfinite(grad(jnp.array([0.1, 0.2]), jnp.array([0.1, 0.2]))).all()
    grad = jax.jit(jax.jacobian(gaze.vector_to_gaze))
    assert np.isfinite(grad(jnp.array([0.0, -1.0, 0.0]))).all()
    np.testing.assert_allclose(gaze.vector_to_gaze(jnp.array([0.0, -1.0, 0.0])), [np.pi / 2, 0], atol=1e-6)
