"""Hairs as thin ribbons: lashes from the lid edge, brows and beards from the skin.

A strand is a centre line; the vertex shader widens it across the view and turns widths below a pixel into coverage,
so that single hairs never break into dots.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rtgaze_jax.data.heads.assets import load_pack
from rtgaze_jax.data.heads.people import Person
from rtgaze_jax.data.heads.shape import vertex_normals

SEGMENTS = 4  # per strand
BROW_X = np.array([0.10, 0.18, 0.26, 0.34, 0.42, 0.50, 0.60])  # dm on the unshaped head, nose to temple
BROW_Y = np.array([7.372, 7.392, 7.412, 7.424, 7.428, 7.408, 7.350])
BROW_HALF = np.array([0.036, 0.041, 0.039, 0.034, 0.028, 0.021, 0.010])


@dataclass(frozen=True)
class Strands:
    """Centre lines ready for upload, in world units: points [n, SEGMENTS + 1, 3] and per-strand data."""

    points: np.ndarray
    width: np.ndarray  # [n, SEGMENTS + 1] world units
    normal: np.ndarray  # [n, 3] of the skin at the root
    shade: np.ndarray  # [n] factor on the colour

    @staticmethod
    def join(parts: list["Strands"]) -> "Strands":
        """Concatenate sets of strands."""
        return Strands(
            *(np.concatenate([getattr(p, f) for p in parts]) for f in ("points", "width", "normal", "shade"))
        )


@dataclass(frozen=True)
class Roots:
    """Places on the final mesh: triangle vertices, barycentric weights, rest position and rest normal."""

    corners: np.ndarray  # [n, 3]
    weights: np.ndarray  # [n, 3]
    rest: np.ndarray  # [n, 3] dm
    normal: np.ndarray  # [n, 3]

    def at(self, values: np.ndarray) -> np.ndarray:
        """Interpolate per-vertex values [count, c] to the roots [n, c]."""
        return np.einsum("nk,nkc->nc", self.weights, values[self.corners])

    def keep(self, chosen: np.ndarray) -> "Roots":
        """A subset."""
        return Roots(self.corners[chosen], self.weights[chosen], self.rest[chosen], self.normal[chosen])


def scatter(rng: np.random.Generator, faces: np.ndarray, count: int) -> Roots:
    """Random roots over final quads, even by area on the unshaped head."""
    pack = load_pack()
    quads = pack.quads[faces]
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    a, b, c = (pack.rest[triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = triangles[rng.choice(len(triangles), count, p=area / area.sum())]
    u, v = rng.random((2, count))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    weights = np.stack([1 - u - v, u, v], 1).astype(np.float32)
    normals = vertex_normals(pack.rest, pack.quads)
    roots = Roots(chosen, weights, np.zeros((count, 3)), np.zeros((count, 3)))
    return Roots(chosen, weights, roots.at(pack.rest), roots.at(normals))


@functools.cache
def _brow_roots() -> Roots:
    pack = load_pack()
    middle = pack.rest[pack.quads].mean(1)
    region = (
        (middle[:, 1] > 7.26) & (middle[:, 1] < 7.56) & (np.abs(middle[:, 0]) < 0.72) & (np.abs(middle[:, 0]) > 0.05)
    )
    facing = vertex_normals(pack.rest, pack.quads)[pack.quads[:, 0], 2] > 0.1
    return scatter(np.random.default_rng(7), np.flatnonzero(region & facing & (middle[:, 2] > 1.0)), 12000)


def _grow(roots: np.ndarray, direction: np.ndarray, bend: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Curved centre lines [n, SEGMENTS + 1, 3] that start along `direction` and turn towards `bend`."""
    t = np.linspace(0, 1, SEGMENTS + 1)[None, :, None]
    return roots[:, None] + length[:, None, None] * (t * direction[:, None] + 0.5 * t**2 * bend[:, None])


@dataclass(frozen=True)
class HairPlan:
    """The hairs of a person's brows or beard, independent of the expression."""

    roots: Roots
    direction: np.ndarray
    length: np.ndarray
    width: np.ndarray
    shade: np.ndarray
    stand: float  # how far the hairs stand off the skin


