"""Is a data set what it claims to be? The checks behind `rtgaze data check`.

Every record is held against the schema, its own numbers against each other, and its labels against its pixels:
masks against parts, depth against the other views of the same moment, the eyeballs against their centres, the gaze
against the iris that is drawn. The split is searched for repetitions and its files are compared with their
checksums. Data sets of real people lack some fields and are held against wider ranges; their masks are too coarse for
the checks of eyeballs and irises.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rtgaze_jax import files
from rtgaze_jax.data import iris, labels, storage
from rtgaze_jax.data.heads.workers import WorkerPool
from rtgaze_jax.data.record import FIELDS, MILLIMETRES, PARTS, Record, decode, eye_mask, face_mask, validate
from rtgaze_jax.errors import FailureError

GAZE_LIMITS = np.radians([25.5, 40.5])  # head-frame pitch and yaw that are drawn
DISTANCE_LIMITS, REAL_DISTANCE_LIMITS = (1.2, 6.0), (0.6, 9.0)  # world units; laptops and telephoto lenses
REAL_GAZE_LIMITS = np.radians([80.0, 100.0])
ANGLE_TOLERANCE = np.radians(0.1)  # between labels that say the same
DEPTH_TOLERANCE = 2.0  # mm between views
DEPTH_SHARE = 0.9  # of mutually visible points that must agree, over a split
DEPTH_SHARE_OF_PAIR = 0.75  # for two views, which may share a few grazing points only
OCCLUDED = 20.0  # mm behind what the other view sees: hidden there
DRAWN_GAZE_TOLERANCE = np.radians(18.0)  # of one image; vergence and refraction cost some degrees
DRAWN_GAZE_SUPPORT = 0.6  # of the best fit's contrast: with more, the label is as good a reading of the image
LARGEST_READABLE = np.radians(70.0)  # between gaze and camera
DRAWN_GAZE_MEDIAN = np.radians(5.0)  # over a split
SAME_PICTURE = 1.0  # mean grey levels between thumbnails of different captures


class Problem(NamedTuple):
    """One thing that is wrong. `record` is its number in the split, None where it is about a file or all of it."""

    record: int | None
    check: str
    message: str


@dataclasses.dataclass
class Report:
    """What was found."""

    records: int = 0
    problems: list[Problem] = dataclasses.field(default_factory=list)
    gaze_errors: list[float] = dataclasses.field(default_factory=list)  # radians, drawn iris against label
    depth_shares: list[float] = dataclasses.field(default_factory=list)  # of points that agree, for each pair of views
    pictures: dict[str, int] = dataclasses.field(default_factory=dict)  # digest of an image -> record
    places: dict[tuple[int, ...], int] = dataclasses.field(
        default_factory=dict
    )  # (person, capture, gaze, view) -> record
    thumbnails: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)  # of the first record of captures

    def lines(self) -> list[str]:
        """A summary for people."""
        text = [f"{self.records} records, {len(self.problems)} problems"]
        if self.gaze_errors:
            errors = np.degrees(self.gaze_errors)
            text.append(
                f"gaze against the drawn iris: median {np.median(errors):.1f} deg, 95 % below "
                f"{np.percentile(errors, 95):.1f} deg ({len(errors)} images with a readable iris)"
            )
        if self.depth_shares:
            shares = 100 * np.array(self.depth_shares)
            text.append(
                f"depth carried to another view: {shares.mean():.1f} % of the points within {DEPTH_TOLERANCE:.0f} mm, "
                f"worst pair {shares.min():.1f} % ({len(shares)} pairs)"
            )
        return text


def check_split(
    directory: str | Path,
    split: str,
    *,
    workers: int = 1,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Checks all records of a split; `report(shards done, shards in all)` is called on the way."""
    directory = Path(directory)
    manifest = storage.manifests(directory)[storage.only_split(directory, split)]
    parts: dict[int, Report] = {}
    missing = manifest.index and not (directory / manifest.index).exists()
    with WorkerPool(_shard_checker, (directory, manifest), min(workers, len(manifest.shards))) as pool:
        for outcome, _ in pool.run(range(len(manifest.shards))):
            if outcome.error is not None:
                raise FailureError(f"{manifest.shards[outcome.task].file} cannot be checked: {outcome.error}")
            parts[outcome.task] = outcome.result
            report(len(parts), len(manifest.shards))
    whole = Report()
    if missing:
        whole.problems.append(Problem(None, "files", f"{manifest.index} is missing"))
    for number in sorted(parts):
        _merge(whole, parts[number])
    whole.problems += _similar_pictures(whole)
    if whole.gaze_errors and np.median(whole.gaze_errors) > DRAWN_GAZE_MEDIAN:
        message = f"the median error is {np.degrees(np.median(whole.gaze_errors)):.1f} deg"
        whole.problems.append(Problem(None, "gaze", message))
    if whole.depth_shares and np.mean(whole.depth_shares) < DEPTH_SHARE:
        message = f"only {100 * np.mean(whole.depth_shares):.0f} % of the points agree between views"
        whole.problems.append(Problem(None, "depth", message))
    return whole


