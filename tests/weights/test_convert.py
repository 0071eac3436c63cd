"""Converters without PyTorch: folding against closed forms, structures against our own modules, refusals, the
command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from rtgaze_jax.cli import main
from rtgaze_jax.errors import UserError
from rtgaze_jax.models.config import preset
from rtgaze_jax.models.renderer import TriplaneRenderer
from rtgaze_jax.weights import io
from rtgaze_jax.weights.convert import KINDS, convert
from rtgaze_jax.weights.convert.dlib import read_quantized
from rtgaze_jax.weights.convert.eg3d import convert_eg3d, convert_lp3d, folded_conv
from rtgaze_jax.weights.convert.fold import conv_norm


def test_folded_batch_norm_is_the_two_layers():
    rng = np.random.default_rng(0)
    state = {"c.weight": rng.normal(size=(4, 3, 1, 1)), "c.bias": rng.normal(size=4)}
    state |= {f"n.{k}": rng.uniform(0.5, 2, 4) for k in ("weight", "bias", "running_mean", "running_var")}
    params = conv_norm({k: v.astype(np.float32) for k, v in state.items()}, "c", "n", epsilon=0.1)
    x = rng.normal(size=(5, 3))
    y = x @ state["c.weight"][..., 0, 0].T + state["c.bias"]
    y = (y - state["n.running_mean"]) / np.sqrt(state["n.running_var"] + 0.1) * state["n.weight"] + state["n.bias"]
    np.testing.assert_allclose(x @ params["kernel"][0, 0] + params["bias"], y, rtol=1e-5, atol=1e-5)


def eg3d_state(seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors with the names and shapes of EG3D's decoder and 8XDC super-resolution."""
    rng = np.random.default_rng(seed)
    shapes = {"decoder.net.0.weight": (64, 32), "decoder.net.2.weight": (33, 64)}
    shapes |= {"decoder.net.0.bias": (64,), "decoder.net.2.bias": (33,)}
    for block, inputs, outputs in ((0, 32, 256), (1, 256, 128)):
        for layer, c_in, c_out, size in (
            ("conv0", inputs, outputs, 3),
            ("conv1", outputs, outputs, 3),
            ("torgb", outputs, 3, 1),
        ):
            name = f"superresolution.block{block}.{layer}"
            shapes |= {f"{name}.weight": (c_out, c_in, size, size), f"{name}.bias": (c_out,)}
            shapes |= {f"{name}.affine.weight": (c_in, 512), f"{name}.affine.bias": (c_in,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_folded_styles():
    """Demodulation makes every output's weights unit length; colour layers keep the style's scale."""
    state, w = eg3d_state(), np.random.default_rng(1).normal(size=512)
    name = "superresolution.block0.conv1"
    kernel = folded_conv(state, name, w)
    np.testing.assert_allclose((kernel**2).sum((1, 2, 3)), 1, rtol=1e-6)
    style = state[f"{name}.affine.weight"] @ w / np.sqrt(512) + state[f"{name}.affine.bias"]
    ratio = kernel / (state[f"{name}.weight"] * style[None, :, None, None])
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1, :1], ratio.shape), rtol=1e-4)
    name = "superresolution.block0.torgb"
    style = state[f"{name}.affine.weight"] @ w / np.sqrt(512) + state[f"{name}.affine.bias"]
    colour = folded_conv(state, name, w, colour=True)
    np.testing.assert_allclose(colour, state[f"{name}.weight"] * style[None, :, None, None] / 16, rtol=1e-4)


def test_eg3d_and_lp3d_fit_the_renderer():
    """The converted tree has the names and shapes of the paper preset's renderer, and renders without surprise."""
    w = np.random.default_rng(2).normal(size=512).astype(np.float32)
    first = convert_eg3d(eg3d_state() | {"backbone.mapping.w_avg": w})
    second = convert_lp3d(eg3d_state() | {"const": w.reshape(1, 1, 512)})
    nested = {f"triplane_renderer.{k}": v for k, v in (eg3d_state() | {"const": w.reshape(1, 1, 512)}).items()}
    for other in (second, convert_lp3d(nested)):
        jax.tree.map(np.testing.assert_array_equal, first, other)
    renderer = TriplaneRenderer(preset("paper").render)
    shapes = jax.eval_shape(renderer.init, jax.random.key(0), jnp.zeros((1, 3, 256, 256, 32)), jnp.zeros((1, 25)))[
        "params"
    ]
    assert jax.tree.map(lambda x: x.shape, first["renderer"]) == jax.tree.map(lambda x: x.shape, shapes)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_files_of_another_network_are_refused(tmp_path, kind):
    path = tmp_path / "other.safetensors"
    save_file({"some.weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(UserError, match="the file"):
        convert(kind, path)


def test_unknown_kinds_and_missing_files(tmp_path):
    with pytest.raises(UserError, match="choose from"):
        convert("vgg19", tmp_path / "x.pth")
    for kind, name in (("vgg16", "x.pth"), ("vgg16", "x.safetensors"), ("dlib_face", "x.json")):
        with pytest.raises(UserError, match="cannot read"):
            convert(kind, tmp_path / name)


def test_quantized_manifest(tmp_path):
    entries = [
        {"name": "a/filters", "shape": [2, 2], "dtype": "float32", "quantization": {"scale": 0.5, "min": -1.0}},
        {"name": "fc", "shape": [2], "dtype": "float32"},
    ]
    manifest = [{"weights": entries, "paths": ["weights.bin"]}]
    content = bytes([0, 1, 2, 255]) + np.array([1.5, -2.5], "<f4").tobytes()
    tree, scales = read_quantized(json.dumps(manifest).encode(), content)
    np.testing.assert_array_equal(tree["a"]["filters"], [[0, 1], [2, 255]])
    np.testing.assert_array_equal(tree["fc"], [1.5, -2.5])
    assert scales == {"a/filters": [0.5, -1.0]}
    with pytest.raises(UserError, match="describes 12 bytes"):
        read_quantized(json.dumps(manifest).encode(), content + b"!")
    (tmp_path / "m.json").write_text(json.dumps(manifest))
    (tmp_path / "weights.bin").write_bytes(content)
    params, header = convert("dlib_face", tmp_path / "m.json")
    assert header["quantization"] == scales
    assert params["a"]["filters"].dtype == np.uint8
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(UserError, match="not a face-api manifest"):
        convert("dlib_face", tmp_path / "m.json")


def test_command(tmp_path, capsys):
    path, out = tmp_path / "heads.safetensors", tmp_path / "out.safetensors"
    heads = {f"lin{i}.model.1.weight": np.full((1, 4 + i, 1, 1), i, np.float32) for i in range(5)}
    save_file(heads, path)
    assert main(["weights", "convert", "lpips_vgg", str(path), "-o", str(out)]) == 0
    assert "lpips_vgg, 5 tensors, 30 numbers" in capsys.readouterr().out
    params, header = io.load(out)
    assert header["kind"] == "lpips_vgg"
    assert header["source"] == "heads.safetensors"
    np.testing.assert_array_equal(params["conv5_3"], np.full(8, 4))
    assert main(["weights", "convert", "vgg16", str(path), "-o", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_command_help_lists_every_kind():
    from rtgaze_jax.commands import weights_convert

    for kind in [*KINDS, "dlib_face"]:
        assert kind in weights_convert.__doc__
