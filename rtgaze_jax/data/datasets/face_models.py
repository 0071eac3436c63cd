"""The 3D points behind the head poses of the public gaze data sets, and where our world lies in them.

A head pose of a data set is the pose of its face model, so the model's points say where face centre and eyes are.
Model axes: x to the subject's left, y down, z into the head, mm. The world frame (rtgaze_jax.data.record) is chosen
alike for all models and as the synthetic heads have it: the eyes are straight above the mouth (the models differ by
6.8 degrees there), and the origin lies EYES_ABOVE and EYES_BEFORE away from the middle of the eyes' corners.

Points: face_model.txt of ETH-XGaze (Zhang et al., ECCV 2020) and the six-point model that MPIIFaceGaze comes with
(Zhang et al., CVPRW 2017, after Sugano et al., CVPR 2014).
"""

import dataclasses
import functools

import numpy as np

from rtgaze_jax.data.labels import FRONTAL
from rtgaze_jax.data.record import MILLIMETRES

EYES_ABOVE, EYES_BEFORE = 16.5, 33.0  # mm: the middle of the eyes' corners against the world's origin
EYEBALL_OUTWARD, EYEBALL_UP, EYEBALL_BEHIND = 1.2, 1.9, 8.0  # mm: eyeballs against the middles of their corners
LANDMARKS_68 = (36, 39, 42, 45, 31, 35)  # the six points of ETH-XGaze's poses among dlib's 68 landmarks


@dataclasses.dataclass(frozen=True)
class FaceModel:
    """Six points [6, 3] (subject's right eye outer, inner, left eye inner, outer corner; two of nose or mouth) and the
    mouth's corners [2, 3] (subject's right, left)."""

    name: str
    points: np.ndarray
    mouth: np.ndarray

    @functools.cached_property
    def center(self) -> np.ndarray:
        """The face centre [3] of the 2018 normalisation: the mean of the corners' mean and the other points' mean."""
        return (self.points[:4].mean(0) + self.points[4:].mean(0)) / 2

    @functools.cached_property
    def to_world(self) -> np.ndarray:
        """Rotation [3, 3] from model axes to world axes."""
        down = self.mouth.mean(0) - self.points[:4].mean(0)
        lean = np.arctan2(down[2], down[1])  # of the line from eyes to mouth, about the x axis
        cosine, sine = np.cos(lean), np.sin(lean)
        return FRONTAL @ np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])

    @functools.cached_property
    def origin(self) -> np.ndarray:
        """The world's origin [3] in the model."""
        eyes = self.points[:4].mean(0) * [0, 1, 1]  # the models are symmetric about x = 0
        return eyes - np.array([0, EYES_ABOVE, EYES_BEFORE]) @ self.to_world

    def world(self, points: np.ndarray) -> np.ndarray:
        """Model points [..., 3] in world units."""
        return (points - self.origin) @ self.to_world.T / MILLIMETRES

    @functools.cached_property
    def eye_centers(self) -> np.ndarray:
        """Centres of the eyeballs [2, 3] (subject's left, right), world units."""
        left, right = self.world(self.points[2:4].mean(0)), self.world(self.points[0:2].mean(0))
        side = np.array([EYEBALL_OUTWARD, EYEBALL_UP, -EYEBALL_BEHIND]) / MILLIMETRES
        return np.stack([left + side, right + side * [-1, 1, 1]])


ETH = FaceModel(
    "ETH-XGaze",
    np.array(
        [
            [-46.50949859619141, -38.32709503173828, 36.41600418090820],
            [-17.76072120666504, -32.58519744873047, 29.07615661621094],
            [18.04391098022461, -30.95682334899902, 29.06296730041504],
            [44.73758697509766, -34.10787200927734, 36.73243713378906],
            [-10.61166477203369, 12.95834922790527, 21.62276477813721],
            [11.28962993621826, 13.86424446105957, 21.83790016174316],
        ]
    ),
    np.array(
        [
            [-20.00109672546387, 35.87311935424805, 24.67940139770508],
            [21.46691894531250, 37.12250137329102, 24.39267730712891],
        ]
    ),
)
_SIX = np.array(
    [
        [-45.096768, -0.483773, 2.397030],
        [-21.312858, 0.483773, -2.397030],
        [21.312858, 0.483773, -2.397030],
        [45.096768, -0.483773, 2.397030],
        [-26.299577, 68.595035, 0.0],
        [26.299577, 68.595035, 0.0],
    ]
)
MPII = FaceModel("MPIIFaceGaze", _SIX, _SIX[4:])
# GazeNeRF's head-frame labels start from here instead of ETH.center: its code wants six points and is given all
# fifty, so that chin and brows take the places of eyes and nose.
LINEAGE_CENTER_ERROR = np.array([-29.4736, -28.2724, -4.5547])