def check_record(record: Record, absent: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """(check, message) for everything that is wrong within one decoded record of a data set without some fields."""
    try:
        validate(record, absent)
    except ValueError as error:
        yield "schema", str(error)
        return
    if unusable := list(_ranges(record)):
        yield from unusable
        return
    if not np.array_equal(record["face_mask"], face_mask(record["parts"])):
        yield "masks", "face_mask is not where parts show the head"
    if not np.array_equal(record["eye_mask"], eye_mask(record["parts"])):
        yield "masks", "eye_mask is not where parts show eyeballs"
    yield from _consistent_angles(record)
    if "depth" in record:
        if not np.array_equal(record["depth"] > 0, record["parts"] != PARTS.background):
            yield "masks", "depth is not positive exactly where parts are not background"
        yield from _eyeballs(record)


def _ranges(record: Record) -> Iterator[tuple[str, str]]:
    synthetic = "depth" in record
    for key in (key for key, field in FIELDS.items() if field.dtype == "float32" and key in record):
        if not np.isfinite(record[key]).all():
            yield "ranges", f"{key} is not finite"
            return
    pose, k = record["cam2world"].astype(np.float64), record["intrinsics"]
    rotation = pose[:3, :3]
    if not (np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4) and np.linalg.det(rotation) > 0):
        yield "ranges", "cam2world is no rotation"
    if not np.array_equal(pose[3], [0, 0, 0, 1]):
        yield "ranges", "the last row of cam2world is not 0 0 0 1"
    if not (1 < k[0, 0] < 30 and 1 < k[1, 1] < 30 and np.all(np.abs(k[:2, 2] - 0.5) < 0.2)):
        yield "ranges", "intrinsics are not those of normalised coordinates"
    distance = np.linalg.norm(pose[:3, 3])
    nearest, farthest = DISTANCE_LIMITS if synthetic else REAL_DISTANCE_LIMITS
    if not nearest < distance < farthest:
        yield "ranges", f"the camera is {distance:.2f} units from the head"
    if synthetic:
        hit = record["depth"][record["depth"] > 0]
        if hit.size == 0 or abs(hit - distance).max() > 1:
            yield "ranges", "depth is not within one unit of the camera's distance"
    limits = GAZE_LIMITS if synthetic else REAL_GAZE_LIMITS
    if "gaze_head" in record and np.any(np.abs(record["gaze_head"]) > limits):
        yield "ranges", f"gaze_head is {np.degrees(record['gaze_head']).round(1)} deg"
    apart = MILLIMETRES * (record["eye_centers"][0] - record["eye_centers"][1])
    if not (apart[0] > 0 and 45 < np.linalg.norm(apart) < 80):
        yield "ranges", f"the eyes are {apart[0]:.0f} mm apart"
    if np.abs(record["landmarks"] - 0.5).max() > 1:
        yield "ranges", "landmarks lie far outside the image"
    if record["parts"].max() > max(PARTS):
        yield "ranges", f"there is no part {record['parts'].max()}"
    if record["image"].std() < 2:
        yield "ranges", "the image is empty"


def _consistent_angles(record: Record) -> Iterator[tuple[str, str]]:
    """Gaze and head pose in the camera must follow from the head frame and the camera."""
    expected = {"head_pose": np.eye(3)[2]}
    if "gaze_head" in record:
        expected["gaze_camera"] = labels.head_gaze_vector(record["gaze_head"])
    for key, vector in expected.items():
        seen = vector @ record["cam2world"][:3, :3].astype(np.float64)
        error = labels.angle_between(labels.gaze_vector(record[key]), seen)
        if error > ANGLE_TOLERANCE:
            yield "angles", f"{key} differs by {np.degrees(error):.2f} deg from what the camera sees"


