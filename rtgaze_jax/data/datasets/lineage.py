"""The 512-pixel h5 files of GazeNeRF's preprocessing (also GazeGaussian's): xgaze_, mpii_ and columbia_subjectNNNN.h5.

Their gaze labels are not used as they are. `pitchyaw_head` has the opposite pitch sign, and for ETH-XGaze and
MPIIFaceGaze it starts 41 mm beside the face centre (chin and brows instead of eyes and nose); `pitchyaw` is no angle at
all. Here gaze is computed anew from the 3D target (`pitchyaw_3d`). The head's pose, which the files lack, follows from
the labels that they have. `frame_index` wraps after 255, so moments are counted by the order of cameras instead.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rtgaze_jax.data.datasets import masks, rig
from rtgaze_jax.data.datasets.face_models import ETH, LINEAGE_CENTER_ERROR, MPII, FaceModel
from rtgaze_jax.data.datasets.normalized import (
    View,
    crop,
    normalizing_rotation,
    patch_camera,
    rotation_from_pose,
)
from rtgaze_jax.data.datasets.prepare import Options, Plan, Rejected, Unit, attempt, numbers, open_h5, spaced
from rtgaze_jax.data.record import Record
from rtgaze_jax.errors import UserError

SIZE = 512
KEYS = ("face_patch", "head_mask", "left_eye_mask", "right_eye_mask", "facial_landmarks", "pitchyaw_head",
        "face_head_pose", "cam_index")  # fmt: skip
ROWS_PER_SHARD = 144


class Kind(NamedTuple):
    """One data set of the lineage: normalised focal length and distance, the usual true distance (mm), more keys."""

    prefix: str
    focal: float
    distance: float
    usual: float
    keys: tuple[str, ...]


KINDS = {
    "eth_xgaze": Kind("xgaze", 1600, 680, 1080, ("pitchyaw_3d",)),
    "mpii_face_gaze": Kind("mpii", 1400, 680, 550, ("pitchyaw_3d", "face_center")),
    "columbia_gaze": Kind("columbia", 1600, 680, 2000, ()),
}


def find(source: Path, name: str) -> dict[int, Path]:
    """The files of a data set below `source` by subject number."""
    found = sorted(source.glob(f"**/{KINDS[name].prefix}_subject[0-9]*.h5"))
    return {int(path.stem.rpartition("subject")[2]): path for path in found}


def plan(source: Path, name: str, people: list[int], options: Options, description: str) -> Plan:
    """The plan for these files."""
    kind, files = KINDS[name], find(source, name)
    if options.origin == "eyes" and name == "columbia_gaze":
        raise UserError("these files have no gaze targets, so gaze cannot start at the eyes: leave out --origin")
    calibration = rig.find_calibration(source) if name == "eth_xgaze" else None
    details = {"format": "GazeNeRF 512", "calibration": str(calibration.relative_to(source)) if calibration else ""}
    if calibration:
        rig.load_rig(calibration)
    units, rejected = [], []
    for person in people:
        if person not in files:
            rejected.append(Rejected(f"{kind.prefix}_subject{person:04}.h5", "the file is missing"))
            continue
        try:
            with open_h5(files[person], KEYS + kind.keys, "a file of GazeNeRF's preprocessing") as file:
                shape = file["face_patch"].shape
                if shape[1:3] != (SIZE, SIZE):
                    raise ValueError(f"its pictures have {shape[1]} x {shape[2]} pixels, not 512 x 512")
                cameras = file["cam_index"][:, 0].astype(int)
                used = np.any(file["face_head_pose"][:] != 0, axis=1) | np.any(file["pitchyaw_head"][:] != 0, axis=1)
        except ValueError as error:
            rejected.append(Rejected(files[person].name, str(error)))
            continue
        # Cameras come in order: where the number falls, the next moment begins.
        moments = np.cumsum(np.diff(cameras, prepend=-1) <= 0) if name == "eth_xgaze" else np.arange(len(used))
        rows = [(int(row), int(moments[row])) for row in np.flatnonzero(used)]
        keep = set(spaced(sorted({moment for _, moment in rows}), options))
        rows = [row for row in rows if row[1] in keep]
        groups: list[list] = [[]]
        for row in rows:  # moments stay together
            if len(groups[-1]) >= ROWS_PER_SHARD and groups[-1][-1][1] != row[1]:
                groups.append([])
            groups[-1].append(row)
        path = str(files[person].relative_to(source))
        units += [Unit([person, path, group], len(group)) for group in groups if group]
    return Plan(name, description, units, load, details | {"name": name}, rejected)


def load(source: Path, unit: Unit, options: Options, details: dict) -> Iterator[tuple[str, Record] | Rejected]:
    """The records of some rows of a file."""
    person, path, rows = unit.payload
    kind = KINDS[details["name"]]
    cameras = rig.load_rig(source / details["calibration"]) if details["calibration"] else None
    with open_h5(source / path, KEYS + kind.keys, "a file of GazeNeRF's preprocessing") as file:
        groups: dict[int, list[int]] = {}
        for row, moment in rows:
            groups.setdefault(moment, []).append(row)
        for moment, members in groups.items():
            numbered = {row: int(file["cam_index"][row, 0]) for row in members}
            heads = {camera: rotation_from_pose(file["face_head_pose"][row]) for row, camera in numbered.items()}
            shared = rig.pose_from_head_labels(cameras, ETH, heads) if cameras and len(heads) >= 4 else None
            for row, camera in numbered.items():
                item = f"{path}#{row}"
                pose = cameras[camera].pose(shared) if cameras and shared else None
                if pose is None and details["name"] == "mpii_face_gaze":
                    pose = _mpii_pose(file, row, heads[camera])
                place = numbers(person, 0, moment, camera if details["name"] == "eth_xgaze" else 0)
                yield attempt(item, lambda: _record(file, row, kind, heads[camera], pose, options) | place)  # noqa: B023


def _record(file, row: int, kind: Kind, head: np.ndarray, pose: rig.Pose | None, options: Options) -> Record:
    """A record. `pose`: of the head in the original camera, None where nothing fixes it."""
    model: FaceModel = MPII if kind.prefix == "mpii" else ETH
    if pose is not None:
        # the lineage centres its pictures by the ETH model, whatever model the pose is of
        place = pose[0] @ ETH.center + pose[1]
        turn = normalizing_rotation(place, pose[0])
        distance = float(np.linalg.norm(place))
        rotation, translation = turn @ pose[0], turn @ pose[1]
        start = pose[0] @ _origin(model, options) + pose[1]
        gaze = turn @ (np.asarray(file["pitchyaw_3d"][row], np.float64) - start)
    else:
        distance, rotation = kind.usual, head
        translation = np.array([0, 0, distance]) - head @ ETH.center
        gaze = head @ _head_gaze(file, row, kind, _origin(model, options))
    camera = patch_camera(kind.focal, kind.distance, SIZE, distance)
    pixels = np.ascontiguousarray(file["face_patch"][row][..., ::-1])
    if pixels.std() < 2:
        raise ValueError("the picture is empty")
    eyes_at = model.origin + model.eye_centers * 370 @ model.to_world
    seen = (eyes_at @ rotation.T + translation) @ camera.T
    parts = masks.from_masks(
        file["head_mask"][row] > 0,
        (file["left_eye_mask"][row] > 0) | (file["right_eye_mask"][row] > 0),
        seen[:, :2] / seen[:, 2:],
    )
    view = View(pixels, camera, model, rotation, translation, gaze, file["facial_landmarks"][row], parts)
    return crop(view, options.resolution, options.span)


def _origin(model: FaceModel, options: Options) -> np.ndarray:
    return model.center if options.origin == "face" else model.points[:4].mean(0)


def lineage_vector(label: np.ndarray) -> np.ndarray:
    """Unit vector [3] in model axes of a `pitchyaw_head` label, whose pitch is positive downwards."""
    pitch, yaw = np.asarray(label, np.float64)
    return np.array([-np.cos(pitch) * np.sin(yaw), np.sin(pitch), -np.cos(pitch) * np.cos(yaw)])


def _head_gaze(file, row: int, kind: Kind, origin: np.ndarray) -> np.ndarray:
    """Gaze vector in model axes without the head's place: the label's vector, carried from its start to `origin`.

    The way to the target is taken as that from the usual place of the head; 5 % of error there are 0.1 degrees.
    """
    vector = lineage_vector(file["pitchyaw_head"][row])
    if "pitchyaw_3d" not in kind.keys:
        return vector  # Columbia: from the file name, no start
    way = np.linalg.norm(np.asarray(file["pitchyaw_3d"][row]) - [0, 0, kind.usual])
    return way * vector + ETH.center + LINEAGE_CENTER_ERROR - origin


def _mpii_pose(file, row: int, head: np.ndarray) -> rig.Pose:
    """The head pose (of the six-point model) in the laptop's camera, from four labels that depend on it."""
    center, target = (np.asarray(file[key][row], np.float64) for key in ("face_center", "pitchyaw_3d"))
    gaze = lineage_vector(file["pitchyaw_head"][row])

    def residuals(pose: rig.Pose) -> np.ndarray:
        place = pose[0] @ ETH.center + pose[1]
        vector = pose[0].T @ (target - pose[1]) - (ETH.center + LINEAGE_CENTER_ERROR)
        return 1000 * np.concatenate([
            (normalizing_rotation(place, pose[0]) @ pose[0])[:, 2] - head[:, 2],
            vector / np.linalg.norm(vector) - gaze,
            (pose[0] @ MPII_CENTER + pose[1] - center) / 500,
        ])  # fmt: skip

    start = normalizing_rotation(center, np.eye(3)).T @ head
    return rig.fit_pose(residuals, (start, center - start @ MPII_CENTER), 1e3)


MPII_CENTER = MPII.points.mean(0)  # the face centre of MPIIFaceGaze's annotation: the mean of all six
