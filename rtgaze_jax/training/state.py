"""Everything that a training step changes, as one pytree."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, PyTree, UInt32


@struct.dataclass
class TrainState:
    """The state of a run. Parameters, moments and averages are float32; `key` is the raw data of the run's random key.

    `step` counts batches seen, so every batch has its own random numbers and learning rate even where its update was
    skipped; `start` is the step at which the optimizer began (not 0 after a weights-only continuation, whose warm-up
    starts there).
    """

    step: Int[Array, ""]
    start: Int[Array, ""]
    skipped: Int[Array, ""]  # updates skipped for a non-finite loss or gradient, ever
    streak: Int[Array, ""]  # and in a row, up to now
    key: UInt32[Array, "2"]
    params: PyTree[Float[Array, "..."]]
    opt_state: Any
    ema: PyTree[Float[Array, "..."]] | None  # exponential moving average of params; None: not kept


def create(
    params: PyTree, optimizer: optax.GradientTransformation, *, seed: int, ema: bool, start: int = 0
) -> TrainState:
    """A fresh state around `params` (cast to float32) at step `start`."""
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    return TrainState(
        step=jnp.int32(start),
        start=jnp.int32(start),
        skipped=jnp.int32(0),
        streak=jnp.int32(0),
        key=jax.random.key_data(jax.random.key(seed, impl="threefry2x32")),
        params=params,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if ema else None,
    )


def step_key(state: TrainState) -> jax.Array:
    """The random key of the state's next step."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.key, impl="threefry2x32"), state.step)


def export_params(state: TrainState) -> PyTree:
    """The parameters to use after training: the average where one is kept."""
    return state.params if state.ema is None else state.ema
