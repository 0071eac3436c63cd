"""Cameras: labels, look-at, projection against rays, rigid transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax.geometry import camera, gaze
from rtgaze_jax.rendering import rays

project = jax.jit(camera.project)
rays_at = jax.jit(rays.rays_at)
orbit_camera = jax.jit(camera.orbit_camera, static_argnames=("radius", "pivot"))


def random_camera(seed=0, batch=4):
    """Labels with a random rigid pose in front of the origin, and skewed, uncentred intrinsics."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(batch, 3, 3)))[0]
    rotation *= np.linalg.det(rotation)[:, None, None]
    pose = np.tile(np.eye(4), (batch, 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = rotation, rng.normal(size=(batch, 3))
    k = np.array([[4.1, 0.05, 0.48], [0, 4.4, 0.53], [0, 0, 1]])
    return camera.pack_camera(jnp.asarray(pose, jnp.float32), jnp.asarray(k, jnp.float32))


def test_label_layout():
    label = random_camera()
    pose, k = camera.unpack_camera(label)
    np.testing.assert_array_equal(camera.pack_camera(pose, k), label)
    np.testing.assert_array_equal(label[1, 3:12:4], pose[1, :3, 3])
    assert label[2, 17] == jnp.float32(0.05)
    expected = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1, 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]
    np.testing.assert_allclose(camera.frontal_camera(), expected, rtol=1e-7)


def test_orbit_looks_at_its_pivot_without_roll():
    yaw, pitch = (a.ravel() for a in jnp.meshgrid(jnp.linspace(-80, 80, 5), jnp.linspace(-60, 60, 5)))
    pivot = (0.1, -0.05, 0.2)
    label = orbit_camera(yaw, pitch, radius=2.0, pivot=pivot)
    uv, depth = project(jnp.broadcast_to(jnp.array(pivot), (25, 1, 3)), label)
    np.testing.assert_allclose(uv, 0.5, atol=1e-5)
    np.testing.assert_allclose(depth, 2.0, rtol=1e-6)
    pose, _ = camera.unpack_camera(label)
    np.testing.assert_allclose(pose[:, 1, 0], 0, atol=1e-6)  # the image's x axis is level
    assert (pose[:, 1, 1] < 0).all()  # the image is not upside down
    np.testing.assert_allclose(jnp.linalg.det(pose[:, :3, :3]), 1, rtol=1e-5)


def test_orbit_angles_have_the_sign_of_gaze():
    np.testing.assert_allclose(orbit_camera(0.0, 0.0), camera.frontal_camera(), atol=1e-6)
    pose, _ = camera.unpack_camera(orbit_camera(20.0, 10.0))
    np.testing.assert_allclose(pose[1, 3], 2.7 * np.sin(np.radians(10)), rtol=1e-5)  # above
    np.testing.assert_allclose(np.arctan2(-pose[0, 3], pose[2, 3]), np.radians(20), rtol=1e-5)  # image left
    towards = gaze.head_gaze_to_vector(jnp.radians(jnp.array([10.0, 20.0])))
    np.testing.assert_allclose(gaze.gaze_from_world(towards, pose), 0, atol=1e-6)


def test_eg3d_pitch_argument_is_not_an_angle():
    pose, _ = camera.unpack_camera(camera.look_at_camera(np.pi / 2, np.pi / 2 - np.radians(20)))
    elevation = np.degrees(np.arcsin(pose[1, 3] / 2.7))
    np.testing.assert_allclose(elevation, 12.8, atol=0.05)


def test_project_inverts_rays():
    label = random_camera()
    uv = jnp.asarray(np.random.default_rng(1).uniform(0, 1, (4, 7, 2)), jnp.float32)
    origins, directions = rays_at(label, uv)
    lengths = jnp.linspace(0.5, 4, 7)
    back, depth = project(origins + directions * lengths[:, None], label)
    np.testing.assert_allclose(back, uv, atol=2e-5)
    np.testing.assert_allclose(depth, jnp.broadcast_to(lengths, (4, 7)), rtol=1e-5)


def test_points_behind_a_camera_are_outside_its_image():
    uv, _ = project(jnp.array([[0.3, 0.1, 3.5], [0.3, 0.1, 2.7]]), camera.frontal_camera())
    assert np.isfinite(uv).all()
    assert (jnp.abs(uv).max(axis=-1) > 10).all()


def test_view_change_is_the_angle_of_an_orbit_and_of_a_turn_and_the_ratio_of_a_zoom():
    front, angle = camera.frontal_camera(), 0.05
    orbit = camera.orbit_camera(np.degrees(angle), 0.0, pivot=(0.0, 0.0, 0.0))
    chord = 2 * np.sin(angle / 2)
    np.testing.assert_allclose(camera.view_change(front, orbit), np.sqrt(2) * chord, rtol=1e-3)
    np.testing.assert_allclose(
        camera.view_change(front, camera.frontal_camera(1.1 * camera.FOCAL)), 0.1 * np.sqrt(2), rtol=1e-3
    )
    both = camera.view_change(jnp.stack([front, orbit]), front)
    assert both[0] == 0
    assert both[1] > 0


def test_invert_rigid():
    pose, _ = camera.unpack_camera(random_camera())
    np.testing.assert_allclose(camera.invert_rigid(pose), jnp.linalg.inv(pose), atol=1e-5)


def views(seed):
    """Four cameras that see the head, with other focal lengths and distances, and the eyes of four heads."""
    draw = np.random.default_rng(seed)
    yaw, pitch = draw.uniform(-35, 35, (2, 4))
    radius, focal = draw.uniform(2, 5, (2, 4))
    settings = zip(yaw, pitch, radius, focal, strict=True)
    around = [camera.orbit_camera(y, p, r, (0.02, -0.01, 0), f) for y, p, r, f in settings]
    eyes = np.array([[0.085, 0.05, 0.07], [-0.08, 0.04, 0.06]]) + draw.normal(0, 0.01, (4, 2, 3))
    return jnp.stack(around), jnp.asarray(eyes, jnp.float32)


def test_source_frame_shows_what_the_cameras_saw():
    (label, eyes), (other, _) = views(2), views(3)
    transform = jax.jit(camera.source_frame)(label, eyes)
    own, moved = (camera.transform_camera(transform, x) for x in (label, other))
    np.testing.assert_array_equal(camera.unpack_camera(moved)[1], camera.unpack_camera(other)[1])
    # Another camera sees the same picture of a world that moved with it, in proportion as far away, and the same gaze.
    points = jnp.asarray(np.random.default_rng(5).uniform(-0.3, 0.3, (4, 6, 3)), jnp.float32)
    before, after = project(points, other), project(camera.transform_points(transform, points), moved)
    np.testing.assert_allclose(before[0], after[0], atol=2e-5)
    np.testing.assert_allclose(before[1] * camera.scale_of(transform)[:, None], after[1], rtol=1e-5)
    vector = gaze.head_gaze_to_vector(jnp.asarray(np.random.default_rng(4).normal(size=(4, 2)), jnp.float32))
    np.testing.assert_allclose(
        gaze.gaze_from_world(vector, camera.unpack_camera(other)[0]),
        gaze.gaze_from_world(camera.transform_vector(transform, vector), camera.unpack_camera(moved)[0]),
        atol=1e-5,
    )
    # The photo's camera looks along -z from the z axis, and the frontal camera sees the same of the eyes' plane.
    pose, _ = camera.unpack_camera(own)
    np.testing.assert_allclose(pose[:, :3, :3], jnp.broadcast_to(camera.FRONTAL_POSE[:3, :3], (4, 3, 3)), atol=1e-5)
    np.testing.assert_allclose(pose[:, :2, 3], 0, atol=1e-5)
    middle = camera.transform_points(transform, eyes).mean(1)
    np.testing.assert_allclose(middle[:, 2], camera.EYE_PLANE, atol=1e-5)
    plane = jnp.concatenate([points[..., :2], jnp.full((4, 6, 1), camera.EYE_PLANE)], -1)
    np.testing.assert_allclose(project(plane, own)[0], project(plane, camera.frontal_camera())[0], atol=2e-5)


def test_source_frame_does_not_know_how_large_a_head_is():
    label, eyes = views(6)
    larger = label.at[:, jnp.array([3, 7, 11])].multiply(1.3)  # a giant, seen from as many of its own lengths away
    one, other = camera.source_frame(label, eyes), camera.source_frame(larger, 1.3 * eyes)
    points = jnp.asarray(np.random.default_rng(7).uniform(-0.3, 0.3, (4, 6, 3)), jnp.float32)
    there = camera.transform_points(other, 1.3 * points)
    np.testing.assert_allclose(camera.transform_points(one, points), there, atol=1e-5)


def test_batched_like_vmapped():
    label, eyes = views(5)
    points = jnp.concatenate([eyes, jnp.asarray(np.random.default_rng(6).normal(size=(4, 6, 3)), jnp.float32)], 1)
    for function in (project, lambda p, c: camera.transform_points(camera.source_frame(c, p[..., :2, :]), p)):
        expected = jax.vmap(function)(points, label)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), function(points, label), expected
        )


