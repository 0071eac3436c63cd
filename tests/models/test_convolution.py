"""Convolutions in other forms are the same convolutions; upsampling is the general resize."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax.models import layers
from rtgaze_jax.models.convolution import convolve, fitting

LAYOUT = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("size", "channels", "features", "stride", "dilation"),
    [
        (1, 6, 5, 1, 1),
        (1, 6, 5, 2, 1),
        (3, 6, 1, 1, 1),
        (3, 24, 3, 1, 1),
        (3, 6, 2, 2, 1),
        (3, 6, 2, 1, 2),
        (3, 6, 8, 1, 4),
        (3, 6, 8, 1, 12),
        (7, 5, 12, 2, 1),
        (3, 4, 12, 2, 1),
        (3, 34, 9, 1, 1),
    ],
)
def test_values_and_gradients_are_the_convolutions(dtype, size, channels, features, stride, dilation):
    keys = jax.random.split(jax.random.key(size + channels), 2)
    x = jax.random.normal(keys[0], (2, 9, 10, channels), dtype)
    kernel = (jax.random.normal(keys[1], (size, size, channels, features)) / size).astype(dtype)
    pad = dilation * (size // 2)
    options = {"rhs_dilation": (dilation, dilation), "lhs_dilation": (1, 1), "dimension_numbers": LAYOUT}

    def run(function):
        def apply(x, kernel):
            return function(x, kernel, (stride, stride), ((pad, pad), (pad, pad)), **options)

        out, pull = jax.vjp(apply, x, kernel)
        return out, *pull(jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape).astype(dtype))

    for actual, expected in zip(run(convolve), run(jax.lax.conv_general_dilated), strict=True):
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        a, b = (np.asarray(v, np.float64) for v in (actual, expected))
        assert np.linalg.norm(a - b) < (1e-6 if dtype == jnp.float32 else 5e-3) * np.linalg.norm(b)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 1), (2, 0))])
def test_one_channel_a_group_is_the_depthwise_convolution(dtype, padding):
    x = jax.random.normal(jax.random.key(0), (2, 9, 10, 6), dtype)
    kernel = jax.random.normal(jax.random.key(1), (3, 2, 1, 6), dtype)
    options = {"dimension_numbers": LAYOUT, "feature_group_count": 6}

    def run(function):
        out, pull = jax.vjp(lambda x, kernel: function(x, kernel, (1, 1), padding, **options), x, kernel)
        return out, *pull(jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape).astype(dtype))

    for actual, expected in zip(run(convolve), run(jax.lax.conv_general_dilated), strict=True):
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        a, b = (np.asarray(v, np.float64) for v in (actual, expected))
        assert np.linalg.norm(a - b) < (1e-6 if dtype == jnp.float32 else 5e-3) * np.linalg.norm(b)
    with pytest.raises(ValueError, match="groups"):
        convolve(x, kernel[..., :3], (1, 1), padding, dimension_numbers=LAYOUT, feature_group_count=3)


def test_channels_that_fit():
    assert [fitting(n) for n in (1, 5, 8, 12, 16, 24, 30, 32, 33, 48, 96)] == [8, 8, 8, 16, 16, 32, 32, 32, 40, 48, 96]


@pytest.mark.parametrize(("shape", "factor"), [((2, 5, 3, 4), 2), ((1, 4, 6, 1), 4), ((1, 1, 3, 2), 3)])
def test_growing_is_the_general_resize(shape, factor):
    x = jax.random.normal(jax.random.key(0), shape)
    larger = (shape[0], factor * shape[1], factor * shape[2], shape[3])
    actual, pull = jax.vjp(lambda x: layers.grow(x, factor), x)
    expected, reference = jax.vjp(lambda x: jax.image.resize(x, larger, "bilinear"), x)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    gradient = jax.random.normal(jax.random.key(1), larger)
    np.testing.assert_allclose(pull(gradient)[0], reference(gradient)[0], atol=1e-5)
    half = np.asarray(layers.grow(x.astype(jnp.bfloat16), factor), np.float32)
    np.testing.assert_allclose(half, expected, atol=4e-2)
    assert layers.grow(x, 1) is x
