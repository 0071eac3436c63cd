"""Redirected training sets for gaze estimation: the people of a prepared data set look where you want (ETH-XGaze's h5).

Every record gets new gazes, drawn in a stated frame. A picture is kept if a gaze estimator agrees with what was asked
for. The output has the files, keys and conventions of the ETH-XGaze release, so that its loaders read it:

    OUT/train/subjectNNNN.h5    face_patch (BGR), face_gaze, face_head_pose, face_mat_norm, frame_index, cam_index
    OUT/train_test_split.json

face_gaze is (pitch, yaw) in the normalised camera of the picture, as in the release. Besides: source_record (number in
the data set), gaze_asked ((pitch, yaw) in the frame asked for), agreement_degrees; and, as JSON in the attribute
"provenance", what the pictures were made from. They are synthetic and say so there.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from rtgaze_jax import __version__, files
from rtgaze_jax.data import labels
from rtgaze_jax.data.datasets.eth_released import DISTANCE, FOCAL, SIZE
from rtgaze_jax.data.datasets.face_models import ETH
from rtgaze_jax.data.datasets.normalized import Sampling, View, normalizing_rotation, patch_camera, pose_angles
from rtgaze_jax.data.record import MILLIMETRES, Record, decode
from rtgaze_jax.data.storage import RecordSource, only_split
from rtgaze_jax.errors import FailureError, UserError

EYE_WIDTH, EYE_HEIGHT = 0.44, 0.34  # half axes of what is pasted around an eye, in distances between the eyes
Redirect = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(crop u8[S, S, 3], eye centres in it [2, 2] (subject's left, right; normalised), gazes [k, 2] (radians, frame of the
crop's camera)) -> redirected faces u8[k, S, S, 3]"""
Estimate = Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]]  # see rtgaze_jax.evaluation.gaze


class Settings(NamedTuple):
    """What is asked for. Angles in degrees."""

    gazes: int = 2  # new gazes of every record
    frame: str = "camera"  # in which they are drawn: "camera" ((0, 0) looks into the lens) or "head"
    pitch: float = 20.0  # drawn from -pitch to pitch
    yaw: float = 30.0
    agreement: float = 10.0  # between what was asked for and what the estimator sees
    size: int = 224  # pixels a side: 224 or 448
    seed: int = 0

    def check(self) -> None:
        """Raises UserError where a value is out of range."""
        if self.frame not in ("camera", "head"):
            raise UserError(f"frame must be camera or head, not '{self.frame}'")
        if self.size not in (224, 448):
            raise UserError(f"size must be 224 or 448, as in the ETH-XGaze release, not {self.size}")
        for name, (low, high) in {"gazes": (1, 100), "pitch": (0, 30), "yaw": (0, 45), "agreement": (0, 180)}.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name} must lie between {low} and {high}, not {getattr(self, name)}")


class Progress(NamedTuple):
    """How far `augment` is: records done and in all, pictures kept and made."""

    done: int
    total: int
    kept: int
    made: int


