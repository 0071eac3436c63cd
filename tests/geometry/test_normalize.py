"""Normalised cameras and the face crop, against OpenCV and against what they promise."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax.geometry import normalize

CANONICAL_EYES = np.array([[0.5 + normalize.EYE_DISTANCE / 2, 0.376], [0.5 - normalize.EYE_DISTANCE / 2, 0.376]])
CANONICAL_MOUTH = np.array([0.5, 0.663])


def rodrigues(vector):
    return cv2.Rodrigues(np.asarray(vector, np.float64))[0]


def test_rotation_vectors_against_opencv():
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(40, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angles = np.concatenate([[0, 1e-6, 1e-4, 1e-3, np.pi - 1e-3], np.linspace(0.01, 3.13, 35)])
    vectors = axes * angles[:, None]
    expected = np.stack([rodrigues(v) for v in vectors])
    to_vector = jax.jit(normalize.vector_from_rotation)
    matrices = jax.jit(normalize.rotation_from_vector)(jnp.asarray(vectors, jnp.float32))
    np.testing.assert_allclose(matrices, expected, atol=1e-6)
    np.testing.assert_allclose(to_vector(matrices), vectors, atol=2e-6)
    half_turns = jnp.array([np.diag(d) for d in ([1, -1, -1], [-1, 1, -1], [-1, -1, 1])], jnp.float32)
    np.testing.assert_allclose(to_vector(half_turns), np.pi * np.eye(3), atol=1e-6)
    gradient = jax.jit(jax.jacobian(normalize.rotation_from_vector))(jnp.zeros(3))
    np.testing.assert_allclose(gradient[2, 1], [1, 0, 0], atol=1e-6)  # turning about x moves y to z


def test_normalized_camera_is_a_pinhole_at_the_old_place():
    """The warp maps pixels as a camera turned by R would see them, with focal length f * |center| / distance."""
    rng = np.random.default_rng(1)
    head = rodrigues([0.2, -0.4, 0.3])
    k = np.array([[1500.0, 0, 700], [0, 1480, 520], [0, 0, 1]])
    model = rng.normal(size=(6, 3)) * 30
    translation = np.array([60.0, -40, 900])
    center = normalize.face_center(*(jnp.asarray(a, jnp.float32) for a in (model, head, translation)))
    expected = head @ (model[:4].mean(0) + model[4:].mean(0)) / 2 + translation
    np.testing.assert_allclose(center, expected, rtol=1e-5)
    out = normalize.normalize_camera(
        center, jnp.asarray(head, jnp.float32), jnp.asarray(k, jnp.float32), focal=960, distance=600, size=(224, 200)
    )
    points = (model @ head.T + translation).T
    pixels = k @ points
    warped = np.asarray(out.warp, np.float64) @ (pixels / pixels[2])
    turned = np.asarray(out.rotation, np.float64) @ points
    effective = 960 * np.linalg.norm(expected) / 600
    pinhole = effective * turned[:2] / turned[2] + np.array([[112], [100]])
    np.testing.assert_allclose(warped[:2] / warped[2], pinhole, atol=0.02)
    x_axis = normalize.normalized_head(out, jnp.asarray(head, jnp.float32))[:, 0]
    np.testing.assert_allclose(x_axis[1], 0, atol=1e-6)  # the head's x axis is level in the image
    into_lens = normalize.normalized_gaze(out, center, jnp.zeros(3))
    np.testing.assert_allclose(into_lens, [0, 0, -1], atol=1e-6)


def move(points, angle, scale, shift):
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    return points @ np.array([[c, -s], [s, c]]).T + shift


@pytest.mark.parametrize("angle", [0.0, 0.5, -1.2, 3.0])
def test_crop_undoes_roll_scale_and_shift(angle):
    photo = [move(512 * p, angle, 0.37, np.array([300.0, 140.0])) for p in (CANONICAL_EYES, CANONICAL_MOUTH)]
    matrix = normalize.face_crop_matrix(*photo, 512)
    cropped = np.vstack(photo) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(cropped[:2], 512 * CANONICAL_EYES, atol=1e-6)
    np.testing.assert_allclose(cropped[2], 512 * CANONICAL_MOUTH, atol=1e-6)


def test_crop_keeps_its_scale_for_turned_and_nodding_heads():
    middle = CANONICAL_EYES.mean(axis=0)
    turned = middle + (CANONICAL_EYES - middle) * 0.6
    nodding = middle + (CANONICAL_MOUTH - middle) * 0.7
    for eyes, mouth in ((turned, CANONICAL_MOUTH), (CANONICAL_EYES, nodding)):
        matrix = normalize.face_crop_matrix(100 * eyes, 100 * mouth, 100)
        np.testing.assert_allclose(matrix[:, :2], np.eye(2), atol=1e-9)


def test_crop_is_the_same_in_numpy_and_jitted_jax():
    eyes, mouth = np.array([[[310.0, 200], [215, 180]]] * 2), np.array([[255.0, 290]] * 2)
    expected = normalize.opencv_affine(normalize.face_crop_matrix(eyes, mouth, 256))
    assert isinstance(expected, np.ndarray)
    jitted = jax.jit(lambda e, m: normalize.opencv_affine(normalize.face_crop_matrix(e, m, 256)))
    np.testing.assert_allclose(jitted(jnp.asarray(eyes), jnp.asarray(mouth)), expected, rtol=1e-4, atol=1e-3)


def test_invert_affine():
    matrix = np.array([[1.2, 0.3, -40], [-0.3, 1.2, 7]])
    inverse = normalize.invert_affine(matrix)
    point = np.array([13.0, 56.0])
    there = matrix[:, :2] @ point + matrix[:, 2]
    np.testing.assert_allclose(inverse[:, :2] @ there + inverse[:, 2], point)


def test_opencv_affine_puts_pixel_centres_right():
    """Warp ramps of x and y: each crop pixel must show the photo coordinate that its centre comes from."""
    matrix = np.array([[1.7, 0.4, -12.0], [-0.4, 1.7, 9.0]])
    centers = np.arange(64, dtype=np.float32) + 0.5
    ramps = np.stack(np.meshgrid(centers, centers), axis=-1)
    crop = cv2.warpAffine(ramps, normalize.opencv_affine(matrix), (40, 40), flags=cv2.INTER_LINEAR)
    inverse = normalize.invert_affine(matrix)
    expected = ramps[:40, :40] @ inverse[:, :2].T + inverse[:, 2]
    inside = ((expected > 2) & (expected < 62)).all(axis=-1)
    assert inside.sum() > 400
    np.testing.assert_allclose(crop[inside], expected[inside], atol=0.05)  # OpenCV interpolates in 1/32 pixels
