"""Eyeballs: rotation, vergence, refraction."""

import re

import numpy as np
import pytest

from rtgaze_jax.data.heads import eyes
from rtgaze_jax.data.heads.gl import SHADERS
from rtgaze_jax.data.labels import angle_between, head_gaze_vector


def test_constants_are_anatomical_and_shared_with_the_shader():
    source = (SHADERS / "eye.frag").read_text()
    shader = {k: float(v) for k, v in re.findall(r"const float (\w+) = ([0-9.]+);", source)}
    assert shader["LIMBUS"] == eyes.LIMBUS
    assert shader["IRIS_DEPTH"] == eyes.IRIS_DEPTH
    assert shader["INDEX"] == eyes.CORNEA_INDEX
    assert pytest.approx(11.7, abs=0.05) == 2 * eyes.LIMBUS * 12  # mm, on a 24 mm ball
    assert pytest.approx(7.8, abs=0.05) == eyes.CORNEA * 12


def test_template_is_a_ball_with_a_cornea():
    vertices, normals, triangles = eyes.template()
    distance = np.linalg.norm(vertices, axis=1)
    assert distance.min() >= 0.9999
    assert 1.08 < distance.max() < 1.11
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert ((normals * vertices).sum(1) > 0.9).all()
    assert triangles.max() < len(vertices)


def test_rotation_turns_without_roll():
    for gaze in np.radians([(0, 0), (20, -35), (-25, 40)]):
        axes = eyes.rotation(gaze)
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(axes[:, 2], head_gaze_vector(gaze), atol=1e-12)
        assert axes[1, 0] == pytest.approx(0)  # the eye's x axis stays level
        assert np.linalg.det(axes) == pytest.approx(1)


def test_eyes_meet_at_the_target():
    centers = np.array([[0.085, 0.02, 0.01], [-0.083, 0.021, 0.012]])
    gaze, distance = np.radians([8.0, -20.0]), 2.1
    own = eyes.converge(gaze, centers, distance)
    target = centers.mean(0) + distance * head_gaze_vector(gaze)
    for center, angles in zip(centers, own, strict=True):
        assert angle_between(head_gaze_vector(angles), target - center) < 1e-9
    # the left eye (at +x) turns towards -x, which is +yaw, farther than the right one
    assert own[0, 1] > gaze[1] > own[1, 1]
    far = eyes.converge(gaze, centers, 1e6)
    np.testing.assert_allclose(far, np.stack([gaze, gaze]), atol=1e-6)


def test_apparent_pupil_obeys_snell():
    center, radius = np.array([0.08, 0.03, 0.02]), 0.0322
    camera = np.array([0.9, -0.6, 2.4])
    axes = eyes.rotation(np.radians([10.0, -12.0]))
    seen = eyes.apparent_pupil(center, radius, axes, camera)
    local = axes.T @ (seen - center) / radius
    limbus = np.arcsin(eyes.LIMBUS)
    middle = np.array([0, 0, np.cos(limbus) - np.sqrt(eyes.CORNEA**2 - eyes.LIMBUS**2)])
    normal = (local - middle) / eyes.CORNEA
    assert np.linalg.norm(normal) == pytest.approx(1, abs=1e-6)
    outside = axes.T @ (camera - seen)
    inside = np.array([0, 0, eyes.IRIS_DEPTH]) - local
    sines = np.sin(angle_between(outside, normal)), np.sin(angle_between(inside, -normal))
    assert sines[0] == pytest.approx(eyes.CORNEA_INDEX * sines[1], rel=1e-4)
    assert abs(np.dot(np.cross(outside, normal), inside)) < 1e-5  # one plane
    straight = eyes.apparent_pupil(center, radius, np.eye(3), center + np.array([0, 0, 3.0]))
    np.testing.assert_allclose(straight[:2], center[:2], atol=1e-9)


def test_filling_lies_behind_the_lids_and_under_the_ball():
    angle = np.linspace(-np.pi, np.pi, 28, endpoint=False)
    edge = np.stack([0.14 * np.cos(angle), 0.05 * np.sin(angle), np.full(28, 0.05)], 1)
    edge[:, 2] = np.where(np.abs(edge[:, 0]) < 0.1, np.sqrt(0.125**2 - np.minimum(edge[:, 0] ** 2, 0.1**2)), 0.03)
    vertices, quads = eyes.filling(edge, 0.12)
    rings = vertices.reshape(7, 28, 3)
    assert (rings[0, :, 2] < edge[:, 2]).all()
    assert (np.linalg.norm(rings[-1], axis=1) < 0.12).all()
    assert quads.max() == len(vertices) - 1
