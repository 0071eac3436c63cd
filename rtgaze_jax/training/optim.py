"""The optimizer: clipping, moments, decay and per-group rates in one optax chain.

The learning rate stays outside of it: so a schedule is a plain function of step counters, with nothing to store or
restore.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rtgaze_jax.errors import UserError


def make_schedule(config: Any, total_steps: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The learning rate as a function of (step, start).

    Linear warm-up over `config.warmup` steps counted from `start` (where the moments began), times a cosine over the
    whole run [0, total_steps], from config.lr down to config.lr * config.final_scale: a run cut into many pieces
    follows one curve.
    """
    if total_steps < 1 or config.warmup < 0 or not config.lr > 0 or not 0 <= config.final_scale <= 1:
        raise UserError("needs total_steps >= 1, optim.warmup >= 0, optim.lr > 0 and optim.final_scale in [0, 1]")

    def schedule(step: jax.Array, start: jax.Array) -> jax.Array:
        done = jnp.clip(step / total_steps, 0.0, 1.0)
        cosine = config.final_scale + (1 - config.final_scale) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        warm = jnp.minimum(1.0, (step - start + 1) / max(config.warmup, 1))
        return jnp.float32(config.lr) * warm * cosine

    return schedule


def _paths(tree: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), tree
    )


def _decayed(params: Any) -> Any:
    """Weight decay for matrices and kernels only: biases and normalisation gains are vectors."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make_optimizer(config: Any) -> optax.GradientTransformation:
    """Descent directions (to be multiplied by minus the learning rate) from gradients.

    config: kind "adamw" | "sgd"; clip (global gradient norm per group, 0: off); b1, b2, eps, weight_decay; groups:
    mapping from a regular expression over parameter paths ("model/eyes/kernel") to a factor on the learning rate (first
    match wins, 0 freezes). Each group clips by its own norm, so a discriminator's gradients never scale the
    generator's.
    """

    def direction(factor: float) -> optax.GradientTransformation:
        if factor == 0:
            return optax.set_to_zero()
        parts = [optax.clip_by_global_norm(config.clip)] if config.clip > 0 else []
        if config.kind == "adamw":
            parts += [
                optax.scale_by_adam(config.b1, config.b2, config.eps),
                optax.add_decayed_weights(config.weight_decay, _decayed),
            ]
        elif config.kind != "sgd":
            raise UserError(f"optim.kind is '{config.kind}'; choose adamw or sgd")
        return optax.chain(*parts, optax.scale(factor))

    groups: Mapping[str, float] = dict(config.groups)
    if not groups:
        return direction(1.0)

    def label(path: str) -> str:
        return next((pattern for pattern in groups if re.search(pattern, path)), "")

    transforms = {pattern: direction(factor) for pattern, factor in groups.items()}
    return optax.multi_transform({"": direction(1.0)} | transforms, lambda params: jax.tree.map(label, _paths(params)))
