"""From a person's parameters to head vertices: shape targets, true-size eyes, expressions, lids that follow the gaze.

Work is in decimetres in MakeHuman axes until `Head.place` carries it into the world frame (370 mm per unit).
"""

import functools
from dataclasses import dataclass

import numpy as np

from rtgaze_jax.data.heads import eyes
from rtgaze_jax.data.heads.assets import Pack, Proxy, apply_stencils, load_pack
from rtgaze_jax.data.labels import head_gaze_vector

UNIT = 3.7  # dm per world unit
RISE = 0.15  # dm from the middle of eyes and mouth up to the world origin
DEPTH = 0.25  # dm from the eye centres back to the world origin
LID_THICKNESS = 1.045  # lid edge over eyeball radius
REACH = 0.16  # dm around the lid edge that moves with it


@dataclass(frozen=True)
class LidFrame:
    """Where vertices lie around one eye's lid edge, on the unshaped head."""

    near: np.ndarray  # [k] base vertices the lid edge drags along
    low: np.ndarray  # [k] ring position below
    high: np.ndarray  # [k] ring position above
    blend: np.ndarray  # [k] weight of `high`
    falloff: np.ndarray  # [k] 1 at the edge .. 0 at REACH
    outer: np.ndarray  # final vertices of the lids' outside, which must stay off the eyeball
    upper: int  # ring position of the upper lid's middle
    lower: int


@dataclass(frozen=True)
class Eye:
    """One eyeball in dm."""

    center: np.ndarray  # [3]
    radius: float


@dataclass(frozen=True)
class Head:
    """A shaped head before expression."""

    vertices: np.ndarray  # [n, 3] base vertices, dm
    eyes: tuple[Eye, Eye]  # left, right
    origin: np.ndarray  # [3] the world origin, dm
    widen: tuple[float, float]  # factor on the width of each lid opening

    def place(self, points: np.ndarray) -> np.ndarray:
        """Decimetres to world units."""
        return ((points - self.origin) / UNIT).astype(np.float32)


@dataclass(frozen=True)
class Lids:
    """Lid edges of one gaze: heights above the eye centre at the pupil, dm, positive up."""

    upper: float
    lower: float


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at low to 1 at high; falls if low > high."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@functools.cache
def lid_frames() -> tuple[LidFrame, LidFrame]:
    """The lid neighbourhoods of both eyes."""
    pack = load_pack()
    head = np.flatnonzero(pack.final_of_base >= 0)
    frames = []
    for ring, inner, eye in zip(pack.margins, pack.inners, pack.eyes, strict=True):
        edge = pack.vertices[ring].astype(float)
        middle = edge.mean(0)
        center = pack.vertices[eye].astype(float).mean(0)
        radius = np.linalg.norm(pack.vertices[eye] - center, axis=1).mean()
        offset = pack.vertices[head].astype(float) - middle
        distance = np.linalg.norm(pack.vertices[head][:, None] - edge[None], axis=-1).min(1)
        angle = np.arctan2(offset[:, 1], offset[:, 0])
        ring_angle = np.arctan2(edge[:, 1] - middle[1], edge[:, 0] - middle[0])
        order = np.argsort(ring_angle)
        inside = np.linalg.norm(pack.vertices[head] - center, axis=1) < 1.0 * radius
        keep = (distance < REACH) & (offset[:, 2] > -0.13) & ~inside
        keep &= ~np.isin(head, inner)
        sorted_angle = np.concatenate([ring_angle[order] - 2 * np.pi, ring_angle[order], ring_angle[order] + 2 * np.pi])
        place = np.searchsorted(sorted_angle, angle[keep])
        span = sorted_angle[place] - sorted_angle[place - 1]
        blend = (angle[keep] - sorted_angle[place - 1]) / np.maximum(span, 1e-9)
        # the socket behind the lids has the same front view; only skin in front of the eyeball counts as outside
        final_offset = pack.rest - center
        final_distance = np.linalg.norm(final_offset, axis=1)
        edge_distance = np.linalg.norm(pack.rest[:, None, :2] - edge[None, :, :2], axis=-1).min(1)
        inside_ring = _inside(pack.rest[:, :2], edge[order][:, :2])
        outer = (edge_distance < 0.12) & ~inside_ring & (final_distance > 1.005 * radius) & (final_offset[:, 2] > 0)
        front = _front_surface(pack)
        frames.append(
            LidFrame(
                near=head[keep],
                low=order[(place - 1) % len(ring)],
                high=order[place % len(ring)],
                blend=blend.astype(np.float32),
                falloff=(1 - smoothstep(0.0, REACH, distance[keep])).astype(np.float32),
                outer=np.flatnonzero(outer & front),
                upper=int(np.argmin(np.abs(edge[:, 0] - center[0]) + (edge[:, 1] < middle[1]))),
                lower=int(np.argmin(np.abs(edge[:, 0] - center[0]) + (edge[:, 1] > middle[1]))),
            )
        )
    return frames[0], frames[1]


