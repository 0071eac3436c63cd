"""Redirected sets, with a "network" that really draws the gaze it is asked for, and an "estimator" that reads it."""

import json

import analytic_head
import h5py
import miniature as mini
import numpy as np
import pytest

from rtgaze_jax.data import augment, iris, labels, record, storage
from rtgaze_jax.data.datasets import gaze_heads, normalized
from rtgaze_jax.data.datasets.face_models import ETH
from rtgaze_jax.errors import FailureError, UserError

SIZE = 288
COLOURS, LIGHT = np.full((11, 3), 0.8), np.array([0, 0.3, 0.95])
COLOURS[10] = 0.2
SETTINGS = augment.Settings(gazes=3, pitch=12, yaw=20, agreement=8, size=224)
MADE_WITH = {"weights_sha256": "w", "estimator_sha256": "e"}


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    path = tmp_path_factory.mktemp("heads")
    settings = gaze_heads.Settings("test", people=2, gazes=1, views=2, resolution=SIZE, seed=0)
    gaze_heads.generate(path, settings, workers=1, make_renderer=analytic_head.Camera)
    return path


class World:
    """Knows the records by their pictures, as a network knows what it sees."""

    def __init__(self, directory, lies=lambda gaze: False):
        self.records = {r["image"].tobytes(): r for r in map(record.decode, storage.RecordSource(directory, "test"))}
        self.last, self.lies, self.calls = None, lies, 0

    def redirect(self, crop, eyes, gazes):
        self.last, self.calls = self.records[crop.tobytes()], self.calls + 1
        pose = self.last["cam2world"].astype(float)
        wanted = [-g if self.lies(g) else g for g in gazes]
        world = [pose[:3, :3] @ labels.gaze_vector(g) for g in wanted]
        drawn = [
            analytic_head.trace(pose, self.last["intrinsics"].astype(float), SIZE, w, COLOURS, LIGHT) for w in world
        ]
        np.testing.assert_allclose(eyes, labels.project(self.last["eye_centers"], pose, self.last["intrinsics"])[0])
        return np.stack([image for image, _, _ in drawn])

    def estimate(self, images, eyes):
        found = [iris.read_gaze(self.last | {"image": image}, np.zeros(2)) for image in images]
        world = labels.head_gaze_vector(np.stack([reading.gaze for reading in found]))
        return {"gaze": world @ self.last["cam2world"][:3, :3]}


def run(heads, out, settings=SETTINGS, **options):
    world = World(heads, **options)
    return world, augment.augment(heads, "test", out, settings, world.redirect, world.estimate, MADE_WITH)


@pytest.mark.parametrize("frame", ["camera", "head"])
def test_labels_say_what_the_pictures_show(heads, tmp_path, frame):
    """Drawn anew by the labels alone, in the camera of the released format, the eyes look the same."""
    world, done = run(heads, tmp_path, SETTINGS._replace(frame=frame))
    assert done.made == 12
    assert done.kept >= 9
    originals = list(world.records.values())
    for person in (0, 1):
        with h5py.File(tmp_path / "train" / f"subject{person:04}.h5") as file:
            for row in range(len(file["face_gaze"])):
                entry = originals[int(file["source_record"][row])]
                turn, gaze = file["face_mat_norm"][row], labels.gaze_vector(file["face_gaze"][row])
                pose = entry["cam2world"].astype(float)
                pose[:3, :3] = pose[:3, :3] @ turn.T
                distance = 370 * np.linalg.norm(ETH.world(ETH.center) - pose[:3, 3])
                k = np.array(
                    [
                        [960 * distance / 300 / 448, 0, 224.5 / 448],
                        [0, 960 * distance / 300 / 448, 224.5 / 448],
                        [0, 0, 1],
                    ]
                )
                image, parts, depth = analytic_head.trace(pose, k, 224, pose[:3, :3] @ gaze, COLOURS, LIGHT)
                eyes = np.isin(parts, (2, 3))
                shown = file["face_patch"][row][..., ::-1]
                assert np.abs(shown[eyes].astype(float) - image[eyes]).mean() < 12
                patch = entry | {"image": shown, "parts": parts, "cam2world": pose, "intrinsics": k, "depth": depth}
                reading = iris.read_gaze(patch, np.zeros(2))
                seen = labels.head_gaze_vector(reading.gaze) @ pose[:3, :3]
                assert np.degrees(labels.angle_between(seen, gaze)) < 8
                asked = labels.gaze_vector(file["gaze_asked"][row])
                world_gaze = np.array([1, -1, -1]) * asked if frame == "head" else entry["cam2world"][:3, :3] @ asked
                assert np.degrees(labels.angle_between(pose[:3, :3] @ gaze, world_gaze)) < 1e-3


