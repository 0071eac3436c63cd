"""The fused field as a Pallas kernel (Triton backend, NVIDIA GPUs): lookup in three planes and decoder.

One program does a block of points: twelve rows of the table of all pixels per point, their weighted sum, waves of the
place if the decoder wants them, small matrix products on the tensor cores. Neither the features nor the hidden layers
ever exist in the card's memory.

This module needs jax.experimental.pallas.triton, which JAX has deprecated since 0.11 without an equal for gathers;
rendering/kernels.py, which alone imports it, does without it where it is missing.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from rtgaze_jax.rendering.pointwise import NEAREST
from rtgaze_jax.rendering.triplane import Axes, corners

LOG2_E = 1 / math.log(2)
WIDENED, SHIFT = 1.002, -0.001  # of the colours' sigmoid: EG3D's (MipNeRF's) constants
_SMALLEST = 16  # a side of a matrix for the tensor cores


class Weights(NamedTuple):
    """A decoder, the density's output apart from the colours'. Sides are powers of two, padded with zeros (see
    `padded`)."""

    hidden: Float[Array, "C H"]
    hidden_bias: Float[Array, "H"]
    place: tuple[Float[Array, "Q H"], ...]  # the first layer's rows for waves of the place, if there are any
    deeper: tuple[tuple[Float[Array, "H H"], Float[Array, "H"]], ...]  # further hidden layers, kernels and biases
    density: Float[Array, "H"]
    density_bias: Float[Array, "1"]
    colour: Float[Array, "H F"]
    colour_bias: Float[Array, "F"]


class Launch(NamedTuple):
    """How the kernel is laid out on the card: points, and warps of 32 threads, per program."""

    block: int
    warps: int


class Plan(NamedTuple):
    """What is known before any number is. `dtype`: of the matrix products' inputs; sums are float32."""

    axes: Axes
    colours: int  # 0: density alone
    dtype: str
    launch: Launch
    interpret: bool  # run as plain JAX operations, anywhere, slowly
    place: tuple[float, ...] = ()  # frequencies: see pointwise.waves


def padded(side: int) -> int:
    """The side of a matrix as the kernel wants it: a power of two, 16 at least."""
    return max(_SMALLEST, 1 << (side - 1).bit_length())


def forward(
    planes: Float[Array, "B P H W C"], coordinates: Float[Array, "B N 3"], weights: Weights, plan: Plan
) -> tuple[Float[Array, "B N"], Float[Array, "B N F"]]:
    """Densities and plan.colours colours at `coordinates`, -1 to 1 in the box.

    To the compiler the kernel is a closed box: it would gather a batch spread over devices on every one of them.
    """
    batch, points = coordinates.shape[:2]
    out = [jax.ShapeDtypeStruct((batch, points), jnp.float32)]
    if plan.colours:
        out.append(jax.ShapeDtypeStruct((batch, points, plan.colours), jnp.float32))
    inputs = (coordinates, planes.reshape(batch, -1, planes.shape[-1]))
    shared, tree = jax.tree.flatten(_rounded(weights, plan.dtype))
    densities, *colours = pl.pallas_call(
        partial(_kernel, plan=plan, shape=planes.shape[1:], tree=tree),
        out_shape=out,
        grid=(math.ceil(points / plan.launch.block), batch),
        in_specs=[*(_one(x.shape) for x in inputs), *(_whole(w.shape) for w in shared)],
        out_specs=[_one(x.shape) for x in out],
        interpret=plan.interpret,
        compiler_params=triton.CompilerParams(num_warps=plan.launch.warps, num_stages=1),
        name="field",
    )(*inputs, *shared)
    return densities, colours[0] if colours else jnp.zeros((batch, points, 0))


def _kernel(coordinates, table, *refs, plan, shape, tree):
    """`coordinates` [N, 3], `table` [P*H*W, C], the weights (a `tree` of them), and to write densities [N] and maybe
    colours [N, F]."""
    count = tree.num_leaves
    weights, (densities, *colours) = jax.tree.unflatten(tree, refs[:count]), refs[count:]
    # all matrices first: fewer barriers
    first = [kernel[...] for kernel in (weights.hidden, *weights.place)]
    deeper = [kernel[...] for kernel, _ in weights.deeper]
    colour = weights.colour[...]
    rows = pl.program_id(0) * plan.launch.block + jnp.arange(plan.launch.block)
    valid = rows < coordinates.shape[0]
    inputs = _lookup(coordinates, table, rows, valid, [kernel.shape[0] for kernel in first], plan, shape)
    total = sum(_dot(values, kernel) for values, kernel in zip(inputs, first, strict=True))
    inner = _softplus(total + weights.hidden_bias[...][None, :], plan)
    for kernel, (_, bias) in zip(deeper, weights.deeper, strict=True):
        inner = _softplus(_dot(inner.astype(plan.dtype), kernel) + bias[...][None, :], plan)
    density = jnp.sum(inner * weights.density[...][None, :], axis=1) + weights.density_bias[...]
    triton.store(densities.at[rows], density, mask=valid)
    if colours:
        wanted = jnp.arange(colour.shape[1])
        out = _dot(inner.astype(plan.dtype), colour) + weights.colour_bias[...][None, :]
        seen = valid[:, None] & (wanted < plan.colours)[None, :]
        triton.store(colours[0].at[rows[:, None], wanted[None, :]], _sigmoid(out, plan) * WIDENED + SHIFT, mask=seen)


