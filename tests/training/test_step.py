"""The pure step, and the ways to spread it over devices."""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import Toy, ToySource, toy_config

from rtgaze_jax.errors import UserError
from rtgaze_jax.training import optim, parallel, state, step


def make(config, objective=None):
    """(optimizer, function axis name -> step) of a configuration."""
    optimizer = optim.make_optimizer(config.optim)
    schedule = optim.make_schedule(config.optim, config.total_steps)
    loss = (objective or Toy()).loss
    return optimizer, lambda axis: step.make_step(
        loss, optimizer, schedule, accumulate=config.accumulate, ema_decay=config.ema_decay, axis_name=axis
    )


def train(mode="jit", devices=1, **changes):
    """Loss curve and final state of the toy."""
    config = toy_config(optim__kind="sgd", ema_decay=0.9, parallel__mode=mode, parallel__devices=devices, **changes)
    spread = parallel.make_parallel(config.parallel)
    optimizer, make_step = make(config)
    run = spread.compile(make_step)
    params = Toy().init(jax.random.key(7))
    now = spread.replicate(state.create(params, optimizer, seed=1, ema=True))
    frozen, source, losses = spread.replicate(Toy().frozen), ToySource(config.batch_size), []
    for _ in range(config.total_steps):
        now, metrics = run(now, frozen, spread.place(next(source)))
        losses.append(metrics["loss"])
    return np.array(jax.device_get(losses)), jax.device_get(now)


@pytest.fixture(scope="module")
def reference():
    return train()


@pytest.mark.parametrize(
    ("mode", "devices", "accumulate"),
    [("jit", 8, 1), ("jit", 8, 2), ("jit", 1, 4), ("pmap", 1, 1), ("pmap", 8, 1), ("pmap", 2, 4)],
)
def test_devices_modes_and_accumulation_change_nothing(reference, mode, devices, accumulate):
    losses, final = train(mode, devices, accumulate=accumulate)
    assert losses[-1] < 0.5 * losses[0]
    np.testing.assert_allclose(losses, reference[0], atol=1e-5)
    chex.assert_trees_all_close(final, reference[1], atol=1e-5)


def linear():
    """Least squares, whose gradient is known: 2/B X^T (X w - y)."""
    return SimpleNamespace(loss=lambda p, f, b, k, s: (jnp.mean(jnp.square(b["x"] @ p["w"] - b["y"])), {}))


def test_one_sgd_step_is_the_closed_form():
    config = toy_config(optim__kind="sgd", optim__clip=0.0, optim__warmup=0, optim__final_scale=1.0)
    optimizer, make_step = make(config, linear())
    x, y = np.random.default_rng(0).normal(size=(2, 16, 4)).astype(np.float32)
    w, y = np.arange(4, dtype=np.float32), y[:, 0]
    now = state.create({"w": w}, optimizer, seed=0, ema=False)
    now, metrics = make_step(None)(now, {}, {"x": x, "y": y})
    gradient = 2 / 16 * x.T @ (x @ w - y)
    np.testing.assert_allclose(now.params["w"], w - 0.05 * gradient, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(gradient), rtol=1e-5)


def test_clipping_shortens_the_step_to_the_bound():
    config = toy_config(optim__kind="sgd", optim__clip=0.5, optim__warmup=0, optim__final_scale=1.0)
    optimizer, make_step = make(config, linear())
    now = state.create({"w": jnp.full(4, 1.0)}, optimizer, seed=0, ema=False)
    then, _ = make_step(None)(now, {}, {"x": jnp.ones((2, 4)), "y": jnp.zeros(2)})
    np.testing.assert_allclose(jnp.linalg.norm(then.params["w"] - now.params["w"]), 0.5 * 0.05, rtol=1e-4)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_counters_only(poison):
    config = toy_config(ema_decay=0.9)
    optimizer, make_step = make(config)
    run = jax.jit(make_step(None))
    now = state.create(Toy().init(jax.random.key(0)), optimizer, seed=0, ema=True)
    batch = {**next(ToySource(16)), "index": np.arange(16)}
    bad = {**batch, "y": batch["y"].copy()}
    bad["y"][3] = poison
    good, _ = run(now, Toy().frozen, batch)
    after, metrics = run(good, Toy().frozen, bad)
    after, metrics = run(after, Toy().frozen, bad)
    for name in ("params", "opt_state", "ema", "key"):
        chex.assert_trees_all_equal(getattr(after, name), getattr(good, name))
    assert (int(after.step), int(after.skipped), int(after.streak), int(metrics["streak"])) == (3, 2, 2, 2)
    again, _ = run(after, Toy().frozen, batch)
    assert (int(again.skipped), int(again.streak)) == (2, 0)
    assert not np.allclose(again.params["model"]["kernel"], good.params["model"]["kernel"])