def plan_brows(person: Person) -> HairPlan:
    """Choose the brow hairs of a person."""
    brows, roots = person.brows, _brow_roots()
    rng = np.random.default_rng([brows.seed, 3])
    x, y = np.abs(roots.rest[:, 0]), roots.rest[:, 1]
    s = (x - 0.11) / (0.47 * brows.length)
    line = np.interp(x, BROW_X, BROW_Y) + brows.height + brows.tilt * 0.12 * (s - 0.4)
    line += 0.03 * (brows.arch - 0.8) * np.exp(-(((s - 0.62) / 0.3) ** 2))
    half = np.interp(s * 0.47 + 0.11, BROW_X, BROW_HALF) * brows.thickness
    off = (y - line) / half
    edge = rng.normal(0, 0.14, len(x))
    inside = (np.abs(off) < 1 + edge) & (s > -0.02 + 0.05 * edge) & (s < 0.93 + 0.05 * edge)
    share = (
        0.34
        * brows.density
        * np.clip(1.15 - 0.45 * off**2, 0.2, 1)
        * np.clip((s + 0.12) / 0.22, 0.25, 1)
        * np.clip((1.02 - s) / 0.3, 0, 1)
    )
    chosen = np.flatnonzero(inside & (rng.random(len(x)) < share * 2.6))
    roots, s, off = roots.keep(chosen), s[chosen], off[chosen]
    side = np.sign(roots.rest[:, 0])
    # hairs stand up near the nose, lie along the brow farther out, and meet at its middle line
    angle = np.interp(s, [0, 0.2, 0.55, 1], [1.15, 0.65, 0.20, -0.30]) - 0.35 * np.clip(off, -1, 1) * np.clip(
        s * 2, 0, 1
    )
    angle = angle + rng.normal(0, 0.14, len(s))
    direction = np.stack([side * np.cos(angle), np.sin(angle), np.zeros_like(s)], 1)
    length = rng.uniform(0.045, 0.085, len(s)) * np.interp(s, [0, 0.3, 1], [0.85, 1.0, 0.8])
    return HairPlan(
        roots=roots,
        direction=direction,
        length=length,
        width=rng.uniform(0.0010, 0.0016, len(s)),
        shade=np.exp(rng.normal(0, 0.22, len(s))).astype(np.float32),
        stand=0.28,
    )


def grow_hairs(plan: HairPlan, vertices: np.ndarray, normals: np.ndarray, scale: float) -> Strands:
    """Hairs on posed world vertices; `scale` is world units per dm."""
    root, normal = plan.roots.at(vertices), plan.roots.at(normals)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    along = plan.direction - (plan.direction * normal).sum(1, keepdims=True) * normal
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    stand, curl = plan.stand, -1.5 * plan.stand
    points = _grow(root + normal * 0.0004, along + stand * normal, curl * normal, plan.length * scale)
    taper = np.linspace(1, 0.35, SEGMENTS + 1)
    return Strands(points, plan.width[:, None] * scale * taper, normal, plan.shade)


@functools.cache
def _beard_roots() -> Roots:
    pack = load_pack()
    middle = pack.rest[pack.quads].mean(1)
    region = (middle[:, 1] > 6.0) & (middle[:, 1] < 7.35) & (middle[:, 2] > 0.2)
    normal = vertex_normals(pack.rest, pack.quads)[pack.quads[:, 0]]
    outside = (normal * (middle - np.array([0, 6.8, 0.7]))).sum(1) > 0
    return scatter(np.random.default_rng(8), np.flatnonzero(region & outside), 16000)


def plan_beard(person: Person, area: Callable[[np.ndarray], np.ndarray]) -> HairPlan | None:
    """Choose the hairs of a beard, or None; `area` gives its density 0 .. 1 at rest positions.

    Styles: 0 full, 1 moustache and chin, 2 moustache, 3 chin.
    """
    if person.beard <= 0:
        return None
    roots = _beard_roots()
    rng = np.random.default_rng([person.brows.seed, 19])
    x, y = np.abs(roots.rest[:, 0]), roots.rest[:, 1]
    density = area(roots.rest) ** 2
    lip = (np.hypot(x / 0.26, (y - 6.60) / 0.085) < 1) & (roots.rest[:, 2] > 1.2)
    moustache = (y > 6.62) & (x < 0.30)
    chin = (y < 6.56) & (x < 0.26)
    shown = {0: np.ones_like(lip), 1: moustache | chin | ((x < 0.30) & (x > 0.22) & (y < 6.7)), 2: moustache, 3: chin}
    density = density * shown[person.beard_style] * ~lip
    chosen = np.flatnonzero(rng.random(len(x)) < density * (0.45 + 0.5 * person.stubble))
    roots = roots.keep(chosen)
    side, y = np.sign(roots.rest[:, 0]), roots.rest[:, 1]
    upper = (y > 6.62) & (np.abs(roots.rest[:, 0]) < 0.30)
    angle = np.where(upper, -0.75, -1.25) + rng.normal(0, 0.28, len(y))
    direction = np.stack([side * np.cos(angle), np.sin(angle), np.zeros_like(y)], 1)
    length = person.beard * rng.uniform(0.6, 1.15, len(y)) * np.where(upper, 0.75, 1.0) + 0.012
    return HairPlan(
        roots=roots,
        direction=direction,
        length=length,
        width=rng.uniform(0.0012, 0.0019, len(y)),
        shade=np.exp(rng.normal(0, 0.25, len(y))).astype(np.float32),
        stand=0.45,
    )


