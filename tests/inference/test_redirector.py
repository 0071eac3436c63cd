"""The Python interface: angles, frames, limits strength, with a network whose answers are known; then a real one."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import rtgaze_jax
from rtgaze_jax.errors import NoFaceError, UserError
from rtgaze_jax.geometry.camera import frontal_camera, orbit_camera
from rtgaze_jax.inference import redirector as module
from rtgaze_jax.inference.network import Network, head_to_camera_gaze
from rtgaze_jax.inference.redirector import GazeWarning, Redirector, ease
from rtgaze_jax.models.config import preset, to_dict
from rtgaze_jax.models.rtgaze import RTGaze
from rtgaze_jax.weights import io

ASTRONAUT = Path(__file__).parents[2] / "examples" / "astronaut.png"
SOURCE_GAZE = (4.0, -6.0)  # degrees


class KnownNetwork:
    """Stands in for `Network`: remembers what it is asked, and paints the gaze into the image."""

    size = 128

    def __init__(self, head_yaw=0.0):
        c, s = np.cos(np.radians(head_yaw)), np.sin(np.radians(head_yaw))
        self.rotation = jnp.array([[[c, 0, -s], [0, 1, 0], [s, 0, c]]], jnp.float32)
        self.gazes, self.cameras, self.points = [], [], []
        self.opacity = jnp.ones((1, 128, 128))

    def encode(self, image):
        assert image.shape == (1, 128, 128, 3)
        assert image.dtype == jnp.uint8
        gaze = jnp.radians(jnp.array([SOURCE_GAZE], jnp.float32))
        return {"image": image, "pose": {"rotation": self.rotation, "position": jnp.zeros((1, 3)), "gaze": gaze}}

    def redirect(self, features, gaze, eye_points):
        self.gazes.append(np.degrees(np.asarray(gaze[0])))
        self.points.append(np.asarray(eye_points))
        return {"image": 255 - features["image"]}

    def look(self, features, gaze, eye_points):
        return self.redirect(features, gaze, eye_points)["image"]

    def render(self, features, scene, camera):
        self.cameras.append(np.asarray(camera))
        return {"image": scene["image"], "depth": jnp.ones((1, 128, 128)), "opacity": self.opacity}


@pytest.fixture
def network():
    return KnownNetwork()


@pytest.fixture
def face(network):
    return Redirector(network).encode(ASTRONAUT)


@pytest.fixture(scope="module")
def photo():
    return np.array(Image.open(ASTRONAUT).convert("RGB"))


def test_result(face, network, photo):
    out = face.redirect(pitch=10, yaw=-20)
    assert out.image.shape == photo.shape
    assert out.image.dtype == np.uint8
    assert out.face.shape == (128, 128, 3)
    assert out.depth.shape == (128, 128)
    assert out.gaze == (10, -20)
    np.testing.assert_allclose(network.gazes, [(10, -20)] * 2, atol=1e-4)  # the second time for the depth
    np.testing.assert_array_equal(network.cameras[-1][0], out.camera)
    np.testing.assert_allclose(out.camera, frontal_camera(), atol=1e-6)
    changed = (out.image != photo).any(-1)
    assert 0.001 < changed.mean() < 0.01
    np.testing.assert_allclose(network.points[-1][0].mean(0), (0.5, 0.43), atol=0.03)
    assert network.points[-1][0, 0, 0] > network.points[-1][0, 1, 0]


def test_look_at_camera(face, network):
    assert face.look_at("camera").gaze == (0, 0)
    with pytest.raises(UserError, match="camera"):
        face.look_at("moon")


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.5, 1.0])
def test_strength_goes_from_the_photos_gaze_to_the_wanted_one(face, network, photo, strength):
    out = face.redirect(14, 4, strength=strength)
    expected = (1 - strength) * np.array(SOURCE_GAZE) + strength * np.array([14, 4])
    np.testing.assert_allclose(out.gaze, expected, atol=1e-4)
    np.testing.assert_allclose(network.gazes[-1], expected, atol=1e-4)
    if strength == 0:
        np.testing.assert_array_equal(out.image, photo)
    else:
        assert (out.image != photo).any()


def test_weak_corrections_change_the_photo_little(face, photo):
    """The known network inverts the picture, the worst that can happen: even so strength must come in gradually."""
    change = [np.abs(face.redirect(0, 0, strength=s).image.astype(int) - photo).sum() for s in (0, 0.02, 0.1, 0.2, 1)]
    assert change[0] == 0
    assert change[1] < 0.15 * change[3]
    assert change[1] < change[2] < change[3] == change[4]


@pytest.mark.parametrize(
    "arguments",
    [
        {"pitch": float("nan")}, {"yaw": float("inf")}, {"pitch": 30.1}, {"yaw": -45.1}, {"pitch": "up"}, {"yaw": None},
        {"strength": 1.1}, {"strength": -0.1}, {"strength": float("nan")}, {"strength": "much"}, {"frame": "world"},
    ],
)  # fmt: skip
def test_bad_arguments_are_one_line(face, arguments):
    with pytest.raises(UserError) as caught:
        face.redirect(**arguments)
    assert "\n" not in str(caught.value)


def test_beyond_the_trained_range_gaze_eases_off(network):
    face = Redirector(network, {"gaze_range_degrees": [15, 20]}).encode(ASTRONAUT)
    assert face.redirect(15, -20).gaze == (15, -20)
    with pytest.warns(GazeWarning, match="15 degrees of pitch and 20 of yaw"):
        out = face.redirect(-25, 40)
    assert -20 < out.gaze[0] < -15
    assert 20 < out.gaze[1] < 25


def test_ease_is_continuous_and_monotone():
    angles = np.linspace(-60, 60, 2001)
    eased = np.array([ease(a, 20.0) for a in angles])
    assert (np.diff(eased) >= 0).all()
    assert np.diff(eased).max() <= np.diff(angles).max() + 1e-9
    np.testing.assert_array_equal(eased[np.abs(angles) <= 20], angles[np.abs(angles) <= 20])
    assert np.abs(eased).max() <= 25


@pytest.mark.parametrize("head_yaw", [0, 12, -25])
def test_head_frame_adds_the_heads_turn(head_yaw):
    """A head turned by `head_yaw` to image left that looks straight ahead looks `head_yaw` to image left."""
    network = KnownNetwork(head_yaw)
    face = Redirector(network).encode(ASTRONAUT)
    np.testing.assert_allclose(face.redirect(0, 5, frame="head").gaze, (0, head_yaw + 5), atol=1e-3)
    np.testing.assert_allclose(face.redirect(0, 5, frame="camera").gaze, (0, 5), atol=1e-3)


def test_a_new_view_shows_the_head_alone(face, network):
    network.opacity = jnp.ones((1, 128, 128)).at[:, :64].set(0.0).at[:, 64:66].set(0.75)
    view, own = face.render(3, 4, view=(10, -20)), face.redirect(3, 4)
    assert (view.image[:64] == 128).all()
    np.testing.assert_array_equal(view.image[66:], own.face[66:])  # this network shows the same from everywhere
    between = 0.75 * own.face[64:66] + 0.25 * 128
    np.testing.assert_allclose(view.image[64:66], between, atol=0.51)
    assert (view.depth[:64] == 0).all()
    assert (view.depth[64:] == 1).all()


def test_more_views_of_a_gaze_make_its_scene_once(face, network):
    views = [face.render(3, 4, view=(pitch, 0)) for pitch in (10, -10)]
    assert (len(network.gazes), len(network.cameras)) == (1, 2)
    np.testing.assert_array_equal(views[0].image, views[1].image)  # this network's scene
    face.render(3, 5)
    assert (len(network.gazes), len(network.cameras)) == (2, 3)


def test_views_orbit_the_head(face, network):
    view = face.render(3, 4, view=(10, -20))
    assert view.image.shape == (128, 128, 3)
    np.testing.assert_allclose(network.cameras[-1][0], orbit_camera(-20.0, 10.0), atol=1e-6)
    np.testing.assert_allclose(network.gazes[-1], (3, 4), atol=1e-4)
    np.testing.assert_allclose(face.render(0, 0).camera, frontal_camera(), atol=1e-6)
    with pytest.raises(UserError, match="view"):
        face.render(0, 0, view=(0, 90))


def test_two_faces(network, photo):
    small = np.array(Image.fromarray(photo).resize((256, 256)))
    both = np.concatenate([photo, np.pad(small, ((128, 128), (0, 0), (0, 0)), "edge")], 1)
    model = Redirector(network)
    with pytest.warns(GazeWarning, match=r"2 faces.*--face"):
        largest = model.encode(both)
    assert largest.found.box[0] < 512
    assert model.encode(both, face=2).found.box[0] > 512
    faces = list(model.encode_all(both))
    assert [f.found.box[0] > 512 for f in faces] == [False, True]
    pasted = faces[1].redirect(0, 0).paste(faces[0].redirect(0, 0).image)
    changed = (pasted != both).any(-1)
    assert changed[:, :512].any()
    assert changed[:, 512:].any()
    for wrong in (0, 3):
        with pytest.raises(UserError, match=f"no face {wrong}"):
            model.encode(both, face=wrong)


def test_no_face(network):
    with pytest.raises(NoFaceError, match="no face found in the photo"):
        Redirector(network).encode(np.zeros((200, 300, 3), np.uint8))
    with pytest.raises(UserError, match="no such file"):
        Redirector(network).encode("nowhere.jpg")


def test_head_to_camera_gaze_of_the_identity():
    gaze = jnp.radians(jnp.array([[7.0, -11.0]]))
    pose = {"rotation": jnp.eye(3)[None], "position": jnp.array([[0.1, 0.2, 0.3]])}
    np.testing.assert_allclose(head_to_camera_gaze(gaze, pose), gaze, atol=1e-6)


@pytest.fixture(scope="module")
def tiny():
    """Config and random parameters of the tiny preset, made without compiling its initialisation."""
    config = preset("tiny")
    size = config.image_size
    model = RTGaze(config)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), jnp.zeros((1, 2)), frontal_camera()[None])
    )
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda s: random.normal(0, 0.2, s.shape).astype(np.float32), shapes["params"])
    return config, params


@pytest.fixture(scope="module")
def loaded(tiny, tmp_path_factory):
    config, params = tiny
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    io.save(path, params, {"config": to_dict(config), "frame": config.frame, "licence": "Apache-2.0"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "use_compilation_cache", lambda: None)
        return rtgaze_jax.load(path)


def test_a_real_network_end_to_end(loaded, photo):
    face = loaded.encode(photo)
    first, second = face.redirect(5, 15), face.redirect(5, -15)
    assert first.face.shape == (64, 64, 3)
    assert np.isfinite(first.depth).all()
    assert (first.face != second.face).any()
    assert first.image.shape == photo.shape
    np.testing.assert_array_equal(face.redirect(5, 15).face, first.face)
    assert (face.render(5, 15, view=(0, 20)).image != first.face).any()


@pytest.mark.parametrize("frame", ["source", "head"])
def test_the_network_is_asked_in_its_own_world_frame(monkeypatch, frame):
    """Gaze, eyes and cameras given in the source frame reach the model in the weights' frame."""

    def echo(self, params, *arguments, method):
        image = jnp.zeros((1, 64, 64, 3))
        return {
            "encode": lambda *_: {"pose": pose},
            "look": lambda *_: image,
            "redirect": lambda _, *wanted: dict(zip(("prompt", "eyes", "camera"), wanted, strict=True)),
            "render": lambda _, camera: {"image": image, "coarse_depth": camera, "opacity": jnp.ones((1, 32, 32))},
        }[method](*arguments)

    monkeypatch.setattr(Network, "_apply", echo)
    c, s = np.cos(0.4), np.sin(0.4)
    rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    position = np.array([0.02, -0.03, 0.05])
    pose = {"rotation": rotation[None], "position": position[None], "eyes": np.array([[[0, 0, 0.2], [0, 0, 0.15]]])}
    pose = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), pose)
    network = Network({}, dataclasses.replace(preset("tiny"), frame=frame))
    points = np.array([[0.63, 0.4], [0.37, 0.41]])
    pitch, yaw = 0.2, -0.3
    asked = network.redirect({"pose": pose}, jnp.array([[pitch, yaw]]), jnp.asarray(points, jnp.float32)[None])
    view = network.render({"pose": pose}, {}, orbit_camera(10.0, 5.0)[None])["depth"]

    to_world = np.eye(4)  # source to world
    if frame == "head":
        to_world[:3, :3], to_world[:3, 3] = rotation.T, -rotation.T @ position
    prompt, eyes, camera = (np.asarray(asked[name]) for name in ("prompt", "eyes", "camera"))
    gaze = to_world[:3, :3] @ (-np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw))
    np.testing.assert_allclose(prompt[0], (np.arcsin(gaze[1]), np.arctan2(-gaze[0], gaze[2])), atol=1e-5)
    cam2world = camera[0, :16].reshape(4, 4)
    frontal = np.diag([1.0, -1.0, -1.0, 1.0])
    frontal[2, 3] = 2.7
    np.testing.assert_allclose(cam2world, to_world @ frontal, atol=1e-5)
    for eye, point, depth in zip(eyes[0], points, (0.2, 0.15), strict=True):
        x, y, z = (np.linalg.inv(cam2world) @ (*eye, 1))[:3]
        np.testing.assert_allclose((4.2647 * x / z + 0.5, 4.2647 * y / z + 0.5), point, atol=1e-5)
        assert z == pytest.approx(2.7 - depth, abs=1e-5)
    np.testing.assert_allclose(
        np.asarray(view)[0, :16].reshape(4, 4),
        to_world @ np.asarray(orbit_camera(10.0, 5.0))[:16].reshape(4, 4),
        atol=1e-5,
    )


def test_weights_of_another_network_are_refused(tmp_path):
    io.save(tmp_path / "a.safetensors", {"a": np.zeros(3)}, {"config": {"unknown": 1}})
    params, header = io.load(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="another network"):
        Network.from_weights(params, header)
