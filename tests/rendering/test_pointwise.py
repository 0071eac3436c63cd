"""A cheap softplus, and evaluation in pieces."""

import jax
import jax.numpy as jnp
import numpy as np

from rtgaze_jax.rendering import pointwise


def test_softplus():
    x = np.concatenate([np.linspace(-30, 30, 4001), [-90, 0, 90, 1e4, -1e4]]).astype(np.float32)
    exact = np.logaddexp(x.astype(np.float64), 0)
    np.testing.assert_allclose(jax.jit(pointwise.softplus)(x), exact, rtol=5e-7, atol=1e-38)
    slope = jax.vmap(jax.grad(pointwise.softplus))(jnp.asarray(x))
    np.testing.assert_allclose(slope, 0.5 + 0.5 * np.tanh(x.astype(np.float64) / 2), rtol=1e-5, atol=1e-6)
    assert np.isnan(pointwise.softplus(jnp.float32(jnp.nan)))
    half = jnp.asarray(x, jnp.bfloat16)
    actual = np.asarray(pointwise.softplus(half), np.float64)
    np.testing.assert_allclose(actual, np.logaddexp(np.asarray(half, np.float64), 0), rtol=2**-8, atol=1e-38)


def test_pieces_make_no_difference(monkeypatch):
    monkeypatch.setattr(pointwise, "_MANY", 32)
    weights = jax.random.normal(jax.random.key(0), (3, 4))
    points = jax.random.normal(jax.random.key(1), (2, 96, 3))
    seen = []

    def function(weights, points):
        seen.append(points.shape)
        return jnp.sin(points @ weights), {"first": points[..., 0] ** 2}

    for count, pieces in ((96, 32), (95, 1)):  # 95 has no factor of two
        seen.clear()
        run = jax.jit(lambda w, x: pointwise.in_pieces(function, w, x)).lower(weights, points[:, :count]).compile()
        actual = run(weights, points[:, :count])
        assert (2, count // pieces, 3) in seen
        assert ("while(" in run.as_text()) == (pieces > 1)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), actual, function(weights, points[:, :count])
        )

    def loss(evaluate, weights, points):
        waves, squares = evaluate(weights, points)
        return jnp.sum(waves**3) + jnp.sum(jnp.cos(squares["first"]))

    expected = jax.grad(loss, argnums=(1, 2))(function, weights, points)
    seen.clear()
    in_pieces = jax.grad(loss, argnums=(1, 2))(lambda w, x: pointwise.in_pieces(function, w, x), weights, points)
    assert set(seen) == {(2, 96, 3)}  # differentiated at once
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), in_pieces, expected)


def test_waves():
    """Quarters of the box's side, then a sine and a cosine of each frequency."""
    x, y, z = point = np.array([0.1, -0.2, 0.05])
    r = np.sqrt(x * x + y * y + z * z)
    scaled = np.array([x, y, z, r]) / 0.2
    expected = np.concatenate([scaled, *(f(m * scaled) for m in (2.0, 4.0) for f in (np.sin, np.cos))])
    np.testing.assert_allclose(pointwise.waves(jnp.asarray(point), 0.8, (2.0, 4.0)), expected, atol=2e-5)
    assert np.isfinite(jax.grad(lambda p: pointwise.waves(p, 0.8, (2.0,)).sum())(jnp.zeros(3))).all()
