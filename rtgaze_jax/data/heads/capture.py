"""Captures: one person under one light and camera setting, several gazes, several views, exact labels.

All images of a capture share expression, light, exposure, tone, white balance and backdrop; they differ in gaze and
camera only (and in sensor noise, blur and JPEG). Everything follows from (split, person, capture).
"""

import functools
from dataclasses import dataclass

import numpy as np

from rtgaze_jax.data.heads import eyes
from rtgaze_jax.data.heads.assets import load_pack
from rtgaze_jax.data.heads.camera_response import degrade, make_develop
from rtgaze_jax.data.heads.light import make_background, make_light
from rtgaze_jax.data.heads.people import Person, sample_person
from rtgaze_jax.data.heads.renderer import Renderer
from rtgaze_jax.data.heads.scene import Look, Scene
from rtgaze_jax.data.labels import camera_gaze, head_gaze_angles, head_gaze_vector, project
from rtgaze_jax.data.record import Record, eye_mask, face_mask
from rtgaze_jax.errors import UserError

RADIUS, FOCAL = 2.7, 4.2647
PITCH_RANGE, YAW_RANGE = np.radians(25.0), np.radians(40.0)  # of the gaze in the head frame
VIEW_PITCH, VIEW_YAW = np.radians(35.0), np.radians(60.0)
NEAR_FRONTAL = np.radians(12.0)  # view 0
TO_CAMERA = 0.15  # share of gazes that look into view 0's camera
# the 18 cameras of the ETH-XGaze rig: (yaw, pitch) degrees, + to the image right and up, and distance in mm
ETH_RIG = (
    *((0, 0, 946), (-14, 0, 951), (-38, -1, 1067), (-37, -14, 1092), (-13, -29, 1115), (2, -28, 1109)),
    *((25, -13, 1094), (26, 0, 1072), (1, 29, 1034), (-15, 28, 1030), (-40, 32, 1023), (-68, -2, 1087)),
    *((-40, -44, 1376), (-5, -43, 1221), (36, -43, 1382), (56, 0, 1087), (26, 34, 1021), (-7, 41, 1059)),
)
# points on the unshaped head, dm; x > 0 is the subject's left
_POINTS = {
    "nose_tip": (0, 6.92, 1.68),
    "nostril_base": (0, 6.772, 1.558),
    "mouth_left": (0.253, 6.612, 1.42),
    "mouth_right": (-0.253, 6.612, 1.42),
    "upper_lip": (0, 6.671, 1.601),
    "lower_lip": (0, 6.527, 1.562),
    "chin": (0, 6.271, 1.483),
    "left_brow_inner": (0.14, 7.385, 1.48),
    "left_brow_outer": (0.58, 7.365, 1.25),
    "right_brow_inner": (-0.14, 7.385, 1.48),
    "right_brow_outer": (-0.58, 7.365, 1.25),
}
_EYE_POINTS = ("outer", "inner", "upper", "lower", "pupil")
LANDMARKS = (*(f"{side}_eye_{n}" for side in ("left", "right") for n in _EYE_POINTS), *_POINTS)


@dataclass(frozen=True)
class Plan:
    """What a capture shows, before anything is drawn."""

    gazes: np.ndarray  # [G, 2] head-frame (pitch, yaw)
    distances: np.ndarray  # [G] world units to the point looked at
    cameras: list[tuple[np.ndarray, np.ndarray]]  # (cam2world, intrinsics)
    expression: dict[str, float]
    opening: float


def look_at(yaw: float, pitch: float, radius: float, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """cam2world [4, 4] (OpenCV axes) of a camera at yaw (+ to +x) and pitch (+ up) that looks at a target."""
    out = np.array([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)])
    forward = -out
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([c * right + s * down, c * down - s * right, forward], 1)
    matrix[:3, 3] = target + radius * out
    return matrix


