"""ETH-XGaze's released h5 files: 448- or 224-pixel normalised pictures with labels of two angles.

The files do not say where the head was. With the calibration it follows from the normalising rotations, whose third
rows point at the face centre from every camera of a frame.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rtgaze_jax.data.datasets import rig
from rtgaze_jax.data.datasets.face_models import ETH
from rtgaze_jax.data.datasets.normalized import View, crop, patch_camera, rotation_from_pose
from rtgaze_jax.data.datasets.prepare import (
    FRAMES_PER_SHARD,
    Options,
    Plan,
    Rejected,
    Unit,
    attempt,
    blocks,
    numbers,
    open_h5,
    spaced,
)
from rtgaze_jax.data.labels import angle_between, gaze_vector
from rtgaze_jax.data.record import GAZE, Record
from rtgaze_jax.errors import UserError

KEYS = ("face_patch", "face_head_pose", "face_mat_norm", "frame_index", "cam_index")
FOCAL, DISTANCE, SIZE = 960.0, 300.0, 448  # of the released normalisation
GAZE_TOLERANCE = np.radians(4.0)


def plan(
    source: Path, name: str, files: dict[int, Path], people: list[int], options: Options, description: str
) -> Plan:
    """The plan for these files."""
    if options.origin == "eyes":
        raise UserError("the released files have no gaze targets, so gaze cannot start at the eyes: use the raw data")
    calibration = rig.find_calibration(source)
    if calibration is not None:
        rig.load_rig(calibration)
    withheld = options.split != "train"  # the leaderboard has them
    units, rejected = [], []
    for person in people:
        if person not in files:
            rejected.append(Rejected(f"subject{person:04}.h5", "the file is missing"))
            continue
        try:
            frames = _frames(files[person], KEYS if withheld else (*KEYS, "face_gaze"))
        except ValueError as error:
            rejected.append(Rejected(files[person].name, str(error)))
            continue
        path = str(files[person].relative_to(source))
        for block in blocks(spaced(sorted(frames), options), FRAMES_PER_SHARD):
            listed = [[frame, frames[frame]] for frame in block]
            units.append(Unit([person, path, listed], sum(len(rows) for _, rows in listed)))
    details = {"format": "released", "calibration": str(calibration.relative_to(source)) if calibration else ""}
    absent = ("depth", *GAZE) if withheld else ("depth",)
    return Plan(name, description, units, load, details, rejected, absent)


def _frames(path: Path, keys: tuple[str, ...]) -> dict[int, list[int]]:
    """The rows of every frame of a file. Raises ValueError where it is another kind of file."""
    with open_h5(path, keys, "a file of the ETH-XGaze release") as file:
        height, width = file["face_patch"].shape[1:3]
        if (height, width) not in ((448, 448), (224, 224)):
            raise ValueError(f"its pictures have {width} x {height} pixels, not 448 x 448 or 224 x 224")
        frames = file["frame_index"][:, 0].astype(int)
        used = np.abs(np.linalg.det(file["face_mat_norm"][:]) - 1) < 0.01  # the files end in empty rows
    return {frame: np.flatnonzero(used & (frames == frame)).tolist() for frame in np.unique(frames[used]).tolist()}


def load(source: Path, unit: Unit, options: Options, details: dict) -> Iterator[tuple[str, Record] | Rejected]:
    """The records of some frames of a file."""
    person, path, moments = unit.payload
    cameras = rig.load_rig(source / details["calibration"]) if details["calibration"] else {}
    with open_h5(source / path, KEYS, "a file of the ETH-XGaze release") as file:
        for frame, rows in moments:
            for row, camera, make in _moment(file, rows, cameras, options):
                place = numbers(person, 0, frame, camera)
                yield attempt(f"{path}#{row}", lambda: make() | place)  # noqa: B023 (called at once)


def _moment(file, rows: list[int], cameras: rig.Rig, options: Options) -> Iterator[tuple]:
    """(row, camera, function that makes the record) of the views of one frame."""
    views = {int(file["cam_index"][row, 0]): row for row in rows}
    turns = {camera: file["face_mat_norm"][row].astype(np.float64) for camera, row in views.items()}
    heads = {camera: rotation_from_pose(file["face_head_pose"][row]) for camera, row in views.items()}
    gazes = {}
    if "face_gaze" in file:
        gazes = {camera: turns[camera].T @ gaze_vector(file["face_gaze"][row]) for camera, row in views.items()}
    head = rig.pose_from_normalized(cameras, ETH, turns, heads) if cameras and len(views) > 1 else None
    common = None
    if head and gazes:
        common = np.median([cameras[camera].rotation.T @ gaze for camera, gaze in gazes.items()], axis=0)

    def make(camera: int, row: int) -> Record:
        turn, gaze = turns[camera], gazes.get(camera)
        if head:
            rotation, translation = (turn @ part for part in cameras[camera].pose(head))
        else:
            rotation = heads[camera]
            translation = np.array([0, 0, rig.NOMINAL_DISTANCE[camera]]) - rotation @ ETH.center
        if common is not None and gaze is not None:
            apart = angle_between(cameras[camera].rotation @ common, gaze)
            if apart > GAZE_TOLERANCE:
                raise ValueError(f"its gaze is {np.degrees(apart):.0f} deg away from the other cameras'")
            gaze = cameras[camera].rotation @ common
        return _record(file, row, (rotation, translation), None if gaze is None else turn @ gaze, options)

    for camera, row in sorted(views.items()):
        yield row, camera, lambda camera=camera, row=row: make(camera, row)


def _record(file, row: int, head: rig.Pose, gaze: np.ndarray | None, options: Options) -> Record:
    """A record; head and gaze in the normalised camera."""
    pixels = np.ascontiguousarray(file["face_patch"][row][..., ::-1])
    if pixels.std() < 2:
        raise ValueError("the picture is empty")
    matrix = patch_camera(FOCAL, DISTANCE, SIZE, np.linalg.norm(head[0] @ ETH.center + head[1]))
    scale = len(pixels) / SIZE  # the 224-pixel files are shrunk 448-pixel ones
    matrix[:2] *= scale
    matrix[:2, 2] += (scale - 1) / 2  # from pixel centres at whole numbers to the same
    marks = file["facial_landmarks"][row] * scale + (scale - 1) / 2 if "facial_landmarks" in file else None
    return crop(View(pixels, matrix, ETH, *head, gaze, marks), options.resolution, options.span)
