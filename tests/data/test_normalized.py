from pathlib import Path

import cv2
import miniature as mini
import numpy as np

from rtgaze_jax.data.datasets import normalized, rig
from rtgaze_jax.data.datasets.face_models import ETH, LINEAGE_CENTER_ERROR, MPII
from rtgaze_jax.geometry import normalize

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "gaze_normalisation_eyes.npz")


def test_face_models_are_the_public_ones():
    np.testing.assert_allclose(ETH.points, mini.ETH_SIX, atol=1e-4)
    np.testing.assert_allclose(MPII.points, GOLDEN["face_model_3x6"].T, atol=1e-6)
    bad = mini.bad_center_of_lineage() - mini.center_of(mini.ETH_SIX)
    np.testing.assert_allclose(bad, LINEAGE_CENTER_ERROR, atol=1e-3)
    for model, six, mouth in ((ETH, mini.ETH_SIX, mini.ETH_MOUTH), (MPII, mini.MPII_SIX, mini.MPII_SIX[4:])):
        expected, axes = mini.to_world(six, six, mouth)
        np.testing.assert_allclose(model.world(model.points), expected, atol=1e-6)
        np.testing.assert_allclose(model.to_world, axes, atol=1e-6)
        left, right = model.eye_centers
        assert left[0] > 0 > right[0]
        assert 55 < 370 * np.linalg.norm(left - right) < 75


def test_normalisation_agrees_with_the_golden_values():
    model = GOLDEN["face_model_3x6"].T
    for n in range(6):
        turn = cv2.Rodrigues(GOLDEN["head_rotation_vector"][n])[0]
        points = model @ turn.T + GOLDEN["head_translation_mm"][n]
        for name, corners in (("right", points[:2]), ("left", points[2:4])):
            eye = corners.mean(0)
            rotation = normalized.normalizing_rotation(eye, turn)
            vector = cv2.Rodrigues(rotation @ turn)[0].ravel()
            np.testing.assert_allclose(vector, GOLDEN[f"{name}_eye_head_rotation_vector"][n], atol=1e-6)
            gaze = rotation @ (GOLDEN["gaze_target_mm"][n] - eye)
            np.testing.assert_allclose(gaze / np.linalg.norm(gaze), GOLDEN[f"{name}_eye_gaze"][n], atol=1e-6)


def test_normalisation_agrees_with_the_jax_version():
    turn, center = mini.rodrigues([0.3, -0.2, 0.1]), np.array([30.0, -20, 800])
    matrix = np.array([[1200.0, 0, 640], [0, 1190, 360], [0, 0, 1]])
    single = (np.float32(value) for value in (center, turn, matrix))
    theirs = normalize.normalize_camera(*single, focal=960, distance=300, size=(448, 448))
    rotation = normalized.normalizing_rotation(center, turn)
    np.testing.assert_allclose(rotation, theirs.rotation, atol=1e-6)
    warp = normalized.normalizing_warp(center, rotation, matrix, 960, 300, 448)
    np.testing.assert_allclose(warp / warp[2, 2], np.array(theirs.warp) / np.array(theirs.warp)[2, 2], rtol=1e-3)
    # what the warp shows is what a pinhole camera with f_n d / d_n sees
    points = mini.dots(mini.ETH_SIX) @ turn.T + center
    homogeneous = np.column_stack([mini.see(points, matrix), np.ones(len(points))]) @ warp.T
    camera = normalized.patch_camera(960, 300, 448, np.linalg.norm(center))
    np.testing.assert_allclose(
        homogeneous[:, :2] / homogeneous[:, 2:], mini.see(points @ rotation.T, camera), atol=1e-9
    )


def test_head_rotation_comes_back_from_its_label():
    turn, center = mini.rodrigues([0.3, -0.5, 0.1]), np.array([30.0, -20, 800])
    head = normalized.normalizing_rotation(center, turn) @ turn
    np.testing.assert_allclose(normalized.rotation_from_pose(mini.head_label(head)), head, atol=1e-9)
    np.testing.assert_allclose(normalized.pose_angles(head), mini.head_label(head), atol=1e-12)


def test_lens_distortion_is_undone():
    matrix = np.array([[1200.0, 0, 640], [0, 1190, 360], [0, 0, 1]])
    lens = np.array([0.25, 0.9, 1e-3, -1.5e-3, -1.3])
    rays = np.random.default_rng(0).uniform(-0.2, 0.2, (20, 2))
    seen = mini.see(np.column_stack([rays, np.ones(20)]), matrix, lens)
    np.testing.assert_allclose(normalized.undistorted(seen, matrix, lens), rays, atol=1e-9)


def test_one_pose_is_found_through_bad_landmarks():
    """Two cameras of nine see somebody else: the pose does not follow them."""
    cameras, moment = mini.rig_cameras(), mini.Moment(4)
    made = {n: rig.Camera(*cameras[n][:2], *cameras[n][2:]) for n in range(9)}
    marks, poses = {}, {}
    for n in made:
        turn, place, _ = moment.in_camera(cameras[n])
        points = ETH.points @ turn.T + place
        marks[n] = points[:, :2] / points[:, 2:]
        poses[n] = mini.rodrigues([0.05, 0.02, -0.04]) @ turn, place + np.array([10, -20, 30])
    for n in (2, 6):
        marks[n] = marks[n] + 0.05
    turn, place = rig.pose_from_landmarks(made, ETH, marks, poses)
    np.testing.assert_allclose(place, moment.translation, atol=3.0)
    assert np.degrees(np.linalg.norm(cv2.Rodrigues(turn @ moment.rotation.T)[0])) < 1.0
