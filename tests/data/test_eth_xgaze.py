import json

import cv2
import h5py
import miniature as mini
import numpy as np
import pytest

from rtgaze_jax.data import check, record, storage
from rtgaze_jax.data.datasets import eth_xgaze, prepare
from rtgaze_jax.data.datasets.normalized import SPAN
from rtgaze_jax.errors import UserError

SIZE = 256
OPTIONS = prepare.Options("train", people=(3,), resolution=SIZE, jpeg=0)
MOMENTS = {7: mini.Moment(1), 12: mini.Moment(2)}
FEWER = {12: 8}  # cameras, of the raw pictures


def run(source, out, options=OPTIONS, workers=1, name="eth_xgaze"):
    return prepare.prepare(name, source, out, options, workers=workers)


def records(directory, split="train"):
    return [record.decode(encoded) for encoded in storage.RecordSource(directory, split)]


def angle(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b))


def vector(angles):
    pitch, yaw = np.float64(angles)
    return -np.array([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)])


def assert_true(entry, head, translation, gaze, six=mini.ETH_SIX, mouth=mini.ETH_MOUTH, radius=6, exact=True):
    """A record against the truth: head pose and gaze vector (any length) in the axes of the original camera."""
    points, axes = mini.to_world(mini.dots(six), six, mouth)
    position = mini.to_world(-head.T @ translation, six, mouth)[0]
    pose = np.float64(entry["cam2world"])
    if exact:
        np.testing.assert_allclose(pose[:3, 3], position, atol=1e-4)  # 0.04 mm
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    expected = local[:, :2] / local[:, 2:] * entry["intrinsics"][0, 0] + 0.5
    seen, places = 0, expected * SIZE
    for place in places:
        if np.sort(np.linalg.norm(places - place, axis=-1))[1] < 3 * radius:
            continue  # another dot is in the way
        x, y = place.astype(int)
        inside = (2 * radius < place) & (place < SIZE - 2 * radius)
        # released pictures show less of the head than a crop: the rest is black
        if inside.all() and entry["image"][y - 9 : y + 10, x - 9 : x + 10, 0].min() > 40:
            found = mini.find_dot(entry["image"], place, radius)
            assert np.abs(found - place).max() < 0.05
            seen += 1
    assert seen >= 3
    if gaze is not None:
        in_head = axes @ head.T @ gaze
        assert angle(np.array([1, -1, -1]) * vector(entry["gaze_head"]), in_head) < 0.01
        assert angle(vector(entry["gaze_camera"]), pose[:3, :3].T @ in_head) < 0.01


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("eth_raw")
    mini.write_eth_raw(root, {3: MOMENTS}, FEWER)
    return root


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    run(raw, out)
    return out


def test_raw_pictures_keep_the_known_geometry(prepared):
    rig, found = mini.rig_cameras(), records(prepared)
    assert len(found) == 26
    for entry in found:
        record.validate(entry, absent=("depth",))
        moment = MOMENTS[int(entry["gaze_index"])]
        head, place, target = moment.in_camera(rig[int(entry["view_index"])])
        gaze = target - head @ mini.center_of(mini.ETH_SIX) - place
        assert_true(entry, head, place, gaze)
        distance = np.linalg.norm(entry["cam2world"][:3, 3]) * 370
        np.testing.assert_allclose(entry["intrinsics"][0, 0], distance / SPAN, rtol=1e-5)  # f_n d / d_n, not a constant
        assert 45 < entry["image"][..., 0].mean() < 90
        np.testing.assert_allclose(entry["image"][..., 2].mean(), entry["image"][..., 0].mean() / 2, rtol=0.03)  # RGB


def test_views_of_a_moment_are_rigidly_consistent(prepared):
    """All 18 cameras of a frame see one head gaze and stand as far apart as the calibration says."""
    found = [entry for entry in records(prepared) if entry["gaze_index"] == 7]
    assert np.ptp([entry["gaze_head"] for entry in found], axis=0).max() < 1e-6
    rig = mini.rig_cameras()
    for a, b in ((0, 1), (2, 11), (12, 17)):
        pose = np.linalg.inv(np.float64(found[b]["cam2world"])) @ np.float64(found[a]["cam2world"])
        expected = np.linalg.norm(rig[b][2].T @ rig[b][3] - rig[a][2].T @ rig[a][3]) / 370
        np.testing.assert_allclose(np.linalg.norm(pose[:3, 3]), expected, rtol=1e-4)


def test_labels_are_free_of_the_lineage_s_errors(prepared):
    """Its face centre lies 41 mm away, and its pitch points down."""
    assert 40 < np.linalg.norm(mini.bad_center_of_lineage() - mini.center_of(mini.ETH_SIX)) < 42
    for entry in records(prepared)[::12]:
        moment = MOMENTS[int(entry["gaze_index"])]
        _, axes = mini.to_world(np.zeros(3), mini.ETH_SIX, mini.ETH_MOUTH)
        ours = axes.T @ (np.array([1, -1, -1]) * vector(entry["gaze_head"]))
        assert angle(ours, moment.head_gaze(mini.center_of(mini.ETH_SIX))) < 0.01
        assert angle(ours, moment.head_gaze(mini.bad_center_of_lineage())) > 1.5
        label = mini.lineage_label(moment.rotation, moment.translation, moment.target)
        assert angle(vector(label * [-1, 1]), moment.head_gaze(mini.bad_center_of_lineage())) < 0.01
        assert angle(ours, vector(label)) > 3


