"""The field of a triplane, lookup and decoder in one function: by XLA, or by a fused kernel on NVIDIA GPUs.

XLA's version is the reference and works everywhere. The kernel (rendering/triton_field.py) computes the same function
and the same gradients; it is chosen only where it was measured faster.
"""

import importlib.util
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.geometry.camera import Scalar
from rtgaze_jax.rendering.pointwise import in_pieces, softplus
from rtgaze_jax.rendering.triplane import Axes, sample_planes

if TYPE_CHECKING:
    from rtgaze_jax.rendering.triton_field import Plan, Weights

Implementation = Literal["xla", "pallas", "auto"]
DEFAULT: Implementation = "xla"
"""What fields use unless told. "xla": the kernel has not been timed against it yet (experiments/benchmark_kernels.py
does)."""

FORWARD, BACKWARD = (64, 4, 1), (32, 4, 16)
"""triton_field.Launch of the two kernels: points per block, warps per program, blocks per program. Not tuned yet."""
ATOMIC = False
"""triton_field.Plan.atomic. Not measured yet. Pallas has no relaxed atomic operations, only such that wait for all
earlier writes."""
_LARGEST = 128  # padded channels, hidden units, colours: a program holds matrices of them in registers
_CAPABILITY = 8.0  # compute capability: bfloat16 in the matrix units

Params = Mapping[str, Mapping[str, Array]]
"""Of models.decoder.FieldDecoder with one hidden layer: "Dense_0" and "out", each with "kernel" and "bias"."""


def field(
    planes: Float[Array, "B P H W C"],
    points: Float[Array, "B N 3"],
    box: Scalar,
    axes: Axes,
    params: Params,
    *,
    density_shift: float = 0.0,
    dtype: Any = jnp.float32,
    implementation: Implementation = DEFAULT,
) -> tuple[Float[Array, "B N"], Float[Array, "B N F"]]:
    """Raw densities and colours at 3D points: `decode` of `sample_planes`, differentiable in planes, points and params.

    Args:
        planes, points, box, axes: see rendering.triplane.sample_planes.
        params: the decoder's.
        density_shift: added to the raw densities.
        dtype: in which the decoder computes, float32 or bfloat16 (the kernel: matrix products only; sums, biases and
            activations are float32).
        implementation: "xla"; "pallas", the kernel, interpreted (slowly, for tests) where there is no NVIDIA GPU; or
            "auto", the kernel where `supported`.
    """
    if choose(implementation, planes, params) == "xla":

        def evaluate(shared, points):
            return decode(sample_planes(shared[0], points, box, axes), shared[1], dtype)

        densities, colours = in_pieces(evaluate, (planes, params), points)
    else:
        plan = make_plan(axes, params["out"]["kernel"].shape[1] - 1, dtype)
        densities, colours = fused(planes, points.astype(jnp.float32) * (2 / box), params, plan)
    return densities + density_shift, colours


def density(
    planes: Float[Array, "B P H W C"],
    points: Float[Array, "B N 3"],
    box: Scalar,
    axes: Axes,
    params: Params,
    *,
    density_shift: float = 0.0,
    dtype: Any = jnp.float32,
    implementation: Implementation = DEFAULT,
) -> Float[Array, "B N"]:
    """The densities of `field` alone, for a pass that only looks for the surface. Same arguments."""
    if choose(implementation, planes, params) == "xla":

        def evaluate(shared, points):  # the compiler drops the colours
            return decode(sample_planes(shared[0], points, box, axes), shared[1], dtype)[0]

        densities = in_pieces(evaluate, (planes, params), points)
    else:
        densities, _ = fused(planes, points.astype(jnp.float32) * (2 / box), params, make_plan(axes, 0, dtype))
    return densities + density_shift


def decode(
    features: Float[Array, "B N C"], params: Params, dtype: Any = jnp.float32
) -> tuple[Float[Array, "B N"], Float[Array, "B N F"]]:
    """models.decoder.FieldDecoder with one hidden layer, as a function of its parameters."""

    def dense(x, layer):
        return x @ layer["kernel"].astype(dtype) + layer["bias"].astype(dtype)

    out = dense(softplus(dense(features.astype(dtype), params["Dense_0"])), params["out"]).astype(jnp.float32)
    return out[..., 0], jax.nn.sigmoid(out[..., 1:]) * 1.002 - 0.001


