"""Training examples: two images of one capture, and batches of them.

A pair says "turn the source into the target": same person, light and background; the gaze differs (nearly always) and
the view does in part of the pairs. `draw_pairs` and `fixed_pairs` choose records by number, `gather` makes the batch:

    source_image  u8[B,S,S,3]   source_camera f32[B,25]  source_gaze f32[B,2]  source_parts u8[B,S,S]
    target_image  u8[B,S,S,3]   target_camera f32[B,25]  target_gaze f32[B,2]  target_parts u8[B,S,S]
    target_depth  f16[B,S,S]    target_face_mask bool[B,S,S]                   target_eye_mask bool[B,S,S]
    eye_centers   f32[B,2,3]    person i32[B]
    frontal_image u8[B,S,S,3]   frontal_camera f32[B,25]   on request: the target's gaze in the capture's most
    frontal view

Gaze is in the head frame, the world of cameras and eye centres is the head frame; units as in
`rtgaze_jax.data.record`. Where a data set has no depth, target_depth is 0 (unknown) everywhere.

Records lie on a grid (synthetic people: `record.Grid`) or have holes (real people: `index.Index`); all functions take
both.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rtgaze_jax.data.index import Index
from rtgaze_jax.data.labels import camera_label
from rtgaze_jax.data.record import Grid, Record, eye_mask, face_mask
from rtgaze_jax.errors import UserError

SAME_GAZE = 0.05  # share of pairs that ask for the gaze the source already has: the network must be able to do nothing
RECORD_KEYS = ("image", "parts", "depth", "cam2world", "intrinsics", "gaze_head", "eye_centers", "person")
Arrays = dict[str, np.ndarray]


def pack(records: Sequence[Record]) -> Arrays:
    """What training needs of N decoded square records, as arrays [N, ...]: 6 bytes a pixel.

    image u8, parts u8, depth f16, camera f32[N, 25], gaze f32[N, 2] (head frame), eye_centers f32[N, 2, 3], person
    i32. Raises UserError where they have no gaze.
    """
    if not all("gaze_head" in record for record in records):
        raise UserError("these records have no gaze labels: use the data set with 'rtgaze data augment'")
    arrays = empty_arrays(len(records), records[0]["image"].shape[0])
    for i, record in enumerate(records):
        for key in ("image", "parts", "eye_centers", "person"):
            arrays[key][i] = record[key]
        arrays["depth"][i] = record.get("depth", 0)
        arrays["gaze"][i] = record["gaze_head"]
        arrays["camera"][i] = camera_label(record["cam2world"], record["intrinsics"])
    return arrays


def empty_arrays(count: int, resolution: int) -> Arrays:
    """Zeroed arrays for `count` packed records of `resolution` x `resolution` pixels."""
    square = (count, resolution, resolution)
    return {
        "image": np.zeros((*square, 3), np.uint8),
        "parts": np.zeros(square, np.uint8),
        "depth": np.zeros(square, np.float16),
        "camera": np.zeros((count, 25), np.float32),
        "gaze": np.zeros((count, 2), np.float32),
        "eye_centers": np.zeros((count, 2, 3), np.float32),
        "person": np.zeros(count, np.int32),
    }


def draw_pairs(
    rng: np.random.Generator, grid: Grid | Index, captures: np.ndarray, same_view: float = 0.5
) -> np.ndarray:
    """One random pair inside each of the captures [n]: record numbers int64 [n, 3] of source, target and frontal image.

    A share `same_view` of the pairs keeps the source's view; the others take another view, where the capture has one.
    """
    if isinstance(grid, Index):
        return grid.draw_pairs(rng, captures, same_view, SAME_GAZE)
    n = len(captures)
    source_gaze, source_view = rng.integers(grid.gazes, size=n), rng.integers(grid.views, size=n)
    # A step of 1 to size - 1 around the circle reaches every other number with equal probability.
    other_gaze = (source_gaze + 1 + rng.integers(max(grid.gazes - 1, 1), size=n)) % grid.gazes
    other_view = (source_view + 1 + rng.integers(max(grid.views - 1, 1), size=n)) % grid.views
    target_gaze = np.where(rng.random(n) < SAME_GAZE, source_gaze, other_gaze)
    target_view = np.where(rng.random(n) < same_view, source_view, other_view)
    return _record_numbers(grid, np.asarray(captures), source_gaze, source_view, target_gaze, target_view)


def fixed_pairs(grid: Grid | Index, count: int, seed: int = 0) -> np.ndarray:
    """The pairs of an evaluation, int64 [count, 3] as in draw_pairs: all different, the gaze always changes.

    The captures take turns, so that all people count alike; every second round of turns keeps the view.
    Raises UserError where the grid has fewer such pairs.
    """
    if isinstance(grid, Index):
        return grid.fixed_pairs(count, seed)
    rng = np.random.default_rng([seed, *grid])
    gazes = [(s, t) for s, t in itertools.product(range(grid.gazes), repeat=2) if s != t]
    same = [(s, v, t, v) for s, t in gazes for v in range(grid.views)]
    cross = [(s, v, t, w) for s, t in gazes for v, w in itertools.permutations(range(grid.views), 2)]
    rounds = min(-(-count // max(grid.captures, 1)), len(same) + len(cross))
    if count > rounds * grid.captures:
        raise UserError(f"{grid} has only {rounds * grid.captures} different pairs, not {count}: ask for fewer")
    order = rng.permutation(grid.captures)
    choices = []
    for _ in order:
        turns = [[same[i] for i in rng.permutation(len(same))], [cross[i] for i in rng.permutation(len(cross))]]
        alternating = itertools.chain.from_iterable(itertools.zip_longest(*turns))
        choices.append([pair for pair in alternating if pair is not None][:rounds])
    listed = [(order[i], *choices[i][turn]) for turn in range(rounds) for i in range(grid.captures)][:count]
    return _record_numbers(grid, *np.array(listed, np.int64).reshape(-1, 5).T)


def members_of(grid: Grid | Index, capture: int) -> np.ndarray:
    """Numbers [n] of the records of a capture."""
    if isinstance(grid, Index):
        return grid.members(capture)
    return capture * grid.per_capture + np.arange(grid.per_capture)


def frontals_of(grid: Grid | Index, capture: int) -> np.ndarray:
    """Numbers [g] of the most frontal records of a capture, one for each gaze."""
    return grid.frontals(capture) if isinstance(grid, Index) else members_of(grid, capture)[:: grid.views]


def pairs_hash(pairs: np.ndarray, identity: str = "") -> str:
    """SHA-256 (hexadecimal) of a list of pairs and of the data they point into (`identity`, such as its checksum)."""
    return hashlib.sha256(np.ascontiguousarray(pairs, "<i8").tobytes() + identity.encode()).hexdigest()


def gather(arrays: Mapping[str, np.ndarray], pairs: np.ndarray, frontal: bool = False) -> dict[str, Any]:
    """The batch of `pairs` [B, 3] (record numbers) out of packed `arrays` [N, ...], in memory of its own."""
    source, target, front = np.asarray(pairs).T

    def take(key: str, index: np.ndarray) -> np.ndarray:
        return np.take(arrays[key], index, axis=0)

    batch = {f"source_{key}": take(key, source) for key in ("image", "camera", "gaze", "parts")}
    batch |= {f"target_{key}": take(key, target) for key in ("image", "camera", "gaze", "depth", "parts")}
    batch["target_face_mask"] = face_mask(batch["target_parts"])
    batch["target_eye_mask"] = eye_mask(batch["target_parts"])
    batch |= {key: take(key, source) for key in ("eye_centers", "person")}
    if frontal:
        batch |= {f"frontal_{key}": take(key, front) for key in ("image", "camera")}
    return batch


def _record_numbers(grid: Grid, capture, source_gaze, source_view, target_gaze, target_view) -> np.ndarray:
    first = capture * grid.per_capture
    source = first + source_gaze * grid.views + source_view
    target = first + target_gaze * grid.views + target_view
    return np.stack([source, target, first + target_gaze * grid.views], -1).astype(np.int64)
