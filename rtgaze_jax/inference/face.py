"""Faces in a photo: detector, 468-point mesh and irises, by three small MediaPipe networks run through LiteRT.

    windows of several sizes -> detections -> square, upright region -> mesh -> region around each eye -> lids and
    iris

All coordinates are continuous photo pixels (the centre of the first pixel is at 0.5, 0.5).
Networks: BlazeFace short range, Face Mesh and Iris (Google, Apache-2.0), see weights/shipped/faces/NOTICE.
"""

import contextlib
import dataclasses
import functools
import math
import os
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from rtgaze_jax.inference import mesh
from rtgaze_jax.inference.warp import apply, compose, invert, scaling, shifting, warp

MODELS = Path(__file__).parent.parent / "weights" / "shipped" / "faces"
_WORKERS = min(8, os.cpu_count() or 1)
_QUIET = threading.Lock()
# an interpreter holds one input at a time, so whoever runs networks takes a set of them: the last one used first, so
# that a single thread needs only one
_SETS: queue.LifoQueue[int] = queue.LifoQueue()
for _set in reversed(range(_WORKERS + 1)):
    _SETS.put(_set)

_DETECTOR_SIZE, _MESH_SIZE, _IRIS_SIZE = 128, 192, 64
_MIN_DETECTION, _MIN_PRESENCE, _MAX_OVERLAP = 0.5, 0.9, 0.3
_DETECTION_TO_MESH, _EYE_TO_IRIS = 1.5, 2.3  # how much larger the networks' input regions are (MediaPipe's values)
_WINDOWS = (1.6, 1.0, 0.5, 0.25)  # sides of the search windows, in longer sides of the photo
_SMALLEST_WINDOW = 64  # pixels


@dataclasses.dataclass(frozen=True)
class Face:
    """One face of a photo.

    box: x0, y0, x1, y1 of the mesh in pixels, f32[4]. score: the mesh network's belief that there is a face, 0..1.
    landmarks: f32[478, 2] in pixels, MediaPipe's order (see mesh.py). z: f32[478], depth in the same pixels, smaller
    is nearer, about 0 at the head's middle (irises: 0).
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray
    z: np.ndarray

    @property
    def size(self) -> float:
        """The side of a square of the box's area, pixels."""
        return float(math.sqrt(np.prod(self.box[2:] - self.box[:2])))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Sends the process's stderr to nowhere: LiteRT greets there once, from C++, with no switch to stop it."""
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@functools.cache
def _workers() -> ThreadPoolExecutor:
    """Threads for parts of a photo that can be looked at side by side."""
    return ThreadPoolExecutor(_WORKERS, "faces")


@functools.cache
def _interpreter(name: str, number: int):
    with _QUIET, _quiet():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(MODELS / f"{name}.tflite"), num_threads=1)
        interpreter.allocate_tensors()
    return interpreter


def _run(name: str, image: np.ndarray) -> list[np.ndarray]:
    """Runs a network on one float32 image [S, S, 3]; returns its outputs in the file's order, without the batch
    axis.
    """
    number = _SETS.get()
    try:
        interpreter = _interpreter(name, number)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"])[0] for detail in interpreter.get_output_details()]
    finally:
        _SETS.put(number)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))


@functools.cache
def _anchors() -> np.ndarray:
    """Centres of the detector's 896 anchors, f32[896, 2] in 0..1: two a cell of 16x16, then six a cell of 8x8."""
    grids = []
    for cells, repeats in ((16, 2), (8, 6)):
        centres = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)
        grids.append(np.repeat(grid, repeats, axis=0))
    return np.concatenate(grids).astype(np.float32)


def _windows(width: int, height: int) -> list[tuple[float, float, float]]:
    """Square search windows (x, y, side) covering a photo at several sizes; neighbours overlap by half."""
    longer = max(width, height)
    found = []
    for relative in _WINDOWS:
        side = relative * longer
        if relative < 1 and side < _SMALLEST_WINDOW:
            break
        starts = []
        for extent in (width, height):
            steps = math.ceil(max(0.0, extent - side) / (side / 2))
            middle = (extent - side) / 2
            starts.append([middle] if steps == 0 else [i * (extent - side) / steps for i in range(steps + 1)])
        found += [(x, y, side) for y in starts[1] for x in starts[0]]
    return found