def _view(rng: np.random.Generator, index: int, jitter: bool) -> tuple[np.ndarray, np.ndarray]:
    if index == 0:
        yaw, pitch = rng.normal(0, np.radians(4.5), 2)
        size = np.hypot(yaw, pitch)
        yaw, pitch = np.array([yaw, pitch]) * min(1, 0.98 * NEAR_FRONTAL / max(size, 1e-9))
    elif rng.random() < 0.25:
        yaw, pitch = rng.uniform(-VIEW_YAW, VIEW_YAW), rng.uniform(-VIEW_PITCH, VIEW_PITCH)
    else:
        yaw = np.clip(rng.normal(0, np.radians(25)), -VIEW_YAW, VIEW_YAW)
        pitch = np.clip(rng.normal(0, np.radians(13)), -VIEW_PITCH, VIEW_PITCH)
    spread = rng.normal(0, 1, 8) * jitter
    radius = RADIUS * float(np.clip(1 + 0.03 * spread[0], 0.9, 1.12))
    focal = FOCAL * float(np.clip(1 + 0.025 * spread[1], 0.93, 1.08)) * (radius / RADIUS) ** 0.5
    target = 0.012 * spread[2:5]
    roll = np.radians(3.0) * spread[5]
    center = 0.5 + 0.004 * spread[6:8]
    return look_at(yaw, pitch, radius, target, roll), np.array(
        [[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1.0]]
    )


def eth_rig_cameras() -> list[tuple[np.ndarray, np.ndarray]]:
    """The ETH-XGaze rig around the head: 18 (cam2world, intrinsics), each framed like view 0."""
    cameras = []
    for yaw, pitch, distance in ETH_RIG:
        radius = distance / 370.0
        focal = FOCAL * radius / RADIUS
        matrix = look_at(np.radians(yaw), np.radians(pitch), radius, np.zeros(3))
        cameras.append((matrix, np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1.0]])))
    return cameras


def sample_expression(rng: np.random.Generator) -> tuple[dict[str, float], float]:
    """Face-unit weights and a factor on the lid opening, fixed over a capture."""
    out: dict[str, float] = {}
    kind = rng.choice(("neutral", "smile", "talk", "other"), p=(0.42, 0.30, 0.13, 0.15))
    if kind == "smile":
        a = rng.uniform(0.15, 0.8)
        for side in ("Left", "Right"):
            own = a * rng.uniform(0.85, 1.0)
            out[f"mouthSmile{side}"] = own
            out[f"cheekSquint{side}"] = 0.5 * own
        if a > 0.5 and rng.random() < 0.7:
            for side in ("Left", "Right"):
                out[f"mouthUpperUp{side}"] = 0.35 * a
                out[f"mouthLowerDown{side}"] = 0.25 * a
            out["jawOpen"] = rng.uniform(0.0, 0.12)
    elif kind == "talk":
        out["jawOpen"] = rng.uniform(0.03, 0.4)
        out[rng.choice(("mouthFunnel", "mouthPucker", "mouthShrugUpper"))] = rng.uniform(0, 0.35)
    elif kind == "other":
        name = rng.choice(
            ("mouthFrown", "mouthPress", "mouthDimple", "mouthStretch", "browDown", "browOuterUp", "noseSneer")
        )
        for side in ("Left", "Right"):
            out[f"{name}{side}"] = rng.uniform(0.2, 0.7) * (0.4 if name in ("browDown", "noseSneer") else 1)
        if rng.random() < 0.3:
            out["browInnerUp"] = rng.uniform(0.1, 0.6)
    draw = rng.random()
    opening = (
        rng.uniform(0.45, 0.8) if draw < 0.09 else rng.uniform(1.08, 1.22) if draw > 0.94 else rng.normal(1.0, 0.06)
    )
    if kind == "smile":
        opening *= 1 - 0.18 * out["mouthSmileLeft"]
    return {name: float(weight) for name, weight in out.items()}, float(np.clip(opening, 0.3, 1.25))


