"""The data set `folder`: your own portraits, any pictures below a directory. The largest face of each is used.

Nothing is known about gaze, so the records have none: they serve for redirection (`rtgaze data augment`), not for
training. Camera and head pose are fitted to landmarks as if the head were 1 m away, as EG3D does.
"""

from collections.abc import Iterator
from pathlib import Path

from rtgaze_jax.data.datasets import portraits
from rtgaze_jax.data.datasets.builder import PreparedBuilder, PreparedConfig
from rtgaze_jax.data.datasets.face_models import ETH
from rtgaze_jax.data.datasets.normalized import View, crop
from rtgaze_jax.data.datasets.prepare import Options, Plan, Unit, attempt, blocks, numbers, read_picture
from rtgaze_jax.data.record import GAZE, Record

NAME = "folder"
DESCRIPTION = "Portraits of one's own, without gaze labels."
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
DISTANCE = 1000.0  # mm, assumed
PICTURES_PER_SHARD = 64


def plan(source: Path, options: Options) -> Plan:
    """Lists the pictures, by name; their numbers are the people's."""
    names = sorted(str(p.relative_to(source)) for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
    listed = [[number, name] for number, name in enumerate(names) if not options.people or number in options.people]
    units = [Unit(block, len(block)) for block in blocks(listed, PICTURES_PER_SHARD)]
    return Plan(NAME, DESCRIPTION, units, load, {"format": "pictures"}, absent=("depth", *GAZE))


def load(source: Path, unit: Unit, options: Options, details: dict) -> Iterator:
    """The records of some pictures."""
    for number, name in unit.payload:
        yield attempt(name, lambda: _record(source / name, options) | numbers(number, 0, 0, 0))  # noqa: B023


def _record(path: Path, options: Options) -> Record:
    pixels = read_picture(path)
    found = portraits.find_face(pixels)
    if found is None:
        raise ValueError("no face was found")
    matrix, head = portraits.fit_portrait(found, (pixels.shape[1], pixels.shape[0]), DISTANCE)
    return crop(View(pixels, matrix, ETH, *head, None, found.landmarks), options.resolution, options.span)


class Folder(PreparedBuilder):
    """tensorflow-datasets builder of `folder`."""

    NAME = NAME
    BUILDER_CONFIGS = (PreparedConfig(name="full", options=(Options("test"),), absent=("depth", *GAZE)),)
