"""Every converter, layer by layer, against PyTorch on random weights of the real shapes: relative error below 1e-4.

    pip install -e .[parity] && pytest -m parity tests/parity

The relative error of a layer is its largest difference divided by the reference's largest value.
"""

import pickle
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax.evaluation.features import identity, inception, lite0, resnet, vgg
from rtgaze_jax.models.config import preset
from rtgaze_jax.models.decoder import FieldDecoder
from rtgaze_jax.models.superres import SuperResolution
from rtgaze_jax.weights import convert, io, restricted

torch = pytest.importorskip("torch")
import torch_eg3d  # noqa: E402
import torch_networks as reference  # noqa: E402

pytestmark = pytest.mark.parity
TOLERANCE = 1e-4


def images(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, (count, size, size, 3)).astype(np.float32)


def nchw(x: np.ndarray) -> "torch.Tensor":
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def imagenet(x: np.ndarray) -> "torch.Tensor":
    return nchw(((x + 1) / 2 - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225]))


def compare(title: str, ours: dict, theirs: dict) -> None:
    """Prints and checks the relative error of every layer."""
    worst = 0.0
    for name, expected in theirs.items():
        expected = expected.numpy()
        expected = np.moveaxis(expected, 1, -1) if expected.ndim == 4 else expected
        found = np.asarray(ours[name])
        assert found.shape == expected.shape, name
        worst = max(worst, np.abs(found - expected).max() / np.abs(expected).max())
        assert worst < TOLERANCE, f"{title} {name}: {worst:.2e}"
    print(f"{title}: {len(theirs)} layers, largest relative error {worst:.1e}")


def converted(kind: str, module, tmp_path, *, legacy: bool = False, wrap=lambda state: state) -> dict:
    """The module's state dict through a real torch file, the restricted reader, the converter and a weights file."""
    path, out = tmp_path / f"{kind}.pth", tmp_path / f"{kind}.safetensors"
    torch.save(wrap(module.state_dict()), path, _use_new_zipfile_serialization=not legacy)
    params, header = convert.convert(kind, path)
    io.save(out, params, header, "float32")
    return io.load(out)[0]


@pytest.mark.parametrize("legacy", [False, True])
def test_restricted_reader_on_torch_files(tmp_path, legacy):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    types = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
    state = {"view": base[1:, ::2], "transposed": base.T, "parameter": torch.nn.Parameter(base.clone())}
    state |= {str(dtype): base.to(dtype) for dtype in types}
    path = tmp_path / "state.pth"
    torch.save({"epoch": 3, "state_dict": state}, path, _use_new_zipfile_serialization=not legacy)
    found = restricted.state_dict(path)
    assert set(found) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name].astype(np.float64), tensor.detach().double().numpy(), err_msg=name)
    assert found["torch.bfloat16"].dtype.name == "bfloat16"


@pytest.mark.parametrize("legacy", [False, True])
def test_lite0(tmp_path, legacy):
    module = reference.randomize(reference.Lite0())
    params = converted("efficientnet_lite0", module, tmp_path, legacy=legacy)
    x = images(96)
    names = [f"block{i}" for i in range(len(lite0.BLOCKS))]
    ours = lite0.lite0_stages(params, jnp.asarray(x), tuple(names)) | {"": lite0.lite0_logits(params, jnp.asarray(x))}
    layers = reference.outputs(module, nchw(((x + 1) * 127.5 - 127) / 128), [f"_blocks.{i}" for i in range(16)])
    compare("efficientnet_lite0", ours, {n.replace("_blocks.", "block"): y for n, y in layers.items()})


def test_vgg16(tmp_path):
    module = reference.randomize(reference.VGG16())
    params = converted("vgg16", module, tmp_path)
    x = images(64)
    places = [i + 1 for i, layer in enumerate(module.features) if isinstance(layer, torch.nn.Conv2d)]
    layers = reference.outputs(module, imagenet(x), [f"features.{i}" for i in places])
    theirs = {name: layers[f"features.{i}"] for name, i in zip(vgg.CONV_NAMES, places, strict=True)}
    compare("vgg16", vgg.vgg_stages(params, jnp.asarray(x), vgg.CONV_NAMES), theirs)


