"""Scores against closed forms, and faults of gaze handling that evaluation must see."""

import analytic_head
import jax
import numpy as np
import pytest

from rtgaze_jax.data.labels import camera_gaze, gaze_vector, head_gaze_vector
from rtgaze_jax.data.record import Grid
from rtgaze_jax.evaluation import protocol, run, scores
from rtgaze_jax.evaluation.features.identity import CHIP_POINTS, similarity
from rtgaze_jax.evaluation.predictors import copy_source

SIZE = 128
GRID = Grid(4, 4, 3)
# what the spheres' eyeballs span in an image of unit width, at the usual distance and focal length
EYE_RADIUS = analytic_head.EYE_RADIUS * 4.2647 / (2.7 - 0.06)


@pytest.fixture(scope="module")
def pairs():
    records = [r for p in range(GRID.captures) for r in analytic_head.render_capture(SIZE, "test", p, gazes=4, views=3)]
    return protocol.from_records(records, GRID, 32)


@pytest.fixture
def no_networks(monkeypatch):
    """Without the feature networks, which have tests of their own."""
    monkeypatch.setattr(scores, "face_embeddings", lambda images, points: images.reshape(len(images), -1)[:, :8] + 1.0)
    monkeypatch.setattr(scores, "lite0_features", lambda images: images.mean((1, 2)))
    monkeypatch.setattr(scores, "perceptual_lite0", lambda a, b: np.abs(a / 255 - b / 255).mean((1, 2, 3)))


def read_spheres(images, eyes):
    """An estimator made for the spheres: where the pupil stands on each eyeball's disc says where it looks."""
    grid = (np.arange(SIZE) + 0.5) / SIZE
    u, v = np.meshgrid(grid, grid)
    vectors = []
    for image, centers in zip(images, eyes, strict=True):
        found = []
        for x, y in centers:
            black = (image.max(-1) < 14) & (np.hypot(u - x, v - y) < EYE_RADIUS)
            if black.sum() < 3:
                continue
            dx, dy = (u[black].mean() - x) / EYE_RADIUS, (v[black].mean() - y) / EYE_RADIUS
            found.append([dx, dy, -np.sqrt(max(1e-3, 1 - dx * dx - dy * dy))])
        mean = np.mean(found or [[0, 0, -1]], 0)
        vectors.append(mean / np.linalg.norm(mean))
    return {"gaze": np.array(vectors), "head": np.tile([0.0, 0.0, -1.0], (len(images), 1))}


def painter(gaze_of):
    """A method that draws the spheres perfectly, with the head-frame gaze that `gaze_of` makes of a pair's labels."""

    def predict(batch):
        images = []
        for i, camera in enumerate(batch["target_camera"]):
            pose, k = camera[:16].reshape(4, 4), camera[16:].reshape(3, 3)
            gaze = analytic_head.gaze_in_world(gaze_of(batch["target_gaze"][i], pose))
            colours = np.full((11, 3), 0.8)
            colours[10] = 0.3
            images.append(analytic_head.trace(pose, k, SIZE, gaze, colours, np.array([0.0, 0.0, 1.0]))[0])
        return {"image": np.stack(images)}

    return predict


FAULTS = {
    "none": lambda gaze, pose: gaze,
    "pitch and yaw swapped": lambda gaze, pose: gaze[::-1],
    "yaw of the other sign": lambda gaze, pose: gaze * [1, -1],
    "pitch of the other sign": lambda gaze, pose: gaze * [-1, 1],
    "camera frame for head frame": lambda gaze, pose: camera_gaze(head_gaze_vector(gaze), pose),
}


def test_planted_faults_are_seen(pairs, no_networks):
    methods = {name: painter(fault) for name, fault in FAULTS.items()}
    measured = run.measure(pairs, methods, read_spheres)
    error = {n: float(np.mean(table["gaze_error_label_deg"])) for n, table in measured.methods.items()}
    between = {n: float(np.mean(table["gaze_error_deg"])) for n, table in measured.methods.items()}
    assert np.mean(measured.methods["none"]["estimator_error_deg"]) < 4
    assert error["none"] < 4
    assert between["none"] < 3
    # half of the pairs are seen from the front, where both frames are nearly one: the other views must tell
    aside = measured.about["view_deg"] > 12
    for name in list(FAULTS)[1:]:
        rows = aside if "frame" in name else slice(None)
        for figure in ("gaze_error_deg", "gaze_error_label_deg"):
            assert measured.methods[name][figure][rows].mean() > 10, (name, figure)


