"""Spectacles as simple geometry: two rims, a bridge, two temples, two thin lenses."""

from dataclasses import dataclass

import numpy as np

from rtgaze_jax.data.heads.people import Glasses

SIDES = 48  # points along one rim
TILT = np.radians(7.0)  # lenses lean in at the bottom
WRAP = np.radians(4.0)  # and back at the sides
CURVE = 0.95  # radius of the lens surface, dm
THICKNESS = 0.028  # depth of a plastic frame, dm


Triple = tuple[np.ndarray, np.ndarray, np.ndarray]  # vertices, normals, triangles


@dataclass(frozen=True)
class Spectacles:
    """Meshes in dm."""

    frame: Triple
    lenses: Triple


def outline(glasses: Glasses, grow: float = 0.0) -> np.ndarray:
    """The rim [SIDES, 2] around the lens centre, counter-clockwise from the left lens' temple side, dm."""
    t = np.linspace(0, 2 * np.pi, SIDES, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    power = 2 / glasses.roundness
    x = np.sign(c) * np.abs(c) ** power * (glasses.width / 2 + grow)
    y = np.sign(s) * np.abs(s) ** power * (glasses.height / 2 + grow)
    # lower half narrower, as most frames are
    return np.stack([x * (1 + 0.10 * y / glasses.height), y], 1)


def _sag(points: np.ndarray) -> np.ndarray:
    """How far the curved lens plane falls back [...] at lens coordinates [..., 2]."""
    return np.sqrt(CURVE**2 - (points**2).sum(-1)) - CURVE


def _tube(path: np.ndarray, across: np.ndarray, up: np.ndarray, closed: bool) -> Triple:
    """A tube with an elliptic section around a path [n, 3]; half axes `across` and `up` are vectors [n, 3]."""
    n, sides = len(path), 8
    a = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.cos(a)[None, :, None] * across[:, None] + np.sin(a)[None, :, None] * up[:, None]
    length2 = lambda v: np.maximum((v**2).sum(-1, keepdims=True), 1e-12)  # noqa: E731
    normal = np.cos(a)[None, :, None] * (across / length2(across))[:, None]
    normal = normal + np.sin(a)[None, :, None] * (up / length2(up))[:, None]
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    spans = n if closed else n - 1
    i, j = np.meshgrid(np.arange(spans), np.arange(sides), indexing="ij")
    k, m = (i + 1) % n, (j + 1) % sides
    p, q, r, s = i * sides + j, k * sides + j, k * sides + m, i * sides + m
    triangles = np.stack([np.stack([p, q, r], -1), np.stack([p, r, s], -1)], 2).reshape(-1, 3)
    return (path[:, None] + ring).reshape(-1, 3), normal.reshape(-1, 3), triangles


def _join(parts: list[Triple]) -> Triple:
    vertices, normals, triangles, start = [], [], [], 0
    for v, n, t in parts:
        vertices.append(v)
        normals.append(n)
        triangles.append(t + start)
        start += len(v)
    return np.concatenate(vertices), np.concatenate(normals), np.concatenate(triangles)


def _seat(points: np.ndarray, center: np.ndarray, side: float) -> np.ndarray:
    """Carry lens coordinates [n, 3] (x outwards, y up, z forwards) to the head, with tilt and wrap."""
    x, y, z = points.T
    y, z = y * np.cos(TILT) - z * np.sin(TILT), z * np.cos(TILT) + y * np.sin(TILT)
    x, z = x * np.cos(WRAP) + z * np.sin(WRAP), z * np.cos(WRAP) - x * np.sin(WRAP)
    return np.stack([x * side, y, z], 1) + center


def build(glasses: Glasses, eyes: np.ndarray, radius: float, face: np.ndarray, ears: np.ndarray) -> Spectacles:
    """Fit spectacles to a head.

    Args:
        glasses: the frame.
        eyes: [2, 3] eyeball centres (left, right), dm.
        radius: of the eyeballs.
        face: [n, 3] head vertices, for clearance.
        ears: [2, 3] where the temples rest (left, right).
    """
    frame, lenses = [], []
    gap = 0.5 * (glasses.width + 0.17)  # of the lens centre from the middle plane: lens plus half a bridge
    middle = eyes.mean(0)
    middle_x = middle[0]
    offset = max(gap, 0.92 * np.abs(eyes[:, 0] - middle_x).mean())
    y = middle[1] - 0.035
    rim = outline(glasses)
    # the rims clear the brows and cheeks they pass
    depth = middle[2] + radius * 1.1 + 0.10
    for side in (1.0, -1.0):
        for px, py in rim[::4]:
            near = np.hypot(face[:, 0] - middle_x - side * (offset + px), face[:, 1] - y - py) < 0.04
            if near.any():
                lean = py * np.sin(TILT) - px * np.sin(WRAP) + _sag(np.array([px, py]))
                depth = max(depth, face[near, 2].max() + 0.014 - lean)
    depth = min(depth, middle[2] + radius * 1.1 + 0.45)
    metal = glasses.metal > 0.5
    half = glasses.rim / 2
    deep = half if metal else THICKNESS / 2
    for side, ear in ((1.0, ears[0]), (-1.0, ears[1])):
        center = np.array([middle_x + side * offset, y, depth])
        edge = outline(glasses, half * 0.6)
        path = _seat(np.column_stack([edge, _sag(edge)]), center, side)
        outward = np.column_stack([edge / np.linalg.norm(edge, axis=1, keepdims=True), np.zeros(SIDES)])
        across = _seat(outward * half, np.zeros(3), side)
        forward = _seat(np.array([[0, 0, deep]]), np.zeros(3), side)
        frame.append(_tube(path, across, np.repeat(forward, SIDES, 0), True))
        hinge_local = np.array([[glasses.width / 2 + 0.03, glasses.height * 0.22, -0.01]])
        start = _seat(np.array([[glasses.width / 2, glasses.height * 0.2, float(_sag(rim[0]))]]), center, side)[0]
        hinge = _seat(hinge_local, center, side)[0] + np.array([0, 0, -0.03])
        bend = ear + np.array([side * 0.02, 0.02, 0.0])
        between = (hinge + bend) / 2 + np.array([side * 0.02, 0, 0])
        way = np.array([start, hinge, between, bend, bend + np.array([0, -0.12, -0.22])])
        t, fine = np.linspace(0, 1, len(way)), np.linspace(0, 1, 20)
        path = np.stack([np.interp(fine, t, way[:, k]) for k in range(3)], 1)
        arm = 0.012 if metal else max(0.02, half * 1.3)
        sideways = np.tile([0.008, 0.0, 0.0], (len(path), 1))
        frame.append(_tube(path, sideways, np.tile([0.0, arm, 0.0], (len(path), 1)), False))
        rings = np.linspace(0, 1, 7)[1:]
        grid = np.concatenate([np.zeros((1, 2)), (rings[:, None, None] * outline(glasses)[None]).reshape(-1, 2)])
        local = np.column_stack([grid, _sag(grid)])
        normal = local + np.array([0, 0, CURVE])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        fan = [[0, 1 + j, 1 + (j + 1) % SIDES] for j in range(SIDES)]
        for i in range(len(rings) - 1):
            for j in range(SIDES):
                a, b = 1 + i * SIDES + j, 1 + i * SIDES + (j + 1) % SIDES
                fan += [[a, a + SIDES, b + SIDES], [a, b + SIDES, b]]
        lenses.append((_seat(local, center, side), _seat(normal, np.zeros(3), side), np.array(fan)))
    inner = glasses.width / 2 * 0.97
    nose = np.array([[-inner, glasses.height * 0.14, -0.01]])
    ends = [_seat(nose, np.array([middle_x + s * offset, y, depth]), s)[0] for s in (1, -1)]
    t = np.linspace(0, 1, 12)[:, None]
    path = ends[0] * (1 - t) + ends[1] * t + np.array([0, 0.03, 0.025]) * np.sin(np.pi * t)
    thick = max(half, 0.010)
    frame.append(_tube(path, np.tile([0, thick, 0], (12, 1)), np.tile([0, 0, thick], (12, 1)), False))
    return Spectacles(_join(frame), _join(lenses))
