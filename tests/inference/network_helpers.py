"""What the tests of compiled networks share: a network that compiles in seconds, and its parameters."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from rtgaze_jax.inference.benchmark import random_params
from rtgaze_jax.models.config import EyeConfig, preset

TINY = preset("tiny")
SPECK = dataclasses.replace(
    TINY,
    encoder=dataclasses.replace(TINY.encoder, vit_depth=0),
    render=dataclasses.replace(TINY.render, coarse=3, fine=3),
    eyes=EyeConfig(enabled=False),
)
"""Less than the smallest preset: no eyes, no transformer in the low branch, few samples."""


@functools.cache
def varied_params(config):
    """Random parameters without any zero, so that every one has its effect."""
    draw = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.05 * draw.standard_normal(x.shape, np.float32), random_params(config))


@pytest.fixture(scope="module")
def quick_compile():
    """Compiles in half the time, for programs that run a few times only."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def compiled():
    """The names of the programs that XLA compiles during a test."""
    names = []

    def listen(event, seconds, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(about.get("fun_name", "unknown"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)
