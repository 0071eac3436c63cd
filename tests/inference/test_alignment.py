"""Resampling and the face crop."""

import numpy as np
import pytest

from rtgaze_jax.inference import align, mesh
from rtgaze_jax.inference.face import Face
from rtgaze_jax.inference.warp import apply, compose, scale_of, scaling, shifting, warp


def a_face(roll=0.0, scale=1.0, shift=(0.0, 0.0), yaw=0.0):
    """A face with canonical proportions (100 pixels between the eyes), seen from afar, turned (degrees) and moved."""
    points = np.zeros((478, 3))
    down = 100 / align.EYE_DISTANCE * (align.MOUTH_MIDPOINT[1] - align.EYE_MIDPOINT[1])
    for side, x in ((0, 50), (1, -50)):
        points[list(mesh.EYE_CORNERS[side])] = [(x * 1.4, 1, 0), (x * 0.6, -1, 0)]
    points[list(mesh.MOUTH_CORNERS)] = [(30, down, 0), (-30, down, 0)]
    points[mesh.CHIN] = (0, 2 * down, 2 * down * np.tan(align.FOREHEAD_LEAN))
    y, r = np.radians(yaw), np.radians(roll)
    turn = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    level = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    points = scale * points @ turn.T @ level.T
    return Face(np.zeros(4), 1.0, points[:, :2] + shift, points[:, 2])


@pytest.mark.parametrize(("roll", "scale", "shift"), [(0, 1, (0, 0)), (35, 0.3, (400, 300)), (-80, 4, (-30, 9))])
def test_crop_brings_eyes_and_mouth_to_their_places(roll, scale, shift):
    face = a_face(roll, scale, shift)
    matrix = align.crop_matrix(face, 512)
    left, right = apply(matrix, align.corner_midpoints(face)) / 512
    np.testing.assert_allclose(left, (0.5 + align.EYE_DISTANCE / 2, align.EYE_MIDPOINT[1]), atol=1e-6)
    np.testing.assert_allclose(right, (0.5 - align.EYE_DISTANCE / 2, align.EYE_MIDPOINT[1]), atol=1e-6)
    mouth = apply(matrix, face.landmarks[list(mesh.MOUTH_CORNERS)]).mean(0) / 512
    np.testing.assert_allclose(mouth, align.MOUTH_MIDPOINT, atol=1e-6)
    outward = align.eye_points(face, matrix, 512) - (left, right)
    expected = [(align.EYEBALL_OUTWARD, -align.EYEBALL_UP), (-align.EYEBALL_OUTWARD, -align.EYEBALL_UP)]
    np.testing.assert_allclose(outward, expected, atol=1e-6)


@pytest.mark.parametrize("yaw", [-40, -15, 20, 35])
@pytest.mark.parametrize("roll", [0, 25])
def test_a_turned_head_turns_about_a_fixed_point(yaw, roll):
    """Points behind the face, in 3D, keep their places in the crop: the head's centre, the eyeballs."""
    face = a_face(roll, 2.0, (50, 60), yaw)
    y, r = np.radians(yaw), np.radians(roll)
    level = np.array([[np.cos(r), -np.sin(r)], [np.sin(r), np.cos(r)]])
    towards = level @ (-np.sin(y), 0)
    np.testing.assert_allclose(align.facing(face), (*towards, -np.cos(y)), atol=1e-6)
    matrix = align.crop_matrix(face, 512)
    side = 512 / scale_of(matrix)  # of the crop, photo pixels
    middle = (align.corner_midpoints(face).mean(0) + face.landmarks[list(mesh.MOUTH_CORNERS)].mean(0)) / 2
    goal = 512 * (np.array(align.EYE_MIDPOINT) + align.MOUTH_MIDPOINT) / 2
    np.testing.assert_allclose(apply(matrix, middle - align.CENTRE_DEPTH * side * towards), goal, atol=1e-6)
    frontal = align.eye_points(a_face(roll, 2.0), align.crop_matrix(a_face(roll, 2.0), 512), 512).mean(0)
    behind = apply(matrix, align.corner_midpoints(face).mean(0) - align.EYEBALL_DEPTH * side * towards) / 512
    np.testing.assert_allclose(align.eye_points(face, matrix, 512).mean(0) - behind, (0, -align.EYEBALL_UP), atol=1e-6)
    assert frontal[0] == pytest.approx(0.5)


def test_eye_points_ignore_lids_and_irises():
    face = a_face()
    matrix = align.crop_matrix(face, 512)
    before = align.eye_points(face, matrix, 512)
    for points in (*mesh.EYE_LIDS, mesh.IRIS_CENTRES):
        face.landmarks[list(points)] += 7
    np.testing.assert_array_equal(align.crop_matrix(face, 512), matrix)
    np.testing.assert_array_equal(align.eye_points(face, matrix, 512), before)


def ramp(height, width):
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([x, y, x + y], -1).astype(np.float32)


@pytest.mark.parametrize("scale", [0.11, 0.37, 0.5, 0.8, 1.0, 2.5])
def test_warp_keeps_linear_ramps(scale):
    """A linear image is its own area average, so any correct resampling maps coordinates exactly."""
    image = ramp(300, 400)
    matrix = compose(scaling(scale, scale), shifting(-40.3, -30.7))
    size = (int(300 * scale), int(220 * scale))
    result = warp(image, matrix, size)
    expected = ramp(size[1], size[0])[..., :2] / scale + (40.3, 30.7)
    # OpenCV rounds places to 1/32 pixel and its cubic kernel bends ramps by 0.05
    np.testing.assert_allclose(result[2:-2, 2:-2, :2], expected[2:-2, 2:-2], atol=0.06 / min(scale, 1))


def test_warp_by_whole_pixels_is_exact():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(warp(image, shifting(-7, -5), (30, 20)), image[5:25, 7:37])


@pytest.mark.parametrize("scale", [0.13, 0.3, 0.45])
def test_warp_does_not_alias(scale):
    """Single-pixel stripes average to grey, where point sampling would give stripes again."""
    image = np.zeros((500, 500, 3), np.uint8)
    image[:, ::2] = 255
    result = warp(image, scaling(scale, scale), (int(500 * scale), int(500 * scale)))[4:-4, 4:-4]
    assert abs(result.mean() - 127.5) < 3
    assert result.std() < 12


def test_warp_outside_the_image():
    image = np.full((10, 10, 3), 200, np.uint8)
    assert (warp(image, shifting(100, 100), (20, 20)) == 200).all()
    assert (warp(image, shifting(100, 100), (20, 20), "zero") == 0).all()


def test_scale_of():
    assert scale_of(compose(scaling(3, 3), shifting(5, 6))) == pytest.approx(3)
