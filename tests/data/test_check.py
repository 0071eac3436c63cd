"""The checks pass on exact data and catch every deliberate corruption; the iris is read where it was drawn."""

import shutil

import analytic_head
import numpy as np
import pytest

from rtgaze_jax.data import check, iris, labels, record, storage
from rtgaze_jax.data.datasets import gaze_heads
from rtgaze_jax.errors import FailureError, UserError

SETTINGS = gaze_heads.Settings("test", people=3, gazes=2, views=3, resolution=96, seed=0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("heads")
    gaze_heads.generate(path, SETTINGS, workers=1, make_renderer=analytic_head.Camera)
    return path


@pytest.fixture(scope="module")
def capture():
    return analytic_head.render_capture(128, "train", 4, gazes=2, views=3)


def test_exact_data_passes(directory):
    report = check.check_split(directory, "test")
    assert report.problems == []
    assert report.records == 18
    assert len(report.depth_shares) == 18
    assert min(report.depth_shares) > 0.97
    assert len(report.gaze_errors) > 10
    assert "18 records, 0 problems" in report.lines()[0]


def turn(vector_yaw):
    """Rotation about the world's y axis."""
    c, s = np.cos(vector_yaw), np.sin(vector_yaw)
    matrix = np.eye(4, dtype=np.float32)
    matrix[[0, 0, 2, 2], [0, 2, 0, 2]] = c, s, -s, c
    return matrix


def lie_about_gaze(r):
    """Head and camera gaze agree with each other, not with the picture."""
    gaze = np.clip(-r["gaze_head"] - np.sign(r["gaze_head"]) * 0.2, -check.GAZE_LIMITS, check.GAZE_LIMITS)
    r["gaze_head"] = gaze.astype(np.float32)
    r["gaze_camera"] = labels.camera_gaze(labels.head_gaze_vector(gaze), r["cam2world"]).astype(np.float32)


def swap_eyes(r):
    r["eye_centers"] = r["eye_centers"][::-1].copy()


def name_eyes_wrongly(r):
    left, right = r["parts"] == 2, r["parts"] == 3
    r["parts"] = np.where(left, 3, np.where(right, 2, r["parts"])).astype(np.uint8)


def bend_depth(r):
    r["depth"] = np.where(r["depth"] > 0, r["depth"] + np.float32(0.02), 0).astype(np.float32)


def move_camera(r):
    r["cam2world"] = r["cam2world"].copy()
    r["cam2world"][0, 3] += 0.03


def turn_camera(r):
    r["cam2world"] = turn(np.radians(3)) @ r["cam2world"]


def zoom(r):
    r["intrinsics"] = (r["intrinsics"] * np.array([[1.06], [1.06], [1]])).astype(np.float32)


def mirror_camera(r):
    r["cam2world"] = r["cam2world"] * np.array([-1, 1, 1, 1], np.float32)


def change(key, function):
    def corrupt(r):
        value = np.array(r[key])
        r[key] = np.asarray(function(value), value.dtype)

    corrupt.__name__ = f"{key}_{function.__name__}"
    return corrupt


def roll(value):
    return np.roll(value, 3, axis=0)


def huge(value):
    return value + 3


def nan(value):
    return value * np.nan


def blank(value):
    return value * 0 + 80


def half_degree(value):
    return value + 0.01


@pytest.mark.parametrize(
    ("corrupt", "caught"),
    [
        (lie_about_gaze, "gaze"),
        (swap_eyes, "ranges"),
        (name_eyes_wrongly, "eyes"),
        (bend_depth, "depth"),
        (move_camera, "depth"),
        (turn_camera, "angles"),
        (zoom, "depth"),
        (mirror_camera, "ranges"),
        (change("face_mask", roll), "masks"),
        (change("eye_mask", roll), "masks"),
        (change("parts", roll), "masks"),
        (change("depth", roll), "masks"),
        (change("depth", nan), "ranges"),
        (change("gaze_head", huge), "ranges"),
        (change("gaze_head", nan), "ranges"),
        (change("gaze_camera", half_degree), "angles"),
        (change("head_pose", half_degree), "angles"),
        (change("intrinsics", huge), "ranges"),
        (change("cam2world", huge), "ranges"),
        (change("eye_centers", roll), "ranges"),
        (change("landmarks", huge), "ranges"),
        (change("parts", huge), "ranges"),
        (change("image", blank), "ranges"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_corruption_is_caught(capture, corrupt, caught):
    views = [dict(r) for r in capture[:3]]
    corrupt(views[1])
    found = {name for name, _ in check.check_record(views[1])}
    if "ranges" not in found:
        found |= {"depth"} if check.depth_agreement(views[1], views[2])[0] < check.DEPTH_SHARE_OF_PAIR else set()
        reading = check.drawn_gaze_error(views[1])
        far = reading is not None and reading[0] > check.DRAWN_GAZE_TOLERANCE and reading[1] < check.DRAWN_GAZE_SUPPORT
        found |= {"gaze"} if far else set()
    assert caught in found
    assert not list(check.check_record(capture[1]))


def corrupt_shard(directory, target, change_records):
    """A copy of the data whose shard was rewritten, with a manifest that admits it."""
    shutil.copytree(directory, target)
    manifest = storage.manifests(target)["test"]
    path = target / manifest.shards[0].file
    encoded = storage.read_shard(path)
    change_records(encoded)
    storage.write_shard(path, encoded)
    return path


def problems(directory):
    return {(p.check, p.record) for p in check.check_split(directory, "test").problems}


def test_corruptions_are_found_in_files(directory, tmp_path):
    def change_records(encoded):
        encoded[4] |= {"image": encoded[4]["image"][:50]}
        encoded[7] |= {"image": encoded[9]["image"]}
        encoded[11] |= {key: encoded[10][key] for key in ("gaze_index", "view_index")}
        lying = record.decode(encoded[14])
        lie_about_gaze(lying)
        encoded[14] = record.encode(lying)

    corrupt_shard(directory, tmp_path / "copy", change_records)
    found = problems(tmp_path / "copy")
    assert {("files", None), ("unreadable", 4), ("duplicates", 9), ("duplicates", 11), ("gaze", 14)} <= found
    assert not {number for _, number in found} & {0, 1, 2, 3, 13, 15}


def test_damaged_and_missing_files_are_found(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "copy")
    (shard,) = (tmp_path / "copy").glob("*array_record*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert ("files", None) in problems(tmp_path / "copy")
    shard.unlink()
    assert problems(tmp_path / "copy") == {("files", None)}


def test_a_capture_rendered_twice_is_found(tmp_path):
    capture = analytic_head.render_capture(96, "test", 0, gazes=1, views=2)
    noisy = [dict(r, person=np.int32(1), image=r["image"] + (r["image"] < 255)) for r in capture]
    path = tmp_path / storage.shard_name("gaze_heads", "test", 0, 1)
    storage.write_shard(path, map(record.encode, capture + noisy))
    shard = storage.Shard(path.name, 4, path.stat().st_size, check.files.sha256(path))
    storage.write_manifest(tmp_path, storage.Manifest("gaze_heads", "test", {}, 1, 2, 96, (), (shard,)))
    assert ("duplicates", 2) in problems(tmp_path)


def test_checking_nothing_is_an_error(tmp_path):
    with pytest.raises((UserError, FailureError), match="holds no finished data set"):
        check.check_split(tmp_path, "test")


def test_drawn_gaze_is_read_without_the_label():
    errors, slopes = [], []
    for person in range(4):
        for r in analytic_head.render_capture(128, "train", person, gazes=3, views=3):
            reading = iris.read_gaze(r, np.zeros(2))
            assert reading is not None
            truth = analytic_head.gaze_in_world(r["gaze_head"])
            errors.append(np.degrees(np.arccos(np.clip(labels.head_gaze_vector(reading.gaze) @ truth, -1, 1))))
            slopes.append((r["gaze_head"], reading.gaze))
    assert np.median(errors) < 4
    assert np.max(errors) < 10
    label, read = np.moveaxis(np.array(slopes), 1, 0)
    for axis in range(2):
        slope, _ = np.polyfit(label[:, axis], read[:, axis], 1)
        assert 0.85 < slope < 1.15


def test_hidden_eyes_cannot_be_read(capture):
    hidden = dict(capture[0], parts=np.where(capture[0]["eye_mask"], 1, capture[0]["parts"]).astype(np.uint8))
    assert iris.read_gaze(hidden, np.zeros(2)) is None
    faint = dict(capture[0], image=np.full_like(capture[0]["image"], 120))
    assert iris.read_gaze(faint, np.zeros(2)) is None


def test_depth_agreement_measures_what_it_says(capture):
    a, b = dict(capture[0]), dict(capture[2])
    share, points = check.depth_agreement(a, b)
    assert share > 0.98
    assert points > 500
    for offset, agrees in ((1.5, True), (2.5, False)):  # mm, along the rays
        moved = dict(b, depth=np.where(b["depth"] > 0, b["depth"] + np.float32(offset / 370), 0))
        share, _ = check.depth_agreement(b, moved)
        assert (share > 0.99) is agrees
        assert (share < 0.01) is not agrees
