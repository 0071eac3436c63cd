"""The student and the teacher: what depends on what, and the presets' sizes."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax.geometry.camera import frontal_camera, orbit_camera, project
from rtgaze_jax.models import config as configs
from rtgaze_jax.models.crops import eye_crops
from rtgaze_jax.models.layers import initialize
from rtgaze_jax.models.portrait import PortraitGenerator
from rtgaze_jax.models.rtgaze import RTGaze

EYES = jnp.array([[[0.085, 0.06, 0.2], [-0.085, 0.06, 0.2]]])
GAZES = [jnp.array([[0.0, 0.0]]), jnp.array([[0.3, -0.4]])]


@pytest.fixture(scope="module")
def tiny():
    config = configs.preset("tiny")
    image = jax.random.uniform(jax.random.key(0), (1, 64, 64, 3)) * 2 - 1
    return config, {"params": fresh(config, image)}, image


def fresh(config, image):
    return initialize(RTGaze(config), jax.random.key(1), image, GAZES[0], frontal_camera()[None], EYES)


def stage(config, method):
    return jax.jit(functools.partial(RTGaze(config).apply, method=method))


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


@pytest.mark.parametrize("name", ["tiny", "small_128", "small_256", "small", "paper"])
def test_config_survives_json(name):
    config = configs.preset(name)
    assert configs.from_dict(json.loads(json.dumps(configs.to_dict(config)))) == config
    with pytest.raises(TypeError):
        configs.from_dict(configs.to_dict(config) | {"no_such_key": 1})


@pytest.mark.parametrize("inject", ["high", "low"])
def test_an_untrained_prompt_changes_nothing(tiny, inject):
    config, variables, image = tiny
    config = dataclasses.replace(config, prompt=dataclasses.replace(config.prompt, inject=inject))
    if inject == "low":
        variables = {"params": fresh(config, image)}
    features = stage(config, "encode")(variables, image)
    redirect = stage(config, "redirect")
    a, b = (redirect(variables, features, g, EYES)["planes"] for g in GAZES)
    np.testing.assert_array_equal(a, b)
    block = variables["params"]["prompt"]["PromptBlock_0"]
    moved = block | {"project": {"kernel": block["project"]["kernel"] + 0.1}}
    prompt = variables["params"]["prompt"] | {"PromptBlock_0": moved}
    changed = {"params": variables["params"] | {"prompt": prompt}}
    a, b = (redirect(changed, features, g, EYES)["planes"] for g in GAZES)
    assert float(jnp.abs(a - b).max()) > 1e-4


def test_rendering_is_deterministic_without_a_key_and_random_with_one(tiny):
    config, variables, image = tiny
    features = stage(config, "encode")(variables, image)
    scene = stage(config, "redirect")(variables, features, GAZES[1], EYES)
    camera = orbit_camera(10.0, 5.0)[None]
    render = stage(config, "render")
    plain = render(variables, scene, camera)["image"]
    np.testing.assert_array_equal(plain, render(variables, scene, camera)["image"])
    one, two = (render(variables, scene, camera, jax.random.key(i))["image"] for i in range(2))
    assert float(jnp.abs(one - two).max()) > 1e-6
    assert plain.shape == image.shape


def test_an_untrained_network_shows_the_photo_in_its_own_view(tiny):
    config, variables, image = tiny
    out = jax.jit(RTGaze(config).apply)(variables, image, GAZES[0], frontal_camera()[None], EYES)
    # the mask starts at sigmoid(4): 98 % of the reprojected source, which in its own view is the source
    photo = np.corrcoef(np.ravel(out["base"]), np.ravel(image))[0, 1]
    assert photo > 0.95


def test_a_networks_own_view_is_the_photo_whatever_it_has_learned(tiny):
    config, variables, image = tiny
    mask = variables["params"]["renderer"]["superres"]["mask"]
    drawn = jax.tree.map(lambda x: x, variables)
    drawn["params"]["renderer"]["superres"]["mask"] = mask | {"bias": mask["bias"] - 8}  # draws everything anew
    apply = functools.partial(stage(config, "__call__"), drawn, image, GAZES[1])
    own = apply(frontal_camera()[None], EYES)["base"]
    np.testing.assert_allclose(own, image, atol=1e-4)  # bilinear lookup at whole pixels
    aside = apply(orbit_camera(8.0, 0.0)[None], EYES)["base"]
    trained = apply(frontal_camera()[None], EYES, None, jax.random.split(jax.random.key(0), 1))["base"]
    assert np.abs(aside - image).mean() > 0.05
    assert np.abs(trained - image).mean() > 0.05  # with a key, in training, nothing is given away
    eyeless = dataclasses.replace(config, eyes=dataclasses.replace(config.eyes, enabled=False))
    apply = functools.partial(stage(eyeless, "__call__"), drawn, image, GAZES[1])
    assert np.abs(apply(frontal_camera()[None], EYES)["base"] - image).mean() > 0.05  # the gaze is in the rendering


def test_a_look_is_the_photo_with_the_eyes_of_a_rendering(tiny):
    config, params, image = tiny
    camera = frontal_camera()[None]
    features = stage(config, "encode")(params, image)
    look = stage(config, "look")(params, features, GAZES[1], EYES, camera)
    rendered = stage(config, "render")(
        params, stage(config, "redirect")(params, features, GAZES[1], EYES, camera), camera
    )
    eyes = np.zeros((64, 64), bool)
    rows, columns = config.eyes.patch
    for row, column in np.asarray(rendered["eyes"]["origins"][0]):
        eyes[row : row + rows, column : column + columns] = True
        inside = np.s_[0, row + 2 : row + rows - 2, column + 2 : column + columns - 2]
        np.testing.assert_allclose(look[inside], rendered["image"][inside], atol=1e-5)
    np.testing.assert_allclose(look[0][~eyes], image[0][~eyes], atol=1e-6)
    assert np.abs(look[0][eyes] - image[0][eyes]).max() > 0.05


def test_examples_of_a_batch_do_not_mix(tiny):
    config, variables, image = tiny
    images = jnp.concatenate([image, -image])
    gazes, eyes = jnp.concatenate(GAZES), jnp.concatenate([EYES, EYES * 0.9])
    cameras = jnp.stack([orbit_camera(10.0, 5.0), orbit_camera(-20.0, 0.0)])
    apply = jax.jit(RTGaze(config).apply)
    both = apply(variables, images, gazes, cameras, eyes)
    swapped = apply(variables, images[::-1], gazes[::-1], cameras[::-1], eyes[::-1])
    for name in ("image", "depth", "opacity"):
        np.testing.assert_allclose(both[name], swapped[name][::-1], atol=2e-4)


def test_eye_crops_are_centred_and_the_right_eye_is_mirrored():
    size = 65
    rows, columns = jnp.meshgrid(jnp.arange(size), jnp.arange(size), indexing="ij")
    image = jnp.stack([columns, rows, columns * 0], -1)[None].astype(jnp.float32)
    camera = frontal_camera()[None]
    crops = eye_crops(image, EYES, camera, 0.14, 9)
    uv = project(EYES, camera)[0][0] * size - 0.5
    np.testing.assert_allclose(crops[:, 4, 4, :2], uv, atol=1e-3)
    assert float(crops[0, 4, 8, 0] - crops[0, 4, 0, 0]) > 0 > float(crops[1, 4, 8, 0] - crops[1, 4, 0, 0])
    # the crop spans the box: 8 steps of box / 9 at the eye's depth
    expected = 0.14 * 8 / 9 * 4.2647 / 2.5 * size
    np.testing.assert_allclose(crops[0, 4, 8, 0] - crops[0, 4, 0, 0], expected, rtol=0.02)