def test_the_official_loader_reads_it(heads, tmp_path):
    """Line by line what data_loader.py of ETH-XGaze does."""
    run(heads, tmp_path)
    keys = json.loads((tmp_path / "train_test_split.json").read_text())["train"]
    assert keys == ["subject0000.h5", "subject0001.h5"]
    for key in keys:
        hdf = h5py.File(tmp_path / "train" / key, "r", swmr=True)
        assert hdf.swmr_mode
        count = hdf["face_patch"].shape[0]
        for row in range(count):
            image = hdf["face_patch"][row, :][:, :, [2, 1, 0]]
            label = hdf["face_gaze"][row, :].astype("float")
            assert (image.shape, image.dtype, label.shape) == ((224, 224, 3), np.uint8, (2,))
        shapes = {k: hdf[k].shape[1:] for k in ("face_head_pose", "face_mat_norm", "frame_index", "cam_index")}
        assert shapes == {"face_head_pose": (2,), "face_mat_norm": (3, 3), "frame_index": (1,), "cam_index": (1,)}
        told = json.loads(hdf.attrs["provenance"])
        assert told["synthetic"].startswith("gaze redirected by rtgaze-jax")
        assert told["settings"]["frame"] == "camera"
        assert told["data"]["sha256"] == storage.manifests(heads)["test"].identity
        assert (told["weights_sha256"], told["estimator_sha256"]) == ("w", "e")
        hdf.close()


def test_pictures_that_look_elsewhere_are_left_out(heads, tmp_path):
    """A network that mirrors gazes to one side: the estimator sees it."""
    _, done = run(heads, tmp_path / "some", lies=lambda gaze: gaze[1] > np.radians(6))
    for person in (0, 1):
        with h5py.File(tmp_path / "some" / "train" / f"subject{person:04}.h5") as file:
            assert (file["gaze_asked"][:, 1] < np.radians(6)).all()
            assert (file["agreement_degrees"][:] <= 8).all()
    assert 0 < done.kept < done.made
    with pytest.raises(FailureError, match="agrees with none of 12 pictures within"):
        run(heads, tmp_path / "none", SETTINGS._replace(agreement=0.01))


def test_what_is_there_is_kept_and_other_settings_are_refused(heads, tmp_path):
    _, first = run(heads, tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "train").iterdir()}
    (tmp_path / "train" / "subject0001.h5").unlink()
    world, second = run(heads, tmp_path)
    assert world.calls == 2  # the records of one person
    assert first == second
    assert {path.name: path.read_bytes() for path in (tmp_path / "train").iterdir()} == before
    with pytest.raises(UserError, match="made otherwise: give the same settings"):
        run(heads, tmp_path, SETTINGS._replace(seed=1))
    for wrong in ({"frame": "eye"}, {"size": 300}, {"gazes": 0}):
        with pytest.raises(UserError, match="must"):
            run(heads, tmp_path, SETTINGS._replace(**wrong))


def test_rows_agree_with_the_release_s_own_formulas():
    """From a photo to a crop and on to the released format is the same as from the photo directly."""
    turn, place, target = mini.rodrigues([0.2, -0.3, 0.05]), np.array([20.0, -35, 1000]), np.array([150.0, -80, 10])
    matrix = np.array([[2600.0, 0, 600], [0, 2600, 450], [0, 0, 1]])
    picture = mini.draw(mini.see(mini.dots(mini.ETH_SIX) @ turn.T + place, matrix), (1200, 900), 5.0)
    gaze = target - turn @ mini.center_of(mini.ETH_SIX) - place
    view = normalized.View(np.ascontiguousarray(picture[..., ::-1]), matrix, ETH, turn, place, gaze)
    entry = normalized.crop(view, 512) | {"gaze_index": 4, "view_index": 9}
    row = augment.release_row(entry, entry["gaze_camera"], 448)
    direct, rotation = mini.patch(turn, place, mini.ETH_SIX, 960, 300, 448, sigma=5.0 * 960 * 1000 / 300 / 2600)
    np.testing.assert_allclose(row["face_gaze"], mini.pitch_yaw(rotation @ gaze), atol=1e-5)
    np.testing.assert_allclose(row["face_head_pose"], mini.head_label(rotation @ turn), atol=1e-5)
    assert np.abs(row["face_patch"].astype(float) - direct).mean() < 0.5
