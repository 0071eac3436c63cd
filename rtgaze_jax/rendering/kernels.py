"""The field of a triplane, lookup and decoder in one function: by XLA, or by a fused kernel on NVIDIA GPUs.

XLA's version is the reference and works everywhere. The kernel (rendering/triton_field.py) computes the same function;
its gradient is the reference's. A kernel of the gradient was slower than XLA's at every launch that was tried
(experiments/results/2026-11-22_h100_inference.md).
"""

import importlib.util
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.geometry.camera import Scalar
from rtgaze_jax.rendering.pointwise import in_pieces, softplus, waves
from rtgaze_jax.rendering.triplane import Axes, sample_planes

if TYPE_CHECKING:
    from rtgaze_jax.rendering.triton_field import Plan, Weights

Implementation = Literal["xla", "pallas", "auto"]
DEFAULT: Implementation = "xla"
"""For whatever is trained: the kernel's gradient would compute the field once more."""

LAUNCH = (32, 2)
"""triton_field.Launch: points and warps per program. The fastest for small; 7 % behind paper's fastest, (128, 4)."""
_LARGEST = 128  # padded channels, hidden units, colours: a program holds matrices of them in registers
_NEEDED = 8.0  # compute capability: bfloat16 in the matrix units
_MEASURED = 9.0  # Hopper, where the kernel was faster

Params = Mapping[str, Mapping[str, Array]]
"""Of models.decoder.FieldDecoder: "Dense_0" and so on for the hidden layers, "out", each with "kernel" and "bias"."""


class Options(NamedTuple):
    """What a field is, apart from its arrays.

    box, axes: see rendering.triplane.sample_planes.
    density_shift: added to the raw densities.
    dtype: in which the decoder computes, float32 or bfloat16 (the kernel: matrix products only; sums, biases and
        activations are float32).
    place: frequencies of the waves of the place (see pointwise.waves) that the decoder reads besides the features; of
        none it does not read the place at all.
    implementation: "xla"; "pallas", the kernel, interpreted (slowly, for tests) where no GPU can run it; or "auto", the
        kernel where it was measured to be faster (see `choose`).
    """

    box: Scalar
    axes: Axes
    density_shift: float = 0.0
    dtype: Any = jnp.float32
    implementation: Implementation = DEFAULT
    place: tuple[float, ...] = ()


def field(
    planes: Float[Array, "B P H W C"], points: Float[Array, "B N 3"], params: Params, options: Options
) -> tuple[Float[Array, "B N"], Float[Array, "B N F"]]:
    """Raw densities and colours at 3D points: `decode` of `sample_planes`, differentiable in planes, points and
    params."""
    densities, colours = _evaluate(planes, points, params, options, params["out"]["kernel"].shape[1] - 1)
    return densities, colours


def density(
    planes: Float[Array, "B P H W C"], points: Float[Array, "B N 3"], params: Params, options: Options
) -> Float[Array, "B N"]:
    """The densities of `field` alone, for a pass that only looks for the surface."""
    return _evaluate(planes, points, params, options, 0)[0]


def _evaluate(planes, points, params, options, colours):
    """Densities [B, N] and the first `colours` colours [B, N, colours]."""
    dtype = jnp.dtype(options.dtype)
    if choose(options.implementation, planes, params, dtype) == "xla":

        def evaluate(shared, points):  # the compiler drops the colours that are not asked for
            features = _features(shared[0], points, options.box, options.axes, options.place)
            densities, found = decode(features, shared[1], dtype)
            return densities, found[..., :colours]

        densities, found = in_pieces(evaluate, (planes, params), points)
    else:
        plan = make_plan(options.axes, colours, dtype)._replace(place=options.place)
        densities, found = fused(planes, points.astype(jnp.float32) * (2 / options.box), params, plan)
    return densities + options.density_shift, found


def _features(planes, points, box, axes, place):
    """What the decoder reads."""
    features = sample_planes(planes, points, box, axes)
    if not place:
        return features
    return jnp.concatenate([features, waves(points.astype(jnp.float32), box, place)], -1)


