"""The data set `eth_xgaze`: ETH-XGaze (Zhang et al., ECCV 2020), 110 people before 18 cameras.

Three forms of it are read, whichever lies in the source:

    raw        [data/]train/subjectNNNN/frameNNNN/camNN.JPG, [data/]annotation_train/subjectNNNN.csv,
               calibration/cam_calibration/camNN.xml
    released   train/subjectNNNN.h5 (448 or 224 pixels), optionally train_test_split.json and the calibration
    lineage    xgaze_subjectNNNN.h5 (GazeNeRF's 512 pixels), optionally the calibration (`cam_original`)

With the calibration the 18 views of a frame share one head pose, fitted to all of them; without it every view keeps
its own and the distance is the rig's nominal one. Captures are people, gazes are frames, views are cameras.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rtgaze_jax.data.datasets import eth_released, lineage, rig
from rtgaze_jax.data.datasets.builder import PreparedBuilder, PreparedConfig
from rtgaze_jax.data.datasets.face_models import ETH, LANDMARKS_68
from rtgaze_jax.data.datasets.normalized import (
    View,
    crop,
    undistorted,
)
from rtgaze_jax.data.datasets.prepare import (
    FRAMES_PER_SHARD,
    UNUSABLE,
    Options,
    Plan,
    Rejected,
    Unit,
    attempt,
    blocks,
    numbers,
    read_picture,
    spaced,
)
from rtgaze_jax.data.record import Record
from rtgaze_jax.errors import UserError

NAME = "eth_xgaze"
DESCRIPTION = "ETH-XGaze: 110 people before 18 cameras, gaze up to extreme angles; CC BY-NC-SA 4.0."
TRAIN = (
    0, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16, 18, 19, 21, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 38, 39, 40, 41,
    43, 44, 45, 46, 48, 50, 51, 52, 55, 56, 57, 58, 59, 60, 61, 62, 63, 65, 66, 67, 69, 72, 73, 75, 76, 78, 79, 80, 81,
    83, 84, 85, 88, 90, 92, 95, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 111,
)  # fmt: skip
PERSON_SPECIFIC = (12, 22, 25, 47, 54, 74, 86, 94, 96, 97, 110, 113, 115, 116, 119)
SPLITS = ("train", "test", "test_specific")
COLUMNS = 13 + 2 * 68
MARK_TOLERANCE, TARGET_TOLERANCE = 15.0, 20.0  # mm against the other cameras of the frame


def plan(source: Path, options: Options) -> Plan:
    """Finds out which form the source has and lists its frames."""
    if options.split not in SPLITS:
        raise UserError(f"eth_xgaze has no split '{options.split}': choose one of {', '.join(SPLITS)}")
    raw = next((base for base in (source / "data", source) if (base / f"annotation_{options.split}").is_dir()), None)
    folder = source / {"test_specific": "test_person_specific"}.get(options.split, options.split)
    released = {int(path.stem[7:]): path for path in sorted(folder.glob("subject[0-9]*.h5"))}
    wanted = _people(source, options, raw, released)
    if raw is not None:
        return _plan_raw(source, raw, wanted, options)
    if released:
        return eth_released.plan(source, NAME, released, wanted, options, DESCRIPTION)
    if lineage.find(source, NAME):
        return lineage.plan(source, NAME, wanted, options, DESCRIPTION)
    raise UserError(
        f"{source} holds no ETH-XGaze for split '{options.split}': expected annotation_{options.split}/, "
        f"{folder.name}/subjectNNNN.h5 or xgaze_subjectNNNN.h5 (see docs/datasets/eth_xgaze.md)"
    )


def _people(source: Path, options: Options, raw: Path | None, released: dict[int, Path]) -> list[int]:
    """The subjects of the split: of train_test_split.json where there is one, the official lists otherwise."""
    if options.people:
        return sorted(options.people)
    listing = source / "train_test_split.json"
    if listing.is_file():
        try:
            names = json.loads(listing.read_text())[options.split]
            return sorted(int(Path(name).stem[7:]) for name in names)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{listing} does not list '{options.split}' ({error}): take the official file") from error
    if options.split == "test":  # nowhere else listed
        return sorted(released) or sorted(lineage.find(source, NAME))
    return list(TRAIN if options.split == "train" else PERSON_SPECIFIC)


def _plan_raw(source: Path, base: Path, people: list[int], options: Options) -> Plan:
    calibration = rig.find_calibration(source, base)
    if calibration is None:
        raise UserError(f"{source} lacks calibration/cam_calibration/cam00.xml: it comes with the raw data set")
    rig.load_rig(calibration)
    units, rejected = [], []
    for person in people:
        folder = base / options.split / f"subject{person:04}"
        table = base / f"annotation_{options.split}" / f"{folder.name}.csv"
        if not folder.is_dir() or not table.is_file():
            what = f"annotation {table.name}" if folder.is_dir() else "folder"
            rejected.append(Rejected(folder.name, f"the {what} is missing"))
            continue
        with open(table, newline="") as file:
            annotated = {(row[0], row[1]) for row in csv.reader(file) if len(row) > 1}
        frames = sorted({frame for frame, _ in annotated})
        rejected += [
            Rejected(f"{folder.name}/{picture.parent.name}/{picture.name}", "it has no annotation")
            for picture in sorted(folder.glob("frame*/cam*.*"))
            if (picture.parent.name, picture.name) not in annotated
        ]
        for block in blocks(spaced(frames, options), FRAMES_PER_SHARD):
            units.append(Unit([person, block], sum(frame in block for frame, _ in annotated)))
    details = {
        "format": "raw",
        "base": str(base.relative_to(source)),
        "calibration": str(calibration.relative_to(source)),
    }
    return Plan(NAME, DESCRIPTION, units, _load_raw, details, rejected)


def _load_raw(source: Path, unit: Unit, options: Options, details: dict) -> Iterator[tuple[str, Record] | Rejected]:
    person, frames = unit.payload
    base, cameras = source / details["base"], rig.load_rig(source / details["calibration"])
    folder = base / options.split / f"subject{person:04}"
    moments: dict[str, list[list[str]]] = {frame: [] for frame in frames}
    with open(base / f"annotation_{options.split}" / f"{folder.name}.csv", newline="") as file:
        for row in csv.reader(file):
            if row and row[0] in moments:
                moments[row[0]].append(row)
    for frame, rows in moments.items():
        views: dict[int, dict] = {}
        for row in rows:
            item = f"{folder.name}/{row[0]}/{row[1]}"
            try:
                camera, view = _annotation(row, cameras)
                views[camera] = view | {"item": item, "path": folder / row[0] / row[1]}
            except UNUSABLE as error:
                yield Rejected(item, str(error))
        if views:
            yield from _raw_frame(person, int(frame[5:]), views, cameras, options)


def _annotation(row: list[str], cameras: rig.Rig) -> tuple[int, dict]:
    """Camera number and labels of a line of the CSV file. Raises ValueError where it is not whole."""
    if len(row) < COLUMNS:
        raise ValueError(f"its annotation has {len(row)} of {COLUMNS} columns")
    try:
        values = np.array([float(value) for value in row[2:COLUMNS]])
    except ValueError as error:
        raise ValueError(f"its annotation is damaged ({error})") from error
    camera = int(row[1][3:5])
    if camera not in cameras or not np.isfinite(values).all():
        raise ValueError("its annotation is not finite" if camera in cameras else f"there is no camera {camera}")
    marks = values[11:].reshape(68, 2)
    rays = undistorted(marks, cameras[camera].matrix, cameras[camera].distortion)
    pose = rig.rotation(values[5:8]), values[8:11]
    return camera, {"target": values[2:5], "pose": pose, "marks": marks, "rays": rays[list(LANDMARKS_68)]}


def _raw_frame(
    person: int, frame: int, views: dict[int, dict], cameras: rig.Rig, options: Options
) -> Iterator[tuple[str, Record] | Rejected]:
    """The records of one moment, all from one head and one gaze target."""
    rays = {camera: view["rays"] for camera, view in views.items()}
    head = rig.pose_from_landmarks(cameras, ETH, rays, {camera: view["pose"] for camera, view in views.items()})
    targets = {c: cameras[c].rotation.T @ (view["target"] - cameras[c].translation) for c, view in views.items()}
    target = np.median(list(targets.values()), axis=0)
    start = head[0] @ (ETH.center if options.origin == "face" else ETH.points[:4].mean(0)) + head[1]
    for number, view in sorted(views.items()):
        camera = cameras[number]

        def make(number=number, view=view, camera=camera) -> Record:
            error = np.median(np.linalg.norm(rig.landmark_errors(camera, ETH, rays[number], head), axis=-1))
            if error > MARK_TOLERANCE:
                raise ValueError(f"its landmarks lie {error:.0f} mm from where the other cameras see the head")
            if (away := np.linalg.norm(targets[number] - target)) > TARGET_TOLERANCE:
                raise ValueError(f"its gaze target lies {away:.0f} mm from the other cameras'")
            pixels = read_picture(view["path"])
            if number in rig.UPSIDE_DOWN:
                pixels = np.ascontiguousarray(pixels[::-1, ::-1])
            size = 2 * camera.matrix[:2, 2]
            if np.abs(size / pixels.shape[1::-1] - 1).max() > 0.1:
                raise ValueError(
                    f"the picture has {pixels.shape[1]} x {pixels.shape[0]} pixels, unlike its calibration"
                )
            rotation, translation = camera.pose(head)
            gaze = camera.rotation @ (target - start)
            seen = View(
                pixels, camera.matrix, ETH, rotation, translation, gaze, view["marks"], distortion=camera.distortion
            )
            return crop(seen, options.resolution, options.span) | numbers(person, 0, frame, number)

        yield attempt(view["item"], make)


class EthXgaze(PreparedBuilder):
    """tensorflow-datasets builder of `eth_xgaze`."""

    NAME = NAME
    BUILDER_CONFIGS = (
        PreparedConfig(name="paper", options=(Options("train", subset="paper"),)),
        PreparedConfig(name="full", options=(Options("train"),)),
    )
