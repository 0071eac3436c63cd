"""The data set `mpii_face_gaze`: MPIIFaceGaze (Zhang et al., CVPRW 2017), 15 people before their laptops.

Forms that are read, whichever lies in the source:

    raw        pNN/pNN.txt, pNN/dayNN/NNNN.jpg, pNN/Calibration/Camera.mat
    mat        pNN.mat, the authors' normalised pictures (448 pixels)
    hysts      MPIIFaceGaze.h5 made from these by hysts/pytorch_mpiigaze
    lineage    mpii_subjectNNNN.h5 (GazeNeRF's 512 pixels)

Captures are days of a person (raw) or people, gazes are pictures: every one has a gaze and a camera place of its own.
The normalised forms do not say how far the head was; they get USUAL_DISTANCE.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rtgaze_jax.data.datasets import lineage
from rtgaze_jax.data.datasets.builder import PreparedBuilder, PreparedConfig
from rtgaze_jax.data.datasets.face_models import MPII
from rtgaze_jax.data.datasets.normalized import View, crop, patch_camera, rotation_from_pose
from rtgaze_jax.data.datasets.prepare import (
    Options,
    Plan,
    Rejected,
    Unit,
    attempt,
    blocks,
    numbers,
    open_h5,
    read_picture,
)
from rtgaze_jax.data.datasets.rig import rotation
from rtgaze_jax.data.labels import gaze_vector
from rtgaze_jax.data.record import Record
from rtgaze_jax.errors import UserError

NAME = "mpii_face_gaze"
DESCRIPTION = "MPIIFaceGaze: 15 people before their laptops, for weeks; CC BY-NC-SA 4.0."
PEOPLE = tuple(range(15))
USUAL_DISTANCE = 550.0  # mm
FOCAL, DISTANCE, SIZE = 960.0, 300.0, 448  # of the released normalisation
PICTURES_PER_SHARD = 128
COLUMNS = 28
CENTER_TOLERANCE = 25.0  # mm between the annotated face centre and that of the annotated head pose
CENTER = MPII.points.mean(0)  # the annotation's face centre: the mean of all six points


def plan(source: Path, options: Options) -> Plan:
    """Finds out which form the source has and lists its pictures."""
    people = sorted(options.people or PEOPLE)
    if (source / "MPIIFaceGaze").is_dir():
        source = source / "MPIIFaceGaze"
    if any((source / f"p{person:02}").is_dir() for person in PEOPLE):
        return _plan_raw(source, people, options)
    if any((source / f"p{person:02}.mat").is_file() for person in PEOPLE) or (source / "MPIIFaceGaze.h5").is_file():
        return _plan_normalized(source, people, options)
    if lineage.find(source, NAME):
        return lineage.plan(source, NAME, people, options, DESCRIPTION)
    raise UserError(
        f"{source} holds no MPIIFaceGaze: expected p00/p00.txt, p00.mat, MPIIFaceGaze.h5 or mpii_subject0000.h5 "
        "(see docs/datasets/mpii_face_gaze.md)"
    )


def _plan_raw(source: Path, people: list[int], options: Options) -> Plan:
    units, rejected = [], []
    for person in people:
        folder = source / f"p{person:02}"
        table, camera = folder / f"{folder.name}.txt", folder / "Calibration" / "Camera.mat"
        missing = [path.name for path in (folder, table, camera) if not path.exists()]
        if missing:
            rejected.append(Rejected(folder.name, f"{', '.join(missing)} is missing"))
            continue
        try:
            read_camera(camera)
        except ValueError as error:
            rejected.append(Rejected(folder.name, str(error)))
            continue
        lines = table.read_text().splitlines()
        annotated = {line.split(maxsplit=1)[0] for line in lines if line.strip()}
        rejected += [
            Rejected(f"{folder.name}/{name}", "it has no annotation")
            for path in sorted(folder.glob("day*/*.jpg"))
            if (name := f"{path.parent.name}/{path.name}") not in annotated
        ]
        rows = [number for number, line in enumerate(lines) if line.strip()]
        units += [Unit([person, block], len(block)) for block in blocks(rows, PICTURES_PER_SHARD)]
    return Plan(NAME, DESCRIPTION, units, _load_raw, {"format": "raw"}, rejected)


def _load_raw(source: Path, unit: Unit, options: Options, details: dict) -> Iterator[tuple[str, Record] | Rejected]:
    person, rows = unit.payload
    if (source / "MPIIFaceGaze").is_dir():
        source = source / "MPIIFaceGaze"
    folder = source / f"p{person:02}"
    lines = (folder / f"{folder.name}.txt").read_text().splitlines()
    matrix, distortion = read_camera(folder / "Calibration" / "Camera.mat")
    for row in rows:
        words = lines[row].split()

        def make(words=words, row=row) -> Record:
            view = _annotated(words, folder, matrix, distortion, options)
            day = int(words[0].split("/")[0][3:])
            return crop(view, options.resolution, options.span) | numbers(person, day, row, 0)

        yield attempt(f"{folder.name}/{words[0]}", make)


def _annotated(words: list[str], folder: Path, matrix, distortion, options: Options) -> View:
    if len(words) < COLUMNS - 1:  # the last says which eye, and is not needed
        raise ValueError(f"its annotation has {len(words)} of {COLUMNS} columns")
    values = np.array([float(word) for word in words[1 : COLUMNS - 1]])
    if not np.isfinite(values).all():
        raise ValueError("its annotation is not finite")
    marks, turn, place = values[2:14].reshape(6, 2), rotation(values[14:17]), values[17:20]
    center, target = values[20:23], values[23:26]
    away = np.linalg.norm(turn @ CENTER + place - center)
    if away > CENTER_TOLERANCE:
        raise ValueError(f"its face centre lies {away:.0f} mm from that of its head pose")
    start = center if options.origin == "face" else turn @ MPII.points[:4].mean(0) + place
    return View(
        read_picture(folder / words[0]), matrix, MPII, turn, place, target - start, marks, distortion=distortion
    )


def read_camera(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Camera matrix [3, 3] and distortion of a Calibration/Camera.mat. Raises ValueError where it is damaged."""
    from scipy.io import loadmat  # comes with JAX
    from scipy.io.matlab import MatReadError

    try:
        try:
            content = loadmat(path)
            matrix, distortion = content["cameraMatrix"], content["distCoeffs"]
        except NotImplementedError:  # MATLAB 7.3 files are HDF5, with axes the other way round
            with open_h5(path, ("cameraMatrix", "distCoeffs"), "a camera calibration") as file:
                matrix, distortion = file["cameraMatrix"][()].T, file["distCoeffs"][()]
        return np.array(matrix, np.float64).reshape(3, 3), np.array(distortion, np.float64).ravel()
    except (ValueError, KeyError, OSError, TypeError, MatReadError) as error:
        raise ValueError(f"{path.name} cannot be read as a camera calibration ({error})") from error