def test_copying_the_source_scores_what_it_must(pairs, no_networks):
    measured = run.measure(pairs, {"model": copy_source, "copy": copy_source}, read_spheres)
    found = run.result(measured, pairs, {"weights": "none"})
    assert found["gaze_error_deg"] == found["baselines"]["copy"]["gaze_error_deg"]
    assert found["baselines"]["warp"] is None
    assert found["consistency_3d"]["mean"] is None
    assert found["protocol"]["pairs_measured"] == {"all": 32, "same_view": 16, "cross_view": 16}
    batch = pairs.batch(range(32))
    same = measured.about["same_view"]
    change = np.degrees(np.arccos((gaze_vector(batch["source_gaze"]) * gaze_vector(batch["target_gaze"])).sum(-1)))
    copied = measured.methods["model"]["gaze_error_deg"]
    assert abs(copied[same].mean() - change[same].mean()) < 4  # in the same view the error is the change of gaze
    assert measured.methods["model"]["psnr_face"][same].mean() > 20 > measured.methods["model"]["psnr_eyes"].mean()


def test_perfect_images_have_perfect_scores(pairs, no_networks):
    truth = lambda batch: {  # noqa: E731
        "image": batch["target_image"],
        "depth": batch["target_depth"].astype(np.float32) + 0.01,
    }
    measured = run.measure(pairs, {"model": truth}, read_spheres)
    found = run.result(measured, pairs, {})
    for name, value in {"gaze_error_deg": 0, "psnr": 80, "ssim": 1, "identity": 1, "l1": 0, "frechet_lite0": 0}.items():
        assert found[name]["mean"] == pytest.approx(value, abs=1e-3), name
    assert found["depth_error_mm"]["mean"] == pytest.approx(3.7, abs=1e-2)
    for name in ("iris_slope_x", "iris_slope_y"):
        assert found[name] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_reference_networks_add_their_figures(pairs, no_networks, monkeypatch):
    monkeypatch.setattr(scores, "lpips_vgg", lambda a, b, path: np.full(len(a), float(path)))
    monkeypatch.setattr(
        scores, "inception_features", lambda images, path: images[:, ::16, ::16, 0].reshape(len(images), -1)
    )
    references = scores.References(vgg16="0.25", inception="some file")
    measured = run.measure(pairs, {"model": copy_source}, read_spheres, references=references)
    found = run.result(measured, pairs, {})
    assert found["lpips"]["mean"] == 0.25
    assert found["fid"]["mean"] > 0
    assert "lpips" not in run.result(run.measure(pairs, {"model": copy_source}, read_spheres), pairs, {})


def test_labels_are_the_records_own(pairs):
    batch = pairs.batch(range(8))
    found = scores.labels(batch)
    records = pairs.read(pairs.pairs[:8, 1].tolist())
    np.testing.assert_allclose(found["gaze"], gaze_vector(np.array([r["gaze_camera"] for r in records])), atol=1e-5)
    np.testing.assert_allclose(found["head"], gaze_vector(np.array([r["head_pose"] for r in records])), atol=1e-5)
    np.testing.assert_allclose(scores.eye_positions(batch), [r["landmarks"][:2] for r in records], atol=1e-5)


def test_iris_positions_follow_a_dark_disc():
    size, centers = 64, np.array([[40.0, 30.0], [20.0, 30.0]])
    u, v = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    image, parts = np.full((3, size, size, 3), 230, np.uint8), np.zeros((3, size, size), np.uint8)
    for part, (x, y) in zip((2, 3), centers, strict=True):
        parts[:, np.hypot(u - x, v - y) < 8] = part
        image[0, np.hypot(u - x - 3, v - y + 1) < 3] = 20
    parts[2] = 0
    moved, blank, hidden = np.asarray(scores.iris_positions(image, parts)) * size
    np.testing.assert_allclose(moved, [[3, -1], [3, -1]], atol=0.1)
    np.testing.assert_allclose(blank, 0, atol=1e-5)
    assert np.isnan(hidden).all()


def test_face_points_make_an_upright_chip(pairs):
    batch = pairs.batch([0])
    frontal = np.eye(4) * [1, -1, -1, 1]
    frontal[2, 3] = 2.7
    camera = np.concatenate([frontal.reshape(16), np.array([4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1])])[None]
    points = scores.face_points(batch["eye_centers"], camera, 512)
    assert points.shape == (1, 5, 2)
    matrix = np.asarray(jax.jit(similarity)(points, CHIP_POINTS[None]))[0]
    placed = points[0] @ matrix[:, :2].T + matrix[:, 2]
    assert abs(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))) < 1
    assert np.abs(placed - CHIP_POINTS).max() < 12  # of 150 pixels: dlib's mean face is no sphere


def test_second_difference_of_even_motion_is_zero():
    time = np.arange(6.0)[:, None]
    np.testing.assert_allclose(scores.second_difference(3 + 2 * time), 0, atol=1e-6)
    np.testing.assert_allclose(scores.second_difference(time**2), 2, atol=1e-5)
