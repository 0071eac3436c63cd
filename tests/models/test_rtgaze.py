"""The student and the teacher: what depends on what, and the presets' sizes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax.geometry.camera import frontal_camera, orbit_camera
from rtgaze_jax.models import config as configs
from rtgaze_jax.models.eyes import eye_crops
from rtgaze_jax.models.portrait import PortraitGenerator
from rtgaze_jax.models.rtgaze import RTGaze

EYES = jnp.array([[[0.085, 0.06, 0.2], [-0.085, 0.06, 0.2]]])
GAZES = [jnp.array([[0.0, 0.0]]), jnp.array([[0.3, -0.4]])]


@pytest.fixture(scope="module")
def tiny():
    config = configs.preset("tiny")
    image = jax.random.uniform(jax.random.key(0), (1, 64, 64, 3)) * 2 - 1
    model = RTGaze(config)
    variables = jax.jit(model.init)(jax.random.key(1), image, GAZES[0], frontal_camera()[None], EYES)
    return config, model, variables, image


def parameters(config, kind=RTGaze):
    s = config.image_size
    image, camera = jnp.zeros((1, s, s, 3)), frontal_camera()[None]
    args = (image, jnp.zeros((1, 2)), camera) if kind is RTGaze else (image, camera, camera)
    tree = jax.eval_shape(kind(config).init, jax.random.key(0), *args)
    return sum(x.size for x in jax.tree.leaves(tree))


def test_preset_sizes():
    assert parameters(configs.preset("tiny")) < 0.5e6
    assert parameters(configs.preset("small")) <= 14e6
    assert 90e6 < parameters(configs.preset("paper")) < 120e6
    assert 80e6 < parameters(configs.preset("paper"), PortraitGenerator) < 110e6


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
def test_config_survives_json(name):
    config = configs.preset(name)
    assert configs.from_dict(json.loads(json.dumps(configs.to_dict(config)))) == config
    with pytest.raises(TypeError):
        configs.from_dict(configs.to_dict(config) | {"no_such_key": 1})


@pytest.mark.parametrize("inject", ["high", "low"])
def test_an_untrained_prompt_changes_nothing(tiny, inject):
    config, _, variables, image = tiny
    config = dataclasses.replace(config, prompt=dataclasses.replace(config.prompt, inject=inject))
    model = RTGaze(config)
    if inject == "low":
        variables = model.init(jax.random.key(1), image, GAZES[0], frontal_camera()[None], EYES)
    features = model.apply(variables, image, method="encode")
    a, b = (model.apply(variables, features, g, EYES, method="redirect") for g in GAZES)
    np.testing.assert_array_equal(a["planes"], b["planes"])
    moved = jax.tree.map(lambda x: x, variables)
    block = moved["params"]["prompt"]["PromptBlock_0"]
    block["project"]["kernel"] = block["project"]["kernel"] + 0.1
    a, b = (model.apply(moved, features, g, EYES, method="redirect") for g in GAZES)
    assert float(jnp.abs(a["planes"] - b["planes"]).max()) > 1e-4


def test_rendering_is_deterministic_without_a_key_and_random_with_one(tiny):
    _, model, variables, image = tiny
    scene = model.apply(variables, model.apply(variables, image, method="encode"), GAZES[1], EYES, method="redirect")
    camera = orbit_camera(10.0, 5.0)[None]
    render = jax.jit(lambda key: model.apply(variables, scene, camera, key, method="render")["image"])
    plain = jax.jit(lambda: model.apply(variables, scene, camera, method="render")["image"])
    np.testing.assert_array_equal(plain(), plain())
    assert float(jnp.abs(render(jax.random.key(0)) - render(jax.random.key(1))).max()) > 1e-6
    assert plain().shape == image.shape


def test_examples_of_a_batch_do_not_mix(tiny):
    _, model, variables, image = tiny
    images = jnp.concatenate([image, -image])
    gazes, eyes = jnp.concatenate(GAZES), jnp.concatenate([EYES, EYES * 0.9])
    cameras = jnp.stack([orbit_camera(10.0, 5.0), orbit_camera(-20.0, 0.0)])
    both = jax.jit(model.apply)(variables, images, gazes, cameras, eyes)
    swapped = jax.jit(model.apply)(variables, images[::-1], gazes[::-1], cameras[::-1], eyes[::-1])
    for name in ("image", "depth", "opacity"):
        np.testing.assert_allclose(both[name], swapped[name][::-1], atol=2e-4)


def test_eye_crops_are_centred_and_the_right_eye_is_mirrored():
    size = 65
    rows, columns = jnp.meshgrid(jnp.arange(size), jnp.arange(size), indexing="ij")
    image = jnp.stack([columns, rows, columns * 0], -1)[None].astype(jnp.float32)
    camera = frontal_camera()[None]
    crops = eye_crops(image, EYES, camera, 0.14, 9)
    from rtgaze_jax.geometry.camera import project

    uv = project(EYES, camera)[0][0] * size - 0.5
    np.testing.assert_allclose(crops[:, 4, 4, :2], uv, atol=1e-3)
    assert float(crops[0, 4, 8, 0] - crops[0, 4, 0, 0]) > 0 > float(crops[1, 4, 8, 0] - crops[1, 4, 0, 0])
    # the crop spans the box: 8 steps of box / 9 at the eye's depth
    expected = 0.14 * 8 / 9 * 4.2647 / 2.5 * size
    np.testing.assert_allclose(crops[0, 4, 8, 0] - crops[0, 4, 0, 0], expected, rtol=0.02)
