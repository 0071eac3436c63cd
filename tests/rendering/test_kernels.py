"""The fused field, interpreted on the CPU, against XLA's and against NumPy."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax.geometry.camera import frontal_camera
from rtgaze_jax.inference.network import Network
from rtgaze_jax.models.config import preset
from rtgaze_jax.models.decoder import FieldDecoder
from rtgaze_jax.models.layers import initialize
from rtgaze_jax.models.renderer import TriplaneRenderer
from rtgaze_jax.models.rtgaze import RTGaze
from rtgaze_jax.rendering import kernels
from rtgaze_jax.rendering.pointwise import waves
from rtgaze_jax.rendering.triplane import EG3D_AXES, TRUE_AXES, sample_planes

BOX = 0.8
LAUNCH = (32, 1)  # several programs even for few points


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


def fused(planes, points, params, axes, dtype="float32"):
    plan = kernels.make_plan(axes, params["out"]["kernel"].shape[1] - 1, dtype, LAUNCH)
    return kernels.fused(planes, points * (2 / BOX), params, plan)


@pytest.mark.parametrize(("channels", "axes"), [(24, TRUE_AXES), (32, EG3D_AXES)])
def test_values_and_gradients_equal_the_reference(channels, axes):
    arguments, cotangents = make(channels, seed=channels)
    options = kernels.Options(BOX, axes, implementation="xla")
    expected = values_and_gradients(partial(kernels.field, options=options), arguments, cotangents)
    actual = values_and_gradients(partial(fused, axes=axes), arguments, cotangents)
    assert relative(actual, expected) < 1e-5
    assert relative(actual[0], in_float64(*arguments, axes)) < 1e-6


def test_bfloat16():
    """Values to 6e-3, and closer to float32 than XLA's, which rounds every intermediate result; gradients are XLA's."""
    (planes, points, params), cotangents = make(32)
    arguments = planes.astype(jnp.bfloat16), points, params
    field = lambda *a, dtype: kernels.field(*a, kernels.Options(BOX, TRUE_AXES, dtype=dtype))  # noqa: E731
    exact = values_and_gradients(partial(field, dtype="float32"), arguments, cotangents)
    rounded = values_and_gradients(partial(field, dtype="bfloat16"), arguments, cotangents)
    actual = values_and_gradients(partial(fused, axes=TRUE_AXES, dtype="bfloat16"), arguments, cotangents)
    assert jax.tree.map(lambda x: x.dtype, actual) == jax.tree.map(lambda x: x.dtype, exact)
    assert relative(actual[0], exact[0]) < min(6e-3, relative(rounded[0], exact[0]))
    assert relative(actual[1], rounded[1]) < 1e-5


def test_density_alone():
    arguments, (cotangent, _) = make(24, points=40, batch=1)
    options = kernels.Options(BOX, TRUE_AXES, density_shift=-3.0)
    expected = kernels.field(*arguments, options)[0]

    def density(implementation):
        chosen = options._replace(implementation=implementation)
        return values_and_gradients(partial(kernels.density, options=chosen), arguments, cotangent)

    actual, reference = density("pallas"), density("xla")
    np.testing.assert_allclose(reference[0], expected, rtol=1e-6)
    assert relative(actual[0], expected) < 1e-6
    for values, gradients in (actual, reference):
        np.testing.assert_array_equal(gradients[2]["out"]["kernel"][:, 1:], 0)
        assert values.shape == (1, 40)
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_deeper_decoder_that_reads_the_place(dtype):
    """The eyes' field: features, waves of the place, two hidden layers."""
    (planes, points, _), cotangents = make(16)
    place = (2.0, 4.0)
    module = FieldDecoder(20, 7, layers=2, dtype=jnp.dtype(dtype))
    params = initialize(module, jax.random.key(0), jnp.zeros((1, 1, 16 + 20)))
    options = kernels.Options(BOX, TRUE_AXES, dtype=dtype, place=place)

    def by_parts(planes, points, params):
        inputs = jnp.concatenate([sample_planes(planes, points, BOX), waves(points, BOX, place)], -1)
        return module.apply({"params": params}, inputs)

    def field(implementation):
        chosen = options._replace(implementation=implementation)
        return values_and_gradients(partial(kernels.field, options=chosen), (planes, points, params), cotangents)

    expected = values_and_gradients(by_parts, (planes, points, params), cotangents)
    assert relative(field("xla"), expected) < 1e-6
    actual = field("pallas")
    assert relative(actual, expected) < (1e-5 if dtype == "float32" else 1e-2)
    assert relative(actual[1], expected[1]) < 1e-5  # the gradient is the reference's


def test_the_choice(monkeypatch):
    """By itself the kernel is taken on Hopper alone, in bfloat16, for sizes that fit."""
    (planes, _, params), _ = make(24)
    assert kernels.capability() == 0.0
    assert kernels.make_plan(TRUE_AXES, 7, "bfloat16").interpret
    choose = partial(kernels.choose, planes=planes, params=params, dtype=jnp.dtype("bfloat16"))
    assert [choose(name) for name in ("auto", "xla", "pallas")] == ["xla", "xla", "pallas"]
    monkeypatch.setattr(kernels, "capability", lambda: 8.0)
    assert choose("auto") == "xla"
    assert not kernels.make_plan(TRUE_AXES, 7, "bfloat16").interpret
    monkeypatch.setattr(kernels, "capability", lambda: 9.0)
    assert [choose(name) for name in ("auto", "xla")] == ["pallas", "xla"]
    assert choose("auto", dtype=jnp.dtype("float32")) == "xla"
    assert choose("auto", planes=jnp.zeros((1, 3, 2, 2, 160))) == "xla"


@pytest.mark.parametrize(("capability", "found"), [("9.0", 9.0), ("gfx90a", 0.0), (None, 0.0)])
def test_capability(monkeypatch, capability, found):
    device = SimpleNamespace(**({} if capability is None else {"compute_capability": capability}))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert kernels.capability() == found


@pytest.mark.parametrize(("shared", "count"), [(True, 2), (False, 3)])
def test_inference_asks_for_the_kernel_where_it_is_faster(shared, count):
    """Both passes, and the eyes' rays where their field reads nothing but its own planes and the place."""
    config = dataclasses.replace(preset("tiny"), dtype="bfloat16")
    config = dataclasses.replace(config, eyes=dataclasses.replace(config.eyes, shared=shared))
    image, gaze, camera = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 2)), frontal_camera()[None]
    params = jax.eval_shape(lambda: RTGaze(config).init(jax.random.key(0), image, gaze, camera)["params"])
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), params)

    def kernels_of(network):
        return str(network.trace("render")["render"].jaxpr).count("pallas_call")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "capability", lambda: 9.0)
        assert kernels_of(Network(params, config, "bfloat16")) == count
        assert kernels_of(Network(params, config, "float32")) == 0
        assert kernels_of(Network(params, config, "bfloat16", implementation="xla")) == 0


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