def detect(image: np.ndarray) -> np.ndarray:
    """Candidate faces of a photo u8[H, W, 3], best first: f32[N, 17] = score, then 8 points (x, y) in pixels.

    Points: two opposite corners of the box, then right eye, left eye, nose, mouth, right ear, left ear (subject's
    sides).
    """
    height, width = image.shape[:2]
    smaller = min(1.0, 2 * _DETECTOR_SIZE / (_WINDOWS[-1] * max(width, height)))
    reduced = image
    if smaller < 1:  # one reduction for all windows: the finest one still has two pixels per input pixel
        size = (max(1, round(width * smaller)), max(1, round(height * smaller)))
        reduced = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    to_reduced = scaling(reduced.shape[1] / width, reduced.shape[0] / height)

    def search(window: tuple[float, float, float]) -> np.ndarray:
        x, y, side = window
        to_input = compose(scaling(_DETECTOR_SIZE / side, _DETECTOR_SIZE / side), shifting(-x, -y))
        pixels = warp(
            reduced,
            compose(to_input, invert(to_reduced)),
            (_DETECTOR_SIZE, _DETECTOR_SIZE),
            "zero",
            cv2.INTER_LINEAR,
        )
        boxes, logits = _run("face_detection_short_range", pixels.astype(np.float32) / 127.5 - 1)
        scores = _sigmoid(logits[:, 0])
        keep = scores > _MIN_DETECTION
        points = boxes[keep].reshape(-1, 8, 2) / _DETECTOR_SIZE
        anchors = _anchors()[keep][:, None]
        half = points[:, 1:2] / 2
        centre = points[:, :1] + anchors
        points = np.concatenate([centre - half, centre + half, points[:, 2:] + anchors], 1)
        return np.concatenate([scores[keep, None], (points * side + (x, y)).reshape(-1, 16)], 1)

    found = list(_workers().map(search, _windows(width, height)))
    return _merge(np.concatenate(found).astype(np.float32))


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box [4] with boxes [N, 4]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), -1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], -1)
    return common / np.maximum(np.prod(box[2:] - box[:2]) + areas - common, 1e-9)


def _merge(detections: np.ndarray) -> np.ndarray:
    """MediaPipe's weighted suppression: overlapping detections [N, 17] become their mean, weighted by score."""
    rest = detections[np.argsort(-detections[:, 0], kind="stable")]
    merged = []
    while len(rest):
        same = overlap(rest[0, 1:5], rest[:, 1:5]) > _MAX_OVERLAP
        same[0] = True
        mean = np.average(rest[same], axis=0, weights=rest[same, 0])
        mean[0] = rest[0, 0]
        merged.append(mean)
        rest = rest[~same]
    return np.stack(merged) if merged else detections


def _region(points: np.ndarray, start: np.ndarray, end: np.ndarray, grow: float) -> tuple[np.ndarray, float, float]:
    """Centre, side and rotation of the square that a network looks at: `points`' box, grown, with `start` -> `end`
    made level.
    """
    low, high = points.min(0), points.max(0)
    direction = end - start
    return (low + high) / 2, float((high - low).max() * grow), math.atan2(direction[1], direction[0])


def _to_input(region: tuple[np.ndarray, float, float], size: int, mirror: bool = False) -> np.ndarray:
    """The matrix from photo pixels to the input pixels of a network with `size` square inputs."""
    centre, side, angle = region
    cos, sin = math.cos(angle) * size / max(side, 1e-3), math.sin(angle) * size / max(side, 1e-3)
    turn = np.array([[cos, sin], [-sin, cos]])
    matrix = np.concatenate([turn, (size / 2 - turn @ centre)[:, None]], 1)
    return compose(np.array([[-1.0, 0, size], [0, 1, 0]]), matrix) if mirror else matrix