def sample_gaze(rng: np.random.Generator, camera: np.ndarray, middle: np.ndarray) -> tuple[np.ndarray, float]:
    """One head-frame gaze and the distance of its target, world units."""
    if rng.random() < TO_CAMERA:
        toward = camera - middle
        gaze = head_gaze_angles(toward)
        if abs(gaze[0]) <= PITCH_RANGE and abs(gaze[1]) <= YAW_RANGE:
            return gaze, float(np.linalg.norm(toward))
    distance = float(np.exp(rng.uniform(np.log(450), np.log(5000))) / 370)
    if rng.random() < 0.35:
        gaze = rng.normal(0, np.radians(9), 2)
    else:
        gaze = np.array([rng.uniform(-PITCH_RANGE, PITCH_RANGE), rng.uniform(-YAW_RANGE, YAW_RANGE)])
    return np.clip(gaze, (-PITCH_RANGE, -YAW_RANGE), (PITCH_RANGE, YAW_RANGE)), distance


@functools.cache
def landmark_vertices() -> list[int]:
    """Final vertices of the landmarks on the skin, in the order of _POINTS."""
    pack = load_pack()
    base = np.flatnonzero(pack.final_of_base >= 0)
    found = [base[np.linalg.norm(pack.vertices[base] - point, axis=1).argmin()] for point in _POINTS.values()]
    return [int(pack.final_of_base[i]) for i in found]


def landmark_points(scene: Scene, look: Look, camera: np.ndarray) -> np.ndarray:
    """World positions [L, 3] of LANDMARKS as seen from a camera position (the pupils are refracted)."""
    pack, points = load_pack(), []
    for k in range(2):
        edge = look.final[pack.final_of_base[pack.margins[k]]]
        rest = pack.vertices[pack.margins[k]]
        left, right = rest[:, 0].argmin(), rest[:, 0].argmax()
        outer, inner = (right, left) if k == 0 else (left, right)
        middle = np.abs(rest[:, 0] - rest[:, 0].mean())
        high = rest[:, 1] > rest[:, 1].mean()
        upper, lower = np.where(high, middle, 9).argmin(), np.where(high, 9, middle).argmin()
        points += [edge[i] for i in (outer, inner, upper, lower)]
        points.append(eyes.apparent_pupil(scene.centers[k], scene.radius, look.axes[k], camera))
    return np.concatenate([np.stack(points), look.final[landmark_vertices()]])


def _record(scene: Scene, look: Look, gaze: np.ndarray, camera, drawn) -> Record:
    cam2world, intrinsics = camera
    image, parts, depth = drawn
    marks = project(landmark_points(scene, look, cam2world[:3, 3]), cam2world, intrinsics)[0]
    return {
        "image": image,
        "parts": parts,
        "face_mask": face_mask(parts),
        "eye_mask": eye_mask(parts),
        "depth": depth,
        "cam2world": cam2world.astype(np.float32),
        "intrinsics": intrinsics.astype(np.float32),
        "gaze_head": gaze.astype(np.float32),
        "gaze_camera": camera_gaze(head_gaze_vector(gaze), cam2world).astype(np.float32),
        "head_pose": camera_gaze(np.array([0.0, 0.0, 1.0]), cam2world).astype(np.float32),
        "eye_centers": scene.centers.astype(np.float32),
        "landmarks": marks.astype(np.float32),
    }


def plan_capture(
    person: Person, capture: int, middle: np.ndarray, gazes: int, views: int, rig: str, augment: bool
) -> Plan:
    """Choose gazes, cameras and expression. `middle` is the point between the eyes, world units."""
    rng = np.random.default_rng([person.seed, 2, capture, 0])
    expression, opening = sample_expression(rng)
    if rig == "eth":
        cameras = eth_rig_cameras()[:views]
    else:
        cameras = [_view(np.random.default_rng([person.seed, 2, capture, 1, v]), v, augment) for v in range(views)]
    looks = [
        sample_gaze(np.random.default_rng([person.seed, 2, capture, 2, g]), cameras[0][0][:3, 3], middle)
        for g in range(gazes)
    ]
    return Plan(
        np.stack([gaze for gaze, _ in looks]),
        np.array([distance for _, distance in looks]),
        cameras,
        expression,
        float(np.clip(opening * person.opening, 0.3, 1.25)),
    )