def test_eg3d_field_of_view_is_diagonal():
    np.testing.assert_allclose(camera.eg3d_fov_intrinsics(18.837)[0, 0], camera.FOCAL, rtol=1e-3)
    horizontal = 2 * np.degrees(np.arctan(0.5 / camera.FOCAL))
    np.testing.assert_allclose(horizontal, 13.37, atol=0.01)


@pytest.mark.parametrize("count", [5, 17_920, 65_536])
def test_many_points_compiled(count):
    """17,920: as many as an eye pair has rays; XLA of jax 0.10 got fused sums over the last axis wrong there."""
    label, eyes = (x[:1] for x in views(8))
    points = np.random.default_rng(9).uniform(-0.3, 0.3, (1, count, 3)).astype(np.float32)
    uv, length = jax.jit(project)(points, label)
    pose, k = (np.asarray(x[0], np.float64) for x in camera.unpack_camera(label))
    local = (points[0] - pose[:3, 3]) @ pose[:3, :3]
    np.testing.assert_allclose(uv[0], (local / local[:, 2:] @ k.T)[:, :2], atol=2e-5)
    np.testing.assert_allclose(length[0], np.linalg.norm(local, axis=-1), rtol=1e-5)
    _, directions = jax.jit(rays_at)(label, uv)
    unit = local / np.linalg.norm(local, axis=-1, keepdims=True)
    np.testing.assert_allclose(directions[0], unit @ pose[:3, :3].T, atol=2e-5)
    move = camera.source_frame(label, eyes)
    moved = jax.jit(camera.transform_points)(move, points)
    matrix = np.asarray(move[0], np.float64)
    np.testing.assert_allclose(moved[0], points[0] @ matrix[:3, :3].T + matrix[:3, 3], atol=2e-5)
