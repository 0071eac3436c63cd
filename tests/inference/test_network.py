"""The compiled network: the fused program against the stages, buckets, nothing compiled twice, parameters cast once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import SPECK, TINY, compiled, quick_compile, varied_params  # noqa: F401

from rtgaze_jax.geometry.camera import frontal_camera
from rtgaze_jax.inference import fold
from rtgaze_jax.inference.benchmark import fixed_inputs
from rtgaze_jax.inference.network import BUCKETS, FUSED, STAGES, Network, enlarge
from rtgaze_jax.models.layers import conv, dense, grow

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def network(quick_compile):  # noqa: F811
    return Network(varied_params(SPECK), SPECK)


def test_nothing_is_compiled_twice_and_the_fused_program_equals_the_stages(network, compiled):  # noqa: F811
    inputs = fixed_inputs(1, network.size)
    camera = np.asarray(frontal_camera())[None]
    compiled.clear()
    features = network.encode(inputs[0])
    assert len(compiled) >= 2  # the first face compiles what it needs for a look
    compiled.clear()
    network.look(features, *inputs[1:])
    assert compiled == []
    scene = network.redirect(features, *inputs[1:])
    assert len(compiled) >= 2  # and the first scene what other views need
    compiled.clear()
    separate = network.render(features, scene, camera)
    assert compiled == []
    assert set(network.warm_up(FUSED)) == {FUSED}
    assert len(compiled) >= 1
    compiled.clear()
    together = network.redirect_images(*inputs)
    assert set(network.warm_up()) == set(STAGES)
    jax.block_until_ready((separate, together))
    assert compiled == []
    difference = np.abs(np.asarray(separate["image"], int) - np.asarray(together["image"], int))
    assert difference.max() <= 1
    assert np.asarray(together["image"]).std() > 5
    np.testing.assert_allclose(together["depth"], separate["depth"], atol=1e-5)


def test_numbers_of_images_between_buckets_are_padded(network, compiled):  # noqa: F811
    inputs = fixed_inputs(BUCKETS[1], network.size)
    whole = jax.device_get(network.redirect_images(*inputs))
    assert whole["image"].shape == (8, 64, 64, 3)
    compiled.clear()
    some = jax.device_get(network.redirect_images(*(x[:3] for x in inputs)))
    assert not [name for name in compiled if "all_at_once" in name]
    np.testing.assert_array_equal(some["image"], whole["image"][:3])
    np.testing.assert_array_equal(some["depth"], whole["depth"][:3])
    alone = np.asarray(network.redirect_images(*(x[2:3] for x in inputs))["image"], int)
    assert np.abs(alone - some["image"][2:3]).max() <= 1
    for count in (0, 33):
        with pytest.raises(ValueError, match=f"not {count}"):
            network.redirect_images(*(np.zeros((count, *x.shape[1:]), x.dtype) for x in inputs))


class Mixed(nn.Module):
    """Every way in which the models use parameters: bfloat16 layers, a norm, a float32 layer."""

    @nn.compact
    def __call__(self, x):
        self.param("table", nn.initializers.normal(), (4,))
        y = nn.LayerNorm(dtype=jnp.bfloat16)(conv(4, dtype=jnp.bfloat16)(x))
        y = nn.gelu(dense(4, dtype=jnp.bfloat16)(y)) + self.get_variable("params", "table").astype(jnp.bfloat16)
        return dense(2, name="exact")(y.astype(jnp.float32))


def apply_mixed(params, x):
    return Mixed().apply({"params": params}, x)


def test_reads_say_what_a_program_does_with_each_parameter():
    x = jnp.ones((1, 8, 8, 3))
    params = varied_of(Mixed(), x)
    reads = fold.parameter_reads(apply_mixed, params, x)
    types = fold.read_types(reads)
    assert types == {
        "Conv_0/kernel": "bfloat16",
        "Conv_0/bias": "bfloat16",
        "Dense_0/kernel": "bfloat16",
        "Dense_0/bias": "bfloat16",
        "LayerNorm_0/scale": "float32",
        "LayerNorm_0/bias": "float32",
        "exact/kernel": "float32",
        "exact/bias": "float32",
        "table": "bfloat16",
    }


def test_cast_and_pruned_parameters_give_the_same_numbers():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, 8, 3)), jnp.float32)
    params = varied_of(Mixed(), x)
    # XLA may otherwise leave out a rounding to bfloat16 where it computes in float32 anyway
    run = jax.jit(apply_mixed, compiler_options={"xla_allow_excess_precision": False})
    reads = fold.parameter_reads(apply_mixed, params, x)
    small = fold.prune(fold.cast(params, reads), reads)
    assert "unused" not in small
    np.testing.assert_array_equal(run(small, x), run(params, x))
    careless = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(np.float32), params)
    assert (np.asarray(run(careless, x)) != run(params, x)).any()  # casting all of them would show


def varied_of(module, x):
    draw = np.random.default_rng(2)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: draw.standard_normal(leaf.shape).astype(np.float32), shapes)
    return params | {"unused": {"kernel": np.ones(3, np.float32)}}


def test_several_types_of_reading_keep_float32():
    reads = [fold.parameter_reads(f, {"a": jnp.ones(3)}) for f in (
        lambda p: p["a"].astype(jnp.bfloat16), lambda p: p["a"] * 2, lambda p: p, lambda p: 1.0,
    )]  # fmt: skip
    assert [r["a"] for r in reads] == [{np.dtype(jnp.bfloat16)}, {np.dtype("float32")}, {np.dtype("float32")}, set()]
    both = fold.merge_reads(reads[:2])
    assert fold.cast({"a": np.ones(3, np.float32)}, both)["a"].dtype == np.float32


def test_loops_and_calls_are_looked_into_only_where_that_is_safe():
    inner = jax.jit(lambda a: a.astype(jnp.bfloat16))
    reads = fold.parameter_reads(lambda p: jax.checkpoint(lambda a: inner(a) * 2)(p["a"]), {"a": jnp.ones(3)})
    assert reads["a"] == {np.dtype(jnp.bfloat16)}
    looped = fold.parameter_reads(
        lambda p: jax.lax.scan(lambda c, x: (c, x.astype(jnp.bfloat16)), 0.0, p["a"]), {"a": jnp.ones(3)}
    )
    assert looped["a"] == {np.dtype("float32")}


def test_bfloat16_networks_hold_bfloat16_kernels():
    network = Network(varied_params(TINY), TINY, "bfloat16")
    kept = {name: jax.tree.leaves(network.params[name]) for name in (*STAGES, FUSED)}
    assert sum(len(kept[stage]) for stage in ("encode", "redirect", "render")) == len(kept[FUSED])
    encode, look, redirect, render = (network.params[stage] for stage in STAGES)
    assert encode["high"]["Conv_0"]["kernel"].dtype == jnp.bfloat16
    assert encode["low"]["LayerNorm_0"]["scale"].dtype == jnp.float32
    assert encode["pose"]["heatmap"]["kernel"].dtype == jnp.float32
    assert set(encode) == {"low", "high", "pose"}
    assert set(look) == {"prompt", "planes", "eye_planes", "eye_renderer"}
    assert set(redirect) == {"prompt", "planes", "eye_planes"}
    assert set(render) == {"renderer", "eye_renderer"}


def test_maps_are_enlarged_as_the_networks_enlarge_them():
    values = np.random.default_rng(0).uniform(2, 3, (16, 16)).astype(np.float32)
    expected = grow(jnp.asarray(values)[None, ..., None], 4)[0, ..., 0]
    np.testing.assert_allclose(enlarge(values, 64), expected, atol=1e-5)
    np.testing.assert_array_equal(enlarge(values, 16), values)
