"""Learned distances between sets of images: uint8 RGB in, one number per image (or per pair of sets) out.

`perceptual_lite0` and `frechet_lite0` stand in for LPIPS and FID, whose networks cannot be shipped, and are not
comparable with them. LPIPS and FID themselves need the user's VGG16 and Inception files. Everything is computed in
batches of one size, so each network compiles once; results do not depend on the batch size beyond rounding.
"""

import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation.features.identity import face_chips, face_embedding, load_face_embedding
from rtgaze_jax.evaluation.features.inception import inception_pool3
from rtgaze_jax.evaluation.features.lite0 import lite0_pooled
from rtgaze_jax.evaluation.features.perceptual import Perceptual, load_perceptual
from rtgaze_jax.evaluation.features.vgg import lpips
from rtgaze_jax.evaluation.metrics import frechet_distance
from rtgaze_jax.weights import io

FRECHET_SIZE = 224  # pixels per side at which frechet_lite0 looks at a face
Images = UInt8[np.ndarray, "n h w 3"]


def perceptual_lite0(first: Images, second: Images, *, batch: int = 8) -> Float[np.ndarray, "n"]:
    """The Lite0 perceptual distance of each pair, about 0 to 2."""
    return _in_batches(functools.partial(_perceptual, _lite0()), batch, _signed(first), _signed(second))


def lite0_features(images: Images, *, batch: int = 8) -> Float[np.ndarray, "n 192"]:
    """The features that `frechet_lite0` compares; images are resized to 224 pixels with antialiasing."""
    return _in_batches(functools.partial(_pooled, _lite0().params), batch, _signed(images))


def frechet_lite0(first: Float[np.ndarray, "n 192"], second: Float[np.ndarray, "m 192"]) -> float:
    """The Frechet distance of two sets of `lite0_features`. Biased upwards for few images, like every Frechet
    distance."""
    return frechet_distance(first, second)


def face_embeddings(
    images: Images, points: Float[np.ndarray, "n 5 2"], *, batch: int = 8
) -> Float[np.ndarray, "n 128"]:
    """dlib's description of each face; `points` in pixels, ordered as in `features.identity`."""
    return _in_batches(functools.partial(_embed, _face()), batch, _signed(images), np.asarray(points, np.float32))


def identity_cosine(
    first: Images,
    second: Images,
    points_first: Float[np.ndarray, "n 5 2"],
    points_second: Float[np.ndarray, "n 5 2"] | None = None,
) -> Float[np.ndarray, "n"]:
    """Cosine of the two faces' embeddings. One set of points serves both where the faces should coincide.

    dlib's embeddings share a large mean: the same person is at 0.92 to 1, other people at 0.77 to 0.95. The network
    itself was trained to keep the L2 distance of one person's faces below 0.6 (`identity_distance`).
    """
    a, b = face_embeddings(first, points_first), face_embeddings(second, _either(points_second, points_first))
    return np.sum(a * b, axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def identity_distance(
    first: Images,
    second: Images,
    points_first: Float[np.ndarray, "n 5 2"],
    points_second: Float[np.ndarray, "n 5 2"] | None = None,
) -> Float[np.ndarray, "n"]:
    """L2 distance of the two faces' embeddings: below 0.6 dlib takes them for one person."""
    a, b = face_embeddings(first, points_first), face_embeddings(second, _either(points_second, points_first))
    return np.linalg.norm(a - b, axis=1)


def lpips_vgg(first: Images, second: Images, vgg16: str | os.PathLike, *, batch: int = 4) -> Float[np.ndarray, "n"]:
    """LPIPS 0.1 (VGG) of each pair; `vgg16` is a file written by `rtgaze weights convert vgg16`."""
    heads, _ = io.load(io.SHIPPED / "lpips_vgg.safetensors")
    network = _converted(os.fspath(vgg16), "vgg16")
    return _in_batches(functools.partial(jax.jit(lpips), network, heads), batch, _signed(first), _signed(second))


def inception_features(images: Images, inception: str | os.PathLike, *, batch: int = 8) -> Float[np.ndarray, "n 2048"]:
    """FID's features; `inception` is a file written by `rtgaze weights convert inception_fid`. FID is their Frechet
    distance."""
    network = _converted(os.fspath(inception), "inception_fid")
    return _in_batches(functools.partial(jax.jit(inception_pool3), network), batch, _signed(images))


@jax.jit
def _perceptual(network: Perceptual, first, second):
    return network(first, second)


@jax.jit
def _pooled(params, images):
    size = (images.shape[0], FRECHET_SIZE, FRECHET_SIZE, 3)
    return lite0_pooled(params, jax.image.resize(images, size, "bilinear"))


@jax.jit
def _embed(params, images, points):
    return face_embedding(params, face_chips(images, points))


def _in_batches(function: Callable, batch: int, *arrays: np.ndarray) -> np.ndarray:
    """function(*arrays) in slices of `batch` rows, the last one filled up with its own last row."""
    results = []
    for start in range(0, len(arrays[0]), batch):
        parts = [array[start : start + batch] for array in arrays]
        rows = len(parts[0])
        filled = [np.concatenate([part, np.repeat(part[-1:], batch - rows, 0)]) for part in parts]
        results.append(np.asarray(function(*map(jnp.asarray, filled)))[:rows])
    return np.concatenate(results)


def _signed(images: Images) -> np.ndarray:
    return images.astype(np.float32) / 127.5 - 1


def _either(value, default):
    return default if value is None else value


@functools.cache
def _lite0():
    return load_perceptual("lite0")


@functools.cache
def _face():
    return load_face_embedding()


@functools.cache
def _converted(path: str | os.PathLike, kind: str) -> dict:
    params, header = io.load(path)
    if header.get("kind") != kind:
        raise UserError(f"{path} is not a {kind} file; write one with `rtgaze weights convert {kind} FILE -o OUT`")
    return params
