"""Filling a split shard by shard: processes do the work, interruptions cost one shard, the bytes stay the same."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rtgaze_jax import files
from rtgaze_jax.data import storage
from rtgaze_jax.data.heads.workers import WorkerPool
from rtgaze_jax.errors import FailureError, UserError


class Done(NamedTuple):
    """What a worker says of a shard. `notes`: whatever the data set wants to know about it."""

    shard: storage.Shard
    made: int  # records made by this run: 0 where the shard was there
    notes: Any = None


def describe(path: Path, records: int) -> storage.Shard:
    """The manifest's entry of a finished shard."""
    return storage.Shard(path.name, records, path.stat().st_size, files.sha256(path))


def begin(directory: Path, manifest: storage.Manifest) -> None:
    """Says in `directory` that this split is being made. Raises UserError where it holds the split made otherwise."""
    there, asked = storage.find_manifest(directory, manifest.split), manifest.settings
    if there is None:
        storage.write_manifest(directory, manifest)
    elif there.settings != asked or there.name != manifest.name:
        old = {"data set": there.name} | there.settings
        new = {"data set": manifest.name} | asked
        different = [f"{key} {old.get(key)}, not {value}" for key, value in new.items() if old.get(key) != value]
        raise UserError(
            f"{directory} holds the split '{manifest.split}' made with {'; '.join(different)}: "
            "give the same settings to go on, or another --out"
        )
    for stale in directory.glob(f".{manifest.name}-{manifest.split}.*"):
        stale.unlink()  # half a shard of a process that was killed


def fill(
    setup: Callable,
    arguments: tuple,
    count: int,
    workers: int,
    report: Callable[[int, Done], None] = lambda number, done: None,
) -> list[Done]:
    """Has `count` shards made: `setup(memory, number, *arguments)` in each process gives a function number -> Done.

    Raises FailureError where one cannot be made.
    """
    done: dict[int, Done] = {}
    with WorkerPool(setup, arguments, min(workers, count)) as pool:
        for outcome, _ in pool.run(range(count)):
            if outcome.error is not None:
                raise FailureError(f"shard {outcome.task} cannot be written: {outcome.error}")
            done[outcome.task] = outcome.result
            report(outcome.task, outcome.result)
    return [done[number] for number in range(count)]


def finish(directory: Path, manifest: storage.Manifest, done: Sequence[Done], description: str) -> storage.Manifest:
    """Writes the finished manifest and what tensorflow-datasets reads; returns the manifest."""
    manifest = dataclasses.replace(manifest, shards=tuple(item.shard for item in done))
    storage.write_manifest(directory, manifest)
    storage.write_tfds_metadata(directory, description)
    return manifest
