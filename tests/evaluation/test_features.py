"""Feature networks: layers against NumPy, the shipped weights against values computed with PyTorch, distances by what
they must do."""

from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation.features import distances, identity, layers, lite0, load_perceptual, vgg
from rtgaze_jax.weights import io

# Corners of the astronaut's eyes and the base of her nose, in pixels, in the order of identity.MESH_POINTS.
ASTRONAUT_POINTS = np.float32([[255.4, 104.4], [236.9, 104.9], [195.5, 100.9], [213.2, 103.8], [222.9, 132.2]])


DISTANCE = jax.jit(lambda network, a, b, weight=None: network(a, b, weight))


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return np.asarray(Image.open(Path(__file__).parents[2] / "examples" / "astronaut.png").convert("RGB"))


@pytest.fixture(scope="module")
def perceptual():
    return load_perceptual()


def pattern(height: int, width: int, a, b, c) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return np.stack([np.sin(x / a[0] + y / a[1]), np.cos(x / b[0] - y / b[1]), np.sin(x * y / c)], -1)


def direct_conv(x, kernel, stride, pads, dilation):
    """A convolution by its definition: one image, one group."""
    x = np.pad(x, [pads, pads, (0, 0)])
    size = (kernel.shape[0] - 1) * dilation + 1
    rows = range(0, x.shape[0] - size + 1, stride)
    columns = range(0, x.shape[1] - size + 1, stride)
    window = [[x[r : r + size : dilation, c : c + size : dilation] for c in columns] for r in rows]
    return np.einsum("rchwi,hwio->rco", np.array(window), kernel)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "dilation", "pads"),
    [
        (3, 2, "SAME", 1, (0, 1)),  # TensorFlow pads more at the end
        (5, 2, "SAME", 1, (1, 2)),
        (3, 1, "SAME", 1, (1, 1)),
        (3, 2, 1, 1, (1, 1)),  # PyTorch pads both ends
        (3, 2, "VALID", 1, (0, 0)),
        (3, 1, 2, 2, (2, 2)),
    ],
)
def test_conv_against_its_definition(size, stride, padding, dilation, pads):
    rng = np.random.default_rng(0)
    x, kernel, bias = rng.normal(size=(8, 8, 3)), rng.normal(size=(size, size, 3, 4)), rng.normal(size=4)
    found = layers.conv(
        {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)},
        jnp.float32(x)[None],
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    np.testing.assert_allclose(found[0], direct_conv(x, kernel, stride, pads, dilation) + bias, rtol=1e-4, atol=1e-4)


def test_pools_at_the_border():
    ones = jnp.ones((1, 4, 4, 1))
    np.testing.assert_allclose(layers.average_pool(ones, 3, 1, 1, count_padding=False), ones)
    assert float(layers.average_pool(ones, 3, 1, 1)[0, 0, 0, 0]) == pytest.approx(4 / 9)
    np.testing.assert_array_equal(layers.max_pool(-ones, 3, 1, 1), -ones)  # the padding never wins


def test_unit_normalize_has_a_finite_gradient_at_zero():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(layers.unit_normalize(x), [[0.6, 0.8], [0, 0]], atol=1e-6)
    assert np.isfinite(jax.jacobian(layers.unit_normalize)(x)).all()


def test_lite0_against_pytorch(perceptual):
    """Values from the float32 network in PyTorch; the shipped weights are float16."""
    image = jnp.float32(pattern(64, 96, (7, 11), (5, 13), 400))[None]
    stages = jax.jit(lambda p, x: lite0.lite0_stages(p, x, ("block2", "block11")))(perceptual.params, image)
    np.testing.assert_allclose(stages["block2"][0, 5, 7, :4], [3.86973, 13.94682, -4.73105, 6.46156], atol=0.06)
    pooled = stages[lite0.FRECHET_TAP].mean((1, 2))[0, :6]
    np.testing.assert_allclose(pooled, [-1.62590, 0.45298, 0.13003, 0.78608, -0.26643, -1.69781], atol=0.04)


