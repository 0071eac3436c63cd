"""Pasting eyes back: what may change and what may not."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rtgaze_jax.inference import align, blend, mesh
from rtgaze_jax.inference.face import Face, find_faces
from rtgaze_jax.inference.warp import apply

ASTRONAUT = Path(__file__).parents[2] / "examples" / "astronaut.png"
SIZE = 512


@pytest.fixture(scope="module")
def photo():
    return np.array(Image.open(ASTRONAUT).convert("RGB"))


@pytest.fixture(scope="module")
def face(photo):
    return find_faces(photo)[0]


@pytest.fixture(scope="module")
def matrix(face):
    return align.crop_matrix(face, SIZE)


@pytest.fixture(scope="module")
def crop(photo, matrix):
    return align.crop(photo, matrix, SIZE)


def masks(face, shape):
    total = np.zeros(shape, np.float32)
    for side in (0, 1):
        area = blend.eye_area(face, side, shape)
        total[area.window] = np.maximum(total[area.window], blend.mask(area))
    return total


def test_only_the_eyes_change(photo, face, matrix):
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    result = blend.paste_eyes(photo, face, noise, matrix)
    weight = masks(face, photo.shape[:2])
    np.testing.assert_array_equal(result[weight == 0], photo[weight == 0])
    assert (result[weight > 0.9] != photo[weight > 0.9]).mean() > 0.8
    assert 0.001 < (weight > 0).mean() < 0.01
    for contour in mesh.EYE_CONTOURS:
        points = face.landmarks[list(contour)]
        assert (weight[points[:, 1].astype(int), points[:, 0].astype(int)] == 1).all()


def test_mask_size_follows_the_eye(photo, face):
    for side in (0, 1):
        area = blend.eye_area(face, side, photo.shape[:2])
        rows, columns = np.nonzero(blend.mask(area) > 0)
        assert 1.5 < (np.ptp(columns) + 1) / area.width < 1.85
        assert 0.8 < (np.ptp(rows) + 1) / area.width < 1.3


def test_strength_zero_is_the_photo(photo, face, matrix, crop):
    np.testing.assert_array_equal(blend.paste_eyes(photo, face, 255 - crop, matrix, strength=0.0), photo)


def test_an_unchanged_patch_changes_little(photo, face, matrix, crop):
    result = blend.paste_eyes(photo, face, crop, matrix).astype(int)
    assert np.abs(result - photo)[masks(face, photo.shape[:2]) > 0].mean() < 4


@pytest.mark.parametrize("gain", [(0.85, 1.0, 1.1), (1.2, 1.15, 1.1)])
def test_a_colour_cast_is_taken_out(photo, face, matrix, crop, gain):
    cast = np.clip(crop * np.array(gain), 0, 255).astype(np.uint8)
    weight = masks(face, photo.shape[:2]) > 0.5
    plain = blend.paste_eyes(photo, face, crop, matrix).astype(float)[weight].mean(0)
    matched = blend.paste_eyes(photo, face, cast, matrix).astype(float)[weight].mean(0)
    raw = np.abs(crop.astype(float) * np.array(gain) - crop).mean()
    assert np.abs(matched - plain).max() < 0.2 * raw


def test_a_uniform_gain_is_undone_exactly():
    """Away from edges and clipping, gain times the photo comes back as the photo."""
    photo = np.full((90, 120, 3), (180, 140, 120), np.float32)
    distance = np.abs(np.mgrid[:90, :120][1] - 60) / 60.0
    area = blend.EyeArea(0, 0, 60.0, distance.astype(np.float32))
    patch = (photo + 12) * np.float32(0.8) - 12
    np.testing.assert_allclose(blend.match_colour(patch, photo, area), photo, atol=0.2)


def enlarged(photo, factor, box):
    x0, y0, x1, y1 = box
    return cv2.resize(photo[y0:y1, x0:x1], None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def test_grain_and_sharpness_follow_the_photo(photo):
    """A noisy large photo and a clean, blurred patch: the pasted eyes get as much grain as the skin around them."""
    large = enlarged(photo, 6, (130, 30, 330, 230)).astype(np.float32)
    noisy = np.clip(large + np.random.default_rng(0).normal(0, 7, large.shape), 0, 255).astype(np.uint8)
    face = find_faces(noisy)[0]
    matrix = align.crop_matrix(face, SIZE)
    patch = cv2.GaussianBlur(align.crop(noisy, matrix, SIZE), (0, 0), 1.5)
    result = blend.paste_eyes(noisy, face, patch, matrix)
    for side in (0, 1):
        area = blend.eye_area(face, side, noisy.shape[:2])
        weight = blend.mask(area)
        lid = (weight == 1) & (area.distance > 0.03)  # skin under the patch
        ring = (weight == 0) & (area.distance < 0.5)
        inside, outside = (
            blend._spread(blend._residual(result[area.window].astype(np.float32).mean(-1))[where])
            for where in (lid, ring)
        )
        assert 0.7 < inside / outside < 1.4


def test_a_patch_sharper_than_the_photo_is_blurred(photo):
    large = enlarged(photo, 6, (130, 30, 330, 230))
    soft = cv2.GaussianBlur(large, (0, 0), 6)
    face = find_faces(soft)[0]
    matrix = align.crop_matrix(face, SIZE)
    patch = align.crop(large, matrix, SIZE)  # the same eyes, in focus
    result = blend.paste_eyes(soft, face, patch, matrix)
    for side in (0, 1):
        area = blend.eye_area(face, side, soft.shape[:2])
        near = area.distance < 0.1
        edges = [blend._edges(image[area.window].astype(np.float32), near) for image in (result, soft, large)]
        assert edges[2] > 1.5 * edges[1]
        assert edges[0] < 1.1 * edges[1]


def test_faces_at_and_beyond_the_edge(photo, face, crop, matrix):
    """Half of the face cut off, and eyes outside or too small to change: no crash, and nothing but eyes changes."""
    shift = int(face.landmarks[mesh.IRIS_CENTRES[1]][0])  # the image now begins in the middle of one eye
    cut = np.ascontiguousarray(photo[:, shift:])
    moved = Face(face.box, 1.0, face.landmarks - (shift, 0), face.z)
    to_crop = matrix.copy()
    to_crop[:, 2] = apply(matrix, np.array([shift, 0.0]))
    assert blend.paste_eyes(cut, moved, 255 - crop, to_crop).shape == cut.shape
    gone = Face(face.box, 1.0, face.landmarks - 1000, face.z)
    np.testing.assert_array_equal(blend.paste_eyes(photo, gone, crop, matrix), photo)
    tiny = Face(face.box, 1.0, face.landmarks * 0.05, face.z)
    np.testing.assert_array_equal(blend.paste_eyes(photo, tiny, crop, matrix), photo)


def test_the_colour_field_of_large_eyes_is_that_of_all_pixels(photo, monkeypatch):
    """It is measured on a reduced picture; no grey level of the result may differ by more than rounding."""
    large = enlarged(photo, 6, (130, 30, 330, 230))
    face = find_faces(large)[0]
    matrix = align.crop_matrix(face, SIZE)
    patch = align.crop(large, matrix, SIZE).astype(np.float32) * (0.8, 0.9, 1.0) + 10
    result = blend.paste_eyes(large, face, patch.astype(np.float32), matrix)
    assert blend.eye_area(face, 0, large.shape[:2]).width > 2 * blend._FIELD_WIDTH
    monkeypatch.setattr(blend, "_FIELD_WIDTH", np.inf)
    exact = blend.paste_eyes(large, face, patch.astype(np.float32), matrix)
    difference = np.abs(result.astype(int) - exact)
    assert difference.max() <= 1
    assert difference[result != large].mean() < 0.1


def test_median_is_that_of_numpy():
    values = np.random.default_rng(0).normal(0, 9, 1001).astype(np.float32)
    for part in (values, values[1:], values[:1], values[:2]):
        assert blend._median(part) == np.median(part)