def _inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Even-odd test of [n, 2] points against a closed polygon."""
    a, b = polygon, np.roll(polygon, -1, 0)
    x, y = points[:, :1], points[:, 1:]
    crosses = (a[:, 1] > y) != (b[:, 1] > y)
    slope = np.where(np.abs(b[:, 1] - a[:, 1]) < 1e-12, 1e-12, b[:, 1] - a[:, 1])
    return (crosses & (x < (b[:, 0] - a[:, 0]) * (y - a[:, 1]) / slope + a[:, 0])).sum(1) % 2 == 1


def _front_surface(pack: Pack) -> np.ndarray:
    """Final vertices whose rest normal looks forward: excludes the back of the lids."""
    return vertex_normals(pack.rest, pack.quads)[:, 2] > -0.2


def shape_vertices(weights: dict[str, float]) -> np.ndarray:
    """Base vertices [n, 3] (dm) with shape targets applied."""
    pack = load_pack()
    vertices = pack.vertices.copy()
    for name, weight in weights.items():
        index, offset = pack.targets[name]
        vertices[index] += np.float32(weight) * offset
    return vertices


def build_head(weights: dict[str, float], pupil_distance: float, eye_radius: float, fissure: float) -> Head:
    """Shape a head and seat true-size eyeballs behind its lids.

    Args:
        weights: shape target weights by name.
        pupil_distance: distance between the eyeball centres, dm; sets the scale of the whole head.
        eye_radius: dm.
        fissure: width of each lid opening between its corners, dm.
    """
    pack = load_pack()
    vertices = shape_vertices(weights).astype(float)
    middles = [(vertices[ring, 0].min() + vertices[ring, 0].max()) / 2 for ring in pack.margins]
    vertices *= pupil_distance / (middles[0] - middles[1])
    balls, widen = [], []
    for ring, ball, frame in zip(pack.margins, pack.eyes, lid_frames(), strict=True):
        edge, sphere = vertices[ring], vertices[ball]
        system = np.concatenate([2 * sphere, np.ones((len(sphere), 1))], 1)
        solution = np.linalg.lstsq(system, (sphere**2).sum(1), rcond=None)[0]
        old_radius = np.sqrt(solution[3] + solution[:3] @ solution[:3])
        x = (edge[:, 0].min() + edge[:, 0].max()) / 2
        y = (edge[frame.upper, 1] + edge[frame.lower, 1]) / 2 + 0.004
        balls.append(Eye(np.array([x, y, solution[2] + old_radius - eye_radius]), eye_radius))
        widen.append(fissure / np.ptp(edge[:, 0]))
    # one plane for both eyes keeps the gaze of a symmetric face symmetric
    depth = np.mean([ball.center[2] for ball in balls])
    balls = [Eye(np.array([*b.center[:2], 0.7 * b.center[2] + 0.3 * depth]), eye_radius) for b in balls]
    middle = (balls[0].center + balls[1].center) / 2
    mouth_y = vertices[mouth_line()][:, 1].mean()
    origin = np.array([middle[0], (middle[1] + mouth_y) / 2 + RISE, middle[2] - DEPTH])
    return Head(vertices.astype(np.float32), (balls[0], balls[1]), origin, (widen[0], widen[1]))


@functools.cache
def mouth_line() -> np.ndarray:
    """Base vertices on the lips of the unshaped head, near the mouth's middle."""
    pack = load_pack()
    x, y, z = pack.vertices.T
    head = pack.final_of_base >= 0
    return np.flatnonzero(head & (np.abs(x) < 0.1) & (y > 6.5) & (y < 6.7) & (z > 1.5))


