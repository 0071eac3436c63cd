"""Geometry of heads: subdivision, lids that follow the gaze, eyeballs that stay inside."""

import numpy as np
import pytest

from rtgaze_jax.data.heads import shape
from rtgaze_jax.data.heads.assets import FOLDER, apply_stencils, load_pack
from rtgaze_jax.data.heads.people import sample_person


@pytest.fixture(scope="module")
def heads():
    people = [sample_person("validation", i) for i in range(6)]
    return [(p, shape.build_head(p.targets, p.pupil_distance, p.eye_radius, p.fissure)) for p in people]


def edge_heights(head, vertices, k):
    pack, frame = load_pack(), shape.lid_frames()[k]
    y = (vertices[pack.margins[k]] - head.eyes[k].center)[:, 1]
    return y[frame.upper], y[frame.lower]


def test_pack_is_small_and_documented():
    files = [path for path in FOLDER.iterdir() if path.name != "ASSETS.md"]
    assert sum(path.stat().st_size for path in files) <= 10 * 2**20
    text = (FOLDER / "ASSETS.md").read_text()
    assert all(path.name in text for path in files)


def test_subdivision_is_affine():
    pack = load_pack()
    ones = apply_stencils(pack.rows, np.ones((len(pack.vertices), 1), np.float32), pack.count)
    np.testing.assert_allclose(ones, 1, atol=2e-6)
    assert pack.quads.max() == pack.count - 1
    # a Catmull-Clark surface stays inside the hull of its cage
    assert (pack.rest.max(0) <= pack.vertices.max(0)).all()


def test_eyes_are_true_size_and_apart_as_asked(heads):
    for person, head in heads:
        centers = np.stack([eye.center for eye in head.eyes])
        assert abs(centers[0, 0] - centers[1, 0]) == pytest.approx(person.pupil_distance, abs=1e-6)
        assert head.eyes[0].radius == person.eye_radius
        # the world origin is inside the head, a little below the eyes
        placed = head.place(centers)
        assert (placed[:, 1] > 0.02).all()
        assert (placed[:, 1] < 0.16).all()


@pytest.mark.parametrize("k", [0, 1])
def test_lids_follow_the_gaze(heads, k):
    person, head = heads[k]
    pitches = np.radians([-24, -12, 0, 12, 24])
    poses = [shape.pose_vertices(head, {}, np.tile([p, 0.0], (2, 1)), 1.0) for p in pitches]
    upper, lower = np.array([edge_heights(head, pose, k) for pose in poses]).T
    assert (np.diff(upper) > 0).all()
    assert (np.diff(lower) > 0).all()
    # the upper lid follows more than the lower one, by the closed form of its angle
    assert upper[-1] - upper[0] > 1.5 * (lower[-1] - lower[0])
    expected = [shape.lid_heights(p, 1.0, person.eye_radius) for p in pitches]
    np.testing.assert_allclose(upper, [lids.upper for lids in expected], atol=0.006)  # 0.6 mm
    np.testing.assert_allclose(lower, [lids.lower for lids in expected], atol=0.006)


def test_less_opening_narrows_the_eye(heads):
    _, head = heads[2]
    heights = [
        np.subtract(*edge_heights(head, shape.pose_vertices(head, {}, np.zeros((2, 2)), o), 0)) for o in (1, 0.5, 0)
    ]
    assert heights[0] > 1.5 * heights[1] > 0
    assert heights[2] < 0.25 * heights[0]


def test_no_eyeball_through_a_lid(heads):
    for gaze in np.radians([(0, 0), (24, 30), (-24, -38)]):
        for _, head in heads:
            both = np.tile(gaze, (2, 1))
            final = shape.refine(head, shape.pose_vertices(head, {}, both, 0.9), both) * shape.UNIT + head.origin
            for frame, eye in zip(shape.lid_frames(), head.eyes, strict=True):
                offset = final[frame.outer] - eye.center
                assert np.linalg.norm(offset, axis=1).min() > eye.radius * 1.015


def test_normals_of_a_plane():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    np.testing.assert_allclose(shape.vertex_normals(vertices, np.array([[0, 1, 2, 3]])), [[0, 0, 1]] * 4)
