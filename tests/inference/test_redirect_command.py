"""`rtgaze redirect`, `rtgaze info` and `rtgaze demo` as commands: files in, files out, one line per mistake."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_redirector import KnownNetwork

from rtgaze_jax import cli
from rtgaze_jax.inference import redirector
from rtgaze_jax.inference.provenance import SOURCE_TYPE, source_type
from rtgaze_jax.weights import io

ASTRONAUT = Path(__file__).parents[2] / "examples" / "astronaut.png"


@pytest.fixture(autouse=True)
def known_network(monkeypatch):
    monkeypatch.setattr(
        redirector, "load", lambda path: redirector.Redirector(KnownNetwork(), {"gaze_range_degrees": [15, 30]})
    )


@pytest.fixture
def photos(tmp_path):
    """A folder with photos: me.png, me.jpg, two.png (two faces), none.png, cut.png, text.jpg."""
    image = Image.open(ASTRONAUT).convert("RGB")
    image.save(tmp_path / "me.png")
    image.save(tmp_path / "me.jpg")
    small = np.pad(np.asarray(image.resize((256, 256))), ((128, 128), (0, 0), (0, 0)), "edge")
    Image.fromarray(np.concatenate([np.asarray(image), small], 1)).save(tmp_path / "two.png")
    Image.new("RGB", (300, 200), "green").save(tmp_path / "none.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "me.png").read_bytes()[:60_000])
    (tmp_path / "text.jpg").write_text("no photo")
    return tmp_path


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_writes_a_marked_photo_beside_the_original(photos, capsys):
    assert cli.main(["redirect", str(photos / "me.png"), "--yaw", "-20", "--pitch", "5"]) == 0
    out = photos / "me_redirected.png"
    changed = (pixels(out) != pixels(photos / "me.png")).any(-1)
    assert 0.001 < changed.mean() < 0.01
    assert source_type(out) == SOURCE_TYPE
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out == f"{photos / 'me.png'} -> {out} (pitch 5.0, yaw -20.0)\n"


def test_without_provenance(photos):
    assert cli.main(["redirect", str(photos / "me.png"), "--look-at", "camera", "--no-provenance"]) == 0
    assert source_type(photos / "me_redirected.png") is None


def test_face_only(photos):
    assert cli.main(["redirect", str(photos / "me.jpg"), "--look-at", "camera", "--face-only"]) == 0
    assert pixels(photos / "me_face.png").shape == (128, 128, 3)


def test_strength_zero_copies_the_photo(photos):
    out = photos / "out.png"
    assert cli.main(["redirect", str(photos / "me.png"), "--yaw", "9", "--strength", "0", "-o", str(out)]) == 0
    np.testing.assert_array_equal(pixels(out), pixels(photos / "me.png"))


def test_two_faces(photos, capsys):
    two = str(photos / "two.png")
    before = pixels(two)

    def changed(*arguments):
        assert cli.main(["redirect", two, "--look-at", "camera", "-o", str(photos / "out.png"), *arguments]) == 0
        different = (pixels(photos / "out.png") != before).any(-1)
        return bool(different[:, :512].any()), bool(different[:, 512:].any())

    assert changed() == (True, False)
    assert "--face" in capsys.readouterr().err
    assert changed("--face", "1") == (True, False)
    assert changed("--face", "2") == (False, True)
    assert changed("--face", "all") == (True, True)
    assert capsys.readouterr().err == ""


def test_several_photos_into_a_folder(photos, capsys):
    names = ["me.png", "none.png", "cut.png", "two.png"]
    out = photos / "out"
    code = cli.main(["redirect", *(str(photos / n) for n in names), "--look-at", "camera", "-o", str(out)])
    assert code == 2  # two of them failed
    assert sorted(p.name for p in out.iterdir()) == ["me.png", "two.png"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "no face found" in lines[0]
    assert "damaged" in lines[1]
    assert "warning" in lines[2]
    assert lines[3] == "rtgaze: 2 of 4 photos failed"


def test_eased_gaze_warns(photos, capsys):
    assert cli.main(["redirect", str(photos / "me.png"), "--yaw", "40"]) == 0
    assert "rtgaze: warning: the network was trained up to 15 degrees" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["missing.png", "--look-at", "camera"], "no such file"),
        ([".", "--look-at", "camera"], "is a folder"),
        (["cut.png", "--look-at", "camera"], "damaged"),
        (["text.jpg", "--look-at", "camera"], "not a photo"),
        (["none.png", "--look-at", "camera"], "no face found"),
        (["me.png"], "--look-at camera"),
        (["me.png", "--look-at", "moon"], "invalid choice"),
        (["me.png", "--look-at", "camera", "--yaw", "3"], "--look-at already"),
        (["me.png", "--yaw", "left"], "invalid float"),
        (["me.png", "--yaw", "nan"], "yaw must be a number"),
        (["me.png", "--yaw", "60"], "from -45 to 45"),
        (["me.png", "--pitch", "-31"], "from -30 to 30"),
        (["me.png", "--yaw", "3", "--strength", "2"], "strength"),
        (["me.png", "--yaw", "3", "--face", "first"], "--face takes a number"),
        (["me.png", "--yaw", "3", "--face", "2"], "no face 2"),
        (["me.png", "--yaw", "3", "-o", "result.gif"], "must end in"),
        (["me.png", "--yaw", "3", "-o", "result"], "must end in"),
        (["me.png", "--yaw", "3", "-o", "me.png"], "is the photo itself"),
        (["me.png", "two.png", "--yaw", "3", "-o", "me.jpg"], "is a file"),
        (["me.png", "./me.png", "two.png", "--yaw", "3", "-o", "d/"], "two photos would be written"),
        (["me.png", "--yaw", "3", "--colour", "red"], "unrecognized"),
        ([], "required"),
    ],
)
def test_mistakes_are_one_line(photos, monkeypatch, capsys, arguments, cause):
    monkeypatch.chdir(photos)
    assert cli.main(["redirect", *arguments]) == 2
    captured = capsys.readouterr()
    assert cause in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("rtgaze: ")
    assert captured.out == ""


def test_info(tmp_path, capsys):
    path = tmp_path / "w.safetensors"
    digest = io.save(
        path, {"a": {"x": np.zeros((2, 3))}, "b": np.zeros(4)}, {"frame": "source", "config": {"m": {"n": 5}}}
    )
    assert cli.main(["info", str(path), "--config"]) == 0
    shown = capsys.readouterr().out
    for expected in (digest, "source", "ETH-XGaze", "m.n"):
        assert expected in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["a", "6"] in rows
    assert ["all", "10"] in rows
    assert cli.main(["info", str(tmp_path / "none")]) == 2


def test_demo(photos, monkeypatch):
    assert cli.main(["demo", str(photos / "me.png"), "-o", str(photos / "demo")]) == 0
    names = {p.name for p in (photos / "demo").iterdir()}
    assert {"sheet.png", "stages.png", "me_left.png", "me_camera.png", "circling.gif"} <= names
    assert b"changed by AI" in (photos / "demo" / "circling.gif").read_bytes()
    assert source_type(photos / "demo" / "sheet.png") == SOURCE_TYPE


def test_import_is_light():
    """Nothing heavy comes with the package itself."""
    code = "import sys, rtgaze_jax; print([m for m in ('jax', 'flax', 'numpy', 'cv2', 'PIL') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
