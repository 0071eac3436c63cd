"""Losses against plain NumPy, and the property that makes data parallelism exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax import losses
from rtgaze_jax.training.terms import LossWeights

reconstruction_loss = jax.jit(losses.reconstruction_loss)
gradient_loss = jax.jit(losses.gradient_loss, static_argnames="scales")


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    image, target = rng.uniform(-1, 1, (2, 4, 16, 16, 3)).astype(np.float32)
    face = rng.uniform(size=(4, 16, 16)) < 0.7
    eyes = face & (rng.uniform(size=(4, 16, 16)) < 0.2)
    return image, target, face, eyes


def test_reconstruction_weighs_regions(batch):
    image, target, face, eyes = batch
    expected = 0
    for n in range(4):
        error = np.abs(image[n] - target[n])
        expected += (error[face[n] & ~eyes[n]].mean() + 2 * error[eyes[n]].mean()) / 4
    actual = reconstruction_loss(*map(jnp.asarray, batch))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_background_does_not_matter(batch):
    image, target, face, eyes = map(jnp.asarray, batch)
    other = jnp.where(face[..., None], image, jnp.nan)
    depth = jnp.where(face, 2.5, jnp.inf)

    @jax.jit
    def loss(image):
        terms = losses.reconstruction_loss(image, target, face, eyes), losses.gradient_loss(image, target, face)
        return sum(terms)

    assert loss(other) == loss(image)
    assert losses.depth_loss(depth, depth, face) == 0
    gradient = jax.jit(jax.grad(loss))(other)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[~face], 0)


def test_small_and_empty_regions():
    values = jnp.full((1, 100, 100), 3.0)
    empty = jnp.zeros((1, 100, 100), bool)
    assert losses.masked_mean(values, empty) == 0
    assert losses.masked_mean(values, empty.at[0, 0, :10].set(True)) == pytest.approx(3)  # a thousandth of the image
    assert losses.masked_mean(values, empty.at[0, 0, 0].set(True)) == pytest.approx(0.3)  # a tenth of that
    assert np.isfinite(jax.grad(lambda v: losses.masked_mean(v, empty))(values)).all()


def test_depth_counts_known_pixels_only():
    target = jnp.array([[[2.5, 0.0], [2.4, 2.6]]])
    mask = jnp.array([[[True, True], [True, False]]])
    depth = jnp.array([[[2.7, 9.0], [2.4, 9.0]]])
    np.testing.assert_allclose(losses.depth_loss(depth, target, mask), 0.1, rtol=1e-5)


def test_opacity():
    mask = jnp.array([[[True, False]]])
    np.testing.assert_allclose(losses.opacity_loss(jnp.array([[[0.75, 0.5]]]), mask), (0.25 + 0.5) / 2)


def test_gradient_loss(batch):
    image, target, face, _ = batch
    assert gradient_loss(*map(jnp.asarray, (image, image + 0.3, face))) < 1e-6  # blind to brightness
    expected = []
    for scale in (1, 3):
        for axis in (1, 2):
            near, far = range(16 - scale), range(scale, 16)
            error = np.abs(np.take(image - target, far, axis) - np.take(image - target, near, axis))
            both = np.take(face, far, axis) & np.take(face, near, axis)
            expected.append(np.mean([error[n][both[n]].mean() for n in range(4)]))
    actual = gradient_loss(*map(jnp.asarray, (image, target, face)), scales=(1, 3))
    np.testing.assert_allclose(actual, np.mean(expected), rtol=1e-5)


def test_perceptual_compares_masked_features(batch):
    image, target, face, _ = map(jnp.asarray, batch)

    def features(x):
        return [x[..., :1] * 2, x.mean(axis=(1, 2), keepdims=True)]

    a, b = (np.asarray(x * face[..., None]) for x in (image, target))
    expected = 2 * np.abs(a - b)[..., 0].mean() + np.abs(a.mean(axis=(1, 2)) - b.mean(axis=(1, 2))).mean()
    np.testing.assert_allclose(losses.perceptual_loss(features, image, target, face), expected, rtol=1e-5)


def test_mean_over_shards_is_the_loss_of_the_batch(batch):
    """Masks of very different sizes: a mean over all masked pixels of a batch would fail this."""
    image, target, face, eyes = batch
    face[0, 2:] = False
    eyes[1] = False
    whole = list(map(jnp.asarray, (image, target, face, eyes)))
    shards = [[x[n : n + 1] for x in whole] for n in range(4)]
    for loss in (reconstruction_loss, lambda image, target, face, _: gradient_loss(image, target, face)):
        np.testing.assert_allclose(np.mean([loss(*s) for s in shards]), loss(*whole), rtol=1e-5)


PAPER = LossWeights().of(dict.fromkeys(("image", "depth", "perceptual")))


def test_total_has_the_papers_weights():
    terms = {"image": jnp.float32(1), "depth": jnp.float32(10), "perceptual": jnp.float32(100)}
    np.testing.assert_allclose(losses.total_loss(terms, PAPER), 91)
    np.testing.assert_allclose(losses.total_loss({"depth": jnp.float32(2)}, {"depth": 3.0}), 6)
    with pytest.raises(ValueError, match="perceptual"):
        losses.total_loss({"image": jnp.float32(1), "depth": jnp.float32(1)}, PAPER)
