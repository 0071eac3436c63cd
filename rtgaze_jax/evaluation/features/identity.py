"""Who is it? dlib's face recognition ResNet (Davis King, 2017; 128-d, weights under MIT) on aligned face chips, in JAX.

A chip is 150 px square with the face placed by five points, as dlib's get_face_chip does with padding 0.25. The points
are, in
this order: subject's left eye outer and inner corner, right eye outer and inner corner, base of the nose.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation.features.layers import Params, average_pool, conv, max_pool
from rtgaze_jax.weights import io

CHIP_SIZE = 150
MESH_POINTS = (263, 362, 33, 133, 2)  # the five points among the 468 of MediaPipe's face mesh
_TEMPLATE = np.array(  # dlib's mean positions on the unit square (image_transforms/interpolation.h)
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
CHIP_POINTS = ((0.25 + _TEMPLATE) / 1.5 * CHIP_SIZE).astype(np.float32)
_MEAN_RGB = (122.782, 117.001, 104.298)
_BLOCKS = (
    *(
        "conv32_1",
        "conv32_2",
        "conv32_3",
        "conv64_down",
        "conv64_1",
        "conv64_2",
        "conv64_3",
        "conv128_down",
        "conv128_1",
    ),
    *("conv128_2", "conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)


def similarity(source: Float[Array, "b n 2"], target: Float[Array, "b n 2"]) -> Float[Array, "b 2 3"]:
    """The least-squares rotation, scale and shift that takes `source` points to `target` points (no mirroring)."""
    centre_s, centre_t = source.mean(1, keepdims=True), target.mean(1, keepdims=True)
    s, t = source - centre_s, target - centre_t
    norm = jnp.sum(s * s, (1, 2))
    a = jnp.sum(s * t, (1, 2)) / norm
    b = jnp.sum(s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0], 1) / norm
    linear = jnp.stack([jnp.stack([a, -b], -1), jnp.stack([b, a], -1)], -2)
    shift = centre_t[:, 0] - jnp.einsum("bij,bj->bi", linear, centre_s[:, 0])
    return jnp.concatenate([linear, shift[..., None]], -1)


def face_chips(
    images: Float[Array, "b h w 3"], points: Float[Array, "b 5 2"], *, supersample: int = 3
) -> Float[Array, "b 150 150 3"]:
    """Aligned chips: each chip pixel is the mean of supersample^2 bilinear samples; black outside the image.

    Args:
        images: any value range. points: x, y in pixels (pixel centres at +0.5), in this module's order.
    """
    chip_to_image = similarity(jnp.broadcast_to(CHIP_POINTS, points.shape), points)
    fine = CHIP_SIZE * supersample
    axis = (jnp.arange(fine) + 0.5) / supersample
    grid = jnp.stack([*jnp.meshgrid(axis, axis, indexing="xy"), jnp.ones((fine, fine))], -1)
    xy = jnp.einsum("bij,hwj->bihw", chip_to_image, grid) - 0.5

    def sample(image: Array, at: Array) -> Array:
        channel = functools.partial(jax.scipy.ndimage.map_coordinates, coordinates=[at[1], at[0]], order=1, cval=0.0)
        return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)

    chips = jax.vmap(sample)(images, xy)
    return average_pool(chips, supersample, supersample)


def face_embedding(params: Params, chips: Float[Array, "b 150 150 3"]) -> Float[Array, "b 128"]:
    """The 128-d description of each chip (float [-1, 1]). Same person: distance below about 0.6; compare by cosine or
    L2."""
    x = ((chips + 1) * 127.5 - jnp.asarray(_MEAN_RGB)) / 256
    x = max_pool(jax.nn.relu(conv(params["conv32_down"], x, stride=2, padding="VALID")), 3, 2)
    for name in _BLOCKS:
        x = _residual(params[name], x, down="down" in name)
    return jnp.dot(x.mean((1, 2)), params["fc"], precision=jax.lax.Precision.HIGHEST)


def _residual(params: Params, x: Float[Array, "b h w c"], *, down: bool) -> Float[Array, "b h2 w2 d"]:
    if not down:
        y = conv(params["conv2"], jax.nn.relu(conv(params["conv1"], x)))
        return jax.nn.relu(x + y)
    y = conv(params["conv2"], jax.nn.relu(conv(params["conv1"], x, stride=2, padding="VALID")))
    pooled = average_pool(x, 2, 2)
    # Sizes and channels may differ by the odd pixel and by doubling: dlib fills the smaller one with zeros at the end.
    shape = tuple(max(a, b) for a, b in zip(y.shape, pooled.shape, strict=True))
    y, pooled = (jnp.pad(z, [(0, n - m) for n, m in zip(shape, z.shape, strict=True)]) for z in (y, pooled))
    return jax.nn.relu(pooled + y)


def load_face_embedding(path: str | os.PathLike | None = None) -> Params:
    """The parameters of `face_embedding`: of the shipped file, or of one written by `rtgaze weights convert
    dlib_face`."""
    tree, header = io.load(path or io.SHIPPED / "face_embedding.safetensors")
    if header.get("kind") != "dlib_face":
        raise UserError(f"{path} is no face embedding; write one with `rtgaze weights convert dlib_face FILE -o OUT`")
    scales = header["quantization"]
    flat = {}
    for name, value in io.flatten(tree).items():
        scale, minimum = scales.get(name, (1.0, 0.0))
        flat[name] = (value.astype(np.float64) * scale + minimum).astype(np.float32)
    return _folded(io.unflatten(flat))


def _folded(tree: dict) -> dict:
    """Each convolution with the scale and shift after it as one convolution."""
    if "conv" in tree and "scale" in tree:
        scale = tree["scale"]["weights"]
        bias = tree["conv"]["bias"] * scale + tree["scale"]["biases"]
        return {"kernel": tree["conv"]["filters"] * scale, "bias": bias}
    return {name: _folded(value) if isinstance(value, dict) else value for name, value in tree.items()}