def lid_heights(pitch: float, opening: float, radius: float) -> Lids:
    """Lid edge heights for a gaze pitch (radians).

    The upper lid keeps 1 to 2 mm of the iris covered when looking ahead and follows the gaze almost fully downwards;
    the lower lid follows about a third. `opening` 1 is a relaxed open eye, 0 closed.
    """
    degrees = np.degrees(pitch)
    upper = 20.0 + (0.72 * degrees if degrees > 0 else 0.92 * degrees)
    lower = -27.5 + 0.34 * degrees
    meeting = lower + 0.22 * (upper - lower)
    upper = meeting + (upper - meeting) * opening
    lower = meeting + (lower - meeting) * (0.5 + 0.5 * min(opening, 1.15))
    return Lids(radius * np.sin(np.radians(upper)), radius * np.sin(np.radians(lower)))


def pose_vertices(head: Head, expression: dict[str, float], gaze: np.ndarray, opening: float) -> np.ndarray:
    """Base vertices of one gaze.

    Args:
        head: the shaped head.
        expression: face-unit weights that stay fixed over a capture.
        gaze: [2, 2] (pitch, yaw) of the left and right eye, head frame, radians; yaw positive to the viewer's left.
        opening: lid opening, 1 relaxed.
    """
    pack = load_pack()
    weights = dict(expression)
    pitch = float(gaze[:, 0].mean())
    up, down = max(np.degrees(pitch), 0), max(-np.degrees(pitch), 0)
    for side, (_, yaw) in zip(("Left", "Right"), gaze, strict=True):
        outward = -np.degrees(yaw) * (1 if side == "Left" else -1)
        weights[f"eyeLookOut{side}"] = np.clip(outward / 28, 0, 1.2)
        weights[f"eyeLookIn{side}"] = np.clip(-outward / 28, 0, 1.2)
        weights[f"eyeLookUp{side}"] = min(up / 30, 0.9)
        weights[f"eyeLookDown{side}"] = min(down / 22, 1.2)
        weights[f"browOuterUp{side}"] = weights.get(f"browOuterUp{side}", 0) + min(up / 80, 0.3)
    weights["browInnerUp"] = weights.get("browInnerUp", 0) + min(up / 80, 0.3)
    vertices = head.vertices.copy()
    for name, weight in weights.items():
        if abs(weight) > 1e-4:
            index, offset = pack.targets[f"faceunits/{name}"]
            vertices[index] += np.float32(weight) * offset
    for k, side in enumerate(("Left", "Right")):
        _set_lids(vertices, head, k, side, lid_heights(pitch, opening, head.eyes[k].radius), gaze[k])
    return vertices


