"""Maps of parts for real pictures: from landmarks, or from the masks of a face parser.

They are coarse (no hair, no mouth, the forehead is a guess), but know face and visible eyes. Pixel coordinates are
OpenCV's.
"""

import cv2
import numpy as np

from rtgaze_jax.data.record import PARTS

_SHIFT = 4
_FOREHEAD = 0.75  # reach above the brows, in lengths from the eyes to the mouth
_EYE_WIDTH, _EYE_HEIGHT = 14.0, 6.0  # mm: half axes of an eye's opening where no landmarks show it
_FACE_WIDTH, _FACE_HEIGHT = 70.0, 105.0  # mm: likewise of the face
_DLIB_EYES = (range(42, 48), range(36, 42))  # subject's left, right


def from_landmarks(landmarks: np.ndarray, eyes: np.ndarray, size: int, scale: float) -> np.ndarray:
    """Parts u8[size, size]: face and eyes as polygons of 68 (dlib) or 478 (MediaPipe) landmarks, ellipses otherwise.

    landmarks [L, 2], eyes [2, 2] (where the eyeballs' centres are seen; subject's left, right): pixels. scale: pixels
    for each mm.
    """
    if len(landmarks) == 68:
        outline, openings = _dlib_outline(landmarks), [landmarks[list(points)] for points in _DLIB_EYES]
    elif len(landmarks) == 478:
        from rtgaze_jax.inference import mesh

        outline = landmarks[list(mesh.FACE_OVAL)]
        openings = [landmarks[list(contour)] for contour in mesh.EYE_CONTOURS]
    else:
        middle, across = eyes.mean(0), eyes[0] - eyes[1]
        right = across / max(float(np.linalg.norm(across)), 1e-6)
        down = np.array([-right[1], right[0]])
        outline = _ellipse(middle + 30 * scale * down, right, _FACE_WIDTH * scale, _FACE_HEIGHT * scale)
        openings = [_ellipse(eye, right, _EYE_WIDTH * scale, _EYE_HEIGHT * scale) for eye in eyes]
    parts = np.zeros((size, size), np.uint8)
    _fill(parts, outline, PARTS.skin)
    for opening, part in zip(openings, (PARTS.left_eye, PARTS.right_eye), strict=True):
        _fill(parts, opening, part)
    return parts


def from_masks(head: np.ndarray, eyes: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Parts u8[h, w] of a face parser's masks (bool): head, and eyes split by the nearer of `centers` [2, 2] (left,
    right), because "left" means the image's side in some files and the subject's in others."""
    parts = np.where(head, int(PARTS.skin), int(PARTS.background)).astype(np.uint8)
    y, x = np.nonzero(eyes)
    distance = np.linalg.norm(np.stack([x, y], -1)[:, None] - centers[None], axis=-1)
    parts[y, x] = np.where(distance[:, 0] <= distance[:, 1], int(PARTS.left_eye), int(PARTS.right_eye))
    return parts


def _dlib_outline(points: np.ndarray) -> np.ndarray:
    """The hull of 68 landmarks, with a forehead."""
    eyes, mouth = points[36:48].mean(0), points[48:68].mean(0)
    forehead = points[17:27] + _FOREHEAD * (eyes - mouth)
    return cv2.convexHull(np.concatenate([points, forehead]).astype(np.float32))[:, 0]


def _ellipse(center: np.ndarray, right: np.ndarray, width: float, height: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    down = np.array([-right[1], right[0]])
    return center + np.outer(width * np.cos(angle), right) + np.outer(height * np.sin(angle), down)


def _fill(parts: np.ndarray, polygon: np.ndarray, part: PARTS) -> None:
    far = 8 * parts.shape[0]
    fixed = np.rint(np.clip(np.nan_to_num(polygon, nan=-far), -far, far) * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(parts, [fixed], int(part), cv2.LINE_8, _SHIFT)