def _eyeballs(record: Record) -> Iterator[tuple[str, str]]:
    """What parts call an eyeball must lie around its centre."""
    points = labels.world_points(record["depth"], record["cam2world"], record["intrinsics"])
    for part, center in zip((PARTS.left_eye, PARTS.right_eye), record["eye_centers"], strict=True):
        visible = points[record["parts"] == part]
        if len(visible) >= iris.MIN_PIXELS:
            radius = MILLIMETRES * np.median(np.linalg.norm(visible - center, axis=-1))
            if not 9 < radius < 15:
                yield "eyes", f"the {part.name.replace('_', ' ')} is drawn {radius:.0f} mm from its centre"


def drawn_gaze_error(record: Record) -> tuple[float, float] | None:
    """Angle in radians between label and drawn irises, and how well these fit the label; None if unreadable."""
    if np.cos(record["gaze_camera"]).prod() < np.cos(LARGEST_READABLE):  # only white is seen from so far aside
        return None
    reading = iris.read_gaze(record, record["gaze_head"])
    if reading is None:
        return None
    drawn, label = (labels.head_gaze_vector(gaze) for gaze in (reading.gaze, record["gaze_head"]))
    return float(labels.angle_between(drawn, label)), reading.support


def depth_agreement(a: Record, b: Record, stride: int = 2) -> tuple[float, int]:
    """Carries the depth of view `a` into view `b` of the same moment.

    Returns the share of mutually visible points within DEPTH_TOLERANCE, and their number. A point is mutually visible
    where it is not more than OCCLUDED behind what b sees; outlines, where depth jumps, are left out.
    """
    size = np.array(a["depth"].shape)
    smooth = _smooth(a["depth"], a["intrinsics"])[::stride, ::stride] & (a["depth"] > 0)[:-1, :-1][::stride, ::stride]
    points = labels.world_points(a["depth"], a["cam2world"], a["intrinsics"])[:-1, :-1][::stride, ::stride][smooth]
    uv, length = labels.project(points, b["cam2world"], b["intrinsics"])
    place = uv * size[::-1] - 0.5
    corner = np.floor(np.nan_to_num(place, nan=-9)).astype(int)
    inside = np.all((corner >= 0) & (corner < size[::-1] - 1), axis=-1)
    place, corner, length = place[inside], corner[inside], length[inside]
    x, y = corner.T
    keep = _smooth(b["depth"], b["intrinsics"])[y, x]
    (x, y), place, corner, length = corner[keep].T, place[keep], corner[keep], length[keep]
    fx, fy = (place - corner).T
    depth = b["depth"].astype(np.float64)
    top = depth[y, x] * (1 - fx) + depth[y, x + 1] * fx
    bottom = depth[y + 1, x] * (1 - fx) + depth[y + 1, x + 1] * fx
    behind = MILLIMETRES * (length - (top * (1 - fy) + bottom * fy))
    visible = behind < OCCLUDED
    if not visible.any():
        return 1.0, 0
    return float((np.abs(behind[visible]) <= DEPTH_TOLERANCE).mean()), int(visible.sum())


