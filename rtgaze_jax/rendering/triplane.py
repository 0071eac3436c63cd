"""Bilinear lookup of 3D points in three feature planes."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rtgaze_jax.geometry.camera import Scalar

Axes = tuple[tuple[str, str], ...]

TRUE_AXES: Axes = (("x", "-y"), ("x", "z"), ("z", "-y"))
"""The coordinates that index the columns and rows of each plane: xy, xz, zy. World y is up and rows run down, so y is
negated: the first plane lies on a frontal image pixel by pixel."""
EG3D_AXES: Axes = (("x", "y"), ("x", "z"), ("z", "x"))
"""EG3D's own axes, for its weights: the first plane is upside down and the third is the second transposed."""


def sample_planes(
    planes: Float[Array, "batch planes height width channels"],
    points: Float[Array, "batch points 3"],
    box_warp: Scalar,
    axes: Axes = TRUE_AXES,
) -> Float[Array, "batch points channels"]:
    """Mean over the planes of their bilinearly interpolated features at 3D points, zero outside the planes.

    Planes are read in their own type; sums are made and returned in float32, and so is the planes' gradient before it
    gets their type (scattering into bfloat16 is slow on GPUs and loses small parts).

    Args:
        planes: feature planes, channels last, edges at the borders of the outer pixels (align_corners=False).
        points: positions relative to the centre of the box that the planes span.
        box_warp: side of that box, in the unit of `points`.
        axes: which coordinates index each plane, TRUE_AXES or EG3D_AXES.
    """
    return _lookup(planes, points.astype(jnp.float32) * (2 / box_warp), axes)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _lookup(planes, coordinates, axes):
    height, width = planes.shape[2:4]
    total = 0.0
    for index, weight in corners(_xyz(coordinates), axes, height, width):
        total = total + weight[..., None] * _take_rows(_rows(planes), index)
    return total


def _lookup_forward(planes, coordinates, axes):
    # Indices and weights are cheap to make again and twelve times the size of the coordinates: they are not kept.
    return _lookup(planes, coordinates, axes), (planes, coordinates)


def _lookup_backward(axes, residuals, gradient):
    planes, coordinates = residuals
    height, width = planes.shape[2:4]
    table = _rows(planes)
    table_gradient = jnp.zeros(table.shape, jnp.float32)
    weight_gradients = []
    for index, weight in corners(_xyz(coordinates), axes, height, width):
        table_gradient = _add_rows(table_gradient, index, weight[..., None] * gradient)
        weight_gradients.append(jnp.sum(gradient * _take_rows(table, index), axis=-1))
    _, pull = jax.vjp(lambda c: [weight for _, weight in corners(_xyz(c), axes, height, width)], coordinates)
    return table_gradient.reshape(planes.shape).astype(planes.dtype), *pull(weight_gradients)


_lookup.defvjp(_lookup_forward, _lookup_backward)


def corners(
    xyz: tuple[Float[Array, "*points"], Float[Array, "*points"], Float[Array, "*points"]],
    axes: Axes,
    height: int,
    width: int,
) -> Iterator[tuple[Int[Array, "*points"], Float[Array, "*points"]]]:
    """For every plane and each of the four pixels around a point: its row in the table of all pixels, and its weight.

    Weights include the mean over the planes and are zero for pixels outside. `xyz`: coordinates, -1 to 1 in the box.
    """
    for plane, (column_axis, row_axis) in enumerate(axes):
        # Clipping far points keeps the cast to integers defined; two pixels outside all weights are zero anyway.
        column = jnp.clip(_pixel(xyz, column_axis, width), -2, width + 1)
        row = jnp.clip(_pixel(xyz, row_axis, height), -2, height + 1)
        left, top = jnp.floor(column), jnp.floor(row)
        for x, x_weight in ((left, left + 1 - column), (left + 1, column - left)):
            for y, y_weight in ((top, top + 1 - row), (top + 1, row - top)):
                inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
                index = (plane * height + y.astype(jnp.int32)) * width + x.astype(jnp.int32)
                yield jnp.where(inside, index, 0), jnp.where(inside, x_weight * y_weight * (1 / len(axes)), 0.0)


def _pixel(xyz, axis, size):
    value = xyz["xyz".index(axis[-1])]
    return ((1 - value if axis[0] == "-" else 1 + value) * size - 1) * 0.5


def _xyz(coordinates):
    return coordinates[..., 0], coordinates[..., 1], coordinates[..., 2]


def _rows(planes):
    return planes.reshape(planes.shape[0], -1, planes.shape[-1])


# The batch is a dimension of gather and scatter, not part of the index: a batch spread over devices stays where it is.
@jax.vmap
def _take_rows(table, index):
    return table.at[index].get(mode="promise_in_bounds")


@jax.vmap
def _add_rows(table, index, rows):
    return table.at[index].add(rows, mode="promise_in_bounds")
