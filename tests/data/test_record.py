"""The schema: lossless, strict, and its label geometry agrees with the package's and with closed forms."""

import analytic_head
import numpy as np
import pytest

from rtgaze_jax.data import labels, record


@pytest.fixture(scope="module")
def records():
    return analytic_head.render_capture(64, "train", 3, gazes=2, views=3)


def test_decode_gives_back_what_encode_got(records):
    for original in records:
        back = record.decode(record.encode(original))
        assert set(back) == set(original) == set(record.FIELDS)
        for key, value in original.items():
            assert back[key].dtype == np.asarray(value).dtype
            if key == "depth":
                assert np.abs(back[key] - value).max() <= 0.5 / record.DEPTH_SCALE + 1e-6
                np.testing.assert_array_equal(back[key] > 0, value > 0)
            else:
                np.testing.assert_array_equal(back[key], value)


def test_encoding_is_deterministic(records):
    assert record.encode(records[0])["image"] == record.encode(records[0])["image"]


def test_jpeg_is_smaller_and_close():
    noisy = analytic_head.render_capture(128, "train", 3, gazes=1, views=1)[0]
    rng = np.random.default_rng(0)
    noisy["image"] = np.clip(noisy["image"] + rng.normal(0, 4, noisy["image"].shape), 0, 255).astype(np.uint8)
    lossy, lossless = record.encode(noisy, jpeg_quality=90)["image"], record.encode(noisy)["image"]
    assert len(lossy) < len(lossless) / 2
    difference = record.decode({"image": lossy}, ["image"])["image"].astype(int) - noisy["image"]
    assert 0 < np.abs(difference).mean() < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("depth"), "missing depth"),
        (lambda r: r.update(extra=1), "unknown field extra"),
        (lambda r: r.update(gaze_head=r["gaze_head"].astype(np.float64)), "gaze_head is float64"),
        (lambda r: r.update(parts=r["parts"][:-1]), "parts has shape"),
        (lambda r: r.update(cam2world=r["cam2world"][:3]), "cam2world has shape"),
        (lambda r: r.update(depth=r["depth"] + 7), "depth outside"),
        (lambda r: r.update(depth=r["depth"] * np.nan), "depth outside"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(records, change, message):
    broken = dict(records[0])
    change(broken)
    with pytest.raises(ValueError, match=message):
        record.encode(broken)


def test_damaged_bytes_are_named(records):
    encoded = record.encode(records[0])
    encoded["depth"] = encoded["depth"][: len(encoded["depth"]) // 2][::-1]
    with pytest.raises(ValueError, match="depth cannot be decoded"):
        record.decode(encoded)


def test_masks_follow_from_parts(records):
    for r in records:
        np.testing.assert_array_equal(record.face_mask(r["parts"]), r["face_mask"])
        np.testing.assert_array_equal(record.eye_mask(r["parts"]), r["eye_mask"])


def test_label_geometry_against_the_analytic_head(records):
    for r in records:
        world = labels.head_gaze_vector(r["gaze_head"])
        np.testing.assert_allclose(world, analytic_head.gaze_in_world(r["gaze_head"]), atol=1e-7)
        np.testing.assert_allclose(labels.camera_gaze(world, r["cam2world"]), r["gaze_camera"], atol=1e-6)
        np.testing.assert_allclose(labels.head_gaze_angles(world), r["gaze_head"], atol=1e-6)
        np.testing.assert_allclose(labels.camera_gaze([0, 0, 1], r["cam2world"]), r["head_pose"], atol=1e-6)
        uv, _ = labels.project(r["eye_centers"], r["cam2world"], r["intrinsics"])
        np.testing.assert_allclose(uv, r["landmarks"][:2], atol=1e-6)


def test_depth_carried_to_points_lies_on_the_spheres(records):
    for r in records:
        points = labels.world_points(r["depth"], r["cam2world"], r["intrinsics"])[r["parts"] == record.PARTS.left_eye]
        distance = np.linalg.norm(points - analytic_head.EYE_CENTERS[0], axis=-1)
        np.testing.assert_allclose(distance, analytic_head.EYE_RADIUS, atol=1e-5)
        uv, length = labels.project(points, r["cam2world"], r["intrinsics"])
        rows, columns = np.nonzero(r["parts"] == record.PARTS.left_eye)
        np.testing.assert_allclose(uv * 64, np.stack([columns, rows], -1) + 0.5, atol=1e-4)
        np.testing.assert_allclose(length, r["depth"][rows, columns], atol=1e-5)


def test_points_behind_the_camera_have_no_place_in_the_image(records):
    r = records[0]
    behind = r["cam2world"][:3, 3] - r["cam2world"][:3, 2]
    assert np.isnan(labels.project(behind, r["cam2world"], r["intrinsics"])[0]).all()


def test_camera_label_is_row_major(records):
    label = labels.camera_label(records[0]["cam2world"], records[0]["intrinsics"])
    assert label.shape == (25,)
    assert label.dtype == np.float32
    np.testing.assert_array_equal(label[[3, 7, 11]], records[0]["cam2world"][:3, 3])
    np.testing.assert_array_equal(label[16:].reshape(3, 3), records[0]["intrinsics"])
    assert labels.camera_label(np.zeros((5, 4, 4)), np.zeros((5, 3, 3))).shape == (5, 25)


def test_numpy_and_jax_geometry_agree(records):
    from rtgaze_jax.geometry import gaze

    angles = np.random.default_rng(0).uniform(-0.9, 0.9, (50, 2))
    np.testing.assert_allclose(labels.gaze_vector(angles), gaze.gaze_to_vector(angles), atol=1e-6)
    np.testing.assert_allclose(labels.head_gaze_vector(angles), gaze.head_gaze_to_vector(angles), atol=1e-6)
    np.testing.assert_allclose(labels.gaze_angles(labels.gaze_vector(angles)), angles, atol=1e-9)
    a, b = labels.gaze_vector(angles), labels.gaze_vector(angles[::-1])
    np.testing.assert_allclose(labels.angle_between(a, b), gaze.vector_angle_deg(a, b) * np.pi / 180, atol=2e-3)
