"""The student's optional terms: what they measure, whom they move, and which estimators are refused."""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax.data.pairs import fixed_pairs, gather, pack
from rtgaze_jax.data.record import Grid
from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation.gaze import ESTIMATOR
from rtgaze_jax.geometry.gaze import gaze_to_vector
from rtgaze_jax.models.config import preset
from rtgaze_jax.models.discriminator import EyeDiscriminator
from rtgaze_jax.models.estimator import PRESETS, init_estimator
from rtgaze_jax.training import objective, terms
from rtgaze_jax.training.terms import LossWeights
from rtgaze_jax.weights import io

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import analytic_head

ESTIMATOR_CONFIG = dataclasses.replace(PRESETS["tiny"], widths=(16,), depths=(1,))


@pytest.fixture(scope="module")
def records():
    return [r for p in range(2) for r in analytic_head.render_capture(64, "train", p, gazes=3, views=2)]


@pytest.fixture(scope="module")
def pairs():
    return fixed_pairs(Grid(2, 3, 2), 4)


@pytest.fixture(scope="module")
def batch(records, pairs):
    return gather(pack(records), pairs) | {"index": np.arange(4)}


@pytest.fixture(scope="module")
def estimator():
    return init_estimator(ESTIMATOR_CONFIG, jax.random.key(0))


@pytest.mark.parametrize("frame", ["source", "head"])
def test_gaze_term_compares_with_the_target_records_own_label(frame, records, pairs, batch, estimator):
    estimator = estimator | {"directions": jax.tree.map(np.zeros_like, estimator["directions"])}  # always says: forward
    ready = objective.prepare(batch, frame, None)
    term, found = terms.gaze_term(ready["target_image"] * 2 - 1, ready, estimator, ESTIMATOR_CONFIG)
    truth = np.asarray(gaze_to_vector(jnp.array([records[i]["gaze_camera"] for i in pairs[:, 1]])))
    angle = np.arccos(-truth[:, 2])
    np.testing.assert_allclose(term, np.mean(2 * np.sin(angle / 2)), rtol=1e-3)
    np.testing.assert_allclose(found["gaze_error_degrees"], np.degrees(angle).mean(), rtol=1e-3)


def test_gaze_term_moves_the_face_and_never_the_estimator(batch, estimator):
    ready = objective.prepare(batch, "source", None)

    def term(image, params):
        return terms.gaze_term(image, ready, params, ESTIMATOR_CONFIG)[0]

    image, params = jax.grad(term, (0, 1))(ready["target_image"] - 0.5, estimator)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(params))
    moved = np.abs(np.asarray(image)).sum(-1) > 0
    mask = np.asarray(ready["target_face_mask"]) > 0
    assert moved[mask].any()
    assert not moved[~mask].any()


def test_generator_and_critic_do_not_move_each_other():
    config = preset("tiny")
    draw = np.random.default_rng(0)
    h, w = config.eyes.patch
    image = jnp.asarray(draw.uniform(size=(2, 64, 64, 3)), jnp.float32)
    full = jnp.ones((2, 64, 64))
    batch = {"target_image": image, "target_depth": full, "target_face_mask": full, "target_parts": 2 * full}
    batch["prompt"] = jnp.zeros((2, 2))
    critic, weights = EyeDiscriminator(), LossWeights(adversarial=1.0)
    patches = jnp.asarray(draw.uniform(size=(2, 2, h, w, 3)), jnp.float32)
    params = critic.init(jax.random.key(0), patches.reshape(-1, h, w, 3), jnp.zeros((4, 2)))["params"]

    def term(name):
        def value(params, patches):
            eyes = {"patches": patches, "origins": jnp.zeros((2, 2, 2), jnp.int32)}
            return terms.adversarial_terms(critic, params, eyes, batch, weights, config)[name]

        to_critic, to_eyes = jax.grad(value, (0, 1))(params, patches)
        return any(np.any(leaf) for leaf in jax.tree.leaves(to_critic)), bool(np.any(to_eyes))

    assert term("adversarial") == (False, True)
    assert term("critic") == (True, False)


def test_estimators_that_must_not_teach_are_refused(tmp_path, estimator):
    def saved(**training) -> str:
        header = {"kind": "estimator", "config": dataclasses.asdict(ESTIMATOR_CONFIG), "training": training}
        io.save(tmp_path / "estimator.safetensors", estimator, header)
        return str(tmp_path / "estimator.safetensors")

    config, params = objective.training_estimator(saved(metrics={"gaze_error_deg": 3.0}))
    assert config == ESTIMATOR_CONFIG
    assert set(params) == set(estimator)
    with pytest.raises(UserError, match=r"9\.0 degrees"):
        objective.training_estimator(saved(metrics={"gaze_error_deg": 9.0}))
    with pytest.raises(UserError, match="does not say how far it errs"):
        objective.training_estimator(saved())
    with pytest.raises(UserError, match="evaluation asks"):
        objective.training_estimator(str(ESTIMATOR))
    with pytest.raises(UserError, match="no gaze estimator"):
        objective.training_estimator(str(io.DEFAULT))
    with pytest.raises(UserError, match=r"losses\.gaze needs"):
        objective.student(preset("tiny"), LossWeights(gaze=1.0))
