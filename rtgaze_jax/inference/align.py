"""From a face in a photo to the network's square crop, and the eyes' places in it.

The crop removes roll and brings eyes and mouth to EG3D's places (geometry/normalize.py), which are also where the
synthetic heads have theirs when seen from the front: the network meets photos framed like its training images.
"""

import numpy as np
from jaxtyping import Float, UInt8

from rtgaze_jax.geometry.normalize import face_crop_matrix
from rtgaze_jax.inference import mesh
from rtgaze_jax.inference.face import Face
from rtgaze_jax.inference.warp import apply, warp


def corner_midpoints(face: Face) -> Float[np.ndarray, "2 2"]:
    """The middle between the two corners of the subject's left and right eye, photo pixels.

    Corners hardly move with gaze, blinks or expression, unlike lids and irises, so nothing derived from them does
    either.
    """
    return np.stack([face.landmarks[list(corners)].mean(0) for corners in mesh.EYE_CORNERS]).astype(np.float64)


def crop_matrix(face: Face, size: int) -> Float[np.ndarray, "2 3"]:
    """The similarity from photo pixels to pixels of the upright `size` x `size` crop (continuous coordinates)."""
    mouth = face.landmarks[list(mesh.MOUTH_CORNERS)].mean(0).astype(np.float64)
    return face_crop_matrix(corner_midpoints(face), mouth, size)


def crop(pixels: UInt8[np.ndarray, "H W 3"], matrix: Float[np.ndarray, "2 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    """The face crop, free of aliasing; where it leaves the photo the photo's edge is repeated."""
    return warp(pixels, matrix, (size, size))


def eye_points(face: Face, matrix: Float[np.ndarray, "2 3"], size: int) -> Float[np.ndarray, "2 2"]:
    """Where the centres of the eyeballs appear in the crop: normalised coordinates, (subject's left, subject's right).

    An eyeball cannot be seen, but its centre lies behind the opening between the lids: seen from the front it
    projects to the middle between the corners. The corners are used rather than the lids or the iris because the
    eyeball's centre stays where it is when the gaze changes.
    """
    return apply(matrix, corner_midpoints(face)) / size
