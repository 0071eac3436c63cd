"""Layers against closed forms and plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from rtgaze_jax.geometry.camera import frontal_camera, orbit_camera, project
from rtgaze_jax.models import layers, superres
from rtgaze_jax.models.crops import sample_image, source_colours
from rtgaze_jax.models.eyes import feather, paste_patches, take_patches
from rtgaze_jax.models.pose import frontal_points, rotation_from_6d, soft_argmax
from rtgaze_jax.rendering.rays import camera_rays


def test_chunked_attention_equals_whole_attention(monkeypatch):
    q, k, v = (jax.random.normal(jax.random.key(i), (2, n, 3, 8)) for i, n in enumerate((64, 40, 40)))
    whole = layers.attention(q, k, v)
    grad = jax.grad(lambda q: (layers.attention(q, k, v) ** 2).sum())
    expected = grad(q)
    monkeypatch.setattr(layers, "MAX_ATTENTION_MAP", 2 * 16 * 40 * 3)
    jaxpr = str(jax.make_jaxpr(layers.attention)(q, k, v))
    assert "2,3,64,40" not in jaxpr.replace(" ", ""), "the whole attention map exists"
    np.testing.assert_allclose(layers.attention(q, k, v), whole, atol=1e-5)
    np.testing.assert_allclose(grad(q), expected, atol=1e-4)


def test_pixel_shuffle_follows_pytorch():
    x = np.arange(2 * 3 * 5 * 8, dtype=np.float32).reshape(2, 3, 5, 8)
    expected = np.zeros((2, 6, 10, 2), np.float32)
    for c in range(2):
        for i in range(2):
            for j in range(2):
                expected[:, i::2, j::2, c] = x[..., c * 4 + i * 2 + j]
    np.testing.assert_array_equal(layers.pixel_shuffle(jnp.asarray(x)), expected)


def test_coordinates_are_pixel_centres_column_first():
    x = layers.with_coordinates(jnp.zeros((1, 2, 4, 1)))
    np.testing.assert_allclose(x[0, 0, :, 1], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(x[0, :, 0, 2], [-0.5, 0.5])


def test_upsampling_keeps_constants_and_ramps():
    row = jnp.arange(8.0)
    image = jnp.broadcast_to(row[None, None, :, None], (1, 8, 8, 1))
    up = superres.upsample(image)
    assert up.shape == (1, 16, 16, 1)
    # away from the zero-padded border a ramp stays linear: centres of the doubled grid lie at (i + 0.5) / 2 - 0.5

    np.testing.assert_allclose(up[0, 8, 4:12, 0], (np.arange(4, 12) + 0.5) / 2 - 0.5, atol=1e-5)


def test_up_convolution_is_a_transposed_convolution_then_the_filter():
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 2)).astype(np.float32)
    module = superres.UpConv(3)
    params = module.init(jax.random.key(0), x)
    kernel = np.asarray(params["params"]["kernel"])  # [3, 3, in, out]
    spread = np.zeros((1, 9, 11, 3), np.float32)
    for i in range(4):
        for j in range(5):
            for a in range(3):
                for b in range(3):
                    # flax's ConvTranspose (transpose_kernel=False) correlates: tap (a, b) lands mirrored
                    spread[0, 2 * i + a, 2 * j + b] += x[0, i, j] @ kernel[2 - a, 2 - b]
    taps = np.array([1, 3, 3, 1]) / 4
    padded = np.pad(spread, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(taps[a] * taps[b] * padded[:, a : a + 8, b : b + 10] for a in range(4) for b in range(4))
    np.testing.assert_allclose(module.apply(params, x), expected, atol=1e-4)


def test_the_source_sees_its_own_pixels_at_any_depth_and_another_camera_where_the_point_is():
    image = jax.random.uniform(jax.random.key(0), (1, 16, 16, 3))
    camera, other = frontal_camera()[None], orbit_camera(20.0, 5.0)[None]
    start, direction = camera_rays(camera, 16)
    for depth in (2.2, 2.9):
        points = (start + direction * depth).reshape(1, -1, 3)
        np.testing.assert_allclose(source_colours(points, image, camera), image.reshape(1, -1, 3), atol=1e-4)
    inside = points * 0.2  # near the origin, which both cameras look at
    seen = sample_image(image, project(inside, other)[0])
    np.testing.assert_allclose(source_colours(inside, image, other), seen, atol=1e-6)
    assert float(jnp.abs(jax.grad(lambda p: source_colours(p, image, camera).sum())(points)).max()) == 0


def test_patches_come_back_where_they_were_taken():
    image = jax.random.uniform(jax.random.key(0), (2, 20, 24, 3))
    origins = jnp.array([[[2, 3], [10, 12]], [[0, 0], [14, 16]]])
    patches = take_patches(image, origins, (6, 8))
    np.testing.assert_array_equal(patches[0, 1], image[0, 10:16, 12:20])
    np.testing.assert_allclose(paste_patches(image, patches, jnp.ones((2, 2, 6, 8, 1)), origins), image, atol=1e-6)
    blank = paste_patches(image, patches * 0, jnp.broadcast_to(feather((6, 8)), (2, 2, 6, 8, 1)), origins)
    assert float(jnp.abs(blank - image).max()) > 0.1
    np.testing.assert_array_equal(blank[0, 16:], image[0, 16:])


def test_bilinear_lookup_at_pixel_centres_and_between():
    image = jnp.arange(12.0).reshape(1, 3, 4, 1)
    uv = jnp.array([[[0.125, 1 / 6], [0.25, 1 / 6], [0.125, 1 / 3], [-1.0, -1.0]]])
    np.testing.assert_allclose(sample_image(image, uv)[0, :, 0], [0.0, 0.5, 2.0, 0.0], atol=1e-5)


def test_six_numbers_give_a_rotation():
    r = rotation_from_6d(jax.random.normal(jax.random.key(0), (5, 6)) * 0.3)
    np.testing.assert_allclose(r @ jnp.swapaxes(r, -1, -2), np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.det(r), 1.0, atol=1e-5)
    np.testing.assert_allclose(rotation_from_6d(jnp.zeros(6)), np.eye(3))


def test_points_of_the_frontal_camera_project_back():
    uv = jax.random.uniform(jax.random.key(1), (3, 2, 2))
    points = frontal_points(uv, jnp.full((3, 2), -0.2))
    np.testing.assert_allclose(project(points, jnp.broadcast_to(frontal_camera(), (3, 25)))[0], uv, atol=1e-5)


def test_soft_argmax_finds_a_peak():
    logits = jnp.zeros((1, 8, 16, 1)).at[0, 2, 11, 0].set(50.0)
    np.testing.assert_allclose(soft_argmax(logits)[0, 0], [11.5 / 16, 2.5 / 8], atol=1e-4)


def test_a_fresh_residual_block_is_its_shortcut():
    block = layers.ResidualBlock(8)
    x = jnp.abs(jax.random.normal(jax.random.key(0), (1, 8, 8, 8)))
    np.testing.assert_allclose(block.apply(block.init(jax.random.key(0), x), x), x)
