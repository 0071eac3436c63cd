"""What the device does to a batch: the mirrored world must be a world, and frames must not change what is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax.data import transform
from rtgaze_jax.data.record import PARTS
from rtgaze_jax.geometry.camera import EYE_PLANE, orbit_camera, project, unpack_camera
from rtgaze_jax.geometry.gaze import angular_error_deg, gaze_from_world, head_gaze_to_vector

SIZE = 16


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    image = lambda *tail: rng.integers(0, 256, (3, SIZE, SIZE, *tail)).astype(np.uint8)  # noqa: E731
    cameras = [
        jnp.stack([orbit_camera(a, b) for a, b in views])
        for views in (((5, 3), (-20, 8), (30, -10)), ((0, 0), (25, -5), (-40, 12)))
    ]
    parts = rng.integers(0, len(PARTS), (3, SIZE, SIZE)).astype(np.uint8)
    return {
        "source_image": image(3),
        "target_image": image(3),
        "source_parts": parts,
        "target_parts": parts[:, ::-1].copy(),
        "target_depth": rng.uniform(2, 3, (3, SIZE, SIZE)).astype(np.float16),
        "target_face_mask": parts > 0,
        "target_eye_mask": parts == 2,
        "source_camera": cameras[0],
        "target_camera": cameras[1],
        "source_gaze": rng.uniform(-0.4, 0.4, (3, 2)).astype(np.float32),
        "target_gaze": rng.uniform(-0.4, 0.4, (3, 2)).astype(np.float32),
        "eye_centers": np.array([[[0.085, 0.05, 0.07], [-0.08, 0.04, 0.06]]] * 3, np.float32),
        "person": np.arange(3, dtype=np.int32),
        "index": np.arange(3, dtype=np.int32),
    }


def camera_gaze(example, which):
    """The gaze as the target camera sees it."""
    pose, _ = unpack_camera(example["target_camera"])
    return gaze_from_world(head_gaze_to_vector(example[which]), pose)


def test_the_mirrored_world_looks_mirrored(batch):
    batch = transform.to_float(batch)
    flipped = jax.vmap(transform.mirror)(batch)
    uv, _ = project(batch["eye_centers"], batch["target_camera"])
    seen, _ = project(flipped["eye_centers"], flipped["target_camera"])
    # the subject's left eye becomes the right one, at the mirrored column
    np.testing.assert_allclose(seen[:, ::-1], uv * jnp.array([-1, 1]) + jnp.array([1, 0]), atol=1e-5)
    expected = camera_gaze(batch, "target_gaze") * jnp.array([1, -1])
    assert float(angular_error_deg(camera_gaze(flipped, "target_gaze"), expected).max()) < 0.01
    left = np.asarray(batch["target_parts"])[:, :, ::-1] == PARTS.left_eye
    np.testing.assert_array_equal(np.asarray(flipped["target_parts"]) == PARTS.right_eye, left)


def test_mirroring_twice_changes_nothing(batch):
    batch = transform.to_float(batch)
    twice = jax.vmap(lambda e: transform.mirror(transform.mirror(e)))(batch)
    for name, value in batch.items():
        np.testing.assert_allclose(
            np.asarray(twice[name], np.float32), np.asarray(value, np.float32), atol=1e-6, err_msg=name
        )


def test_source_frame_keeps_what_cameras_see(batch):
    batch = transform.to_float(batch)
    head, source = (transform.to_frame(batch, frame) for frame in ("head", "source"))
    before, after = (project(x["eye_centers"], x["target_camera"]) for x in (head, source))
    np.testing.assert_allclose(before[0], after[0], atol=1e-5)
    np.testing.assert_allclose(before[1] * source["scale"][:, None], after[1], atol=1e-5)
    np.testing.assert_allclose(
        batch["target_depth"] * source["scale"][:, None, None], source["target_depth"], atol=1e-5
    )
    np.testing.assert_array_equal(head["scale"], 1)
    np.testing.assert_array_equal(head["target_depth"], batch["target_depth"])
    # the prompt is the gaze in the frontal camera's axes, which in the source frame is the source camera
    pose, _ = unpack_camera(batch["source_camera"])
    expected = gaze_from_world(head_gaze_to_vector(batch["target_gaze"]), pose)
    assert float(angular_error_deg(source["prompt"], expected).max()) < 0.01
    np.testing.assert_allclose(head["prompt"], batch["target_gaze"], atol=1e-6)
    np.testing.assert_allclose(unpack_camera(source["source_camera"])[0][:, :3, 3], [[0, 0, 2.7]] * 3, atol=1e-5)
    np.testing.assert_allclose(source["eye_centers"].mean(1)[:, 2], EYE_PLANE, atol=1e-5)


def test_augmentation_depends_on_the_index_alone(batch):
    batch = transform.to_float(batch)
    augment = jax.jit(transform.augment)
    key = jax.random.key(3)
    whole = augment(batch, key)
    order = np.array([2, 0, 1])
    permuted = augment({name: value[order] for name, value in batch.items()}, key)
    np.testing.assert_allclose(permuted["source_image"], whole["source_image"][order], atol=1e-6)
    assert float(jnp.abs(whole["source_image"] - batch["source_image"]).max()) > 0.01
    # target and source share tint and gamma; only the source gets noise
    assert not np.allclose(whole["target_image"], batch["target_image"])