def _lookup(coordinates, table, rows, valid, widths, plan, shape):
    """What the decoder reads of the points `rows`, in the type of the products, each [points, one of `widths`]: the
    features (the mean over the planes), zero in the padding, and maybe waves of the place."""
    planes_height_width, channels = shape[1:3], shape[3]
    padded_channels = widths[0]
    channel = jnp.arange(padded_channels)
    x, y, z = (triton.load(coordinates.at[rows, axis], mask=valid, other=0.0) for axis in range(3))

    def read():
        total = jnp.zeros((*rows.shape, padded_channels), jnp.float32)
        there = None if channels == padded_channels else jnp.broadcast_to(channel < channels, total.shape)
        other = None if there is None else 0.0
        for index, weight in corners((x, y, z), plan.axes, *planes_height_width):
            values = triton.load(table.at[index[:, None], channel[None, :]], mask=there, other=other)
            total = _fma(plan, jnp.broadcast_to(weight[:, None], total.shape), values.astype(jnp.float32), total)
        return [total.astype(plan.dtype), *(_waves(x, y, z, width, plan).astype(plan.dtype) for width in widths[1:])]

    # Triton cannot know that the condition always holds. Else it would move the change from the layout of loads to that
    # of the matrix units to before the sum, to each of the twelve loads: twice the instructions and registers.
    nothing = [jnp.zeros((*rows.shape, width), plan.dtype) for width in widths]
    return jax.lax.cond(pl.program_id(0) >= 0, read, lambda: nothing)


def _waves(x, y, z, width, plan):
    """pointwise.waves of the points in its first columns, [points, width]; in the others numbers without meaning."""
    x, y, z = 2 * x, 2 * y, 2 * z
    distance = _root(plan, x * x + y * y + z * z + NEAREST)
    column = jnp.arange(width)[None, :]
    values = jnp.broadcast_to(distance[:, None], (*x.shape, width))
    for at, value in enumerate((x, y, z)):
        values = jnp.where(column % 4 == at, value[:, None], values)
    group = column // 4  # the values themselves, then a sine and a cosine of each frequency
    turns = jnp.zeros((1, width), jnp.float32)
    for at, frequency in enumerate(plan.place):
        turns = jnp.where((group - 1) // 2 == at, frequency / (2 * math.pi), turns)
    turns = values * turns + jnp.where(group % 2 == 0, 0.25, 0.0)  # a cosine is a sine a quarter of a turn ahead
    turns = turns - jnp.floor(turns + 0.5)  # the instruction is exact near zero
    return jnp.where(group == 0, values, _sine(plan, turns * (2 * math.pi)))


def _softplus(x, plan):
    rest = 1 + _exp2(plan, jnp.abs(x) * -LOG2_E)
    return _fma(plan, _log2(plan, rest), jnp.full_like(x, 1 / LOG2_E), jnp.maximum(x, 0))


def _sigmoid(x, plan):
    return _reciprocal(plan, 1 + _exp2(plan, x * -LOG2_E))


def _instruction(name, meaning):
    """A PTX instruction of float32 operands, or in the interpreter what it means.

    Triton would call library functions of twenty instructions, and XLA keeps it from fusing products with sums.
    """

    def apply(plan, *operands):
        if plan.interpret:
            return meaning(*operands)
        code = ", ".join([f"{name} $0", *(f"${i + 1}" for i in range(len(operands)))]) + ";"
        [result] = triton.elementwise_inline_asm(
            code,
            args=operands,
            constraints=",".join(["=f"] + ["f"] * len(operands)),
            pack=1,
            result_shape_dtypes=[jax.ShapeDtypeStruct(operands[0].shape, jnp.float32)],
        )
        return result

    return apply


_fma = _instruction("fma.rn.f32", lambda a, b, c: a * b + c)
_exp2 = _instruction("ex2.approx.ftz.f32", jnp.exp2)  # these three to a relative error of 2^-22
_log2 = _instruction("lg2.approx.ftz.f32", jnp.log2)
_reciprocal = _instruction("rcp.approx.ftz.f32", lambda x: 1 / x)
_root = _instruction("sqrt.approx.ftz.f32", jnp.sqrt)
_sine = _instruction("sin.approx.ftz.f32", jnp.sin)  # within half a turn to 2^-20.5


def _dot(a, b):
    # Full float32 products for float32 inputs, not Triton's default of ten bits of mantissa.
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)


def _rounded(weights: Weights, dtype: str) -> Weights:
    """Weights as the computation sees them: matrices in `dtype`; vectors too, but held in float32."""
    return jax.tree.map(lambda w: w.astype(dtype) if w.ndim == 2 else w.astype(dtype).astype(jnp.float32), weights)


def _one(shape):
    """A program of the grid (block, example) sees all of its example."""
    return pl.BlockSpec((None, *shape[1:]), partial(_example_block, len(shape)))


def _whole(shape):
    return pl.BlockSpec(shape, lambda block, example: (0,) * len(shape))


def _example_block(dimensions, block, example):
    return (example, *(0,) * (dimensions - 1))