def test_perceptual_distance(perceptual):
    rng = np.random.default_rng(0)
    image = pattern(64, 96, (9, 6), (4, 13), 300) * 0.8
    soft, softer = (cv2.GaussianBlur(image, (0, 0), s) for s in (1.0, 2.0))
    noisy = image + rng.normal(0, 0.05, image.shape)
    a, b = np.float32([image] * 4), np.float32([image, soft, softer, noisy])
    same, little, more, noise = DISTANCE(perceptual, a, b)
    assert abs(same) < 1e-6
    assert 0.001 < little < more < 2
    assert noise > 0.01
    np.testing.assert_allclose(DISTANCE(perceptual, b, a), [same, little, more, noise], rtol=1e-3, atol=1e-6)
    half = jax.jit(lambda p, x, y: p(x, y, dtype=jnp.bfloat16))(perceptual, a, b)
    np.testing.assert_allclose(half[1:], [little, more, noise], rtol=0.1, atol=2e-3)
    assert [f.shape[1:] for f in jax.eval_shape(perceptual.features, a)] == [
        (32, 48, 32),
        (16, 24, 24),
        (8, 12, 40),
        (4, 6, 80),
        (4, 6, 112),
    ]


def test_perceptual_gradient_and_weight(perceptual):
    a = jnp.float32(pattern(64, 64, (9, 6), (4, 13), 300))[None]
    b = a.at[:, :, 48:].add(0.3)
    left = jnp.zeros((1, 64, 64)).at[:, :, :8].set(1.0)
    gradient = jax.jit(jax.grad(lambda p, x, y: p(x, y).sum(), argnums=1))
    assert np.abs(gradient(perceptual, a, a)).max() < 1e-5  # finite, and zero at the minimum
    g = gradient(perceptual, a, b)
    assert np.isfinite(g).all()
    assert np.abs(g).max() > 1e-5
    weights = jnp.concatenate([jnp.ones((1, 64, 64)), left, jnp.zeros((1, 64, 64))])
    everywhere, masked, nowhere = DISTANCE(perceptual, jnp.repeat(a, 3, 0), jnp.repeat(b, 3, 0), weights)
    np.testing.assert_allclose(everywhere, DISTANCE(perceptual, a, b)[0], rtol=1e-5)
    assert masked < 0.3 * everywhere  # the change lies outside the mask; only the deepest levels see that far
    assert nowhere == 0


def test_load_perceptual_refuses_other_files(tmp_path):
    with pytest.raises(UserError, match="no perceptual network"):
        load_perceptual(io.SHIPPED / "face_embedding.safetensors")
    with pytest.raises(UserError):
        load_perceptual(tmp_path / "missing.safetensors")


def tiny_vgg() -> dict:
    rng = np.random.default_rng(1)
    params, channels = {}, 3
    for i, name in enumerate(vgg.CONV_NAMES):
        width = 4 + i
        kernel = rng.normal(0, 0.3, (3, 3, channels, width)).astype(np.float32)
        params[name] = {"kernel": kernel, "bias": np.zeros(width, np.float32)}
        channels = width
    return params


def test_lpips_by_its_formula():
    """Against the formula in NumPy on the network's own features."""
    params = tiny_vgg()
    heads = {tap: np.linspace(0, 1, params[tap]["bias"].size, dtype=np.float32) for tap in vgg.LPIPS_TAPS}
    rng = np.random.default_rng(2)
    a, b = (rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32) for _ in range(2))
    expected = np.zeros(2)
    stages = jax.jit(lambda p, x: vgg.vgg_stages(p, x, vgg.LPIPS_TAPS))
    fa, fb = (stages(params, x) for x in (a, b))
    for tap, weights in heads.items():
        x, y = (np.float64(f[tap]) for f in (fa, fb))
        x, y = (v / (np.sqrt((v**2).sum(-1, keepdims=True)) + 1e-10) for v in (x, y))
        expected += ((x - y) ** 2 @ weights).mean((1, 2))
    np.testing.assert_allclose(jax.jit(vgg.lpips)(params, heads, a, b), expected, rtol=1e-4)
    np.testing.assert_allclose(jax.jit(vgg.lpips)(params, heads, a, a), 0, atol=1e-7)


def test_shipped_lpips_heads():
    heads, header = io.load(io.SHIPPED / "lpips_vgg.safetensors")
    assert header["licence"] == "BSD-2-Clause"
    assert {tap: heads[tap].shape for tap in heads} == dict(
        zip(vgg.LPIPS_TAPS, [(64,), (128,), (256,), (512,), (512,)], strict=True)
    )
    assert all((head >= 0).all() for head in heads.values())  # LPIPS keeps its weights non-negative


