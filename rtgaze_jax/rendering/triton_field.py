"""The fused field as two Pallas kernels (Triton backend, NVIDIA GPUs): lookup in three planes and decoder, and their
gradient.

One program does a block of points: twelve rows of the table of all pixels per point, their weighted sum, two small
matrix products on the tensor cores. Neither the features nor the hidden layer ever exist in the card's memory. The
gradient's kernel computes them again, keeps the weights' gradient in registers and writes the features'.

This module needs jax.experimental.pallas.triton, which JAX has deprecated since 0.11 without an equal for gathers;
rendering/kernels.py, which alone imports it, does without it where it is missing.
"""

import itertools
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.pallas import triton
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from rtgaze_jax.rendering.triplane import Axes, corners

LOG2_E = 1 / math.log(2)
WIDENED, SHIFT = 1.002, -0.001  # of the colours' sigmoid: EG3D's (MipNeRF's) constants
_SMALLEST = 16  # a side of a matrix for the tensor cores


class Weights(NamedTuple):
    """A decoder of one hidden layer, the density's output apart from the colours'. Sides are powers of two, padded with
    zeros (see `padded`)."""

    hidden: Float[Array, "C H"]
    hidden_bias: Float[Array, "H"]
    density: Float[Array, "H"]
    density_bias: Float[Array, "1"]
    colour: Float[Array, "H F"]
    colour_bias: Float[Array, "F"]


class Launch(NamedTuple):
    """How a kernel is laid out on the card: points per block, warps of 32 threads per program, blocks that a program
    does one after the other."""

    block: int
    warps: int
    steps: int = 1


class Plan(NamedTuple):
    """What is known before any number is. `dtype`: of the matrix products' inputs; sums are float32."""

    axes: Axes
    colours: int  # 0: density alone
    dtype: str
    forward: Launch
    backward: Launch
    atomic: bool  # the gradient's kernel adds up the planes' gradient itself; else XLA does, from the features'
    interpret: bool  # run as plain JAX operations, anywhere, slowly


def padded(side: int) -> int:
    """The side of a matrix as the kernels want it: a power of two, 16 at least."""
    return max(_SMALLEST, 1 << (side - 1).bit_length())


def forward(
    planes: Float[Array, "B P H W C"], coordinates: Float[Array, "B N 3"], weights: Weights, plan: Plan
) -> tuple[Float[Array, "B N"], Float[Array, "B N F"]]:
    """Densities and plan.colours colours at `coordinates`, -1 to 1 in the box."""
    results = _per_example(partial(_forward, plan), (planes, coordinates), _rounded(weights, plan.dtype))
    return results[0], results[1] if plan.colours else jnp.zeros((*results[0].shape, 0))


def backward(
    planes: Float[Array, "B P H W C"],
    coordinates: Float[Array, "B N 3"],
    weights: Weights,
    gradients: tuple[Float[Array, "B N"], Float[Array, "B N F"]],
    plan: Plan,
) -> tuple[Float[Array, "B N C"], Float[Array, "B P H W C"] | None, Weights]:
    """From the gradients of densities and colours those of the features, of the planes (float32; None unless
    plan.atomic: they follow from the features') and of the weights (float32)."""
    batched = (planes, coordinates, *gradients)
    features, *rest = _per_example(partial(_backward, plan), batched, _rounded(weights, plan.dtype))
    sums = Weights(*(jnp.sum(w, axis=0) for w in rest[: len(weights)]))
    table = rest[len(weights)][..., : planes.shape[-1]].reshape(planes.shape) if plan.atomic else None
    return features, table, sums


def _forward(plan, planes, coordinates, *weights):
    batch, points = coordinates.shape[:2]
    out = [jax.ShapeDtypeStruct((batch, points), jnp.float32)]
    if plan.colours:
        out.append(jax.ShapeDtypeStruct((batch, points, plan.colours), jnp.float32))
    inputs = (coordinates, _table(planes))
    return pl.pallas_call(
        partial(_forward_kernel, plan=plan, shape=planes.shape[1:]),
        out_shape=out,
        grid=(_programs(points, plan.forward), batch),
        in_specs=[*(_one(x.shape) for x in inputs), *(_whole(w.shape) for w in weights)],
        out_specs=[_one(x.shape) for x in out],
        interpret=plan.interpret,
        compiler_params=triton.CompilerParams(num_warps=plan.forward.warps, num_stages=1),
        name="field",
    )(*inputs, *weights)


