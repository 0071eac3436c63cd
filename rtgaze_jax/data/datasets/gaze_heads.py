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

from rtgaze_jax import __version__, files
from rtgaze_jax.data import storage
from rtgaze_jax.data.heads.stream import MakeRenderer, RenderFunction, head_renderer
from rtgaze_jax.data.heads.workers import WorkerPool
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
    there = storage.find_manifest(directory, settings.split)
    if there is None:
        storage.write_manifest(directory, manifest)
    elif there.settings != asked:
        different = [f"{k} {there.settings.get(k)}, not {v}" for k, v in asked.items() if there.settings.get(k) != v]
        raise UserError(
            f"{directory} holds the split '{settings.split}' made with {'; '.join(different)}: "
            "give the same settings to go on, or another --out"
        )
    for stale in directory.glob(f".{NAME}-{settings.split}.*"):
        stale.unlink()  # half a shard of a process that was killed

    shards = settings.shards()
    summaries: dict[int, _Summary] = {}
    images = 0
    with WorkerPool(_shard_worker, (directory, settings, make_renderer), min(workers, len(shards))) as pool:
        for outcome, _ in pool.run(range(len(shards))):
            if outcome.error is not None:
                raise FailureError(f"shard {outcome.task} cannot be written: {outcome.error}")
            summaries[outcome.task] = outcome.result
            images += outcome.result.rendered
            done = sum(len(shards[number]) for number in summaries)
            report(Progress(done, images, outcome.result.shard.file))
    ordered = [summaries[number] for number in range(len(shards))]
    manifest = dataclasses.replace(
        manifest,
        left_out=tuple(person for summary in ordered for person in summary.left_out),
        shards=tuple(summary.shard for summary in ordered),
    )
    storage.write_manifest(directory, manifest)
    storage.write_tfds_metadata(directory, DESCRIPTION)
    return manifest


class _Summary(NamedTuple):
    shard: storage.Shard
    left_out: tuple[int, ...]
    rendered: int  # images, in this run


def _shard_worker(
    _memory, _number, directory: Path, settings: Settings, make_renderer: MakeRenderer
) -> Callable[[int], _Summary]:
    """A worker's function: makes sure that a shard is there, and says what it holds."""
    shards = settings.shards()
    renderers: list[RenderFunction] = []  # made when first needed: finished data needs no OpenGL

    def work(number: int) -> _Summary:
        path = directory / storage.shard_name(NAME, settings.split, number, len(shards))
        try:
            return _summarize(path, shards[number], rendered=False)
        except ValueError:  # absent or damaged
            if not renderers:
                renderers.append(make_renderer(settings.resolution, None))
            storage.write_shard(path, _render_shard(renderers[0], settings, shards[number]))
            return _summarize(path, shards[number], rendered=True)

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


def _summarize(path: Path, people: range, rendered: bool) -> _Summary:
    records = storage.read_shard(path)
    there = {int(record["person"]) for record in records}
    shard = storage.Shard(path.name, len(records), path.stat().st_size, files.sha256(path))
    return _Summary(shard, tuple(p for p in people if p not in there), len(records) * rendered)


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
