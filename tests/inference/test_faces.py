"""The face finder against MediaPipe 0.10.21's own refined mesh, and against known moves of one photo."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rtgaze_jax.inference import face, mesh
from rtgaze_jax.inference.warp import apply, warp

ASTRONAUT = Path(__file__).parents[2] / "examples" / "astronaut.png"
# MediaPipe 0.10.21, FaceMesh(static_image_mode=True, refine_landmarks=True) on the same photo, pixels
MEDIAPIPE = {
    33: (195.2, 100.9), 133: (213.3, 103.7), 362: (237.0, 104.9), 263: (255.8, 104.3), 159: (202.8, 97.6),
    145: (203.4, 104.3), 386: (248.3, 99.7), 374: (246.6, 106.7), 61: (201.8, 139.2), 291: (245.0, 141.0),
    468: (203.5, 101.1), 469: (207.6, 101.3), 470: (203.6, 97.7), 471: (199.3, 100.9), 472: (203.3, 104.5),
    473: (246.6, 103.5), 474: (250.7, 103.6), 475: (246.6, 100.1), 476: (242.5, 103.3), 477: (246.5, 106.8),
}  # fmt: skip


@pytest.fixture(scope="module")
def photo():
    return np.array(Image.open(ASTRONAUT).convert("RGB"))


@pytest.fixture(scope="module")
def found(photo):
    faces = face.find_faces(photo)
    assert len(faces) == 1
    return faces[0]


def test_landmarks_agree_with_mediapipe(found):
    ours = found.landmarks[list(MEDIAPIPE)]
    error = np.linalg.norm(ours - np.array(list(MEDIAPIPE.values())), axis=1)
    assert error.mean() < 0.8  # the eyes are 18 pixels wide
    irises = [i >= mesh.MESH_POINTS for i in MEDIAPIPE]
    assert error[irises].max() < 0.8


def test_sides_are_the_subjects(found):
    left, right = (found.landmarks[list(mesh.EYE_CONTOURS[side])].mean(0) for side in (0, 1))
    assert left[0] > right[0]  # the subject's left eye is on the right of the image
    for side, centre in enumerate((left, right)):
        assert np.linalg.norm(found.landmarks[mesh.IRIS_CENTRES[side]] - centre) < 3


def test_face_fields(found):
    assert found.landmarks.shape == (478, 2)
    assert found.z.shape == (478,)
    assert found.score > 0.99
    assert (found.landmarks >= found.box[:2]).all()
    assert (found.landmarks <= found.box[2:]).all()
    assert found.z[1] < found.z[234] - 20  # the tip of the nose is nearer than the cheek's edge


@pytest.mark.parametrize(("share", "centre"), [(0.05, 0.3), (0.1, 0.7), (0.4, 0.5), (0.95, 0.5)])
@pytest.mark.parametrize("turn", [0, 30])
def test_finds_faces_of_all_sizes(photo, found, share, centre, turn):
    size = (700, 560)
    scale = share * size[0] / (found.box[3] - found.box[1])
    angle = np.radians(turn)
    linear = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = (found.box[:2] + found.box[2:]) / 2
    matrix = np.concatenate([linear, (np.array(size) * centre - linear @ middle)[:, None]], 1)
    moved = face.find_faces(warp(photo, matrix, size))
    assert len(moved) == 1
    error = np.linalg.norm(moved[0].landmarks - apply(matrix, found.landmarks), axis=1) / (found.size * scale)
    eyes = list(mesh.EYE_CONTOURS[0] + mesh.EYE_CONTOURS[1]) + list(range(468, 478))
    assert error[eyes].mean() < (0.012 if share > 0.05 else 0.02)
    assert error.mean() < 0.03


def test_two_faces_come_largest_first(photo):
    both = np.concatenate(
        [cv2.copyMakeBorder(cv2.resize(photo, (256, 256)), 128, 128, 0, 0, cv2.BORDER_REPLICATE), photo], 1
    )
    faces = face.find_faces(both)
    assert [f.box[0] > 256 for f in faces] == [True, False]
    assert faces[0].size > 1.7 * faces[1].size


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (64, 64), (300, 400)])
def test_nothing_is_found_where_no_face_is(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert face.find_faces(noise) == []


def test_tracking_follows_a_small_move(photo, found):
    moved = face.track_face(np.roll(photo, (6, -9), (0, 1)), found)
    assert np.abs(moved.landmarks - found.landmarks - (-9, 6)).mean() < 0.7
    assert face.track_face(np.zeros_like(photo), found) is None


def test_networks_are_the_files_that_were_checked():
    notice = (face.MODELS / "NOTICE").read_text()
    files = sorted(face.MODELS.glob("*.tflite"))
    assert len(files) == 3
    for file in files:
        row = next(line for line in notice.splitlines() if line.startswith(file.name))
        assert row.split()[-1] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_says_nothing_on_stderr(photo, capfd):
    face._interpreter.cache_clear()
    face.find_faces(photo[:64, :64])
    assert capfd.readouterr().err == ""