def _eye(image: np.ndarray, points: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Refined points of one eye (0 subject's left, 1 right): its 71 mesh points and 5 iris points, both [., 2]."""
    outer, inner = points[list(mesh.EYE_CORNERS[side])]
    left, right = (inner, outer) if side == 0 else (outer, inner)
    matrix = _to_input(_region(np.stack([left, right]), left, right, _EYE_TO_IRIS), _IRIS_SIZE, mirror=side == 0)
    pixels = warp(image, matrix, (_IRIS_SIZE, _IRIS_SIZE), "zero", cv2.INTER_LINEAR)
    contour, iris = _run("iris_landmark", pixels.astype(np.float32) / 255)
    back = invert(matrix)  # the network knows right eyes only, so the left one is shown mirrored
    iris = iris.reshape(-1, 3)[
        [0, 3, 2, 1, 4] if side == 0 else slice(None)
    ]  # rim points: image right, top, left, bottom
    return apply(back, contour.reshape(-1, 3)[:, :2]), apply(back, iris[:, :2])


def _mesh(image: np.ndarray, region: tuple[np.ndarray, float, float]) -> tuple[np.ndarray, float]:
    """The 468 mesh points [468, 3] (x, y, z in pixels) in a region of the photo, and the network's belief, 0..1."""
    matrix = _to_input(region, _MESH_SIZE)
    pixels = warp(image, matrix, (_MESH_SIZE, _MESH_SIZE), "zero", cv2.INTER_LINEAR)
    raw, logit = _run("face_landmark", pixels.astype(np.float32) / 255)
    raw = raw.reshape(-1, 3)
    points = apply(invert(matrix), raw[:, :2])
    return np.concatenate([points, raw[:, 2:] * (region[1] / _MESH_SIZE)], 1), float(_sigmoid(logit).ravel()[0])


def landmarks_region(landmarks: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The region in which to look again for a face whose landmarks [., 2] are roughly known (the last frame's, say)."""
    points = landmarks[: mesh.MESH_POINTS]
    return _region(points, points[mesh.EYE_CORNERS[1][0]], points[mesh.EYE_CORNERS[0][0]], _DETECTION_TO_MESH)


def face_in_region(image: np.ndarray, region: tuple[np.ndarray, float, float]) -> Face | None:
    """The face in one region (centre, side, rotation) of a photo u8[H, W, 3], or None if the mesh network sees none."""
    points, score = _mesh(image, region)
    if score < _MIN_PRESENCE:
        return None
    landmarks = np.zeros((mesh.LANDMARKS, 2))
    landmarks[: mesh.MESH_POINTS] = points[:, :2]
    left = _workers().submit(_eye, image, points[:, :2], 0)
    right = _eye(image, points[:, :2], 1)
    for side, (contour, iris) in enumerate((left.result(), right)):
        landmarks[list(mesh.EYE_REGIONS[side])] = contour
        start = mesh.IRIS_CENTRES[side]
        landmarks[start : start + mesh.IRIS_POINTS] = iris
    z = np.concatenate([points[:, 2], np.zeros(2 * mesh.IRIS_POINTS)])
    outline = landmarks[: mesh.MESH_POINTS]
    box = np.concatenate([outline.min(0), outline.max(0)])
    return Face(box.astype(np.float32), score, landmarks.astype(np.float32), z.astype(np.float32))


def track_face(image: np.ndarray, previous: Face) -> Face | None:
    """The same face in the next frame, searched where it was; None if it is gone (then call `find_faces`)."""
    return face_in_region(image, landmarks_region(previous.landmarks))


def find_faces(image: np.ndarray) -> list[Face]:
    """All faces of a photo u8[H, W, 3], largest first; faces from about 5 % to 95 % of the photo's longer side are
    found.
    """
    faces: list[Face] = []
    for detection in detect(image):
        points = detection[1:].reshape(8, 2)
        face = face_in_region(image, _region(points[:2], points[2], points[3], _DETECTION_TO_MESH))
        # a second look, centred on the mesh, makes the result independent of the window that found the face
        face = face and track_face(image, face)
        if face and (not faces or overlap(face.box, np.stack([f.box for f in faces])).max() < _MAX_OVERLAP):
            faces.append(face)
    return sorted(faces, key=lambda face: -face.size)
