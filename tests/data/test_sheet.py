"""Drawings end where the labels say; the data commands do what they print."""

import analytic_head
import numpy as np
import pytest
from PIL import Image

from rtgaze_jax import cli
from rtgaze_jax.data import sheet, storage
from rtgaze_jax.data.datasets import gaze_heads


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("heads")
    settings = gaze_heads.Settings("test", people=5, gazes=4, views=2, resolution=96, seed=0)
    gaze_heads.generate(path, settings, workers=1, make_renderer=analytic_head.Camera)
    return path


def test_a_gaze_arrow_ends_where_the_gaze_points():
    (r,) = analytic_head.render_capture(300, "train", 2, gazes=1, views=1)
    drawn = sheet.draw_gaze(r["image"], r)
    yellow = (drawn == sheet.GAZE_COLOUR).all(-1)
    assert yellow.any()
    for center in analytic_head.EYE_CENTERS:
        tip = center + sheet.ARROW * analytic_head.gaze_in_world(r["gaze_head"])
        local = (tip - r["cam2world"][:3, 3]) @ r["cam2world"][:3, :3] @ r["intrinsics"].T
        x, y = (local[:2] / local[2] * 300).astype(int)
        assert yellow[y, x]
    changed = (drawn != r["image"]).any(-1)
    assert changed.mean() < 0.1


def test_the_eye_strip_shows_both_eyes_level():
    for r in analytic_head.render_capture(256, "train", 2, gazes=1, views=4):
        r["image"][r["parts"] == 2] = (255, 0, 0)  # the subject's left eye belongs on the right
        r["image"][r["parts"] == 3] = (0, 0, 255)
        strip = sheet.eye_strip(r, 200)
        assert strip.shape == (80, 200, 3)
        centers = {}
        for side, channel in (("left", 0), ("right", 2)):
            strong = (strip[..., channel] > 200) & (strip[..., 2 - channel] < 60)
            centers[side] = np.argwhere(strong).mean(0) if strong.any() else None
        if centers["left"] is not None and centers["right"] is not None:
            assert centers["left"][1] > 120
            assert centers["right"][1] < 80
            assert abs(centers["left"][0] - centers["right"][0]) < 15


def test_tiles_are_laid_out_in_rows():
    images = [np.full((4, 6, 3), 10 * (i + 1), np.uint8) for i in range(5)]
    whole = sheet.tile(images, columns=3, border=1)
    assert whole.shape == (9, 20, 3)
    assert [whole[0, x, 0] for x in (0, 7, 14)] == [10, 20, 30]
    assert [whole[5, x, 0] for x in (0, 7, 14)] == [40, 50, 0]


def test_sheets_of_a_data_set(directory):
    source = storage.RecordSource(directory, "test")
    contact = sheet.contact_sheet(source, people=4, size=64)
    assert contact.shape[1] % 64 < 10
    assert contact.std() > 20
    np.testing.assert_array_equal(contact, sheet.contact_sheet(source, people=4, size=64))
    assert (contact != sheet.contact_sheet(source, people=4, size=64, seed=1)).any()
    assert sheet.eye_sheet(source, people=2, width=100).shape == (2 * 40 + 2, 2 * 304 + 8, 3)


def test_commands(directory, tmp_path, capsys):
    out = tmp_path / "r.npz"
    assert cli.main(["data", "dump", str(directory), "--index", "11", "-o", str(out)]) == 0
    with np.load(out) as dumped:
        wanted = analytic_head.render_capture(96, "test", 1, gazes=4, views=2)[3]
        promised = "image depth cam2world intrinsics gaze_head gaze_camera face_mask eye_mask parts person"
        assert set(promised.split()) <= set(dumped.files)
        np.testing.assert_array_equal(dumped["image"], wanted["image"])
        np.testing.assert_allclose(dumped["depth"], wanted["depth"], atol=1e-4)
        assert dumped["person"] == 1
    for command, shape in (("sheet", None), ("overlay", (512, 512))):
        assert cli.main(["data", command, str(directory), "-o", str(tmp_path / "x.png")]) == 0
        with Image.open(tmp_path / "x.png") as image:
            assert shape in (None, image.size)
    assert cli.main(["data", "sheet", str(directory), "--eyes", "-o", str(tmp_path / "x.png")]) == 0
    assert cli.main(["data", "check", str(directory), "--workers", "1", "--json", str(tmp_path / "c.json")]) == 0
    assert "40 records, 0 problems" in capsys.readouterr().out
    assert '"depth_shares"' in (tmp_path / "c.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dump", "DIR", "--index", "40", "-o", "x"], "there is no record 40: .* has 0 to 39"),
        (["dump", "DIR", "--index", "0", "--split", "train", "-o", "x"], "holds the splits test: choose one"),
        (["sheet", "DIR", "-o", "x.png", "--people", "0"], "--people must be at least 1"),
        (["check", "nowhere"], "nowhere holds no finished data set"),
        (["heads", "--out", "DIR", "--people", "6", "--split", "test"], "made with people 5, not 6"),
        (["heads", "--out", "new", "--people", "6", "--workers", "0"], "--workers must be at least 1"),
        (["heads", "--out", "new", "--people", "6", "--split", "all"], "no split 'all'"),
    ],
)
def test_mistakes_are_explained_in_one_line(directory, capsys, arguments, message):
    assert cli.main(["data", *[str(directory) if a == "DIR" else a for a in arguments]]) == 2
    printed = capsys.readouterr().err.strip()
    assert len(printed.splitlines()) == 1
    import re

    assert re.search(message, printed)


def test_check_fails_on_damage(directory, tmp_path, capsys):
    for path in directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = next(iter(tmp_path.glob("*array_record-00001*")))
    shard.unlink()
    assert cli.main(["data", "check", str(tmp_path), "--workers", "1"]) == 1
    assert "00001-of-00002 is missing" in capsys.readouterr().out
