"""Methods: consistency of views against exact scenes, and the 2D warp."""

import dataclasses

import analytic_head
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rtgaze_jax.data.pairs import gather, pack
from rtgaze_jax.data.transform import mirror
from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation import predictors
from rtgaze_jax.models import warp as model
from rtgaze_jax.training.warp_objective import warp
from rtgaze_jax.weights import io

SIZE = 128


def view(yaw, depth_error=0.0):
    pose, k = analytic_head.camera(yaw, 0.0, 2.7), analytic_head.intrinsics()
    gaze, light = np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0])
    image, parts, depth = analytic_head.trace(pose, k, SIZE, gaze, np.linspace(0.2, 0.9, 33).reshape(11, 3), light)
    camera = np.concatenate([pose.reshape(16), k.reshape(9)]).astype(np.float32)
    seen = {"image": image[None], "depth": (depth + depth_error * (depth > 0)).astype(np.float32)[None]}
    return seen, camera[None], np.isin(parts, (1, 2, 3, 6, 7))[None]


def agreement(depth_error):
    (front, camera, mask), (side, aside, _) = view(0.0, depth_error), view(np.radians(8.0), depth_error)
    return float(predictors._agreement(front, camera, side, aside, mask)[0])


def test_true_views_agree_and_wrong_depth_shows():
    right, wrong, absurd = agreement(0.0), agreement(0.1), agreement(-1.5)
    assert right > 30
    assert wrong < right - 4
    assert absurd < right - 4 or np.isnan(absurd)


def test_sideways_camera_is_eight_degrees_away():
    turned = predictors._turn(np.radians(8.0)) @ analytic_head.camera(0.0, 0.0, 2.7)
    np.testing.assert_allclose(turned, analytic_head.camera(np.radians(8.0), 0.0, 2.7), atol=1e-6)


CONFIG = dataclasses.replace(model.PRESETS["tiny"], widths=(8,))


@pytest.fixture(scope="module")
def batch():
    records = [r for p in range(8) for r in analytic_head.render_capture(64, "train", p, gazes=2, views=1)]
    pairs = np.array([[2 * p, 2 * p + 1, 0] for p in range(8)])
    return gather(pack(records), pairs) | {"index": np.arange(8)}


@pytest.fixture(scope="module")
def params():
    return model.init_warp(CONFIG, jax.random.key(0))


def test_untrained_warp_changes_nothing(batch, params):
    found = predictors.Warp(params, CONFIG)(batch)["image"]
    assert np.abs(found.astype(int) - batch["source_image"]).max() <= 1


def test_warp_changes_the_eyes_alone_and_knows_no_side(batch, params):
    out = dict(params["out"], bias=jnp.array([0.3, 0.0, 0.0, 0.1, 0.0]))  # shift left eyes and, mirrored, right eyes
    moved = predictors.Warp(dict(params, out=out), CONFIG)(batch)["image"].astype(int)
    change = np.abs(moved - batch["source_image"]).max((0, 3)) > 2
    rows = np.nonzero(change)[0]
    assert change.any()
    assert rows.max() - rows.min() < 24  # of 64: heads stand differently in the images
    again = predictors.Warp(dict(params, out=out), CONFIG)(_mirrored(batch))["image"][:, :, ::-1].astype(int)
    assert np.abs(again - moved).max() <= 2


def _mirrored(batch):
    return jax.device_get(jax.jit(jax.vmap(mirror))({k: v for k, v in batch.items() if k != "index"}))


def test_a_few_steps_of_the_warp_beat_copying(batch, params):
    goal, params = warp(CONFIG, augment=False), {"model": params}
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state):
        (_, metrics), slope = jax.value_and_grad(goal.loss, has_aux=True)(params, {}, batch, jax.random.key(1), 0)
        update, state = optimizer.update(slope, state)
        return optax.apply_updates(params, update), state, metrics

    state = optimizer.init(params)
    for _ in range(80):
        params, state, metrics = step(params, state)
    assert metrics["l1"] < 0.8 * metrics["l1_copy"]


def test_weights_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "estimator.safetensors"
    io.save(path, {"a": np.ones(1)}, {"kind": "estimator", "config": {}})
    with pytest.raises(UserError, match="not a gaze redirector"):
        predictors.load_model(path)
    with pytest.raises(UserError, match=r"configs/warp.py"):
        predictors.load_baselines(warp=path)
    with pytest.raises(UserError, match=r"configs/portrait.py"):
        predictors.load_baselines(teacher=path)
