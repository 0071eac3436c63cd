"""The data set `gaze_heads`: synthetic people with exact ground truth, rendered here and now.

`generate` writes one split of it (`rtgaze data heads` calls it); `GazeHeads` is the same as a tensorflow-datasets
builder:

    import rtgaze_jax.data.datasets.gaze_heads, tensorflow_datasets as tfds
    builder = tfds.builder("gaze_heads/tiny")
    builder.download_and_prepare()               # renders
    source = builder.as_data_source("train")     # random access, no TensorFlow

Seed S means people S * 1,000,000 and on: other seeds give other people. A split's people are its own for ever.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import tensorflow_datasets as tfds

from rtgaze_jax import __version__
from rtgaze_jax.data import storage
from rtgaze_jax.data.datasets import shards
from rtgaze_jax.data.heads.stream import MakeRenderer, RenderFunction, head_renderer
from rtgaze_jax.data.record import Record, encode
from rtgaze_jax.errors import FailureError, UserError

NAME = "gaze_heads"
SPLITS = ("train", "validation", "test")
DESCRIPTION = (
    "Synthetic heads with exact gaze, depth, part labels and cameras; every person in several gazes and views."
)
PEOPLE_PER_SHARD = 4  # what a kill can lose, and what a file holds; part of the bytes
PEOPLE_PER_SEED = 1_000_000
_log = logging.getLogger(__name__)


class Settings(NamedTuple):
    """What decides the bytes of a split, with the version of the package."""

    split: str
    people: int
    gazes: int
    views: int
    resolution: int
    seed: int

    def check(self) -> None:
        """Raises UserError where a value is out of range."""
        if self.split not in SPLITS:
            raise UserError(f"there is no split '{self.split}': choose one of {', '.join(SPLITS)}")
        limits = {
            "people": (1, PEOPLE_PER_SEED), "gazes": (1, 1000), "views": (1, 1000), "resolution": (16, 4096),
            "seed": (0, 2000),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name} must lie between {low} and {high}, not {getattr(self, name)}")

    def shards(self) -> list[range]:
        """The people of each shard."""
        first = self.seed * PEOPLE_PER_SEED
        last = first + self.people
        return [range(start, min(start + PEOPLE_PER_SHARD, last)) for start in range(first, last, PEOPLE_PER_SHARD)]


class Progress(NamedTuple):
    """How far `generate` is."""

    people: int
    images: int  # images rendered by this run
    shard: str


def generate(
    directory: str | Path,
    settings: Settings,
    *,
    workers: int,
    report: Callable[[Progress], None] = lambda progress: None,
    make_renderer: MakeRenderer = head_renderer,
) -> storage.Manifest:
    """Renders a split into `directory`, or what is missing of it, and returns its manifest.

    The bytes depend on `settings` only, neither on `workers` nor on interruptions. People who cannot be rendered
    are left out and listed. Raises UserError where the directory holds the split made otherwise, FailureError where
    rendering does not work.
    """
    settings.check()
    directory = Path(directory)
    asked = settings._asdict() | {"version": __version__, "people_per_shard": PEOPLE_PER_SHARD}
    manifest = storage.Manifest(NAME, settings.split, asked, settings.gazes, settings.views, settings.resolution)
    shards.begin(directory, manifest)
    people, finished, images = settings.shards(), 0, 0

    def count(number: int, done: shards.Done) -> None:
        nonlocal finished, images
        finished, images = finished + len(people[number]), images + done.made
        report(Progress(finished, images, done.shard.file))

    done = shards.fill(_shard_worker, (directory, settings, make_renderer), len(people), workers, count)
    left_out = tuple(person for item in done for person in item.notes)
    return shards.finish(directory, dataclasses.replace(manifest, left_out=left_out), done, DESCRIPTION)


def _shard_worker(
    _memory, _number, directory: Path, settings: Settings, make_renderer: MakeRenderer
) -> Callable[[int], shards.Done]:
    """A worker's function: makes sure that a shard is there, and says what it holds and which people it lacks."""
    people = settings.shards()
    renderers: list[RenderFunction] = []  # made when first needed: finished data needs no OpenGL

    def work(number: int) -> shards.Done:
        path = directory / storage.shard_name(NAME, settings.split, number, len(people))
        try:
            return _summarize(path, people[number], rendered=False)
        except ValueError:  # absent or damaged
            if not renderers:
                renderers.append(make_renderer(settings.resolution, None))
            storage.write_shard(path, _render_shard(renderers[0], settings, people[number]))
            return _summarize(path, people[number], rendered=True)

    return work


def _render_shard(render: RenderFunction, settings: Settings, people: range) -> Iterator[Record]:
    failed = 0
    for person in people:
        try:
            records = render(settings.split, person, gazes=settings.gazes, views=settings.views)
        except Exception as error:  # one person's problem
            failed += 1
            _log.warning("person %d is left out: %s: %s", person, type(error).__name__, error)
            if failed == len(people):
                raise FailureError(
                    f"none of the people {people[0]} to {people[-1]} could be rendered: {error}"
                ) from error
            continue
        yield from map(encode, records)


def _summarize(path: Path, people: range, rendered: bool) -> shards.Done:
    records = storage.read_shard(path)
    there = {int(record["person"]) for record in records}
    left_out = [person for person in people if person not in there]
    return shards.Done(shards.describe(path, len(records)), len(records) * rendered, left_out)


@dataclasses.dataclass
class GazeHeadsConfig(tfds.core.BuilderConfig):
    """How many people of each split, and how they are photographed."""

    people: dict[str, int] = dataclasses.field(default_factory=dict)
    gazes: int = 6
    views: int = 4
    resolution: int = 512
    seed: int = 0
    workers: int = 2
    make_renderer: Any = head_renderer


class GazeHeads(tfds.core.dataset_builder.FileReaderBuilder):
    """tensorflow-datasets builder of `gaze_heads`; `download_and_prepare` renders instead of downloading."""

    VERSION = tfds.core.Version(f"{storage.SCHEMA_VERSION}.0.0")
    BUILDER_CONFIGS = (
        GazeHeadsConfig(name="paper", people={"train": 2000, "validation": 50, "test": 200}),
        GazeHeadsConfig(name="tiny", people={"train": 4, "validation": 2, "test": 2}, gazes=2, views=2, resolution=64),
    )

    url_infos: ClassVar[dict] = {}  # nothing is downloaded

    def __init__(self, **kwargs):
        super().__init__(**{"file_format": "array_record"} | kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=storage.tfds_features(), description=DESCRIPTION)

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        config = self.builder_config
        directory = Path(self.data_dir)
        for split, people in config.people.items():
            settings = Settings(split, people, config.gazes, config.views, config.resolution, config.seed)
            generate(directory, settings, workers=config.workers, make_renderer=config.make_renderer)
        self.info.set_splits(storage.tfds_splits(directory, storage.manifests(directory).values()))
