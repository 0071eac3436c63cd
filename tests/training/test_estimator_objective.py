"""The estimator's objective: crops show what labels say, mirrored halves agree, and a few steps learn."""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rtgaze_jax.data.pairs import fixed_pairs, gather, pack
from rtgaze_jax.data.record import Grid
from rtgaze_jax.geometry.gaze import gaze_to_vector
from rtgaze_jax.models.estimator import PRESETS, take_crops
from rtgaze_jax.training.estimator_objective import estimator, samples

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import analytic_head

CONFIG = dataclasses.replace(PRESETS["tiny"], widths=(16,), depths=(1,))


@pytest.fixture(scope="module")
def records():
    return [r for p in range(4) for r in analytic_head.render_capture(64, "train", p, gazes=4, views=3)]


@pytest.fixture(scope="module")
def batch(records):
    pairs = fixed_pairs(Grid(4, 4, 3), 16)
    return gather(pack(records), pairs) | {"index": np.arange(16)}, pairs


def test_samples_have_the_records_own_camera_labels(batch, records):
    found = jax.jit(samples)(batch[0])
    chosen = [records[i] for i in np.concatenate([batch[1][:, 0], batch[1][:, 1]])]
    for name, key in (("gaze", "gaze_camera"), ("head", "head_pose")):
        truth = gaze_to_vector(jnp.array([r[key] for r in chosen]))
        np.testing.assert_allclose(found[name], truth, atol=1e-5)
    np.testing.assert_allclose(found["eyes"], [r["landmarks"][:2] for r in chosen], atol=1e-5)


def test_eye_crops_are_centred_and_the_right_one_is_mirrored():
    config = PRESETS["tiny"]
    image = np.zeros((1, 64, 64, 3), np.float32)
    image[0, 30:34, 44:48] = 1  # around the subject's left eye at (46, 32) / 64 ...
    image[0, 30:34, 20:24, 0] = 1  # ... and, in red and further right, beside the right eye at (18, 32) / 64
    eyes = jnp.array([[[46, 32], [18, 32]]]) / 64
    crops, face = jax.jit(take_crops, static_argnums=2)(image, eyes, config)
    left, right = np.asarray(crops[0]).sum(-1)
    columns = config.eye_crop[1]
    middle = (np.arange(columns) + 0.5) - columns / 2
    assert abs((left.sum(0) * middle).sum() / left.sum()) < 0.3
    offset = (right.sum(0) * middle).sum() / right.sum()
    expected = -4 / 64 / config.eye_span * columns  # mirrored: the red spot is now left of the centre
    assert abs(offset - expected) < 0.5
    assert face.shape == (1, 32, 32, 3)


@pytest.mark.filterwarnings("error")
def test_a_few_steps_learn_the_gaze_of_spheres(batch):
    goal = estimator(CONFIG)
    params = goal.init(jax.random.key(0))
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state, key):
        (_, metrics), slope = jax.value_and_grad(goal.loss, has_aux=True)(params, {}, batch[0], key, 0)
        update, state = optimizer.update(slope, state)
        return optax.apply_updates(params, update), state, metrics

    state, errors = optimizer.init(params), []
    for i in range(60):
        params, state, metrics = step(params, state, jax.random.key(i))
        errors.append([float(metrics["gaze_error_deg"]), float(metrics["head_error_deg"])])
    first, last = np.mean(errors[:10], 0), np.mean(errors[-10:], 0)
    assert (last < 0.75 * first).all(), (first, last)


def test_random_numbers_belong_to_examples_not_to_places(batch):
    goal = estimator(CONFIG)
    params = goal.init(jax.random.key(0))
    loss = jax.jit(goal.loss)
    order = np.random.default_rng(0).permutation(16)
    shuffled = {name: value[order] for name, value in batch[0].items()}
    key = jax.random.key(3)
    np.testing.assert_allclose(loss(params, {}, batch[0], key, 0)[0], loss(params, {}, shuffled, key, 0)[0], rtol=1e-4)