def _backward(plan, planes, coordinates, density_gradient, colour_gradient, *weights):
    batch, points = coordinates.shape[:2]
    inputs = (coordinates, _table(planes), density_gradient, colour_gradient)
    programs = _programs(points, plan.backward)
    sums = [jax.ShapeDtypeStruct((batch, programs, *w.shape), jnp.float32) for w in weights]
    out = [jax.ShapeDtypeStruct((batch, points, planes.shape[-1]), plan.dtype), *sums]
    # Zeros to add to: the last input and the last output are the same memory. Padded, as there is no masked addition.
    zeros = [jnp.zeros((*inputs[1].shape[:2], weights[0].shape[0]), jnp.float32)] if plan.atomic else []
    features, *sums_and_table = pl.pallas_call(
        partial(_backward_kernel, plan=plan, shape=planes.shape[1:]),
        out_shape=[*out, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in zeros)],
        grid=(programs, batch),
        in_specs=[
            *(_one(x.shape) for x in inputs),
            *(_whole(w.shape) for w in weights),
            *(_one(x.shape) for x in zeros),
        ],
        out_specs=[
            _one(out[0].shape),
            *(pl.BlockSpec((None, None, *w.shape), partial(_program_block, w.ndim)) for w in weights),
            *(_one(x.shape) for x in zeros),
        ],
        input_output_aliases={len(inputs) + len(weights): len(out)} if plan.atomic else {},
        interpret=plan.interpret,
        compiler_params=triton.CompilerParams(num_warps=plan.backward.warps, num_stages=1),
        name="field_gradient",
    )(*inputs, *weights, *zeros)
    count = len(weights)
    return [features, *(jnp.sum(w, axis=1) for w in sums_and_table[:count]), *sums_and_table[count:]]


def _per_example(function, batched, shared):
    """function(*batched, *shared), where a batch spread over devices stays: to the compiler a kernel is a closed box,
    for which it would gather all examples on every device. All results are batched too."""

    def partition(mesh, arguments, results):
        spec = arguments[0].sharding.spec
        split, whole = NamedSharding(mesh, PartitionSpec(*spec[:1])), NamedSharding(mesh, PartitionSpec())
        inputs = (*(split for _ in batched), *(whole for _ in shared))
        return mesh, function, jax.tree.map(lambda _: split, results), inputs

    names = (f"x{i}" for i in itertools.count())
    results = jax.eval_shape(function, *batched, *shared)
    inputs = [" ".join(["b", *itertools.islice(names, x.ndim - 1)]) for x in batched]
    inputs += [" ".join(itertools.islice(names, x.ndim)) for x in shared]
    outputs = [" ".join(["b", *itertools.islice(names, x.ndim - 1)]) for x in results]
    spread = custom_partitioning(function)
    spread.def_partition(partition, sharding_rule=f"{', '.join(inputs)} -> {', '.join(outputs)}")
    return spread(*batched, *shared)


def _forward_kernel(coordinates, table, *refs, plan, shape):
    count = len(Weights._fields)
    weights, (densities, *colours) = Weights(*refs[:count]), refs[count:]
    hidden, colour = weights.hidden[...], weights.colour[...]
    wanted, lookup = jnp.arange(colour.shape[1]), _lookup(coordinates, table, hidden.shape[0], plan, shape)
    block = _blocks(coordinates.shape[0], plan.forward)

    def step(i, carry):
        rows, valid = block(i)
        _, features = lookup(rows, valid)
        inner, _ = _softplus(_dot(features, hidden) + weights.hidden_bias[...][None, :], plan)
        density = jnp.sum(inner * weights.density[...][None, :], axis=1) + weights.density_bias[...]
        triton.store(densities.at[rows], density, mask=valid)
        if colours:
            out = _dot(inner.astype(plan.dtype), colour) + weights.colour_bias[...][None, :]
            seen = valid[:, None] & (wanted < plan.colours)[None, :]
            triton.store(
                colours[0].at[rows[:, None], wanted[None, :]], _sigmoid(out, plan) * WIDENED + SHIFT, mask=seen
            )
        return carry

    _repeat(step, plan.forward.steps, 0)


