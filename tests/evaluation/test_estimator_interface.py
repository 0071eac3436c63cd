"""The shipped interface of the estimator."""

import dataclasses

import jax
import numpy as np
import pytest

from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation import gaze
from rtgaze_jax.models.estimator import PRESETS, init_estimator
from rtgaze_jax.weights import io

CONFIG = dataclasses.replace(PRESETS["tiny"], widths=(8,), depths=(1,))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "estimator.safetensors"
    params = init_estimator(CONFIG, jax.random.key(0))
    params["directions"]["kernel"] = params["directions"]["kernel"] * 100  # untrained, it hardly looks at the image
    io.save(path, params, {"kind": "estimator", "config": dataclasses.asdict(CONFIG), "frame": "camera"})
    return path


def test_unit_vectors_that_do_not_depend_on_the_batch(weights):
    rng = np.random.default_rng(0)
    images, eyes = rng.integers(0, 255, (5, 48, 48, 3), np.uint8), rng.uniform(0.3, 0.7, (5, 2, 2))
    whole, cut = (gaze.load_estimator(weights, batch=n)(images, eyes) for n in (5, 2))
    for name in ("gaze", "head"):
        assert whole[name].shape == (5, 3)
        np.testing.assert_allclose(np.linalg.norm(whole[name], axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(whole[name], cut[name], atol=1e-5)
    assert np.ptp(whole["gaze"], axis=0).max() > 1e-3


def test_missing_and_foreign_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(gaze, "ESTIMATOR", tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=r"configs/estimator.py:small"):
        gaze.load_estimator()
    io.save(tmp_path / "other.safetensors", {"a": np.ones(1)}, {"kind": "student"})
    with pytest.raises(UserError, match="no gaze estimator"):
        gaze.load_estimator(tmp_path / "other.safetensors")
