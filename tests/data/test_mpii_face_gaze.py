import json

import cv2
import h5py
import miniature as mini
import numpy as np
import pytest
from scipy.io import savemat
from test_eth_xgaze import SIZE, angle, assert_true, records, run, vector

from rtgaze_jax.data import check, storage
from rtgaze_jax.data.datasets import mpii_face_gaze, prepare
from rtgaze_jax.errors import UserError

OPTIONS = prepare.Options("test", people=(2,), resolution=SIZE, jpeg=0)
CAMERA = np.array([[1400.0, 0, 640], [0, 1405.0, 360], [0, 0, 1]])
LENS = np.array([0.05, -0.1, 1e-3, 2e-3, 0.02])
MEAN_SIX = mini.MPII_SIX.mean(0)
MOUTH = mini.MPII_SIX[4:]


def looks(count):
    """(head rotation, translation, gaze target) in the laptop camera's axes."""
    rng = np.random.default_rng(3)
    for _ in range(count):
        turn = mini.rodrigues(rng.uniform(-0.3, 0.3, 3))
        place = np.array([*rng.uniform(-40, 40, 2), rng.uniform(520, 620)])
        yield turn, place, np.array([*rng.uniform(-150, 150, 2), 5.0])


def write_raw(root, count=5):
    folder = root / "p02"
    (folder / "Calibration").mkdir(parents=True)
    savemat(folder / "Calibration" / "Camera.mat", {"cameraMatrix": CAMERA, "distCoeffs": LENS.reshape(1, 5)})
    lines = []
    for n, (turn, place, target) in enumerate(looks(count)):
        name = f"day{1 + n // 3:02}/{n:04}.jpg"
        (folder / name).parent.mkdir(exist_ok=True)
        picture = mini.draw(mini.see(mini.dots(mini.MPII_SIX) @ turn.T + place, CAMERA, LENS), (1280, 720), 4.0)
        cv2.imwrite(str(folder / name), picture, (cv2.IMWRITE_JPEG_QUALITY, 98))
        marks = mini.see(mini.MPII_SIX @ turn.T + place, CAMERA, LENS)
        center = turn @ MEAN_SIX + place
        values = [700, 400, *marks.ravel(), *cv2.Rodrigues(turn)[0].ravel(), *place, *center, *target]
        lines.append(" ".join([name, *(f"{value:.5f}" for value in values), "left"]))
    (folder / "p02.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_raw_pictures_keep_the_known_geometry(tmp_path):
    folder = write_raw(tmp_path / "source")
    _, rejected = run(tmp_path / "source", tmp_path / "out", OPTIONS._replace(people=()), name="mpii_face_gaze")
    assert [item for item, _ in rejected] == [f"p{n:02}" for n in range(15) if n != 2]
    found = records(tmp_path / "out", "test")
    for entry, (turn, place, target) in zip(found, looks(5), strict=True):
        assert_true(entry, turn, place, target - turn @ MEAN_SIX - place, mini.MPII_SIX, MOUTH)
    assert [int(entry["capture"]) for entry in found] == [1, 1, 1, 2, 2]  # days
    assert check.check_split(tmp_path / "out", "test").problems == []

    lines = (folder / "p02.txt").read_text().splitlines()
    words = lines[1].split()
    words[21] = str(float(words[21]) + 60)
    (folder / "p02.txt").write_text("\n".join([lines[0], " ".join(words), lines[2][:60], lines[3]]))
    _, rejected = run(tmp_path / "source", tmp_path / "damaged", name="mpii_face_gaze", options=OPTIONS)
    assert dict(rejected) == {
        "p02/day01/0001.jpg": "its face centre lies 60 mm from that of its head pose",
        "p02/day01/0002.jpg": f"its annotation has {len(lines[2][:60].split())} of 28 columns",
        "p02/day02/0004.jpg": "it has no annotation",
    }


def test_calibrations_of_both_kinds_of_mat_files(tmp_path):
    savemat(tmp_path / "old.mat", {"cameraMatrix": CAMERA, "distCoeffs": LENS.reshape(1, 5)})
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    with h5py.File(tmp_path / "block.mat", "w", userblock_size=512) as file:  # MATLAB 7.3 turns axes around
        file["cameraMatrix"], file["distCoeffs"] = CAMERA.T, LENS.reshape(5, 1)
    content = (tmp_path / "block.mat").read_bytes()
    (tmp_path / "new.mat").write_bytes(header + content[len(header) :])
    for name in ("old.mat", "new.mat"):
        matrix, lens = mpii_face_gaze.read_camera(tmp_path / name)
        np.testing.assert_allclose(matrix, CAMERA)
        np.testing.assert_allclose(lens, LENS)
    (tmp_path / "cut.mat").write_bytes(b"MATLAB")
    with pytest.raises(ValueError, match=r"cut\.mat cannot be read as a camera calibration"):
        mpii_face_gaze.read_camera(tmp_path / "cut.mat")


def normalized(turn, place, target):
    """(BGR picture, gaze label, head label, head rotation) of the authors' normalisation, at 550 mm."""
    center = turn @ MEAN_SIX + place
    place = place * 550 / np.linalg.norm(center) + (turn @ MEAN_SIX) * (550 / np.linalg.norm(center) - 1)
    center = turn @ MEAN_SIX + place
    forward = center / np.linalg.norm(center)
    down = np.cross(forward, turn[:, 0])
    down /= np.linalg.norm(down)
    rotation = np.stack([np.cross(down, forward), down, forward])
    local = (mini.dots(mini.MPII_SIX) @ turn.T + place) @ rotation.T
    matrix = np.array([[960 * 550 / 300, 0, 224], [0, 960 * 550 / 300, 224], [0, 0, 1]])
    gaze = rotation @ (target - center)
    return mini.draw(mini.see(local, matrix), (448, 448), 5.0), gaze, rotation @ turn, np.array([0, 0, 550.0])


@pytest.mark.parametrize("kind", ["mat", "hysts"])
def test_normalised_files(tmp_path, kind):
    made = [normalized(*look) for look in looks(3)]
    source = tmp_path / "source"
    source.mkdir()
    pictures = np.stack([picture for picture, *_ in made])
    labels = np.array([[*mini.pitch_yaw(gaze), *mini.head_label(head)] for _, gaze, head, _ in made])
    with h5py.File(source / ("p02.mat" if kind == "mat" else "MPIIFaceGaze.h5"), "w") as file:
        if kind == "mat":
            file["Data/data"] = pictures.transpose(0, 3, 1, 2).astype(np.float32)
            file["Data/label"] = np.concatenate([labels, np.zeros((3, 12))], 1)
        else:
            for n in range(3):
                file[f"p02/image/{n:04}"], file[f"p02/gaze/{n:04}"] = pictures[n], labels[n, :2].astype(np.float32)
                file[f"p02/pose/{n:04}"] = labels[n, 2:].astype(np.float32)
    _, rejected = run(source, tmp_path / "out", OPTIONS._replace(people=(2, 3)), name="mpii_face_gaze")
    assert [item for item, _ in rejected] == ["p03"]
    for entry, (_, gaze, head, place) in zip(records(tmp_path / "out", "test"), made, strict=True):
        assert_true(entry, head, place - head @ MEAN_SIX, gaze, mini.MPII_SIX, MOUTH)
    with pytest.raises(UserError, match="no gaze targets"):
        prepare.make_plan("mpii_face_gaze", source, OPTIONS._replace(origin="eyes"))


def test_lineage_file(tmp_path):
    """Head pose and place are recovered from four labels; gaze comes from the target, not from the wrong label."""
    rows = []
    for n, (turn, place, target) in enumerate(looks(3)):
        extra = {"face_center": turn @ MEAN_SIX + place}
        rows.append((n, 0, turn, place, target, mini.dots(mini.MPII_SIX), extra))
    mini.write_lineage(tmp_path / "source" / "mpii_subject0002.h5", rows, 1400, ("face_center",))
    run(tmp_path / "source", tmp_path / "out", name="mpii_face_gaze", options=OPTIONS)
    for entry, (_, _, turn, place, target, *_) in zip(records(tmp_path / "out", "test"), rows, strict=True):
        gaze = target - turn @ mini.center_of(mini.MPII_SIX) - place
        assert_true(entry, turn, place, gaze, mini.MPII_SIX, MOUTH)
        _, axes = mini.to_world(np.zeros(3), mini.MPII_SIX, MOUTH)
        wrong = axes @ vector(mini.lineage_label(turn, place, target))
        assert angle(wrong, vector(entry["gaze_head"]) * [1, -1, -1]) > 2
    listing = json.loads((tmp_path / "out" / "manifest-test.json").read_text())
    assert listing["settings"]["format"] == "GazeNeRF 512"
    assert listing["absent"] == ["depth"]
    assert len(storage.RecordSource(tmp_path / "out", "test")) == 3
