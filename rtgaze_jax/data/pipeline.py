"""From a data set on disk to training batches: shuffle, repeat, draw pairs, decode; in parallel, resumable to the bit.

Batch k of a run is a function of (data, seed, batch size) only. It does not depend on the number of decoding
workers, nor on the number of processes: of P processes, process p gets the rows p * B/P to (p + 1) * B/P of every
global batch of B rows, so a saved position is valid for any P. The module is import-pure: worker processes import
it again.
"""

import functools
import logging
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags

from rtgaze_jax.data.index import Index
from rtgaze_jax.data.pairs import RECORD_KEYS, draw_pairs, gather, pack
from rtgaze_jax.data.record import Grid, decode
from rtgaze_jax.data.storage import RecordSource
from rtgaze_jax.errors import FailureError, UserError

ATTEMPTS = 10  # captures tried in place of damaged ones
_log = logging.getLogger(__name__)


def pair_dataset(
    directory: str | Path,
    split: str = "train",
    *,
    batch_size: int,
    seed: int = 0,
    same_view: float = 0.5,
    frontal: bool = False,
    workers: int = 0,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset:
    """An endless data set of batches (see `rtgaze_jax.data.pairs`) with `batch_size` / `process_count` rows.

    Several directories, separated by commas, give the pairs of a batch in turns.

    Every pass over the data visits each capture once, in a new order, and draws one new pair from it. `workers`
    processes decode (0: threads of this process). Damaged records are reported and replaced by pairs of the next
    capture. `start` leaves out that many batches at no cost: the way to go on with another number of workers, to
    which get_state() and set_state() of `iter()` of the result are tied. Raises UserError where the batch does not
    split into the processes.
    """
    if batch_size % process_count:
        raise UserError(f"batch size {batch_size} does not split into {process_count} processes: choose a multiple")
    sources = [RecordSource(place, split) for place in str(directory).split(",")]
    for source, place in zip(sources, str(directory).split(","), strict=True):
        if "gaze_head" in source.manifest.absent:
            raise UserError(f"{place} has no gaze labels, which training needs: use it with 'rtgaze data augment'")
    if len({source.manifest.resolution for source in sources}) > 1:
        raise UserError(f"{directory} have pictures of different sizes: prepare them with the same --resolution")
    rows = batch_size // process_count
    load = functools.partial(_load_rows, sources, frontal, slice(process_index * rows, (process_index + 1) * rows))
    drawn = [
        grain.MapDataset.range(source.grid.captures)
        .seed(seed + number)
        .shuffle()
        .repeat()
        .random_map(functools.partial(_draw, number, source.grid, same_view))
        for number, source in enumerate(sources)
    ]
    dataset = (
        (grain.MapDataset.mix(drawn) if len(drawn) > 1 else drawn[0])
        .batch(batch_size)
        .slice(slice(start, None))
        .map(load)
        .to_iter_dataset(grain.ReadOptions(num_threads=0 if workers else 4, prefetch_buffer_size=0 if workers else 4))
    )
    if workers:
        if not flags.FLAGS.is_parsed():  # grain asks absl for its debug flags, also where nobody uses absl
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    return dataset


def _draw(
    number: int, grid: Grid | Index, same_view: float, capture: int, rng: np.random.Generator
) -> tuple[int, np.ndarray]:
    return number, draw_pairs(rng, grid, np.array([capture]), same_view)[0]


def _load_rows(sources: list[RecordSource], frontal: bool, rows: slice, drawn: tuple) -> dict[str, Any]:
    """The batch of some rows of a list of pairs: data set numbers [B] and records [B, 3]."""
    records: list[dict[str, Any]] = []
    numbers = []
    for source, pair in zip(drawn[0][rows], drawn[1][rows], strict=True):
        loaded = _load_pair(sources[source], pair if frontal else pair[:2])
        numbers.append([len(records), len(records) + 1, len(records) + len(loaded) - 1])
        records += loaded
    return gather(pack(records), np.array(numbers), frontal)


def _load_pair(source: RecordSource, pair: np.ndarray) -> list[dict[str, Any]]:
    """The decoded records of a pair, or of the same gazes and views of the next capture that is whole."""
    for attempt in range(ATTEMPTS):
        if isinstance(source.grid, Index):
            shifted = source.grid.other_pair(pair, attempt)
        else:
            shifted = (pair + attempt * source.grid.per_capture) % len(source)
        try:
            return [decode(source[int(number)], RECORD_KEYS) for number in shifted]
        except ValueError as error:
            _log.warning("skipped a damaged record: %s", error)
    raise FailureError(f"{ATTEMPTS} captures in a row are damaged near record {pair[0]}: see 'rtgaze data check'")
