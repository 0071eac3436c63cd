"""Image metrics against plain NumPy and closed forms (agreement with piq: tests/test_golden.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax.evaluation import metrics

ssim = jax.jit(metrics.ssim, static_argnames="downsample")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    a = rng.uniform(size=(2, 40, 32, 3)).astype(np.float32)
    return a, np.clip(a + rng.normal(0, [[[[0.1]]], [[[0.3]]]], a.shape), 0, 1).astype(np.float32)


def test_psnr(images):
    a, b = images
    expected = [10 * np.log10(1 / ((a[n] - b[n]) ** 2).mean()) for n in range(2)]
    np.testing.assert_allclose(metrics.psnr(*images), expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.psnr(a, a), 80, rtol=1e-5)


def test_masked_psnr(images):
    a, b = images
    mask = np.zeros(a.shape[:3], bool)
    mask[0, 5:20, 3:9] = True
    actual = metrics.masked_psnr(jnp.asarray(a), jnp.asarray(b), jnp.asarray(mask))
    expected = 10 * np.log10(1 / ((a[0] - b[0]) ** 2)[5:20, 3:9].mean())
    np.testing.assert_allclose(actual, [expected, np.nan], rtol=1e-5)
    everything = metrics.masked_psnr(jnp.asarray(a), jnp.asarray(b), jnp.ones(a.shape[:3], bool))
    np.testing.assert_allclose(everything, metrics.psnr(a, b), rtol=1e-5)


def test_ssim_against_loops(images):
    """The definition window by window, in float64."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))[..., None]
    window /= window.sum()
    a, b = (x[0].astype(np.float64) for x in images)
    values = []
    for i in range(40 - 10):
        for j in range(32 - 10):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mp, mq = (window * p).sum((0, 1)), (window * q).sum((0, 1))
            vp, vq = (window * (p - mp) ** 2).sum((0, 1)), (window * (q - mq) ** 2).sum((0, 1))
            covariance = (window * (p - mp) * (q - mq)).sum((0, 1))
            luminance = (2 * mp * mq + 1e-4) / (mp**2 + mq**2 + 1e-4)
            values.append(luminance * (2 * covariance + 9e-4) / (vp + vq + 9e-4))
    np.testing.assert_allclose(ssim(*images)[0], np.mean(values), rtol=1e-4)
    np.testing.assert_allclose(ssim(images[0], images[0]), 1, rtol=1e-5)


def test_ssim_downsamples_large_images_by_block_means(images):
    rng = np.random.default_rng(1)
    small = rng.uniform(size=(1, 200, 230, 3)).astype(np.float32)
    large = small.repeat(2, axis=1).repeat(2, axis=2)  # 400 x 460: blocks of 2
    other = np.clip(large + 0.2 * rng.uniform(-1, 1, large.shape), 0, 1).astype(np.float32)
    halved = (other[:, ::2, ::2] + other[:, 1::2, ::2] + other[:, ::2, 1::2] + other[:, 1::2, 1::2]) / 4
    np.testing.assert_allclose(ssim(large, other), ssim(small, halved), rtol=1e-5)
    assert abs(ssim(large, other, downsample=False) - ssim(large, other))[0] > 0.01
    np.testing.assert_array_equal(ssim(*images), ssim(*images, downsample=False))


def test_frechet_distance_of_known_gaussians():
    """Features whose sample covariance is exactly diagonal: the distance is |m|^2 + sum (s - t)^2."""
    rng = np.random.default_rng(2)
    base = rng.normal(size=(64, 5))
    base = np.linalg.qr(base - base.mean(axis=0))[0] * np.sqrt(63)  # mean 0, covariance the identity
    s, t, shift = np.array([1, 2, 3, 4, 5.0]), np.array([2, 2, 1, 4, 9.0]), np.array([1, 0, -2, 0, 0.5])
    expected = np.sum(shift**2) + np.sum((s - t) ** 2)
    for distance, tolerance in ((metrics.frechet_distance, 1e-9), (metrics.piq_frechet_distance, 2e-2)):
        assert distance(base * s, base * t + shift) == pytest.approx(expected, rel=tolerance)


def test_frechet_distance_of_fewer_samples_than_features():
    few = np.random.default_rng(3).normal(size=(10, 30))
    assert metrics.frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet_distance(few, few + 2) == pytest.approx(30 * 4)
