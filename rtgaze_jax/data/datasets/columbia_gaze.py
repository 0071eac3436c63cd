"""The data set `columbia_gaze`: Columbia Gaze (Smith et al., UIST 2013), 56 people, 5 head poses, 21 gazes each.

Forms that are read: the pictures as they come, NNNN/NNNN_2m_{P}P_{V}V_{H}H.jpg, and GazeNeRF's columbia_subjectNNNN.h5.

All labels are in the file name, degrees: the person looks V up and H to the side of the LENS, so (0V, 0H) is eye
contact at every head pose P. Here: camera-frame pitch = V, yaw = -H, and the head's pose comes from landmarks at the
known distance of 2 m. That P has the sign of H is checked in every picture, by the pose that the landmarks show.
Captures are people; records share a gaze number where the gaze against the head is the same.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rtgaze_jax.data.datasets import lineage, portraits
from rtgaze_jax.data.datasets.builder import PreparedBuilder, PreparedConfig
from rtgaze_jax.data.datasets.face_models import ETH
from rtgaze_jax.data.datasets.normalized import View, crop, normalizing_rotation, pose_angles
from rtgaze_jax.data.datasets.prepare import Options, Plan, Rejected, Unit, attempt, numbers, read_picture
from rtgaze_jax.data.labels import gaze_vector
from rtgaze_jax.data.record import Record
from rtgaze_jax.errors import UserError

NAME = "columbia_gaze"
DESCRIPTION = "Columbia Gaze: 56 people, 5 head poses, 21 gazes each, 5184 x 3456 pixels; non-commercial use only."
PEOPLE = tuple(range(1, 57))
DISTANCE = 2000.0  # mm
POSES = (0, -15, 15, -30, 30)
PICTURES = 105
POSE_TOLERANCE = 20.0  # degrees between the head's yaw in the file name and in the picture
_NAME = re.compile(r"(\d{4})_2m_(-?\d+)P_(-?\d+)V_(-?\d+)H\.jpe?g", re.IGNORECASE)


class Label(NamedTuple):
    """What a file name says: person, and degrees of head pose, vertical and horizontal gaze."""

    person: int
    pose: int
    vertical: int
    horizontal: int

    @classmethod
    def parse(cls, name: str) -> "Label":
        """Raises ValueError where the name is none of the data set's."""
        match = _NAME.fullmatch(name)
        label = cls(*map(int, match.groups())) if match else None
        if label is None or label.pose not in POSES or abs(label.vertical) > 10 or abs(label.horizontal) > 15:
            raise ValueError("its name is not of the form 0001_2m_-15P_10V_5H.jpg")
        return label

    @property
    def gaze_index(self) -> int:
        """The same for the same gaze against the head, in any pose."""
        return (self.vertical + 10) // 5 * 19 + (self.pose - self.horizontal + 45) // 5


def plan(source: Path, options: Options) -> Plan:
    """Finds out which form the source has and lists its pictures."""
    people = sorted(options.people or PEOPLE)
    if lineage.find(source, NAME):
        return lineage.plan(source, NAME, people, options, DESCRIPTION)
    base = next((p for p in (source, source / "Columbia Gaze Data Set") if any(p.glob("0[0-9][0-9][0-9]"))), None)
    if base is None:
        raise UserError(
            f"{source} holds no Columbia Gaze: expected 0001/0001_2m_0P_0V_0H.jpg or columbia_subject0001.h5 "
            "(see docs/datasets/columbia_gaze.md)"
        )
    units, rejected = [], []
    for person in people:
        folder = base / f"{person:04}"
        pictures = sorted(path.name for path in folder.glob("*.[jJ][pP]*[gG]"))
        if not pictures:
            rejected.append(Rejected(folder.name, "the folder is missing or empty"))
            continue
        if len(pictures) != PICTURES:
            rejected.append(Rejected(folder.name, f"it has {len(pictures)} of {PICTURES} pictures (these are used)"))
        units.append(Unit([str(folder.relative_to(source)), pictures], len(pictures)))
    return Plan(NAME, DESCRIPTION, units, load, {"format": "pictures"}, rejected)


def load(source: Path, unit: Unit, options: Options, details: dict) -> Iterator[tuple[str, Record] | Rejected]:
    """The records of one person."""
    folder, pictures = unit.payload
    for name in pictures:
        item = f"{Path(folder).name}/{name}"
        yield attempt(item, lambda: _record(source / folder / name, options))  # noqa: B023 (called at once)


def _record(path: Path, options: Options) -> Record:
    label = Label.parse(path.name)
    pixels = read_picture(path)
    found = portraits.find_face(pixels)
    if found is None:
        raise ValueError("no face was found")
    height, width = pixels.shape[:2]
    matrix, (turn, place) = portraits.fit_portrait(found, (width, height), DISTANCE)
    start = turn @ (ETH.center if options.origin == "face" else ETH.points[:4].mean(0)) + place
    level = normalizing_rotation(start, np.eye(3))  # towards the face, upright as the camera is
    yaw = np.degrees(pose_angles(level @ turn)[1])
    if abs(yaw + label.pose) > POSE_TOLERANCE:
        raise ValueError(f"the head is turned by {-yaw:.0f} deg, its name says {label.pose}")
    gaze = level.T @ gaze_vector(np.radians([label.vertical, -label.horizontal]))
    view = View(pixels, matrix, ETH, turn, place, gaze, found.landmarks)
    named = numbers(label.person, 0, label.gaze_index, POSES.index(label.pose))
    return crop(view, options.resolution, options.span) | named


class ColumbiaGaze(PreparedBuilder):
    """tensorflow-datasets builder of `columbia_gaze`."""

    NAME = NAME
    BUILDER_CONFIGS = (PreparedConfig(name="full", options=(Options("test"),)),)