def _plan_normalized(source: Path, people: list[int], options: Options) -> Plan:
    if options.origin == "eyes":
        raise UserError("the normalised files have no gaze targets, so gaze cannot start at the eyes: use the raw data")
    units, rejected = [], []
    for person in people:
        try:
            with _open(source, person) as opened:
                count = opened.count
            units += [Unit([person, block], len(block)) for block in blocks(range(count), PICTURES_PER_SHARD)]
        except ValueError as error:
            rejected.append(Rejected(f"p{person:02}", str(error)))
    return Plan(NAME, DESCRIPTION, units, _load_normalized, {"format": "normalised"}, rejected)


class _open:
    """A person's normalised pictures: `count`, and `read(row)` -> BGR picture, gaze label, head label."""

    def __init__(self, source: Path, person: int):
        name, common = f"p{person:02}", source / "MPIIFaceGaze.h5"
        if (source / f"{name}.mat").is_file():
            self.file = open_h5(source / f"{name}.mat", ("Data/data", "Data/label"), "a normalised MPIIFaceGaze")
            self.count, self.read = len(self.file["Data/label"]), self._mat
            size = self.file["Data/data"].shape[1:]
        elif common.is_file():
            self.group = (f"{name}/image", f"{name}/gaze", f"{name}/pose")
            self.file = open_h5(common, self.group, "hysts' MPIIFaceGaze.h5")
            self.count, self.read = len(self.file[self.group[0]]), self._hysts
            size = next(iter(self.file[self.group[0]].values())).shape[::-1]
        else:
            raise ValueError(f"{name}.mat is missing")
        if size != (3, SIZE, SIZE):
            self.file.close()
            raise ValueError(f"its pictures have the shape {size}, not (3, {SIZE}, {SIZE})")

    def _mat(self, row: int) -> tuple[np.ndarray, ...]:
        label = self.file["Data/label"][row].astype(np.float64)
        return self.file["Data/data"][row].transpose(1, 2, 0), label[:2], label[2:4]

    def _hysts(self, row: int) -> tuple[np.ndarray, ...]:
        image, gaze, pose = (self.file[f"{key}/{row:04}"][()] for key in self.group)
        return image, gaze.astype(np.float64), pose.astype(np.float64)

    def __enter__(self) -> "_open":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()


def _load_normalized(
    source: Path, unit: Unit, options: Options, details: dict
) -> Iterator[tuple[str, Record] | Rejected]:
    person, rows = unit.payload
    if (source / "MPIIFaceGaze").is_dir():
        source = source / "MPIIFaceGaze"
    camera = patch_camera(FOCAL, DISTANCE, SIZE, USUAL_DISTANCE)
    with _open(source, person) as opened:
        for row in rows:

            def make(row=row) -> Record:
                bgr, gaze, pose = opened.read(row)
                pixels = np.ascontiguousarray(bgr[..., ::-1].astype(np.uint8))
                if pixels.std() < 2:
                    raise ValueError("the picture is empty")
                head = rotation_from_pose(pose)
                place = np.array([0, 0, USUAL_DISTANCE]) - head @ CENTER
                view = View(pixels, camera, MPII, head, place, gaze_vector(gaze))
                return crop(view, options.resolution, options.span) | numbers(person, 0, row, 0)

            yield attempt(f"p{person:02}#{row}", make)


class MpiiFaceGaze(PreparedBuilder):
    """tensorflow-datasets builder of `mpii_face_gaze`."""

    NAME = NAME
    BUILDER_CONFIGS = (PreparedConfig(name="full", options=(Options("test"),)),)