def _set_lids(vertices: np.ndarray, head: Head, k: int, side: str, lids: Lids, gaze: np.ndarray) -> None:
    """Move one eye's lids, in place, to given heights and onto the eyeball."""
    pack, frame, eye = load_pack(), lid_frames()[k], head.eyes[k]
    ring, inner = pack.margins[k], pack.inners[k]
    for unit, position, height in (("eyeBlink", frame.upper, lids.upper), ("eyeSquint", frame.lower, lids.lower)):
        index, offset = pack.targets[f"faceunits/{unit}{side}"]
        middle = ring[position]
        response = offset[np.flatnonzero(index == middle)[0], 1]
        missing = eye.center[1] + height - vertices[middle, 1]
        vertices[index] += np.float32(missing / response) * offset
    edge = vertices[ring] - eye.center
    wider = edge[:, 0] * (head.widen[k] - 1)
    x, y = edge[:, 0] + wider, edge[:, 1]
    rho = np.hypot(x, y) / eye.radius
    # on the eyeball up to 0.8 of its radius, then straight on: the corners lie beyond the eyeball, as in life
    knee = np.sqrt(LID_THICKNESS**2 - 0.64)
    depth = np.where(rho < 0.8, np.sqrt(np.maximum(LID_THICKNESS**2 - rho**2, 0)), knee - (rho - 0.8) * 0.8 / knee)
    bulge = _bulge(np.stack([x, y, np.maximum(depth, 0.1) * eye.radius], 1), gaze)
    depth = depth + bulge
    depth = np.maximum(
        depth * eye.radius, np.minimum(edge[:, 2], depth * eye.radius + 0.022 * smoothstep(0.75, 1.0, rho))
    )
    shift = np.stack([wider, np.zeros_like(wider), depth - edge[:, 2]], 1).astype(np.float32)
    spread = shift[frame.low] * (1 - frame.blend[:, None]) + shift[frame.high] * frame.blend[:, None]
    vertices[frame.near] += spread * frame.falloff[:, None]
    edge = np.stack([x, y, depth], 1)
    vertices[inner] = eye.center + edge * (0.93 / LID_THICKNESS) - np.array([0, 0, 0.012])


def _bulge(offsets: np.ndarray, gaze: np.ndarray) -> np.ndarray:
    """How far the cornea stands out of the eyeball [n], in radii, below offsets [n, 3] from its centre."""
    cosine = offsets @ head_gaze_vector(gaze) / np.linalg.norm(offsets, axis=1)
    return eyes.profile(np.arccos(np.clip(cosine, -1, 1))) - 1


def refine(head: Head, vertices: np.ndarray, gaze: np.ndarray) -> np.ndarray:
    """Subdivide base vertices and keep the lids off the eyeballs and corneas; world units [count, 3]."""
    pack = load_pack()
    final = apply_stencils(pack.rows, vertices, pack.count)
    for frame, eye, look in zip(lid_frames(), head.eyes, gaze, strict=True):
        offset = final[frame.outer] - eye.center.astype(np.float32)
        distance = np.linalg.norm(offset, axis=1, keepdims=True)
        floor = (eye.radius * (1.022 + _bulge(offset, look)))[:, None].astype(np.float32)
        final[frame.outer] += offset / distance * np.maximum(floor - distance, 0)
    return head.place(final)


def bind(proxy: Proxy, vertices: np.ndarray) -> np.ndarray:
    """Fit a bound mesh to base vertices; dm [n, 3]."""
    pack = load_pack()
    axes = np.arange(3)
    size = np.abs(vertices[pack.scale_pairs[:, 0], axes] - vertices[pack.scale_pairs[:, 1], axes])
    rest = np.abs(pack.vertices[pack.scale_pairs[:, 0], axes] - pack.vertices[pack.scale_pairs[:, 1], axes])
    return np.einsum("nk,nkc->nc", proxy.weight, vertices[proxy.ref]) + proxy.offset * (size / rest)


def vertex_normals(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """Unit vertex normals [n, 3] of a quad mesh, area weighted."""
    diagonal = vertices[quads[:, 2]] - vertices[quads[:, 0]], vertices[quads[:, 3]] - vertices[quads[:, 1]]
    faces = np.cross(*diagonal)
    out = np.empty_like(vertices)
    for axis in range(3):
        weights = np.repeat(faces[:, axis], 4)
        out[:, axis] = np.bincount(quads.ravel(), weights=weights, minlength=len(vertices))
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