def test_vgg_and_inception_files_are_named_in_errors(tmp_path):
    image = np.zeros((1, 32, 32, 3), np.uint8)
    for function, kind in (
        (lambda f: distances.lpips_vgg(image, image, f), "vgg16"),
        (lambda f: distances.inception_features(image, f), "inception_fid"),
    ):
        with pytest.raises(UserError, match=f"weights convert {kind}"):
            function(io.SHIPPED / "lite0_features.safetensors")


def test_face_embedding_against_pytorch():
    chip = jnp.float32(pattern(150, 150, (17, 31), (25, 13), 4000))[None]
    found = jax.jit(identity.face_embedding)(identity.load_face_embedding(), chip)[0]
    expected = [-0.04481865, 0.11929719, 0.0531342, -0.05545566, -0.09559394, -0.00824098]
    np.testing.assert_allclose(found[:6], expected, atol=1e-5)
    assert float(jnp.linalg.norm(found)) == pytest.approx(1.2886, abs=1e-4)


def test_similarity_finds_a_known_transform():
    angle, scale, shift = 0.4, 1.7, np.array([3.0, -5.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.float32(ASTRONAUT_POINTS)[None]
    found = identity.similarity(points, np.float32(points @ turn.T + shift))[0]
    np.testing.assert_allclose(found, np.concatenate([turn, shift[:, None]], 1), rtol=1e-3, atol=0.05)


def test_chips_put_the_points_where_dlib_wants_them():
    """Dots at the five points of a turned, scaled template must land on the template."""
    matrix = cv2.getRotationMatrix2D((75, 75), 20, 1.5)
    points = identity.CHIP_POINTS @ matrix[:, :2].T + matrix[:, 2] + 40
    y, x = np.mgrid[:256, :256] + 0.5
    dots = np.exp(-((x - points[:, 0, None, None]) ** 2 + (y - points[:, 1, None, None]) ** 2) / 18)
    images = np.float32(np.repeat(dots[..., None], 3, -1))
    chips = jax.jit(identity.face_chips)(images, np.repeat(np.float32(points)[None], 5, 0))
    rows, columns = np.mgrid[:150, :150] + 0.5
    for chip, goal in zip(np.asarray(chips[..., 0]), identity.CHIP_POINTS, strict=True):
        found = np.array([(columns * chip).sum(), (rows * chip).sum()]) / chip.sum()
        np.testing.assert_allclose(found, goal, atol=0.05)


def test_identity_tells_the_same_person_from_another_face(astronaut):
    """The same photo turned, dimmed, mirrored stays close; features moved within the face (another geometry) do not."""
    matrix = cv2.getRotationMatrix2D((256, 256), 15, 0.8)
    turned = cv2.warpAffine(astronaut, matrix, (512, 512))
    mirrored = np.ascontiguousarray(astronaut[:, ::-1])
    mirror_points = (ASTRONAUT_POINTS * [-1, 1] + [512, 0])[[2, 3, 0, 1, 4]]
    stretched = cv2.resize(astronaut, (512, 340))[:, :512]
    stretched = np.pad(stretched, ((0, 172), (0, 0), (0, 0)))
    images = np.stack([turned, astronaut // 2, mirrored, stretched])
    points = np.stack(
        [
            ASTRONAUT_POINTS @ matrix[:, :2].T + matrix[:, 2],
            ASTRONAUT_POINTS,
            mirror_points,
            ASTRONAUT_POINTS * [1, 340 / 512],
        ]
    )
    same = np.stack([astronaut] * 4), np.stack([ASTRONAUT_POINTS] * 4)
    distance = distances.identity_distance(same[0], images, same[1], points)
    cosine = distances.identity_cosine(same[0], images, same[1], points)
    assert (distance[:3] < 0.25).all()
    assert (cosine[:3] > 0.98).all()
    assert distance[3] > 1.5 * distance[:3].max()
    assert cosine[3] < cosine[:3].min()


def test_batches_do_not_change_results(astronaut):
    crops = np.stack([astronaut[y : y + 96, 170:266] for y in (40, 60, 80)])
    blurred = np.stack([cv2.GaussianBlur(crop, (0, 0), 1.5) for crop in crops])
    together = distances.perceptual_lite0(crops, blurred, batch=3)
    np.testing.assert_allclose(distances.perceptual_lite0(crops, blurred, batch=2), together, rtol=1e-4)
    features = distances.lite0_features(np.concatenate([crops, blurred]), batch=4)
    assert features.shape == (6, 192)
    assert distances.frechet_lite0(features[:3], features[:3]) == pytest.approx(0, abs=1e-3)
    assert distances.frechet_lite0(features[:3], features[3:]) > 1
