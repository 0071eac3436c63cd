"""One training step as a pure function; parallel.py runs it on one device or many."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rtgaze_jax.training.state import TrainState, step_key

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
Loss = Callable[[Any, Any, Batch, jax.Array, jax.Array], tuple[jax.Array, Metrics]]
Step = Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]


def _split(batch: Batch, parts: int) -> Batch:
    """[B, ...] -> [parts, B/parts, ...]. Strided, so that every device splits the rows it already holds."""
    return jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)


def _gradients(loss: Loss, axis_name: str | None, accumulate: int):
    """(params, frozen, batch, key, step) -> ((loss, metrics), gradients), all of them means over the global batch."""

    def mean_loss(params, frozen, batch, key, step):
        value, metrics = loss(params, frozen, batch, key, step)
        metrics = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), metrics)
        return (value, metrics) if axis_name is None else jax.lax.pmean((value, metrics), axis_name)

    def one(params, *rest):
        result, gradients = jax.value_and_grad(mean_loss, has_aux=True)(params, *rest)
        # Where shard_map tracks which values vary (check_vma), the mean inside the loss has already summed the
        # gradients, and this mean changes nothing; where it does not, they are each device's own. Both are needed to
        # be right in both.
        return result, gradients if axis_name is None else jax.lax.pmean(gradients, axis_name)

    def many(params, frozen, batch, key, step):
        parts = _split(batch, accumulate)
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(one, params, frozen, first, key, step)

        def add(total, part):
            return jax.tree.map(jnp.add, total, one(params, frozen, part, key, step)), None

        total, _ = jax.lax.scan(add, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), parts)
        return jax.tree.map(lambda x: x / accumulate, total)

    return one if accumulate == 1 else many


def _keep(finite: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    accumulate: int = 1,
    ema_decay: float = 0.0,
    axis_name: str | None = None,
) -> Step:
    """The step (state, frozen, batch) -> (state, metrics).

    loss(params, frozen, batch, key, step) is a mean over the examples it is given; random numbers inside it come from
    the key and batch["index"] (global example index), so neither devices nor accumulation change them. A step whose
    loss or gradient is not finite leaves parameters, moments and average as they were. axis_name: of pmap's axis.
    Metrics: the loss's own, and loss, grad_norm (before clipping), learning_rate, skipped, streak.
    """
    gradients_of = _gradients(loss, axis_name, accumulate)

    def step(state: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
        (value, metrics), gradients = gradients_of(state.params, frozen, batch, step_key(state), state.step)
        norm = optax.global_norm(gradients)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        rate = schedule(state.step, state.start)
        directions, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(lambda p, d: p - rate * d, state.params, directions)
        ema = state.ema
        if ema is not None:
            age = (state.step - state.start).astype(jnp.float32)
            decay = jnp.minimum(ema_decay, (1 + age) / (10 + age))  # a young average forgets the initialisation quickly
            ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, params)
        failed = 1 - finite.astype(jnp.int32)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            skipped=state.skipped + failed,
            streak=(state.streak + 1) * failed,
            params=_keep(finite, params, state.params),
            opt_state=_keep(finite, opt_state, state.opt_state),
            ema=_keep(finite, ema, state.ema),
        )
        own = {
            "loss": value,
            "grad_norm": norm,
            "learning_rate": rate,
            "skipped": state.skipped,
            "streak": state.streak,
        }
        return state, {**metrics, **own}

    return step
