"""Which pairs are measured: the protocols of the GazeNeRF lineage and the fixed pairs of the synthetic people.

A pair asks for the target's gaze and camera, given the source image. Its prediction is compared with the target image.
Ground truth is white outside the head, as in the lineage; predictions are whitened by the same mask, because the
methods here do not model the background (the lineage compares unmasked predictions, which punishes any background).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from rtgaze_jax.data.pairs import RECORD_KEYS, fixed_pairs, gather, pack, pairs_hash
from rtgaze_jax.data.record import Grid, Record
from rtgaze_jax.errors import UserError

PAIR_SEED = 0
MOST = 1000  # pairs by default
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Lineage:
    """GazeNeRF's evaluation on one data set: for each person the first `block` records are sources, and a fixed
    permutation of the next `block` their targets."""

    block: int
    people: int
    resolution: int
    normalisation: tuple[int, int]  # focal length in pixels, distance in mm, of the 512-pixel images
    note: str


LINEAGE = {
    "eth_xgaze": Lineage(100, 15, 512, (1600, 680), "the 15 test-specific people, rows 0..99 -> 100..199: 1500 pairs"),
    "mpii_face_gaze": Lineage(100, 15, 512, (1400, 680), "rows 0..99 -> 100..199 of each person: 1500 pairs"),
    "columbia_gaze": Lineage(52, 56, 512, (1600, 680), "rows 0..51 -> 52..103 of each person: 2912 pairs"),
}
"""The published target lists are permutations stored in GazeNeRF's repository (configs/config_files); ours are drawn
with PAIR_SEED, so figures agree within the spread of pairings, not to the digit. The figures compare two estimates
(prediction against target) of a network fed with images re-normalised to 224 pixels (focal length 960, 600 mm)."""


@dataclasses.dataclass(frozen=True)
class PairSet:
    """Pairs to measure, and how to get their images."""

    name: str
    pairs: Int[np.ndarray, "n 3"]  # record numbers of source, target, frontal image
    hash: str
    read: Callable[[Sequence[int]], list[Record]] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, rows: Sequence[int] | Int[np.ndarray, "b"]) -> Batch:
        """The images and labels of some pairs (see data/pairs.py)."""
        wanted = self.pairs[np.asarray(rows)][:, [0, 1, 1]]
        numbers, where = np.unique(wanted, return_inverse=True)
        return gather(pack(self.read(numbers.tolist())), where.reshape(wanted.shape))


def lineage_pairs(people: Int[np.ndarray, "n"], block: int, seed: int = PAIR_SEED) -> Int[np.ndarray, "p 3"]:
    """The lineage's pairs of records whose people are `people`, in their order on disk. UserError where a person has
    fewer than 2 * block records."""
    rng = np.random.default_rng(seed)
    pairs = []
    for person in np.unique(people):
        rows = np.flatnonzero(people == person)
        if len(rows) < 2 * block:
            raise UserError(
                f"person {person} has {len(rows)} records, the protocol needs {2 * block}: prepare them all"
            )
        targets = block + rng.permutation(block)
        pairs.append(np.stack([rows[:block], rows[targets], rows[targets]], -1))
    return np.concatenate(pairs).astype(np.int64)


def from_records(records: Sequence[Record], grid: Grid, count: int, name: str = "gaze_heads") -> PairSet:
    """Fixed pairs of records in memory, ordered captures x gazes x views."""
    pairs = fixed_pairs(grid, count, PAIR_SEED)
    return PairSet(name, pairs, pairs_hash(pairs, name), lambda numbers: [records[i] for i in numbers])


def from_directory(directory: str | Path, count: int | None = None, split: str | None = None) -> PairSet:
    """The protocol's pairs of a data set on disk (default: its split "test", or the only one it has).

    count: of the lineage's sets every k-th pair is kept, so that all people remain; other data has MOST pairs by
    default, or fewer where there are fewer. UserError where the data is missing or the protocol does not fit it.
    """
    from rtgaze_jax.data import storage

    if split is None and "test" in storage.manifests(directory):
        split = "test"
    source = storage.RecordSource(directory, storage.only_split(directory, split))
    name, grid = source.manifest.name, source.grid
    if isinstance(grid, Grid):
        pairs = fixed_pairs(grid, min(MOST, most_pairs(grid)) if count is None else count, PAIR_SEED)
    elif name in LINEAGE:
        pairs = lineage_pairs(grid.rows["person"], LINEAGE[name].block)
        if count is not None and count < len(pairs):
            pairs = pairs[np.linspace(0, len(pairs), count, endpoint=False).astype(int)]
    else:
        pairs = fixed_pairs(grid, min(MOST, len(grid)) if count is None else count, PAIR_SEED)
    return PairSet(name, pairs, pairs_hash(pairs, source.manifest.identity), functools.partial(_read, source))


def most_pairs(grid: Grid) -> int:
    """How many different pairs a grid has: ordered gazes times ordered views, in each capture."""
    return grid.captures * grid.gazes * (grid.gazes - 1) * grid.views**2


def describe(name: str) -> Mapping[str, Any]:
    """The protocol in words, for reports."""
    return {
        "data": name,
        "pairs": LINEAGE[name].note
        if name in LINEAGE
        else "same person and light, other gaze; every second pair keeps the view; people take turns",
        "masking": "truth and prediction white outside the head of the truth",
        "crops": "whole images; eyes are the visible eyeballs' pixels of the truth",
        "intervals": "95 %, bootstrap over people",
    }


def _read(source: Any, numbers: Sequence[int]) -> list[Record]:
    from rtgaze_jax.data.record import decode

    records = [decode(source[int(number)], RECORD_KEYS) for number in numbers]
    if any("gaze_head" not in record for record in records):
        raise UserError("these people's gaze is withheld: evaluate on a split that has gaze labels")
    return records