def render_capture(
    renderer: Renderer,
    split: str,
    person: int,
    capture: int = 0,
    *,
    gazes: int | np.ndarray,
    views: int,
    augment: bool = True,
    degraded: bool = True,
    rig: str = "free",
) -> list[Record]:
    """Draw one capture.

    Args:
        renderer: sets the resolution.
        split: "train", "validation" or "test".
        person: number within the split.
        capture: number of the sitting: other expression, light, camera settings and backdrop.
        gazes: how many, or the head-frame (pitch, yaw) angles themselves [G, 2] in radians.
        views: how many; view 0 is within 12 degrees of frontal.
        augment: camera jitter and seeded tone.
        degraded: blur, noise and JPEG, different in each picture; without it they are what a network can match.
        rig: "free", or "eth" for the first `views` of the 18 cameras of ETH-XGaze.

    Returns:
        gazes * views records (data/record.py), gaze-major.

    Raises:
        UserError: unknown split or rig, or numbers out of range.
    """
    if rig not in ("free", "eth"):
        raise UserError(f"rig must be free or eth, not {rig!r}")
    if views < 1 or (rig == "eth" and views > len(ETH_RIG)):
        raise UserError(f"views must be at least 1 (and at most {len(ETH_RIG)} with the eth rig), not {views}")
    who = sample_person(split, person)
    chosen = None if np.ndim(gazes) == 0 else np.asarray(gazes, float).reshape(-1, 2)
    count = int(gazes) if chosen is None else len(chosen)
    if count < 1:
        raise UserError("gazes must be at least 1")
    with renderer.context:  # makes it the current one, should there be others
        return _draw(renderer, who, capture, count, chosen, views, augment, rig)


def _draw(
    renderer: Renderer,
    person: Person,
    capture: int,
    count: int,
    chosen: np.ndarray | None,
    views: int,
    augment: bool,
    rig: str,
) -> list[Record]:
    rng = np.random.default_rng([person.seed, 2, capture, 3])
    light = make_light(rng)
    background = make_background(rng, light)
    develop = make_develop(rng, light, augment)
    # the expression is needed before the head's geometry, the gazes after it: plan twice from the same seeds
    first = plan_capture(person, capture, np.zeros(3), count, views, rig, augment)
    scene = Scene(renderer, person, first.expression, first.opening)
    try:
        renderer.set_light(light, background)
        scene.start()
        plan = plan_capture(person, capture, scene.centers.mean(0), count, views, rig, augment)
        records = []
        for g, gaze in enumerate(plan.gazes if chosen is None else chosen):
            look = scene.look(eyes.converge(gaze, scene.centers, plan.distances[g]))
            for v, camera in enumerate(plan.cameras):
                drawn = renderer.draw(scene.items(), *camera, develop, backdrop_window(camera[0]))
                record = _record(scene, look, gaze, camera, drawn)
                if augment:
                    record["image"] = degrade(
                        record["image"], np.random.default_rng([person.seed, 2, capture, 4, g, v])
                    )
                record |= {
                    "person": np.int32(person.number),
                    "capture": np.int32(capture),
                    "gaze_index": np.int32(g),
                    "view_index": np.int32(v),
                    "seed": np.int64(person.seed),
                }
                records.append(record)
        return records
    finally:
        scene.release()


def backdrop_window(cam2world: np.ndarray) -> np.ndarray:
    """Which part of the backdrop a camera sees: it shifts as the camera goes round."""
    yaw = np.arctan2(cam2world[0, 2], -cam2world[2, 2])
    pitch = np.arcsin(np.clip(cam2world[1, 2], -1, 1))
    size = np.array([0.35, 0.70])
    return np.concatenate([np.array([0.5, 0.5]) + np.array([yaw, -pitch]) * (0.22, 0.3) - size / 2, size])