def test_gaze_may_start_between_the_eyes(raw, tmp_path):
    run(raw, tmp_path / "eyes", OPTIONS._replace(origin="eyes", subset="all", resolution=64))
    entry = records(tmp_path / "eyes")[0]
    _, axes = mini.to_world(np.zeros(3), mini.ETH_SIX, mini.ETH_MOUTH)
    expected = axes @ MOMENTS[7].head_gaze(mini.ETH_SIX[:4].mean(0))
    assert angle(np.array([1, -1, -1]) * vector(entry["gaze_head"]), expected) < 0.01


def test_check_finds_nothing_wrong(prepared):
    report = check.check_split(prepared, "train")
    assert report.records == 26
    assert report.problems == []


def test_damage_is_named_and_the_rest_is_done(raw, tmp_path):
    import shutil

    source = tmp_path / "source"
    shutil.copytree(raw, source)
    frame = source / "data" / "train" / "subject0003" / "frame0007"
    whole = (frame / "cam02.JPG").read_bytes()
    (frame / "cam02.JPG").write_bytes(whole[: len(whole) // 2])
    (frame / "cam04.JPG").write_bytes(b"no picture")
    (frame / "cam05.JPG").unlink()
    cv2.imwrite(str(frame / "cam08.JPG"), np.zeros((100, 150, 3), np.uint8))
    table = source / "data" / "annotation_train" / "subject0003.csv"
    lines = table.read_text().splitlines()
    lines[9] = ",".join(lines[9].split(",")[:40])
    columns = lines[10].split(",")
    columns[13 + 72 :: 2] = [str(float(x) + 300) for x in columns[13 + 72 :: 2]]  # landmarks of somebody else
    lines[10] = ",".join(columns)
    columns = lines[12].split(",")
    columns[4] = str(float(columns[4]) + 100)
    lines[12] = ",".join(columns)
    del lines[11]
    table.write_text("\n".join(lines))
    (source / "data" / "train" / "subject0005").mkdir()
    out = tmp_path / "out"
    _, rejected = run(source, out, OPTIONS._replace(people=(3, 4, 5), resolution=64))
    reasons = {entry["item"]: entry["reason"] for entry in json.loads((out / "quarantine-train.json").read_text())}
    assert reasons == {item: reason for item, reason in rejected}
    place = "subject0003/frame0007/"
    assert reasons.pop("subject0004") == "the folder is missing"
    assert reasons.pop("subject0005") == "the annotation subject0005.csv is missing"
    assert reasons.pop(place + "cam02.JPG") == "the picture is cut off"
    assert reasons.pop(place + "cam04.JPG") == "the picture cannot be decoded"
    assert reasons.pop(place + "cam05.JPG").startswith("the picture is missing")
    assert "150 x 100 pixels, unlike its calibration" in reasons.pop(place + "cam08.JPG")
    assert reasons.pop(place + "cam09.JPG") == "its annotation has 40 of 149 columns"
    assert "from where the other cameras see the head" in reasons.pop(place + "cam10.JPG")
    assert reasons.pop(place + "cam11.JPG") == "it has no annotation"
    assert reasons.pop(place + "cam12.JPG") == "its gaze target lies 100 mm from the other cameras'"
    assert reasons == {}
    index = storage.RecordSource(out, "train").grid
    assert len(index) == 26 - 8
    assert index.captures == 1


def test_the_papers_subset_and_impossible_wishes(raw, tmp_path):
    assert len(eth_xgaze.TRAIN) == 80
    assert not set(eth_xgaze.TRAIN) & set(eth_xgaze.PERSON_SPECIFIC)
    options = OPTIONS._replace(subset="paper")
    assert [len(prepare.spaced(list(range(n)), options)) for n in (4, 10, 600)] == [4, 10, 10]
    with pytest.raises(UserError, match="no split 'val'"):
        prepare.make_plan("eth_xgaze", raw, OPTIONS._replace(split="val"))
    with pytest.raises(UserError, match="holds no ETH-XGaze for split 'train'"):
        prepare.make_plan("eth_xgaze", tmp_path, OPTIONS)
    with pytest.raises(UserError, match=r"nothing to prepare \(subject0004: the folder is missing"):
        run(raw, tmp_path / "out", OPTIONS._replace(people=(4,)))
    with pytest.raises(UserError, match=r"needs about \d+ GB"):
        prepare._check_space(
            tmp_path, prepare.Plan("x", "", [prepare.Unit(0, 10**9)], None), OPTIONS._replace(resolution=512)
        )


def test_gazenerfs_calibration_is_recognised(raw, tmp_path):
    folder = tmp_path / "cam"
    folder.mkdir()
    for path in (raw / "calibration" / "cam_calibration").iterdir():
        text = path.read_text().replace(f"<image_Width>{mini.WIDTH}<", "<image_Width>512<")
        (folder / path.name).write_text(text)
    (tmp_path / "xgaze_subject0003.h5").touch()
    with pytest.raises(UserError, match="GazeNeRF's version for 512-pixel crops: give the original"):
        prepare.make_plan("eth_xgaze", tmp_path, OPTIONS)


@pytest.mark.parametrize("size", [448, 224])
def test_released_files(raw, tmp_path, size):
    source = tmp_path / "source"
    mini.write_eth_released(source / "train" / "subject0003.h5", MOMENTS if size == 448 else {7: MOMENTS[7]}, size)
    (source / "calibration").symlink_to(raw / "calibration")
    with h5py.File(source / "train" / "subject0003.h5", "a") as file:
        file["face_patch"][4] = 0
    _, rejected = run(source, tmp_path / "out", OPTIONS._replace(people=(3, 9)))
    assert dict(rejected) == {"subject0009.h5": "the file is missing", "train/subject0003.h5#4": "the picture is empty"}
    found, rig = records(tmp_path / "out"), mini.rig_cameras()
    assert len(found) == (35 if size == 448 else 17)
    for entry in found[:: 5 if size == 448 else 8]:
        head, place, target = MOMENTS[int(entry["gaze_index"])].in_camera(rig[int(entry["view_index"])])
        assert_true(entry, head, place, target - head @ mini.center_of(mini.ETH_SIX) - place)


def test_released_files_without_calibration_and_of_the_wrong_kind(tmp_path):
    source = tmp_path / "source"
    mini.write_eth_released(source / "train" / "subject0003.h5", {7: MOMENTS[7]})
    with h5py.File(source / "train" / "subject0000.h5", "w") as file:
        file["face_patch"] = np.zeros((1, 448, 448, 3), np.uint8)
        file["face_gaze"] = np.zeros((1, 2))
    (source / "train" / "subject0004.h5").write_bytes(b"cut off")
    mini.write_eth_released(source / "train" / "subject0005.h5", {}, size=64)
    _, rejected = run(source, tmp_path / "out", OPTIONS._replace(people=(0, 3, 4, 5)))
    reasons = dict(rejected)
    assert reasons["subject0000.h5"].startswith(
        "it lacks face_head_pose, face_mat_norm, frame_index, cam_index, so it is"
    )
    assert reasons["subject0004.h5"].startswith("the file is damaged or no HDF5 file")
    assert reasons["subject0005.h5"] == "its pictures have 64 x 64 pixels, not 448 x 448 or 224 x 224"
    rig, entry = mini.rig_cameras(), records(tmp_path / "out")[5]
    head, place, target = MOMENTS[7].in_camera(rig[5])
    gaze = vector(entry["gaze_head"]) * [1, -1, -1]
    _, axes = mini.to_world(np.zeros(3), mini.ETH_SIX, mini.ETH_MOUTH)
    assert angle(gaze, axes @ head.T @ (target - head @ mini.center_of(mini.ETH_SIX) - place)) < 0.01
    np.testing.assert_allclose(np.linalg.norm(entry["cam2world"][:3, 3]) * 370, 1109, atol=60)  # the nominal distance
    mini.write_eth_released(source / "test" / "subject0001.h5", {7: MOMENTS[7]})
    with h5py.File(source / "test" / "subject0001.h5", "a") as file:
        del file["face_gaze"]  # the leaderboard has them
    run(source, tmp_path / "out", OPTIONS._replace(split="test", people=()))
    assert storage.RecordSource(tmp_path / "out", "test").manifest.absent == ("depth", "gaze_head", "gaze_camera")


def test_lineage_files(raw, tmp_path):
    source, rig = tmp_path / "source", mini.rig_cameras()
    rows = [
        (frame + 250, number, *moment.in_camera(rig[number]), None, {})
        for frame, moment in MOMENTS.items()
        for number in range(FEWER.get(frame, 18))
    ]
    mini.write_lineage(source / "xgaze_subject0003.h5", rows, 1600)
    run(source, tmp_path / "nominal")
    (source / "cam_original").symlink_to(raw / "calibration" / "cam_calibration")
    run(source, tmp_path / "exact")
    nominal, exact = records(tmp_path / "nominal"), records(tmp_path / "exact")
    assert sorted({int(entry["gaze_index"]) for entry in exact}) == [0, 1]  # frame_index wraps: moments are counted
    for n, (frame, number, head, place, target, *_) in enumerate(rows):
        gaze = target - head @ mini.center_of(mini.ETH_SIX) - place
        assert (int(exact[n]["view_index"]), int(exact[n]["gaze_index"])) == (number, int(frame == 262))
        if n % 5 == 0:
            assert_true(exact[n], head, place, gaze)
        _, axes = mini.to_world(np.zeros(3), mini.ETH_SIX, mini.ETH_MOUTH)
        assert angle(vector(nominal[n]["gaze_head"]) * [1, -1, -1], axes @ head.T @ gaze) < 0.6
    left, right = (np.argwhere(exact[0]["parts"] == part).mean(0) for part in (2, 3))
    assert left[1] > right[1]  # the subject's left eye, whatever the file calls it
