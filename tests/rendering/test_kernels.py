"""The fused field, interpreted on the CPU, against XLA's and against NumPy."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from rtgaze_jax.geometry.camera import frontal_camera
from rtgaze_jax.models.config import preset
from rtgaze_jax.models.decoder import FieldDecoder
from rtgaze_jax.models.layers import initialize
from rtgaze_jax.models.renderer import TriplaneRenderer
from rtgaze_jax.rendering import kernels
from rtgaze_jax.rendering.triplane import EG3D_AXES, TRUE_AXES, sample_planes

BOX = 0.8
LAUNCHES = {"forward": (32, 1, 2), "backward": (16, 1, 2)}  # several blocks a program, several programs, small


def make(channels, hidden=20, colours=7, points=77, batch=2, seed=0):
    """Planes, points (a third of them outside the box), a decoder's parameters, gradients of its results."""
    draw = np.random.default_rng(seed)
    normal = lambda *shape, scale=1.0: jnp.asarray(scale * draw.normal(size=shape), jnp.float32)  # noqa: E731
    params = {
        "Dense_0": {"kernel": normal(channels, hidden, scale=channels**-0.5), "bias": normal(hidden)},
        "out": {"kernel": normal(hidden, colours + 1, scale=hidden**-0.5), "bias": normal(colours + 1)},
    }
    where = jnp.asarray(draw.uniform(-0.45, 0.45, (batch, points, 3)), jnp.float32)
    return (
        (normal(batch, 3, 9, 11, channels), where, params),
        (normal(batch, points), normal(batch, points, colours)),
    )


