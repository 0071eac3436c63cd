"""Preparing a data set of real people: what all of them share (`rtgaze data prepare`).

A data set's module looks through the source (`plan`) and turns one unit of it after the other into records (`load`).
Here units become shards, in parallel, resumable to the byte; what cannot be used is named, with the reason, in
`quarantine-SPLIT.json`, and the rest is done.
"""

import dataclasses
import hashlib
import importlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from rtgaze_jax import __version__, files
from rtgaze_jax.data import index, storage
from rtgaze_jax.data.datasets import shards
from rtgaze_jax.data.datasets.normalized import SPAN
from rtgaze_jax.data.record import Record, encode
from rtgaze_jax.errors import FailureError, UserError

PAPER_FRAMES = 10  # moments of each person in subset "paper", evenly spaced: with ETH-XGaze's 80 people and 18 cameras
# the paper's 14,400 pictures
FRAMES_PER_SHARD = 8
DATASETS = ("eth_xgaze", "mpii_face_gaze", "columbia_gaze", "folder")
BYTES_PER_PIXEL = {True: 0.45, False: 1.9}  # of a JPEG of quality 95, of a PNG; generous
BYTES_PER_RECORD = 16_000  # masks and numbers
UNUSABLE = (ValueError, KeyError, OSError, IndexError, cv2.error, np.linalg.LinAlgError)


class Options(NamedTuple):
    """What the user may choose; part of what decides the bytes."""

    split: str
    people: tuple[int, ...] = ()  # only these; all if empty
    subset: str = "all"  # or "paper": see the data set's module
    resolution: int = 512
    span: float = SPAN  # mm of the head on the crop
    jpeg: int = 95  # quality; 0: lossless PNG
    origin: str = "face"  # where gaze starts: "face" (centre of the 2018 normalisation) or "eyes" (between them)

    def check(self) -> None:
        """Raises UserError where a value is out of range."""
        limits = {"resolution": (16, 4096), "span": (50, 1000), "jpeg": (0, 100)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name} must lie between {low} and {high}, not {getattr(self, name)}")
        for name, known in {"subset": ("all", "paper"), "origin": ("face", "eyes")}.items():
            if getattr(self, name) not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}, not '{getattr(self, name)}'")


class Rejected(NamedTuple):
    """Something that cannot be used, and why."""

    item: str
    reason: str


class Unit(NamedTuple):
    """The contents of one shard: what `load` needs to find them (JSON values), and how many pictures that are."""

    payload: Any
    pictures: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done. `details` (JSON values) says how the source is read; it is kept in the manifest."""

    name: str
    description: str
    units: list[Unit]
    load: Callable[[Path, Unit, Options, dict], Iterable[tuple[str, Record] | Rejected]]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    rejected: list[Rejected] = dataclasses.field(default_factory=list)
    absent: tuple[str, ...] = ("depth",)

    @property
    def pictures(self) -> int:
        """How many in all."""
        return sum(unit.pictures for unit in self.units)


class Progress(NamedTuple):
    """How far `prepare` is: pictures done, in all, made into records by this run, and rejected."""

    done: int
    total: int
    made: int
    rejected: int


def make_plan(name: str, source: str | Path, options: Options) -> Plan:
    """Looks through the source. Raises UserError where it does not hold this data set."""
    if name not in DATASETS:
        raise UserError(f"there is no data set '{name}': choose one of {', '.join(DATASETS)}")
    options.check()
    source = Path(source)
    if not source.is_dir():
        raise UserError(f"there is no folder {source}: give the place of the data with --source")
    return importlib.import_module(f"rtgaze_jax.data.datasets.{name}").plan(source, options)


def prepare(
    name: str,
    source: str | Path,
    directory: str | Path,
    options: Options,
    *,
    workers: int,
    report: Callable[[Progress], None] = lambda progress: None,
) -> tuple[storage.Manifest, list[Rejected]]:
    """Turns a source into a split in `directory`, or makes what is missing of it.

    The bytes depend on source and options, neither on `workers` nor on interruptions. Raises UserError where the
    source is none or the disk is too small, FailureError where nothing could be used.
    """
    source, directory = Path(source), Path(directory)
    plan = make_plan(name, source, options)
    if not plan.units:
        reasons = "; ".join(f"{r.item}: {r.reason}" for r in plan.rejected[:3]) or "nothing was found"
        raise UserError(f"{source} has nothing to prepare ({reasons})")
    _check_space(directory, plan, options)
    fingerprint = hashlib.sha256(json.dumps([plan.units, plan.details]).encode()).hexdigest()
    asked = json.loads(json.dumps(options._asdict() | plan.details | {"version": __version__, "source": fingerprint}))
    manifest = storage.Manifest(plan.name, options.split, asked, 0, 0, options.resolution, absent=plan.absent)
    manifest = dataclasses.replace(manifest, index=f"index-{options.split}.npy")
    shards.begin(directory, manifest)
    progress = Progress(0, plan.pictures, 0, len(plan.rejected))

    def count(number: int, done: shards.Done) -> None:
        nonlocal progress
        _, rejected = done.notes
        unit = plan.units[number]
        progress = Progress(
            progress.done + unit.pictures, plan.pictures, progress.made + done.made, progress.rejected + len(rejected)
        )
        report(progress)

    done = shards.fill(_worker, (source, directory, plan, options), len(plan.units), workers, count)
    rejected = plan.rejected + [Rejected(*r) for item in done for r in item.notes[1]]
    listing = [r._asdict() for r in rejected]
    files.write_bytes(directory / f"quarantine-{options.split}.json", json.dumps(listing, indent=1).encode())
    if not any(item.shard.records for item in done):
        raise FailureError(f"none of {plan.pictures} pictures could be used, see quarantine-{options.split}.json; "
                           f"the first: {rejected[0].item}: {rejected[0].reason}")  # fmt: skip
    content = io.BytesIO()
    np.save(content, np.array([row for item in done for row in item.notes[0]], index.DTYPE))
    files.write_bytes(directory / manifest.index, content.getvalue())
    return shards.finish(directory, manifest, done, plan.description), rejected


def _check_space(directory: Path, plan: Plan, options: Options) -> None:
    each = options.resolution**2 * BYTES_PER_PIXEL[options.jpeg > 0] + BYTES_PER_RECORD
    needed = plan.pictures * each
    needed -= sum(path.stat().st_size for path in directory.glob(f"{plan.name}-{options.split}.*"))
    place = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"{directory} needs about {needed / 1e9:.0f} GB for {plan.pictures} pictures, {free / 1e9:.0f} GB are "
            "free: free some, choose another --out, fewer people or a lower --resolution"
        )


def _worker(_memory, _number, source: Path, directory: Path, plan: Plan, options: Options) -> Callable:
    """A worker's function: makes sure that a shard is there, and says what it holds and what was rejected."""
    cv2.setNumThreads(1)

    def work(number: int) -> shards.Done:
        path = directory / storage.shard_name(plan.name, options.split, number, len(plan.units))
        notes = directory / f"quarantine-{options.split}" / f"{number:05d}.json"
        try:
            rows = [index.row(record) for record in storage.read_shard(path, plan.absent)]
            rejected = json.loads(notes.read_text()) if notes.exists() else []
            return shards.Done(shards.describe(path, len(rows)), 0, (rows, rejected))
        except ValueError:  # absent or damaged
            rows, rejected = [], []
            records = list(_records(plan.load(source, plan.units[number], options, plan.details), rejected, rows))
            if rejected:  # before the shard: where a shard is, its notes are
                files.write_bytes(notes, json.dumps(rejected).encode())
            encoded = (encode(record, options.jpeg or None, plan.absent) for record in records)
            storage.write_shard(path, encoded, plan.absent)
            return shards.Done(shards.describe(path, len(rows)), len(rows), (rows, rejected))

    return work