def choose(implementation: Implementation, planes: Float[Array, "B P H W C"], params: Params) -> Implementation:
    """ "xla" or "pallas": what `implementation` comes to for these sizes on this machine."""
    if implementation != "auto":
        return implementation
    hidden, outputs = params["out"]["kernel"].shape
    return "pallas" if supported(planes.shape[-1], hidden, outputs - 1) else "xla"


def supported(channels: int, hidden: int, colours: int) -> bool:
    """Whether the kernel runs here: an NVIDIA GPU of compute capability 8 or more, JAX's Triton backend (deprecated
    since 0.11), and sizes that fit."""
    if max(channels, hidden, colours) > _LARGEST or not on_nvidia():
        return False
    return importlib.util.find_spec("jax.experimental.pallas.triton") is not None


def on_nvidia() -> bool:
    """Whether programs run on an NVIDIA GPU of compute capability 8 or more by default."""
    if jax.default_backend() != "gpu":
        return False
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))  # AMD's are names, "gfx90a"
    return capability.replace(".", "").isdigit() and float(capability) >= _CAPABILITY


def make_plan(
    axes: Axes, colours: int, dtype: Any, forward: tuple = FORWARD, backward: tuple = BACKWARD, atomic: bool = ATOMIC
) -> "Plan":
    """The kernel's plan for this machine; without an NVIDIA GPU it is interpreted. `colours`: 0 for density alone."""
    from rtgaze_jax.rendering.triton_field import Launch, Plan

    return Plan(axes, colours, jnp.dtype(dtype).name, Launch(*forward), Launch(*backward), atomic, not on_nvidia())


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def fused(
    planes: Float[Array, "B P H W C"], coordinates: Float[Array, "B N 3"], params: Params, plan: "Plan"
) -> tuple[Float[Array, "B N"], Float[Array, "B N F"]]:
    """The kernel: densities (not shifted) and plan.colours colours at `coordinates`, -1 to 1 in the box."""
    from rtgaze_jax.rendering import triton_field

    return triton_field.forward(planes, coordinates, pack(params), plan)


def _fused_forward(planes, coordinates, params, plan):
    # Nothing is kept: twelve rows a point are read faster again than their mean is written and read.
    return fused(planes, coordinates, params, plan), (planes, coordinates, params)


def _fused_backward(plan, residuals, gradients):
    from rtgaze_jax.rendering import triton_field

    planes, coordinates, params = residuals
    weights, unpack = jax.vjp(pack, params)
    of_density, of_colours = gradients
    if not plan.colours:
        colours = params["out"]["kernel"].shape[1] - 1
        of_colours = jnp.zeros((*of_density.shape, colours), of_density.dtype)
        plan = plan._replace(colours=colours)
    of_features, of_planes, of_weights = triton_field.backward(
        planes, coordinates, weights, (of_density, of_colours), plan
    )
    # Compiled, what nobody asks for is never computed: the points' gradient (cameras are data), or the planes' again.
    _, pull = jax.vjp(lambda p, c: sample_planes(p, c, 2.0, plan.axes), planes, coordinates)
    planes_by_xla, of_coordinates = pull(of_features.astype(jnp.float32))
    of_planes = planes_by_xla if of_planes is None else of_planes.astype(planes.dtype)
    return of_planes, of_coordinates, *unpack(of_weights)


fused.defvjp(_fused_forward, _fused_backward)


def pack(params: Params) -> "Weights":
    """The decoder's parameters as the kernel wants them; linear."""
    from rtgaze_jax.rendering.triton_field import Weights, padded

    kernel, bias = (params["Dense_0"][name].astype(jnp.float32) for name in ("kernel", "bias"))
    out_kernel, out_bias = (params["out"][name].astype(jnp.float32) for name in ("kernel", "bias"))
    more = [padded(side) - side for side in (*kernel.shape, out_kernel.shape[1] - 1)]
    channels, hidden, colours = ((0, n) for n in more)
    return Weights(
        jnp.pad(kernel, (channels, hidden)),
        jnp.pad(bias, hidden),
        jnp.pad(out_kernel[:, 0], hidden),
        out_bias[:1],
        jnp.pad(out_kernel[:, 1:], (hidden, colours)),
        jnp.pad(out_bias[1:], colours),
    )