@dataclass(frozen=True)
class LashPlan:
    """Lashes of one eye: position along the lid edge and shape."""

    place: np.ndarray  # [n] fractional ring position
    upper: np.ndarray  # [n] bool
    length: np.ndarray  # dm
    lean: np.ndarray  # sideways, fan-shaped
    curl: np.ndarray
    width: np.ndarray
    shade: np.ndarray


def plan_lashes(person: Person) -> tuple[LashPlan, LashPlan]:
    """Choose the lashes of both eyes."""
    pack, plans = load_pack(), []
    for k, ring in enumerate(pack.margins):
        rng = np.random.default_rng([person.brows.seed, 17, k])
        edge = pack.vertices[ring].astype(float)
        left, right = int(edge[:, 0].argmin()), int(edge[:, 0].argmax())
        runs = [_run(left, right, len(ring), -1), _run(left, right, len(ring), 1)]
        tops = [edge[run, 1].mean() for run in runs]
        parts = []
        for run, top in zip(runs, tops, strict=True):
            upper = top == max(tops)
            count = 125 if upper else 60
            t = np.sort(rng.uniform(0.08, 0.97, count) if upper else rng.uniform(0.14, 0.95, count))
            # lashes gather into small tufts
            t = t + 0.40 * (np.round(t * 30) / 30 - t)
            outer = t if k == 0 else 1 - t
            place = np.interp(t * (len(run) - 1), np.arange(len(run)), np.unwrap(np.array(run), period=len(ring)))
            length = np.where(upper, 0.082, 0.048) * (0.55 + 0.55 * np.clip(outer * 1.3, 0, 1)) * person.lashes
            parts.append(
                LashPlan(
                    place=place,
                    upper=np.full(count, upper),
                    length=length * rng.uniform(0.65, 1.1, count),
                    lean=(t - 0.5) * 1.1 + rng.normal(0, 0.16, count),
                    curl=rng.uniform(0.7, 1.2, count),
                    width=np.full(count, 0.0013 if upper else 0.0008) * rng.uniform(0.75, 1.15, count),
                    shade=np.exp(rng.normal(0, 0.12, count)).astype(np.float32),
                )
            )
        plans.append(LashPlan(*(np.concatenate([getattr(p, f) for p in parts]) for f in LashPlan.__dataclass_fields__)))
    return plans[0], plans[1]


def _run(start: int, end: int, count: int, step: int) -> list[int]:
    out = [start]
    while out[-1] != end:
        out.append((out[-1] + step) % count)
    return out


def grow_lashes(plan: LashPlan, edge: np.ndarray, center: np.ndarray, scale: float) -> Strands:
    """Lashes on a posed lid edge.

    Args:
        plan: of this eye.
        edge: [n, 3] lid edge in world units, in ring order.
        center: eyeball centre, world units.
        scale: world units per dm.
    """
    n = len(edge)
    low = np.floor(plan.place).astype(int)
    blend = (plan.place - low)[:, None]
    root = edge[low % n] * (1 - blend) + edge[(low + 1) % n] * blend
    out = root - center
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    side = np.array([1.0, 0, 0])[None] * plan.lean[:, None]
    sign = np.where(plan.upper, 1.0, -1.0)[:, None]
    up = np.array([[0, 1.0, 0]]) * sign
    # upper lashes leave forwards and slightly down, then curl up; lower ones mirror that with less curl
    direction = 0.9 * out + np.where(plan.upper, 0.02, 0.34)[:, None] * up + 0.55 * side
    direction += np.array([0, 0, 0.35])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    bend = up * (plan.curl * np.where(plan.upper, 1.35, 0.35))[:, None] + 0.1 * side
    points = _grow(root + out * 0.001, direction, bend, plan.length * scale)
    taper = np.linspace(1, 0.15, SEGMENTS + 1)
    return Strands(points, plan.width[:, None] * scale * taper, np.broadcast_to(out, root.shape).copy(), plan.shade)


def ribbons(strands: Strands) -> tuple[np.ndarray, np.ndarray]:
    """Vertex rows (position 3, tangent 3, normal 3, width, side, shade, tip) and triangles of all strands."""
    points = strands.points.astype(np.float32)
    n, m, _ = points.shape
    tangent = np.gradient(points, axis=1)
    rows = np.empty((n, m, 2, 13), np.float32)
    rows[..., 0:3] = points[:, :, None]
    rows[..., 3:6] = tangent[:, :, None]
    rows[..., 6:9] = strands.normal[:, None, None]
    rows[..., 9] = strands.width[:, :, None]
    rows[..., 10] = (-1.0, 1.0)
    rows[..., 11] = strands.shade[:, None, None]
    rows[..., 12] = np.linspace(0, 1, m)[None, :, None]
    base = (np.arange(n)[:, None] * m + np.arange(m - 1)) * 2
    triangles = np.stack([base, base + 1, base + 3, base, base + 3, base + 2], -1).reshape(-1, 3)
    return rows.reshape(-1, 13), triangles.astype(np.int32)