def decode(
    features: Float[Array, "B N C"], params: Params, dtype: Any = jnp.float32
) -> tuple[Float[Array, "B N"], Float[Array, "B N F"]]:
    """models.decoder.FieldDecoder as a function of its parameters."""

    def dense(x, layer):
        return x @ layer["kernel"].astype(dtype) + layer["bias"].astype(dtype)

    inner = features.astype(dtype)
    for layer in _hidden(params):
        inner = softplus(dense(inner, layer))
    out = dense(inner, params["out"]).astype(jnp.float32)
    return out[..., 0], jax.nn.sigmoid(out[..., 1:]) * 1.002 - 0.001


def _hidden(params):
    return [params[f"Dense_{i}"] for i in range(len(params) - 1)]


def choose(
    implementation: Implementation, planes: Float[Array, "B P H W C"], params: Params, dtype: Any
) -> Implementation:
    """ "xla" or "pallas": what `implementation` comes to for these sizes on this machine.

    "auto" is the kernel where it was measured to be faster than what would else run: Hopper, products in bfloat16 (in
    float32 XLA shortens their inputs unless told otherwise, the kernel does not), sizes that fit, and JAX's Triton
    backend (deprecated since 0.11).
    """
    if implementation != "auto":
        return implementation
    hidden, outputs = params["out"]["kernel"].shape
    fits = max(planes.shape[-1], hidden, outputs - 1) <= _LARGEST and dtype == jnp.bfloat16
    there = capability() == _MEASURED and importlib.util.find_spec("jax.experimental.pallas.triton") is not None
    return "pallas" if fits and there else "xla"


def capability() -> float:
    """The compute capability of the NVIDIA GPU that programs run on by default; 0 where that is something else."""
    if jax.default_backend() != "gpu":
        return 0.0
    found = str(getattr(jax.devices()[0], "compute_capability", ""))  # AMD's are names, "gfx90a"
    return float(found) if found.replace(".", "").isdigit() else 0.0


def make_plan(axes: Axes, colours: int, dtype: Any, launch: tuple[int, int] = LAUNCH) -> "Plan":
    """The kernel's plan for this machine; where no GPU can run it, it is interpreted. `colours`: 0 for density
    alone."""
    from rtgaze_jax.rendering.triton_field import Launch, Plan

    return Plan(axes, colours, jnp.dtype(dtype).name, Launch(*launch), interpret=capability() < _NEEDED)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def fused(
    planes: Float[Array, "B P H W C"], coordinates: Float[Array, "B N 3"], params: Params, plan: "Plan"
) -> tuple[Float[Array, "B N"], Float[Array, "B N F"]]:
    """The kernel: densities (not shifted) and plan.colours colours at `coordinates`, -1 to 1 in the box."""
    from rtgaze_jax.rendering import triton_field

    return triton_field.forward(planes, coordinates, pack(params, planes.shape[-1]), plan)


def _fused_forward(planes, coordinates, params, plan):
    return fused(planes, coordinates, params, plan), (planes, coordinates, params)


def _fused_backward(plan, residuals, gradients):
    def reference(planes, coordinates, params):
        densities, colours = decode(_features(planes, coordinates, 2.0, plan.axes, plan.place), params, plan.dtype)
        return densities, colours[..., : plan.colours]

    return jax.vjp(reference, *residuals)[1](gradients)


fused.defvjp(_fused_forward, _fused_backward)


def pack(params: Params, channels: int) -> "Weights":
    """The decoder's parameters as the kernel wants them; linear. `channels`: of the planes, whose features come before
    the waves of the place among the decoder's inputs."""
    from rtgaze_jax.rendering.triton_field import Weights, padded

    def pad(values, *sides):  # an axis that is left out is one of a single output
        return jnp.pad(values.astype(jnp.float32), [(0, padded(side) - side) for side in sides])

    first, *deeper = _hidden(params)
    kernel, hidden = first["kernel"], first["kernel"].shape[1]
    read, colours = kernel.shape[0] - channels, params["out"]["kernel"].shape[1] - 1
    out_kernel, out_bias = (params["out"][name] for name in ("kernel", "bias"))
    return Weights(
        pad(kernel[:channels], channels, hidden),
        pad(first["bias"], hidden),
        (pad(kernel[channels:], read, hidden),) if read else (),
        tuple((pad(layer["kernel"], hidden, hidden), pad(layer["bias"], hidden)) for layer in deeper),
        pad(out_kernel[:, 0], hidden),
        out_bias[:1].astype(jnp.float32),
        pad(out_kernel[:, 1:], hidden, colours),
        pad(out_bias[1:], colours),
    )
