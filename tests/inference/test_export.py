"""Exported networks: the same images as the Flax network's, without Flax; what the file holds; and errors."""

import dataclasses
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from network_helpers import SPECK, TINY, quick_compile, varied_params  # noqa: F401

from rtgaze_jax import cli
from rtgaze_jax.errors import UserError
from rtgaze_jax.geometry.camera import orbit_camera
from rtgaze_jax.inference import export
from rtgaze_jax.inference.benchmark import fixed_inputs
from rtgaze_jax.inference.network import Network, enlarge
from rtgaze_jax.models.config import to_dict
from rtgaze_jax.rendering import kernels
from rtgaze_jax.weights import io

FACES = 3
CHILD = """
import json, sys
import numpy as np
from rtgaze_jax.inference.export import load_exported

network = load_exported(sys.argv[1])
given = np.load(sys.argv[2])
features = network.encode(given["images"])
scene = network.redirect(features, given["gaze"], given["points"])
out = network.render(features, scene, given["camera"])
look = network.look(features, given["gaze"], given["points"])
np.savez(sys.argv[3], gaze=features["pose"]["gaze"], look=look, **out)
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    header = {"config": to_dict(TINY), "frame": TINY.frame, "licence": "Apache-2.0"}
    io.save(path, varied_params(TINY), header)
    return path


@pytest.fixture(scope="module")
def exported(weights):
    path = weights.with_name("tiny.zip")
    assert cli.main(["export", str(weights), "-o", str(path), "--platforms", "cpu"]) == 0
    return path


@pytest.mark.usefixtures("quick_compile")
def test_same_images_in_a_process_without_flax(weights, exported, tmp_path, monkeypatch):
    """Several faces at once there, one at a time here."""
    images, gaze, points = fixed_inputs(FACES, TINY.image_size)
    camera = np.stack([np.asarray(orbit_camera(angle, 5.0)) for angle in (-15.0, 0.0, 15.0)])
    np.savez(tmp_path / "given.npz", images=images, gaze=gaze, points=points, camera=camera)
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(Path(export.__file__).parents[2]))
    command = [sys.executable, "-c", CHILD, str(exported), str(tmp_path / "given.npz"), str(tmp_path / "made.npz")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    modules = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert {"jax", "numpy", "flatbuffers"} <= modules
    assert not modules & {"flax", "jaxtyping", "safetensors", "cv2", "PIL", "ml_collections", "absl"}

    made = np.load(tmp_path / "made.npz")
    network = Network.from_weights(*io.load(weights))
    for i in range(FACES):
        features = network.encode(images[i : i + 1])
        scene = network.redirect(features, gaze[i : i + 1], points[i : i + 1])
        out = jax.device_get(network.render(features, scene, camera[i : i + 1]))
        np.testing.assert_allclose(made["gaze"][i], features["pose"]["gaze"][0], atol=1e-5)
        for name in ("depth", "opacity"):
            np.testing.assert_allclose(made[name][i], enlarge(out[name][0], network.size), atol=1e-4)
        look = np.asarray(network.look(features, gaze[i : i + 1], points[i : i + 1]))
        for name, image in (("image", out["image"]), ("look", look)):
            assert np.abs(made[name][i].astype(int) - image[0]).max() <= 1, name
        assert out["image"].std() > 5
    assert (made["image"][0] != made["image"][1]).any()


def test_what_the_file_holds(exported, weights):
    params, header = io.load(weights)
    with zipfile.ZipFile(exported) as archive:
        names = archive.namelist()
        told = json.loads(archive.read("header.json"))
        kernel = np.load(archive.open("weights/high/Conv_0/kernel.npy"), allow_pickle=False)
    assert told["format"] == export.FORMAT
    assert told["weights_sha256"] == header["sha256"]
    assert told["licence"] == "Apache-2.0"
    assert told["size"] == 64
    assert told["platforms"]["cpu"]["batch"] is None
    programs = {name for name in names if name.startswith("programs/")}
    assert programs == {f"programs/cpu/{stage}.bin" for stage in ("encode", "look", "redirect", "render")}
    stored = {name.removeprefix("weights/").removesuffix(".npy") for name in names if name.startswith("weights/")}
    assert stored == set(io.flatten(params))
    assert kernel.dtype == np.float16  # as in the weights file: nothing is lost
    np.testing.assert_array_equal(kernel, params["high"]["Conv_0"]["kernel"])


def test_programs_for_accelerators_take_weights_in_their_own_type(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "capability", lambda: 9.0)  # as on a machine where inference takes the field's kernel
    config = dataclasses.replace(SPECK, dtype="bfloat16")
    platforms = ["cuda", "tpu"]
    header = export.export_network(tmp_path / "a.zip", varied_params(SPECK), config, platforms=platforms, say=str)
    assert {name: found["batch"] for name, found in header["platforms"].items()} == {"cuda": None, "tpu": None}
    wanted = header["platforms"]["cuda"]["weights"]
    assert wanted["encode"]["high/Conv_0/kernel"] == "bfloat16"
    assert wanted["encode"]["low/LayerNorm_0/scale"] == "float32"
    assert not any(name.startswith("renderer/") for name in wanted["encode"])
    assert wanted["render"]["renderer/field/out/kernel"] == "bfloat16"  # XLA's field; the kernel takes float32
    with pytest.raises(UserError, match="has programs for cuda, tpu, not cpu; export with --platforms cpu"):
        export.load_exported(tmp_path / "a.zip")
    network = export.load_exported(tmp_path / "a.zip", platform="cuda")
    assert network._weights["encode"]["high/Conv_0/kernel"].dtype == "bfloat16"
    assert network._weights["render"]["renderer/superres/mask/kernel"].dtype == "bfloat16"


def test_a_graph_that_needs_its_shapes_is_exported_for_one_face(tmp_path, monkeypatch):
    def refuse(name):
        raise ValueError("no symbols here")

    monkeypatch.setattr(jax.export, "symbolic_shape", refuse)
    said = []
    header = export.export_network(tmp_path / "a.zip", varied_params(SPECK), SPECK, platforms=["cpu"], say=said.append)
    assert header["platforms"]["cpu"]["batch"] == 1
    assert said[0].endswith("batch size 1")
    assert export.load_exported(tmp_path / "a.zip").batch == 1


def test_a_platform_that_fails_is_left_out(tmp_path, monkeypatch):
    def lower(params, config, platform):
        if platform == "tpu":
            raise ValueError("too new")
        return {stage: b"program" for stage in export.STAGES}, {stage: {} for stage in export.STAGES}, None

    monkeypatch.setattr(export, "_lower", lower)
    said = []
    header = export.export_network(tmp_path / "a.zip", {}, SPECK, platforms=["tpu", "cpu"], say=said.append)
    assert list(header["platforms"]) == ["cpu"]
    assert said[0] == "tpu: left out (too new)"
    with pytest.raises(UserError, match="could not be exported for tpu"):
        export.export_network(tmp_path / "b.zip", {}, SPECK, platforms=["tpu"], say=said.append)
    assert not (tmp_path / "b.zip").exists()


def test_weights_that_float16_cannot_hold_stay_float32():
    exact = np.array([1.0, -0.5, 65504.0], np.float32)
    assert export._smallest(exact).dtype == np.float16
    for lossy in ([1.0001], [1e6], [1e-9]):
        assert export._smallest(np.array(lossy, np.float32)).dtype == np.float32
    assert export._smallest(np.array([1, 2])).dtype == np.int64


def test_files_that_are_none(tmp_path, exported):
    with pytest.raises(UserError, match="no exported network at"):
        export.load_exported(tmp_path / "missing.zip")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(UserError, match="not a complete exported network"):
        export.load_exported(tmp_path / "text.zip")
    whole = exported.read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a complete exported network"):
        export.load_exported(tmp_path / "half.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("header.json", json.dumps({"format": "something else"}))
    with pytest.raises(UserError, match="of another version"):
        export.load_exported(tmp_path / "other.zip")
    with zipfile.ZipFile(exported) as archive:
        largest = max(archive.infolist(), key=lambda info: info.compress_size)
    damaged = bytearray(whole)
    damaged[largest.header_offset + largest.compress_size // 2] ^= 0xFF
    (tmp_path / "damaged.zip").write_bytes(damaged)
    with pytest.raises(UserError, match="not a complete exported network"):
        export.load_exported(tmp_path / "damaged.zip")


def test_bad_arguments_are_one_line(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path / "missing.safetensors"), "-o", str(tmp_path / "a.zip")]) == 2
    assert "no weights at" in capsys.readouterr().err
    assert cli.main(["export", "-o", str(tmp_path / "a.zip"), "--platforms", "gameboy"]) == 2
    assert "invalid choice: 'gameboy'" in capsys.readouterr().err