def relative(actual, expected):
    """The largest relative error (of the norm) of any array in a tree."""

    def error(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return np.linalg.norm(a - b) / np.linalg.norm(b)

    return max(jax.tree.leaves(jax.tree.map(error, actual, expected)))


def in_float64(planes, points, params, axes):
    """The field by NumPy, but for the lookup, which is tested against loops elsewhere."""
    features = np.asarray(sample_planes(planes, points, BOX, axes), np.float64)
    w = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    hidden = np.logaddexp(features @ w["Dense_0"]["kernel"] + w["Dense_0"]["bias"], 0)
    out = hidden @ w["out"]["kernel"] + w["out"]["bias"]
    return out[..., 0], 1.002 / (1 + np.exp(-out[..., 1:])) - 0.001


def values_and_gradients(function, arguments, cotangents):
    @jax.jit
    def run(arguments, cotangents):
        values, pull = jax.vjp(function, *arguments)
        return values, pull(cotangents)

    return run(arguments, cotangents)


def fused(planes, points, params, axes, dtype="float32", **options):
    plan = kernels.make_plan(axes, params["out"]["kernel"].shape[1] - 1, dtype, **(LAUNCHES | options))
    return kernels.fused(planes, points * (2 / BOX), params, plan)


@pytest.mark.parametrize(("channels", "axes", "atomic"), [(24, TRUE_AXES, False), (32, EG3D_AXES, True)])
def test_values_and_gradients_equal_the_reference(channels, axes, atomic):
    arguments, cotangents = make(channels, seed=channels)
    reference = partial(kernels.field, box=BOX, axes=axes, implementation="xla")
    expected = values_and_gradients(lambda p, x, w: reference(p, x, params=w), arguments, cotangents)
    kernel = partial(fused, axes=axes, atomic=atomic)
    actual = values_and_gradients(kernel, arguments, cotangents)
    assert relative(actual, expected) < 1e-5
    assert relative(actual[0], in_float64(*arguments, axes)) < 1e-6


def test_bfloat16():
    """To 6e-3, and closer to float32 than XLA's, which rounds every intermediate result and the weights' gradients."""
    (planes, points, params), cotangents = make(32)
    arguments = planes.astype(jnp.bfloat16), points, params
    field = lambda p, x, w, dtype: kernels.field(p, x, BOX, TRUE_AXES, w, dtype=dtype)  # noqa: E731
    exact = values_and_gradients(partial(field, dtype="float32"), arguments, cotangents)
    rounded = values_and_gradients(partial(field, dtype="bfloat16"), arguments, cotangents)
    actual = values_and_gradients(partial(fused, axes=TRUE_AXES, dtype="bfloat16"), arguments, cotangents)
    assert jax.tree.map(lambda x: x.dtype, actual) == jax.tree.map(lambda x: x.dtype, exact)
    assert relative(actual[0], exact[0]) < min(6e-3, relative(rounded[0], exact[0]))
    assert relative(actual[1], exact[1]) < min(6e-3, relative(rounded[1], exact[1]))


def test_density_alone():
    (planes, points, params), (cotangent, _) = make(24, points=40, batch=1)
    options = {"box": BOX, "axes": TRUE_AXES, "density_shift": -3.0}
    expected = kernels.field(planes, points, params=params, **options)[0]

    def density(implementation):
        function = partial(kernels.density, **options, implementation=implementation)
        return values_and_gradients(lambda p, x, w: function(p, x, params=w), (planes, points, params), cotangent)

    actual, reference = density("pallas"), density("xla")
    np.testing.assert_allclose(reference[0], expected, rtol=1e-6)
    assert relative(actual[0], expected) < 1e-6
    colours = reference[1][2]["out"]["kernel"].at[:, 1:].get()
    np.testing.assert_array_equal(colours, 0)
    flat = lambda g: (g[1][:2], g[1][2]["Dense_0"], g[1][2]["out"]["kernel"][:, 0])  # noqa: E731
    assert relative(flat(actual), flat(reference)) < 1e-5


def test_the_decoder_is_the_module():
    (planes, points, params), _ = make(24)
    features = sample_planes(planes, points, BOX)
    for dtype in (jnp.float32, jnp.bfloat16):
        module = FieldDecoder(20, 7, dtype=dtype)
        tree = jax.eval_shape(module.init, jax.random.key(0), features)["params"]
        assert jax.tree.structure(tree) == jax.tree.structure(params)
        expected = module.apply({"params": params}, features)
        for a, b in zip(kernels.decode(features, params, dtype), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_choice_without_a_gpu():
    (planes, _, params), _ = make(24)
    assert not kernels.supported(24, 64, 24)
    assert kernels.choose("auto", planes, params) == "xla"
    assert kernels.choose("pallas", planes, params) == "pallas"


def test_the_renderer_does_not_depend_on_the_implementation():
    config = dataclasses.replace(preset("tiny").render, resolution=4, skip=False)
    planes, camera = jax.random.normal(jax.random.key(0), (1, 3, 8, 8, 8)), frontal_camera()[None]
    params = {"params": initialize(TriplaneRenderer(config), jax.random.key(1), planes, camera)}
    assert set(params["params"]["field"]) == {"Dense_0", "out"}
    xla, pallas = (
        jax.jit(TriplaneRenderer(config, implementation=name).apply)(params, planes, camera)
        for name in ("xla", "pallas")
    )
    assert relative(pallas, xla) < 1e-5


def test_a_batch_spread_over_devices_stays_there():
    """Only the sums of the weights' gradients cross devices."""
    arguments, _ = make(16, hidden=16, points=20, batch=8)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())

    def loss(planes, points, params):
        density, colours = fused(planes, points, params, TRUE_AXES)
        return jnp.sum(density**2) + jnp.sum(colours**2)

    step = jax.jit(jax.grad(loss, argnums=(0, 2)), in_shardings=(split, split, whole), out_shardings=(split, whole))
    compiled = step.lower(*arguments).compile()
    for collective in ("all-gather", "all-to-all", "collective-permute"):
        assert collective not in compiled.as_text()
    reference = partial(kernels.field, box=BOX, axes=TRUE_AXES)
    expected = jax.jit(jax.grad(lambda p, x, w: sum(jnp.sum(v**2) for v in reference(p, x, params=w)), argnums=(0, 2)))(
        *arguments
    )
    assert relative(compiled(*jax.device_put(arguments, (split, split, whole))), expected) < 1e-5
