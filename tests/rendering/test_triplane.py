"""Triplane lookup against a plain NumPy reference, and its gradients against finite differences of that reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from rtgaze_jax.rendering.triplane import EG3D_AXES, TRUE_AXES, sample_planes

BOX = 0.8
sample = jax.jit(sample_planes, static_argnames="axes")
COLUMN_ROW = {TRUE_AXES: ((0, -1), (0, 2), (2, -1)), EG3D_AXES: ((0, 1), (0, 2), (2, 0))}  # -1: minus y


def reference(planes, points, axes):
    """Loops over everything, float64."""
    batch, _, height, width, channels = planes.shape
    out = np.zeros((*points.shape[:2], channels))
    for b in range(batch):
        for n, point in enumerate(points[b] * 2 / BOX):
            for plane, (column_axis, row_axis) in enumerate(COLUMN_ROW[axes]):
                x, y = (-point[1] if axis == -1 else point[axis] for axis in (column_axis, row_axis))
                x, y = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
                for i in (int(np.floor(x)), int(np.floor(x)) + 1):
                    for j in (int(np.floor(y)), int(np.floor(y)) + 1):
                        if 0 <= i < width and 0 <= j < height:
                            weight = (1 - abs(x - i)) * (1 - abs(y - j)) / 3
                            out[b, n] += weight * planes[b, plane, j, i]
    return out


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    planes = rng.normal(size=(2, 3, 5, 7, 4))  # not square, so that swapped axes show
    return planes, rng.uniform(-0.5, 0.5, (2, 40, 3))  # beyond the box of +-0.4 too


def f32(*arrays):
    return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


@pytest.mark.parametrize("axes", [TRUE_AXES, EG3D_AXES])
def test_against_reference(data, axes):
    planes, points = data
    np.testing.assert_allclose(sample(*f32(planes, points), BOX, axes), reference(planes, points, axes), atol=2e-6)


def test_first_plane_lies_on_a_frontal_image():
    image = np.random.default_rng(1).uniform(size=(6, 6))
    planes = np.zeros((1, 3, 6, 6, 1))
    planes[0, 0, :, :, 0] = image
    centers = ((np.arange(6) + 0.5) / 6 - 0.5) * BOX
    x, up = np.meshgrid(centers, -centers)  # row 0 is the top
    points = np.stack([x, up, np.full_like(x, 0.1)], axis=-1).reshape(1, 36, 3)
    seen = 3 * sample(*f32(planes, points), BOX)
    np.testing.assert_allclose(seen.reshape(6, 6), image, atol=1e-6)


def test_far_points_see_nothing(data):
    planes, _ = f32(*data)
    points = jnp.array([[[1e9, 1e9, -1e9], [2.0, 2.0, 2.0], [-jnp.inf, 9.0, 9.0]]] * 2)
    np.testing.assert_array_equal(sample(planes, points, BOX), 0)


def test_gradients_against_finite_differences(data):
    planes, points = data
    target = np.random.default_rng(2).normal(size=(2, 40, 4))

    def loss(planes, points):
        return jnp.sum(sample_planes(planes, points, BOX) * jnp.asarray(target, jnp.float32))

    planes_gradient, points_gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(*f32(planes, points))
    rng, step = np.random.default_rng(3), 1e-6
    for array, gradient in ((planes, planes_gradient), (points, points_gradient)):
        for flat in rng.integers(0, array.size, 12):
            where = np.unravel_index(flat, array.shape)
            ends = []
            for sign in (1, -1):
                moved = array.copy()
                moved[where] += sign * step
                new = (moved, points) if array is planes else (planes, moved)
                ends.append(np.sum(reference(*new, TRUE_AXES) * target))
            np.testing.assert_allclose(gradient[where], (ends[0] - ends[1]) / (2 * step), rtol=1e-3, atol=1e-4)


def test_low_precision_planes_gather_their_gradient_in_float32():
    planes = jnp.zeros((1, 3, 4, 4, 1), jnp.bfloat16)
    points = jnp.full((1, 3000, 3), BOX / 8)  # the centre of one pixel: in bfloat16 the sum of 3000 thirds stops at 64
    assert sample(planes, points, BOX).dtype == jnp.float32
    gradient = jax.grad(lambda p: jnp.sum(sample(p, points, BOX)))(planes)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(gradient[0, 0, 1, 2, 0], 1000, rtol=0.01)


def test_vmap(data):
    planes, points = f32(*data)
    expected = sample(planes, points, BOX)
    actual = jax.vmap(lambda p, x: sample(p[None], x[None], BOX)[0])(planes, points)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_a_batch_spread_over_devices_stays_there():
    """Neither the lookup nor its gradient may gather the planes of other devices."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    shapes = (jax.ShapeDtypeStruct((8, 3, 4, 4, 2), jnp.float32), jax.ShapeDtypeStruct((8, 5, 3), jnp.float32))
    gradient = jax.grad(lambda planes, points: jnp.sum(sample_planes(planes, points, BOX) ** 2))
    compiled = jax.jit(gradient, in_shardings=spread, out_shardings=spread).lower(*shapes).compile().as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in compiled