def augment(
    directory: str | Path,
    split: str | None,
    out: str | Path,
    settings: Settings,
    redirect: Redirect,
    estimate: Estimate,
    made_with: Mapping[str, Any],
    report: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Writes the redirected set, one file after the other; those that are there are kept.

    made_with: checksums of network and estimator, for the provenance. Raises UserError where `out` holds pictures made
    otherwise, FailureError where the estimator agrees with none.
    """
    try:
        import h5py
    except ImportError as error:
        raise FailureError(f"HDF5 files need h5py: pip install 'rtgaze-jax[train]' ({error})") from error
    settings.check()
    source, out = RecordSource(directory, only_split(directory, split)), Path(out)
    provenance = json.dumps(
        {
            "synthetic": "gaze redirected by rtgaze-jax; the pictures do not show where these people looked",
            "version": __version__,
            "data": {"name": source.manifest.name, "split": source.manifest.split, "sha256": source.manifest.identity},
            "settings": settings._asdict(),
            **made_with,
        },
        sort_keys=True,
    )
    people: dict[int, list[int]] = {}
    for number in range(len(source)):
        people.setdefault(int(source[number]["person"]), []).append(number)
    progress = Progress(0, len(source), 0, 0)
    for person, numbers in sorted(people.items()):
        path = out / "train" / f"subject{person:04}.h5"
        if path.exists():
            kept = _kept(h5py, path, provenance)
        else:
            kept = 0
            with files.atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
                file.attrs["provenance"] = provenance
                for number in numbers:
                    record = decode(source[number])
                    rows = list(_pictures(record, number, settings, redirect, estimate))
                    kept += _append(file, rows, settings.size)
                if not kept:
                    _append(file, [_nothing(settings.size)], settings.size, empty=True)
        done = progress.done + len(numbers)
        made = progress.made + len(numbers) * settings.gazes
        progress = Progress(done, len(source), progress.kept + kept, made)
        report(progress)
    if not progress.kept:
        raise FailureError(
            f"the estimator agrees with none of {progress.made} pictures within {settings.agreement} deg: "
            "check the weights, or give a larger --agreement"
        )
    listing = {"train": [f"subject{person:04}.h5" for person in sorted(people)], "test": [], "test_specific": []}
    files.write_bytes(out / "train_test_split.json", json.dumps(listing, indent=1).encode())
    return progress


def draw_gazes(record: Record, number: int, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """New gazes of a record, radians [k, 2]: in the frame asked for, and the same in the crop's camera."""
    rng = np.random.default_rng([settings.seed, number])
    limits = np.radians([settings.pitch, settings.yaw])
    asked = rng.uniform(-limits, limits, (settings.gazes, 2))
    if settings.frame == "camera":
        return asked, asked
    return asked, labels.camera_gaze(labels.head_gaze_vector(asked), record["cam2world"])


def _pictures(
    record: Record, number: int, settings: Settings, redirect: Redirect, estimate: Estimate
) -> Iterator[dict[str, np.ndarray]]:
    """The rows of one record that the estimator agrees with."""
    asked, gazes = draw_gazes(record, number, settings)
    eyes, _ = labels.project(record["eye_centers"], record["cam2world"], record["intrinsics"])
    faces = redirect(record["image"], eyes, gazes)
    images = np.stack([paste_eyes(record["image"], face, eyes) for face in faces])
    seen = estimate(images, np.repeat(eyes[None], len(images), 0))["gaze"]
    errors = np.degrees(labels.angle_between(seen, labels.gaze_vector(gazes)))
    for image, gaze, wish, error in zip(images, gazes, asked, errors, strict=True):
        if error <= settings.agreement:
            yield release_row(record | {"image": image}, gaze, settings.size) | {
                "source_record": np.array(number, np.int64),
                "gaze_asked": wish,
                "agreement_degrees": np.array(error),
            }


def paste_eyes(crop: np.ndarray, face: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """The crop u8[S, S, 3] with the surroundings of the eyes taken from a redirected face; soft edges."""
    size = crop.shape[0]
    if face.shape != crop.shape:
        face = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA if len(face) > size else cv2.INTER_CUBIC)
    across = (eyes[0] - eyes[1]) * size
    length = max(float(np.linalg.norm(across)), 0.1 * size)  # in profiles the eyes nearly cover each other
    right = across / max(float(np.linalg.norm(across)), 1e-6)
    y, x = np.mgrid[:size, :size] + 0.5
    opacity = np.zeros((size, size))
    for eye in eyes * size:
        along, down = (
            (x - eye[0]) * right[0] + (y - eye[1]) * right[1],
            (y - eye[1]) * right[0] - (x - eye[0]) * right[1],
        )
        radius = np.hypot(along / (EYE_WIDTH * length), down / (EYE_HEIGHT * length))
        opacity = np.maximum(opacity, np.clip((1 - radius) / 0.35, 0, 1))
    mixed = crop + (face.astype(np.float64) - crop) * (opacity * opacity * (3 - 2 * opacity))[..., None]
    return np.rint(mixed).astype(np.uint8)


def release_row(record: Record, gaze: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """What the ETH-XGaze release holds of a record whose crop camera sees `gaze` (radians): picture and labels."""
    resolution = record["image"].shape[0]
    matrix = np.asarray(record["intrinsics"], np.float64) * [[resolution], [resolution], [1]]
    matrix[:2, 2] -= 0.5
    pose = np.asarray(record["cam2world"], np.float64)
    head = pose[:3, :3].T @ ETH.to_world
    center = pose[:3, :3].T @ (ETH.world(ETH.center) - pose[:3, 3]) * MILLIMETRES
    turn = normalizing_rotation(center, head)
    patch = patch_camera(FOCAL, DISTANCE, SIZE, np.linalg.norm(center))
    scale = size / SIZE
    patch[:2] *= scale
    patch[:2, 2] += (scale - 1) / 2
    view = View(record["image"], matrix, ETH, head, center - head @ ETH.center)
    return {
        "face_patch": Sampling(view, patch, turn, size).picture()[..., ::-1],
        "face_gaze": labels.gaze_angles(turn @ labels.gaze_vector(gaze)),
        "face_head_pose": pose_angles(turn @ head),
        "face_mat_norm": turn,
        "frame_index": np.array([int(record["gaze_index"])]),
        "cam_index": np.array([int(record["view_index"])]),
    }


def _nothing(size: int) -> dict[str, np.ndarray]:
    """A row with the right shapes."""
    return {
        "face_patch": np.zeros((size, size, 3), np.uint8), "face_gaze": np.zeros(2), "face_head_pose": np.zeros(2),
        "face_mat_norm": np.zeros((3, 3)), "frame_index": np.zeros(1, int), "cam_index": np.zeros(1, int),
        "source_record": np.array(0, np.int64), "gaze_asked": np.zeros(2), "agreement_degrees": np.array(0.0),
    }  # fmt: skip


def _append(file: Any, rows: list[dict[str, np.ndarray]], size: int, empty: bool = False) -> int:
    for key, value in (rows[0] if rows else {}).items():
        values = np.stack([np.asarray(row[key]) for row in rows])
        if key not in file:
            coding = {"compression": "lzf", "chunks": (1, size, size, 3)} if key == "face_patch" else {"chunks": True}
            shape = np.shape(value)
            file.create_dataset(key, (0, *shape), values.dtype, maxshape=(None, *shape), **coding)
        if not empty:
            file[key].resize(len(file[key]) + len(rows), 0)
            file[key][-len(rows) :] = values
    return len(rows)


def _kept(h5py: Any, path: Path, provenance: str) -> int:
    try:
        with h5py.File(path, "r") as file:
            if file.attrs["provenance"] != provenance:
                raise UserError(f"{path} was made otherwise: give the same settings to go on, or another --out")
            return len(file["face_gaze"])
    except (OSError, KeyError) as error:
        raise UserError(f"{path} is no file of 'rtgaze data augment' ({error}): give another --out") from error
