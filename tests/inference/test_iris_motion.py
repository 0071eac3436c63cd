"""The measurement behind experiments/temporal_stability.py against rendered pupils whose places are known."""

import sys
from pathlib import Path

import numpy as np
import pytest

from rtgaze_jax.data.heads.footage import Moment, render_footage
from rtgaze_jax.data.heads.renderer import Renderer

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import temporal_stability as stability


def measured(moments):
    """Jitter of rendered irises with sensor noise: as measured, and as it is."""
    shots = list(render_footage(Renderer(384, 1), "test", 100, moments))
    random, maps, still = np.random.default_rng(1), stability.placements(shots), np.ones(len(shots), bool)
    frames = [np.clip(s.image + random.normal(0, 2.5, s.image.shape), 0, 255).astype(np.uint8) for s in shots]
    return stability.measure(frames, maps, still, None)["jitter"], stability.true_jitter(shots, maps, still)


def test_jitter_is_that_of_the_pupils():
    random = np.random.default_rng(0)
    resting = [Moment((0.03, 0.06), (0.02 * i, 0.01 * np.sin(0.3 * i))) for i in range(8)]
    sideways = [Moment((0.03, 0.06 + random.normal(0, np.radians(0.5))), m.view) for m in resting]
    upright = [Moment((0.03 + random.normal(0, np.radians(0.5)), 0.06), m.view) for m in resting]
    noise, exact = measured(resting)
    assert exact < 0.1
    assert noise < 0.6  # smaller pictures than the experiment's
    found, exact = measured(sideways)
    assert found == pytest.approx(exact, rel=0.2)
    found, exact = measured(upright)
    assert 0.5 * exact < found < exact  # lids hide some of it
