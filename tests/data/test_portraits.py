"""Columbia Gaze and folders of portraits: pictures of which only names and distances are known."""

from pathlib import Path

import cv2
import miniature as mini
import numpy as np
import pytest
from test_eth_xgaze import SIZE, angle, assert_true, records, run, vector

from rtgaze_jax.data import record, storage
from rtgaze_jax.data.datasets import columbia_gaze, portraits, prepare
from rtgaze_jax.errors import UserError

OPTIONS = prepare.Options("test", resolution=SIZE, jpeg=0)
MESH = (33, 133, 362, 263, 98, 327, 61, 291)
PICTURE, MATRIX = (1296, 864), np.array([[5200.0, 0, 647.5], [0, 5200.0, 431.5], [0, 0, 1]])
PHOTO = Path(__file__).parents[2] / "examples" / "astronaut.png"


def head(pose):
    """The head turned by `pose` degrees to image right, its face centre 2 m from the lens."""
    turn = mini.rodrigues([0, np.radians(-pose), 0]) @ mini.rodrigues([0.05, 0, 0.02])
    center = np.array([40, -30, np.sqrt(2000**2 - 40**2 - 30**2)])
    return turn, center - turn @ mini.center_of(mini.ETH_SIX)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A few pictures of one person, and the true landmarks and axes in place of a face finder's."""
    folder = tmp_path / "0001"
    folder.mkdir()
    marks = {}
    for name in (
        "0001_2m_0P_0V_0H.jpg",
        "0001_2m_-15P_0V_0H.jpg",
        "0001_2m_30P_10V_15H.jpg",
        "0001_2m_15P_-10V_5H.jpg",
    ):
        turn, place = head(columbia_gaze.Label.parse(name).pose)
        picture = mini.draw(mini.see(mini.dots(mini.ETH_SIX) @ turn.T + place, MATRIX), PICTURE, 5.0)
        cv2.imwrite(str(folder / name), picture, (cv2.IMWRITE_JPEG_QUALITY, 98))
        landmarks = np.zeros((478, 2))
        points = np.concatenate([mini.ETH_SIX, mini.ETH_MOUTH])
        landmarks[list(MESH)] = mini.see(points @ turn.T + place, MATRIX)
        center = turn @ mini.center_of(mini.ETH_SIX) + place
        forward = center / np.linalg.norm(center)
        right = np.cross(np.cross(forward, [1.0, 0, 0]), forward)
        level = np.stack([right / np.linalg.norm(right), np.cross(forward, right) / np.linalg.norm(right), forward])
        _, axes = mini.to_world(np.zeros(3), mini.ETH_SIX, mini.ETH_MOUTH)
        marks[cv2.imread(str(folder / name)).sum()] = portraits.Found(landmarks, level @ turn @ axes.T)
    monkeypatch.setattr(portraits, "find_face", lambda pixels: marks.get(pixels.sum()))
    return tmp_path


def load(source, options=OPTIONS):
    plan = prepare.make_plan("columbia_gaze", source, options._replace(people=(1,)))
    return dict(entry for unit in plan.units for entry in plan.load(source, unit, options, plan.details)), plan


def test_columbia_pictures_keep_the_known_geometry(source):
    found, plan = load(source)
    assert plan.rejected == [("0001", "it has 4 of 105 pictures (these are used)")]
    for item, entry in found.items():
        record.validate(entry, absent=("depth",))
        label = columbia_gaze.Label.parse(item.split("/")[1])
        turn, place = head(label.pose)
        to_lens = -(turn @ mini.center_of(mini.ETH_SIX) + place)
        # V up and H to image right of the lens, in a camera that looks at the face and stands upright
        gaze = to_lens / np.linalg.norm(to_lens)
        right = np.cross(gaze, [0, 1.0, 0])
        right /= np.linalg.norm(right)
        up = np.cross(gaze, right)
        v, h = np.radians([label.vertical, label.horizontal])
        gaze = np.cos(v) * np.cos(h) * gaze + np.cos(v) * np.sin(h) * right + np.sin(v) * up
        assert up[1] < 0
        assert right[0] > 0
        assert_true(entry, turn, place, gaze)
    straight = found["0001/0001_2m_-15P_0V_0H.jpg"]  # eye contact from a turned head
    assert angle(vector(straight["gaze_head"]), vector(np.radians([0, -15.0]))) < 6
    assert np.degrees(straight["head_pose"][1]) == pytest.approx(15, abs=3)  # the head is turned to image left