def _smooth(depth: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """[H-1, W-1]: where a pixel and its three next ones show one surface, seen at less than about 75 degrees."""
    corners = np.stack([depth[:-1, :-1], depth[1:, :-1], depth[:-1, 1:], depth[1:, 1:]])
    pitch = corners.max(0) / (intrinsics[0, 0] * depth.shape[1])
    return (corners.min(0) > 0) & (np.ptp(corners, axis=0) < 4 * pitch)


def _shard_checker(_memory, _number, directory: Path, manifest: storage.Manifest) -> Callable[[int], Report]:
    """A worker's function: checks one shard."""
    starts = np.cumsum([0, *(shard.records for shard in manifest.shards)])

    def work(number: int) -> Report:
        shard = manifest.shards[number]
        path = directory / shard.file
        found = Report()
        if not path.exists():
            found.problems.append(Problem(None, "files", f"{shard.file} is missing"))
            return found
        if files.sha256(path) != shard.sha256:
            found.problems.append(Problem(None, "files", f"{shard.file} differs from its SHA-256"))
        try:
            encoded = storage.read_shard(path, manifest.absent)
        except ValueError as error:
            found.problems.append(Problem(None, "files", str(error)))
            return found
        if len(encoded) != shard.records:
            found.problems.append(
                Problem(None, "files", f"{shard.file} has {len(encoded)} records, not {shard.records}")
            )
        moments: dict[tuple[int, ...], list[tuple[int, Record]]] = {}
        for i, content in enumerate(encoded):
            index = int(starts[number]) + i
            record = _check_alone(found, index, content, manifest.absent)
            if record is not None:
                moment = tuple(int(record[key]) for key in ("person", "capture", "gaze_index"))
                moments.setdefault(moment, []).append((index, record))
        for views in moments.values() if "depth" not in manifest.absent else ():
            _check_together(found, views)
        return found

    return work


def _check_alone(found: Report, index: int, content: dict[str, Any], absent: Sequence[str]) -> Record | None:
    found.records += 1
    try:
        record = decode(content)
    except ValueError as error:
        found.problems.append(Problem(index, "unreadable", str(error)))
        return None
    problems = [Problem(index, *problem) for problem in check_record(record, absent)]
    found.problems += problems
    if any(problem.check in ("schema", "ranges") for problem in problems):
        return None
    digest = hashlib.sha256(record["image"].tobytes()).hexdigest()
    _unique(found, found.pictures, digest, index, "shows the same picture as")
    place = tuple(int(record[key]) for key in ("person", "capture", "gaze_index", "view_index"))
    _unique(found, found.places, place, index, "has the same person, capture, gaze and view as")
    if absent:
        return record
    if place[2:] == (0, 0):
        found.thumbnails[index] = _thumbnail(record["image"])
    if (reading := drawn_gaze_error(record)) is not None:
        angle, support = reading
        found.gaze_errors.append(angle)
        if angle > DRAWN_GAZE_TOLERANCE and support < DRAWN_GAZE_SUPPORT:
            message = f"the drawn irises look {np.degrees(angle):.0f} deg away from the label"
            found.problems.append(Problem(index, "gaze", message))
    return record


def _check_together(found: Report, views: list[tuple[int, Record]]) -> None:
    """Each view's depth against the next one's."""
    if len(views) < 2:
        return
    for (i, a), (j, b) in zip(views, views[1:] + views[:1], strict=True):
        share, points = depth_agreement(a, b)
        if points >= 100:
            found.depth_shares.append(share)
            if share < DEPTH_SHARE_OF_PAIR:
                message = f"only {100 * share:.0f} % of its depth agrees with record {j}"
                found.problems.append(Problem(i, "depth", message))


def _unique(found: Report, seen: dict, key: Any, index: int, message: str) -> None:
    first = seen.setdefault(key, index)
    if first != index:
        found.problems.append(Problem(index, "duplicates", f"{message} record {first}"))


def _merge(whole: Report, part: Report) -> None:
    whole.records += part.records
    whole.problems += part.problems
    whole.gaze_errors += part.gaze_errors
    whole.depth_shares += part.depth_shares
    whole.thumbnails |= part.thumbnails
    for digest, index in part.pictures.items():
        _unique(whole, whole.pictures, digest, index, "shows the same picture as")
    for place, index in part.places.items():
        _unique(whole, whole.places, place, index, "has the same person, capture, gaze and view as")


def _thumbnail(image: np.ndarray, size: int = 16) -> np.ndarray:
    """Grey block means [size, size]."""
    block = image.shape[0] // size
    grey = image[: block * size, : block * size].mean(-1)
    return grey.reshape(size, block, size, block).mean((1, 3))


def _similar_pictures(whole: Report) -> Iterator[Problem]:
    """Captures that look like an earlier one, though not to the bit."""
    indices = sorted(whole.thumbnails)
    exact = {problem.record for problem in whole.problems if problem.check == "duplicates"}
    stack = np.stack([whole.thumbnails[i] for i in indices]).reshape(len(indices), -1) if indices else np.zeros((0, 1))
    for n, index in enumerate(indices):
        near = np.flatnonzero(np.abs(stack[:n] - stack[n]).mean(1) < SAME_PICTURE)
        if len(near) and index not in exact:
            yield Problem(index, "duplicates", f"looks like record {indices[near[0]]}")