def test_the_average_is_that_of_the_formula():
    config = toy_config(ema_decay=0.5)
    optimizer, make_step = make(config)
    now = state.create(Toy().init(jax.random.key(0)), optimizer, seed=0, ema=True)
    expected, source = np.asarray(now.ema["model"]["kernel"]), ToySource(16)
    run = jax.jit(make_step(None))
    for t in range(20):
        now, _ = run(now, Toy().frozen, {**next(source), "index": np.arange(16)})
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * np.asarray(now.params["model"]["kernel"])
    np.testing.assert_allclose(now.ema["model"]["kernel"], expected, atol=1e-6)
    assert state.export_params(now) is now.ema


def test_schedule_warms_up_from_its_start_and_follows_one_cosine():
    config = toy_config(optim__lr=2.0, optim__warmup=10, optim__final_scale=0.1).optim
    rate = optim.make_schedule(config, 100)
    whole = [float(rate(t, 0)) for t in range(101)]
    np.testing.assert_allclose(whole[0], 0.2, rtol=1e-4)
    np.testing.assert_allclose(whole[50], 2.0 * (0.1 + 0.9 * 0.5), rtol=1e-5)
    np.testing.assert_allclose(whole[100], 0.2, rtol=1e-5)
    continued = [float(rate(t, 60)) for t in range(60, 101)]
    np.testing.assert_allclose(continued[0], 0.1 * whole[60], rtol=1e-5)
    np.testing.assert_allclose(continued[10:], whole[70:], rtol=1e-6)


def test_groups_scale_and_freeze_rates():
    config = toy_config(optim__kind="sgd", optim__clip=0.0, optim__groups={"^critic": 0.0, "bias": 0.5})
    optimizer = optim.make_optimizer(config.optim)
    params = {"model": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "critic": {"bias": jnp.ones(2)}}
    directions, _ = optimizer.update(params, optimizer.init(params), params)
    assert float(directions["model"]["kernel"][0, 0]) == 1.0
    assert float(directions["model"]["bias"][0]) == 0.5
    assert float(directions["critic"]["bias"][0]) == 0.0


def test_adamw_equals_optax_and_decays_kernels_only():
    config = toy_config(optim__clip=0.0, optim__weight_decay=0.1).optim
    mine = optim.make_optimizer(config)
    theirs = optax.adamw(1.0, config.b1, config.b2, config.eps, weight_decay=0.1, mask={"kernel": True, "bias": False})
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
    gradients = jax.tree.map(lambda x: 0.1 * x, params)
    a, _ = mine.update(gradients, mine.init(params), params)
    b, _ = theirs.update(gradients, theirs.init(params), params)
    chex.assert_trees_all_close(jax.tree.map(jnp.negative, a), b, rtol=1e-6)


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_nothing_is_traced_twice(mode):
    config = toy_config(parallel__mode=mode)
    spread = parallel.make_parallel(config.parallel)
    optimizer, make_step = make(config)
    chex.clear_trace_counter()
    run = spread.compile(lambda axis: chex.assert_max_traces(make_step(axis), n=1))
    now = spread.replicate(state.create(Toy().init(jax.random.key(0)), optimizer, seed=0, ema=False))
    frozen, source = spread.replicate(Toy().frozen), ToySource(16)
    for _ in range(4):
        now, _ = run(now, frozen, spread.place(next(source)))


def test_uneven_batches_and_unknown_choices_are_refused():
    spread = parallel.make_parallel(toy_config().parallel)
    assert spread.local_batch(16, 2) == 16
    with pytest.raises(UserError, match="multiple of 8 devices"):
        spread.local_batch(12)
    with pytest.raises(UserError, match="jit or pmap"):
        parallel.make_parallel(toy_config(parallel__mode="both").parallel)
    with pytest.raises(UserError, match="there are 8"):
        parallel.make_parallel(toy_config(parallel__devices=9).parallel)
    with pytest.raises(UserError, match="adamw or sgd"):
        optim.make_optimizer(toy_config(optim__kind="lion").optim)
