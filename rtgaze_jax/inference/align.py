"""From a face in a photo to the network's square crop, and the eyes' places in it.

The crop removes roll and frames a head as the synthetic heads are framed: their cameras look at a point inside the
head, so a turned face moves across the picture. All constants below were measured on such heads with the very
landmarks used here (experiments/measure_alignment.py prints them); EG3D's own framing sits 5 % of the picture
higher.
"""

import numpy as np
from jaxtyping import Float, UInt8

from rtgaze_jax.geometry.normalize import face_crop_matrix
from rtgaze_jax.inference import mesh
from rtgaze_jax.inference.face import Face
from rtgaze_jax.inference.warp import apply, warp

# where a frontal head has the middle of its eyes and of its mouth, and how far apart the eyes are; crop sides
EYE_MIDPOINT, MOUTH_MIDPOINT, EYE_DISTANCE = (0.5, 0.427), (0.5, 0.720), 0.260
# the eyes and the mouth lie this far before the point around which heads turn
CENTRE_DEPTH = 0.14
# the line from chin to forehead leans back by this against the head's own axis, radians
FOREHEAD_LEAN = 0.087
# an eyeball's centre against the middle of its eye's corners: towards the temple, up, and behind
EYEBALL_OUTWARD, EYEBALL_UP, EYEBALL_DEPTH = 0.005, 0.008, 0.034


def corner_midpoints(face: Face) -> Float[np.ndarray, "2 2"]:
    """The middle between the two corners of the subject's left and right eye, photo pixels.

    Corners hardly move with gaze, blinks or expression, unlike lids and irises, so nothing derived from them does
    either.
    """
    return np.stack([face.landmarks[list(corners)].mean(0) for corners in mesh.EYE_CORNERS]).astype(np.float64)


def facing(face: Face) -> Float[np.ndarray, "3"]:
    """Unit vector out of the face in the photo's axes (x right, y down, z away); (0, 0, -1) faces the camera."""
    points = np.concatenate([face.landmarks, face.z[:, None]], 1).astype(np.float64)
    right = points[mesh.EYE_CORNERS[0][0]] - points[mesh.EYE_CORNERS[1][0]]
    down = points[mesh.CHIN] - points[mesh.FOREHEAD]
    out = np.cross(down, right)
    out /= max(float(np.linalg.norm(out)), 1e-9)
    up = np.cross(out, right / max(float(np.linalg.norm(right)), 1e-9))
    return np.cos(FOREHEAD_LEAN) * out + np.sin(FOREHEAD_LEAN) * up


def crop_matrix(face: Face, size: int) -> Float[np.ndarray, "2 3"]:
    """The similarity from photo pixels to pixels of the upright `size` x `size` crop (continuous coordinates)."""
    mouth = face.landmarks[list(mesh.MOUTH_CORNERS)].mean(0).astype(np.float64)
    matrix = np.array(
        face_crop_matrix(
            corner_midpoints(face),
            mouth,
            size,
            eye_midpoint=EYE_MIDPOINT,
            mouth_midpoint=MOUTH_MIDPOINT,
            eye_distance=EYE_DISTANCE,
        )
    )
    matrix[:, 2] += CENTRE_DEPTH * size * _in_crop(facing(face), matrix)
    return matrix


def crop(pixels: UInt8[np.ndarray, "H W 3"], matrix: Float[np.ndarray, "2 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    """The face crop, free of aliasing; where it leaves the photo the photo's edge is repeated."""
    return warp(pixels, matrix, (size, size))


def eye_points(face: Face, matrix: Float[np.ndarray, "2 3"], size: int) -> Float[np.ndarray, "2 2"]:
    """Where the centres of the eyeballs appear in the crop: normalised coordinates, (subject's left, subject's right).

    An eyeball cannot be seen, but its centre lies a little behind the opening between the lids, so it follows from
    the corners and the direction the face points in. Neither lids nor iris are used: the centre stays where it is
    when the gaze changes.
    """
    offset = np.array([[EYEBALL_OUTWARD, -EYEBALL_UP], [-EYEBALL_OUTWARD, -EYEBALL_UP]])
    return apply(matrix, corner_midpoints(face)) / size + offset - EYEBALL_DEPTH * _in_crop(facing(face), matrix)


def _in_crop(direction: Float[np.ndarray, "3"], matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2"]:
    """The first two components of a direction in the photo's axes, in the crop's."""
    return matrix[:, :2] @ direction[:2] / np.sqrt(np.linalg.det(matrix[:, :2]))