def test_lpips(tmp_path):
    """The published formula on the same VGG16: unit features, squared difference, 1x1 head, spatial mean, sum of
    levels."""
    module = reference.randomize(reference.VGG16())
    widths = (64, 128, 256, 512, 512)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, n, 1, 1) for i, n in enumerate(widths)}
    path = tmp_path / "lpips.pth"
    torch.save(heads, path)
    a, b = images(64), images(64)[::-1].copy()
    found = vgg.lpips(
        converted("vgg16", module, tmp_path), convert.convert("lpips_vgg", path)[0], jnp.asarray(a), jnp.asarray(b)
    )
    names = [f"features.{i}" for i in (3, 8, 15, 22, 29)]
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total = torch.zeros(2)
    first, second = (
        reference.outputs(module, (nchw(x) - shift[:, None, None]) / scale[:, None, None], names) for x in (a, b)
    )
    for i, name in enumerate(names):
        u, v = (x[name] / (x[name].square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (first, second))
        total += torch.nn.functional.conv2d((u - v) ** 2, heads[f"lin{i}.model.1.weight"]).mean((1, 2, 3))
    compare("lpips", {"distance": found}, {"distance": total})


@pytest.mark.parametrize(("kind", "bottleneck", "classes"), [("resnet34", False, 1000), ("resnet50", True, 4)])
def test_resnet(tmp_path, kind, bottleneck, classes):
    module = reference.randomize(reference.ResNet(bottleneck, classes))
    params = converted(kind, module, tmp_path)
    x = images(96)
    ours = resnet.resnet_stages(params, jnp.asarray(x)) | {"": resnet.resnet_logits(params, jnp.asarray(x))}
    compare(kind, ours, reference.outputs(module, imagenet(x), list(resnet.LAYERS)))


def test_deeplabv3(tmp_path):
    module = reference.randomize(reference.DeepLabV3())
    params = converted("deeplabv3", module, tmp_path)
    x = images(128, 1)
    stages = resnet.resnet_stages(params["backbone"], jnp.asarray(x), output_stride=8)
    ours = {f"backbone.{name}": y for name, y in stages.items()}
    ours["classifier.0"] = resnet.aspp(params["aspp"], stages["layer4"])
    ours[""] = resnet.deeplab_scores(params, jnp.asarray(x))
    names = [name for name in ours if name]
    compare("deeplabv3", ours, reference.outputs(module, imagenet(x), names))
    wide = np.random.default_rng(9).normal(size=(1, 80, 80, 2048)).astype(np.float32)  # room for the widest rate
    with torch.no_grad():
        compare("deeplabv3 ASPP", {"": resnet.aspp(params["aspp"], wide)}, {"": module.classifier[0](nchw(wide))})


def test_inception_fid(tmp_path):
    module = reference.randomize(reference.Inception())
    params = converted("inception_fid", module, tmp_path)
    for size in (299, 128):
        x = images(size, 1)
        theirs = reference.outputs(module, nchw((x + 1) / 2), list(inception.BLOCKS) if size == 299 else [])
        ours = inception.inception_stages(params, jnp.asarray(x)) if size == 299 else {}
        ours[""] = inception.inception_pool3(params, jnp.asarray(x))
        compare(f"inception_fid at {size}", ours, theirs)


def test_dlib_face():
    """The shipped weights themselves, from their 8-bit form, without folding."""
    tree, header = io.load(io.SHIPPED / "face_embedding.safetensors")
    chips = images(150)
    mean = np.float32([122.782, 117.001, 104.298])
    found = identity.face_embedding(identity.load_face_embedding(), jnp.asarray(chips))
    scaled = nchw(((chips + 1) * 127.5 - mean) / 256)
    compare("dlib_face", {"": found}, {"": reference.face_embedding(io.flatten(tree), header["quantization"], scaled)})


def eg3d_module() -> tuple["torch.nn.Module", "torch.Tensor"]:
    torch.manual_seed(3)
    return torch_eg3d.EG3DRenderer().eval(), torch.randn(512)


@pytest.mark.parametrize("kind", ["eg3d", "lp3d"])
def test_eg3d_renderer(tmp_path, kind):
    """Decoder and super-resolution. Folding the style is exact; the colours' zero padding is ours in [0, 1], so a frame
    of pixels at the border differs and is left out."""
    module, w = eg3d_module()
    style = {"backbone.mapping.w_avg": w} if kind == "eg3d" else {"const": w.reshape(1, 1, 512)}
    key = "G" if kind == "eg3d" else "renderer_state_dict"
    params = converted(kind, module, tmp_path, wrap=lambda state: {key: dict(state) | style})["renderer"]
    rng = np.random.default_rng(5)

    points = rng.normal(size=(2, 50, 32)).astype(np.float32)
    density, colours = FieldDecoder(64, 32).apply({"params": params["field"]}, jnp.asarray(points))
    with torch.no_grad():
        raw = module.decoder.net(torch.from_numpy(points))
    theirs = {"density": raw[..., 0], "colours": torch.sigmoid(raw[..., 1:]) * 1.002 - 0.001}
    compare(f"{kind} decoder", {"density": density, "colours": colours}, theirs)

    features = rng.uniform(-1, 1, (2, 16, 16, 32)).astype(np.float32)
    network = SuperResolution(preset("paper").render.superres)
    rgb = (features[..., :3] + 1) / 2
    ours = network.apply({"params": params["superres"]}, jnp.asarray(features), jnp.asarray(rgb)) * 2 - 1
    with torch.no_grad():
        x = nchw(features)
        theirs = module.superresolution(x[:, :3], x, w.expand(2, 512))
    inner = slice(3, -3)
    compare(f"{kind} super-resolution", {"": ours[:, inner, inner]}, {"": theirs[..., inner, inner]})


def test_eg3d_pickle(tmp_path, monkeypatch):
    """A pickle of torch modules as EG3D writes it: persistent classes travel with their source, others by name."""
    module, w = eg3d_module()
    module.backbone = torch.nn.Module()
    module.backbone.mapping = torch.nn.Module()
    module.backbone.mapping.register_buffer("w_avg", w)
    persistence, networks = types.ModuleType("torch_utils.persistence"), types.ModuleType("training.networks")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the reader must not call this")

    def reduce(self):
        source = "raise AssertionError('the reader must not run this')"
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": type(self).__name__}
        return _reconstruct_persistent_obj, (meta | {"state": self.__dict__},), None

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    for part in (
        torch_eg3d.EG3DRenderer,
        torch_eg3d.SuperResolution,
        torch_eg3d.SynthesisBlock,
        torch_eg3d.ModulatedConv,
    ):
        monkeypatch.setattr(part, "__reduce__", reduce)
    monkeypatch.setattr(torch_eg3d.Equalized, "__module__", "training.networks")
    networks.Equalized = torch_eg3d.Equalized
    for fake in (types.ModuleType("torch_utils"), types.ModuleType("training"), persistence, networks):
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"G_ema": module, "training_set_kwargs": None}))
    found, expected = restricted.state_dict(path), module.state_dict()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), err_msg=name)
    assert set(convert.convert("eg3d", path)[0]["renderer"]) == {"field", "superres"}