def _backward_kernel(coordinates, table, density_gradient, colour_gradient, *refs, plan, shape):
    count = len(Weights._fields)
    weights, (features_gradient, *outputs) = Weights(*refs[:count]), refs[count + plan.atomic :]
    results, table_gradients = Weights(*outputs[:count]), outputs[count:]
    hidden, colour = weights.hidden[...], weights.colour[...]
    density_weights = weights.density[...]
    wanted, channel = jnp.arange(colour.shape[1]), jnp.arange(hidden.shape[0])
    lookup = _lookup(coordinates, table, hidden.shape[0], plan, shape)
    block = _blocks(coordinates.shape[0], plan.backward)

    def step(i, sums):
        rows, valid = block(i)
        xyz, features = lookup(rows, valid)
        inner, slope = _softplus(_dot(features, hidden) + weights.hidden_bias[...][None, :], plan)
        rounded = inner.astype(plan.dtype)
        sigmoid = _sigmoid(_dot(rounded, colour) + weights.colour_bias[...][None, :], plan)
        seen = valid[:, None] & (wanted < plan.colours)[None, :]
        of_colour = triton.load(colour_gradient.at[rows[:, None], wanted[None, :]], mask=seen, other=0.0)
        of_colour = of_colour * WIDENED * sigmoid * (1 - sigmoid)
        of_density = triton.load(density_gradient.at[rows], mask=valid, other=0.0)
        of_inner = _dot(of_colour.astype(plan.dtype), colour, (1, 1)) + of_density[:, None] * density_weights[None, :]
        of_raw = of_inner * slope
        of_features = _dot(of_raw.astype(plan.dtype), hidden, (1, 1))
        there = valid[:, None] & (channel < shape[3])[None, :]
        triton.store(features_gradient.at[rows[:, None], channel[None, :]], of_features.astype(plan.dtype), mask=there)
        for table_gradient in table_gradients:
            for index, weight in corners(xyz, plan.axes, *shape[1:3]):
                jax.ref.addupdate(table_gradient, (index[:, None], channel[None, :]), weight[:, None] * of_features)
        found = Weights(
            _dot(features, of_raw.astype(plan.dtype), (0, 0)),
            jnp.sum(of_raw, axis=0),
            jnp.sum(inner * of_density[:, None], axis=0),
            jnp.sum(of_density, axis=0, keepdims=True),
            _dot(rounded, of_colour.astype(plan.dtype), (0, 0)),
            jnp.sum(of_colour, axis=0),
        )
        return jax.tree.map(jnp.add, sums, found)

    start = Weights(*(jnp.zeros(w.shape, jnp.float32) for w in weights))
    for result, value in zip(results, _repeat(step, plan.backward.steps, start), strict=True):
        result[...] = value


def _lookup(coordinates, table, padded_channels, plan, shape):
    """A function of some points: their coordinates, and their features (the mean over the planes) in the type of the
    products, [points, padded channels], zero in the padding."""
    planes_height_width, channels = shape[1:3], shape[3]
    channel = jnp.arange(padded_channels)
    always = pl.program_id(0) >= 0

    def lookup(rows, valid):
        x, y, z = (triton.load(coordinates.at[rows, axis], mask=valid, other=0.0) for axis in range(3))

        def mean():
            total = jnp.zeros((*rows.shape, padded_channels), jnp.float32)
            there = None if channels == padded_channels else jnp.broadcast_to(channel < channels, total.shape)
            other = None if there is None else 0.0
            for index, weight in corners((x, y, z), plan.axes, *planes_height_width):
                values = triton.load(table.at[index[:, None], channel[None, :]], mask=there, other=other)
                total = _fma(plan, jnp.broadcast_to(weight[:, None], total.shape), values.astype(jnp.float32), total)
            return total.astype(plan.dtype)

        # Triton cannot know that the condition always holds. Else it would move the change from the layout of loads to
        # that of the matrix units to before the sum, to each of the twelve loads: twice the instructions and registers.
        nothing = jnp.zeros((*rows.shape, padded_channels), plan.dtype)
        return (x, y, z), jax.lax.cond(always, mean, lambda: nothing)

    return lookup


def _softplus(x, plan):
    """softplus(x) and its slope."""
    exponential = _exp2(plan, jnp.abs(x) * -LOG2_E)
    rest = 1 + exponential
    slope = jnp.where(x >= 0, 1.0, exponential) * _reciprocal(plan, rest)
    return _fma(plan, _log2(plan, rest), jnp.full_like(x, 1 / LOG2_E), jnp.maximum(x, 0)), slope


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


def _dot(a, b, contract=(1, 0)):
    # Full float32 products for float32 inputs, not Triton's default of ten bits of mantissa.
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)


def _blocks(points, launch):
    """A function of i: the points of this program's i-th block, and which of them exist."""
    first = pl.program_id(0) * launch.steps  # asked for outside of loops, for the interpreter

    def block(i):
        rows = (first + i) * launch.block + jnp.arange(launch.block)
        return rows, rows < points

    return block


def _repeat(step, times, carry):
    return step(0, carry) if times == 1 else jax.lax.fori_loop(0, times, step, carry)


def _programs(points: int, launch: Launch) -> int:
    return math.ceil(points / (launch.block * launch.steps))


def _rounded(weights: Weights, dtype: str) -> Weights:
    """Weights as the computation sees them: matrices in `dtype`; vectors too, but held in float32."""
    return Weights(*(w.astype(dtype) if w.ndim == 2 else w.astype(dtype).astype(jnp.float32) for w in weights))


def _table(planes):
    return planes.reshape(planes.shape[0], -1, planes.shape[-1])


def _one(shape):
    """A program of the grid (block, example) sees all of its example."""
    return pl.BlockSpec((None, *shape[1:]), partial(_example_block, len(shape)))


def _whole(shape):
    return pl.BlockSpec(shape, lambda block, example: (0,) * len(shape))


def _example_block(dimensions, block, example):
    return (example, *(0,) * (dimensions - 1))


def _program_block(dimensions, block, example):
    return (example, block, *(0,) * dimensions)