def _records(loaded: Iterable, rejected: list, rows: list) -> Iterator[Record]:
    for entry in loaded:
        if isinstance(entry, Rejected):
            rejected.append(tuple(entry))
        else:
            rows.append(index.row(entry[1]))
            yield entry[1]


def attempt(item: str, make: Callable[[], Record]) -> tuple[str, Record] | Rejected:
    """What `make` gives, or the reason why it does not."""
    try:
        return item, make()
    except UNUSABLE as error:
        text = " ".join(str(error).split())
        return Rejected(item, text if type(error) is ValueError else f"{type(error).__name__}: {text}")


def numbers(person: int, capture: int, gaze_index: int, view_index: int) -> Record:
    """The fields that say what a record is of."""
    names = ("person", "capture", "gaze_index", "view_index")
    return {key: np.int32(n) for key, n in zip(names, (person, capture, gaze_index, view_index), strict=True)}


def read_picture(path: Path) -> np.ndarray:
    """A picture u8[h, w, 3] RGB, turned as its EXIF data says. Raises ValueError where it is missing or damaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"the picture is missing ({error.strerror})") from error
    if content[:2] == b"\xff\xd8" and b"\xff\xd9" not in content[-4096:]:
        raise ValueError("the picture is cut off")  # decoders fill the rest with grey and say nothing
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if pixels is None:
        raise ValueError("the picture cannot be decoded")
    return np.ascontiguousarray(pixels[..., ::-1])


def open_h5(path: Path, required: Sequence[str], what: str) -> Any:
    """An open HDF5 file. Raises ValueError where it is damaged or lacks a key that `what` has."""
    try:
        import h5py
    except ImportError as error:
        raise FailureError(f"HDF5 files need h5py: pip install 'rtgaze-jax[train]' ({error})") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"the file is damaged or no HDF5 file ({error})") from error
    if missing := [key for key in required if key not in file]:
        there = ", ".join(list(file)[:6])
        file.close()
        raise ValueError(f"it lacks {', '.join(missing)}, so it is not {what} (it has {there})")
    return file


def blocks(items: Sequence, size: int) -> list[list]:
    """Consecutive lists of at most `size` items."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def spaced(moments: list, options: Options) -> list:
    """The moments of the options' subset: all, or PAPER_FRAMES evenly spaced ones."""
    if options.subset != "paper" or len(moments) <= PAPER_FRAMES:
        return moments
    return [moments[i] for i in np.linspace(0, len(moments) - 1, PAPER_FRAMES).round().astype(int)]