def test_columbia_labels_and_contradictions(source):
    a, b = (columbia_gaze.Label.parse(f"0003_2m_{p}P_-10V_{h}H.jpg") for p, h in ((0, -15), (30, 15)))
    assert a.gaze_index == b.gaze_index  # the same gaze against the head
    assert (
        len({columbia_gaze.Label(1, p, v, h).gaze_index for p in (0, 15) for v in (-10, 0, 10) for h in (0, 5)}) == 12
    )
    for name in ("0001_2m_0P_0V.jpg", "0001_2m_45P_0V_0H.jpg", "0001_1m_0P_0V_0H.jpg"):
        with pytest.raises(ValueError, match="its name is not of the form"):
            columbia_gaze.Label.parse(name)
    picture = source / "0001" / "0001_2m_30P_10V_15H.jpg"
    picture.rename(source / "0001" / "0001_2m_-30P_10V_15H.jpg")
    cv2.imwrite(str(source / "0001" / "0001_2m_0P_10V_0H.jpg"), np.full((60, 90, 3), 9, np.uint8))
    plan = prepare.make_plan("columbia_gaze", source, OPTIONS._replace(people=(1, 2)))
    assert plan.rejected[1] == ("0002", "the folder is missing or empty")
    entries = [entry for unit in plan.units for entry in plan.load(source, unit, OPTIONS, {})]
    reasons = dict(entry for entry in entries if isinstance(entry, prepare.Rejected))
    assert reasons["0001/0001_2m_-30P_10V_15H.jpg"] == "the head is turned by 31 deg, its name says -30"
    assert reasons["0001/0001_2m_0P_10V_0H.jpg"] == "no face was found"
    with pytest.raises(UserError, match="holds no Columbia Gaze"):
        prepare.make_plan("columbia_gaze", source / "0001", OPTIONS)


def test_lineage_file_of_columbia(tmp_path):
    """No target, so the label is taken; its pitch is turned around, and the distance is the data set's 2 m."""
    turn, place = head(15)
    mini.write_lineage(
        tmp_path / "s" / "columbia_subject0001.h5", [(0, 0, turn, place, -place, mini.dots(mini.ETH_SIX), {})], 1600
    )
    run(tmp_path / "s", tmp_path / "out", OPTIONS._replace(people=(1,)), name="columbia_gaze")
    entry = records(tmp_path / "out", "test")[0]
    label = mini.lineage_label(turn, place, -place)
    _, axes = mini.to_world(np.zeros(3), mini.ETH_SIX, mini.ETH_MOUTH)
    expected = axes @ vector(label * [-1, 1])
    assert angle(vector(entry["gaze_head"]) * [1, -1, -1], expected) < 0.01
    assert_true(entry, turn, place, None, exact=False)


def test_folder_of_portraits(tmp_path):
    source = tmp_path / "source"
    (source / "more").mkdir(parents=True)
    (source / "a.png").write_bytes(PHOTO.read_bytes())
    cv2.imwrite(str(source / "b.png"), np.full((100, 100, 3), 128, np.uint8))
    (source / "more" / "c.jpg").write_bytes(b"\xff\xd8 cut off")
    _, rejected = run(source, tmp_path / "out", OPTIONS, name="folder")
    assert dict(rejected) == {"b.png": "no face was found", "more/c.jpg": "the picture is cut off"}
    manifest = storage.RecordSource(tmp_path / "out", "test").manifest
    assert manifest.absent == ("depth", "gaze_head", "gaze_camera")
    entry = records(tmp_path / "out", "test")[0]
    record.validate(entry, manifest.absent)
    # framed like a synthetic head: eyes a little above the middle, level; the head looks into the camera
    eyes = entry["landmarks"][[33, 133, 362, 263]]
    np.testing.assert_allclose(eyes.mean(0), [0.5, 0.43], atol=0.05)
    assert abs(eyes[0, 1] - eyes[3, 1]) < 0.02
    assert np.degrees(np.abs(entry["head_pose"])).max() < 20
    np.testing.assert_allclose(np.linalg.norm(entry["cam2world"][:3, 3]), 2.7, rtol=0.1)
    left, right = (np.argwhere(entry["parts"] == part)[:, ::-1].mean(0) / SIZE for part in (2, 3))
    np.testing.assert_allclose([left, right], [eyes[2:].mean(0), eyes[:2].mean(0)], atol=0.02)
