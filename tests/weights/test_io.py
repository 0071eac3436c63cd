"""Weights files: round trip, header, and every kind of damage."""

import json
import pickle
import struct

import numpy as np
import pytest

from rtgaze_jax.errors import UserError
from rtgaze_jax.weights import io

PARAMS = {
    "encoder": {"conv": {"kernel": np.linspace(-2, 2, 24).reshape(2, 3, 4), "bias": np.zeros(3, np.float32)}},
    "head": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array([1, 2], np.int32)},
}
HEADER = {"config": {"preset": "tiny", "widths": [1, 2]}, "frame": "source", "licence": "Apache-2.0"}


@pytest.fixture
def path(tmp_path):
    io.save(tmp_path / "w.safetensors", PARAMS, HEADER)
    return tmp_path / "w.safetensors"


def test_round_trip(path):
    params, header = io.load(path)
    np.testing.assert_array_equal(params["head"]["steps"], [1, 2])
    assert params["head"]["steps"].dtype == np.int32
    kernel = params["encoder"]["conv"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, PARAMS["encoder"]["conv"]["kernel"].astype(np.float16))
    assert header["config"] == HEADER["config"]
    assert header["parameters"] == 24 + 3 + 6 + 2
    assert len(header["sha256"]) == 64
    assert "ETH-XGaze" in header["gaze"]
    assert io.read_header(path) == header
    assert io.tensor_shapes(path)["head/kernel"] == (2, 3)


def test_file_is_plain_safetensors_in_float16(path):
    """Read with nothing but the format's description: 8 bytes of length, JSON, data."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    described = json.loads(content[8 : 8 + length])
    entry = described["encoder/conv/kernel"]
    assert entry["dtype"] == "F16"
    begin, end = entry["data_offsets"]
    values = np.frombuffer(content[8 + length + begin : 8 + length + end], "<f2").reshape(entry["shape"])
    np.testing.assert_array_equal(values, PARAMS["encoder"]["conv"]["kernel"].astype(np.float16))
    assert json.loads(described["__metadata__"]["frame"]) == "source"


def test_values_too_large_for_float16_stay_exact(tmp_path):
    io.save(tmp_path / "w.safetensors", {"a": np.array([1e6, -3e5])}, HEADER)
    np.testing.assert_array_equal(io.load(tmp_path / "w.safetensors")[0]["a"], [1e6, -3e5])


def test_float32_on_request(tmp_path):
    io.save(tmp_path / "w.safetensors", PARAMS, HEADER, dtype="float32")
    params, _ = io.load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(
        params["encoder"]["conv"]["kernel"], PARAMS["encoder"]["conv"]["kernel"].astype(np.float32)
    )


def test_sha256_depends_on_values_names_and_shapes():
    a = np.arange(6, dtype=np.float32)
    digests = [{"x": a}, {"y": a}, {"x": a.reshape(2, 3)}, {"x": a + 1}, {"x": a.astype(np.float16)}]
    assert len({io.tensors_sha256(tensors) for tensors in digests}) == len(digests)
    assert io.tensors_sha256({"x": a, "y": a}) == io.tensors_sha256({"y": a, "x": a})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_parameters_are_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="not finite"):
        io.save(tmp_path / "w.safetensors", {"a": np.array([1.0, value])}, HEADER)
    assert list(tmp_path.iterdir()) == []


def test_flatten_refuses_names_that_would_not_come_back():
    with pytest.raises(ValueError, match="without '/'"):
        io.flatten({"a/b": np.zeros(1)})
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert io.unflatten({k: int(v) for k, v in io.flatten(nested).items()}) == nested


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "cut", "flipped", "pickle", "foreign", "no header"])
def test_damage_is_one_line(path, kind):
    from safetensors.numpy import save_file

    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "foreign":
        save_file({"a": np.zeros(3, np.float32)}, path, metadata={"format": "pt"})
    elif kind == "no header":
        save_file({"a": np.zeros(3, np.float32)}, path)
    else:
        path.write_bytes(
            {
                "empty": b"",
                "cut": content[:-5],
                "flipped": content[:-5] + bytes([content[-5] ^ 64]) + content[-4:],
                "pickle": pickle.dumps({"a": 1}),
            }[kind]
        )
    with pytest.raises(UserError) as caught:
        io.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_transposed_arrays_keep_their_values(tmp_path):
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    io.save(tmp_path / "w.safetensors", {"a": turned}, {})
    np.testing.assert_array_equal(io.load(tmp_path / "w.safetensors")[0]["a"], turned)
