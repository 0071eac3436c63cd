"""What the records of a data set of real people show, and pairs of them: captures whose gazes and views have holes.

One row for each record: person, capture, gaze and view as the original numbers them, and how far the camera is from
the head's front. Records of the same person and capture may be paired; those that share the gaze number, too, show
one moment from several cameras. The index lies beside the shards (`index-SPLIT.npy`).
"""

import functools
import itertools
from pathlib import Path

import numpy as np

from rtgaze_jax.errors import UserError

NUMBERS = ("person", "capture", "gaze_index", "view_index")
DTYPE = np.dtype([(name, "<i4") for name in NUMBERS] + [("off_axis", "<f4")])
"""off_axis: angle in radians between the head's z axis and the direction to the camera."""


def row(record) -> tuple:
    """The index row of a record (decoded, or encoded: arrays are the same)."""
    position = np.asarray(record["cam2world"], np.float64)[:3, 3]
    off_axis = np.arctan2(np.hypot(position[0], position[1]), position[2])
    return (*(int(record[name]) for name in NUMBERS), float(off_axis))


class Index:
    """The rows of all records of a split, in their order on disk. Can be sent to other processes."""

    def __init__(self, rows: np.ndarray):
        self.rows = np.asarray(rows, DTYPE)

    @classmethod
    def load(cls, path: Path) -> "Index":
        """Reads an index file. Raises UserError where it is damaged."""
        try:
            return cls(np.load(path, allow_pickle=False))
        except (ValueError, EOFError, OSError) as error:
            raise UserError(f"{path} is damaged ({error}): run the 'rtgaze data prepare' that made it again") from error

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def _members(self) -> list[np.ndarray]:
        keys = np.stack([self.rows["person"], self.rows["capture"]], -1)
        _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(inverse.ravel(), kind="stable")
        groups = np.split(order, np.cumsum(np.bincount(inverse.ravel(), minlength=len(first)))[:-1])
        return [groups[i] for i in np.argsort(first)] if len(first) else []

    @functools.cached_property
    def _capture_of(self) -> np.ndarray:
        numbers = np.zeros(len(self.rows), np.int64)
        for capture, members in enumerate(self._members):
            numbers[members] = capture
        return numbers

    @property
    def captures(self) -> int:
        """How many captures there are; they are numbered by their first records."""
        return len(self._members)

    def members(self, capture: int) -> np.ndarray:
        """The records of a capture."""
        return self._members[capture]

    def frontals(self, capture: int) -> np.ndarray:
        """For every gaze of a capture, in order, its most frontal record."""
        members = self._members[capture]
        order = members[np.lexsort([self.rows["off_axis"][members], self.rows["gaze_index"][members]])]
        return order[np.unique(self.rows["gaze_index"][order], return_index=True)[1]]

    def frontal_of(self, record: int) -> int:
        """The most frontal record of the same person, capture and gaze: what the teacher is shown."""
        members = self._members[self._capture_of[record]]
        same = members[self.rows["gaze_index"][members] == self.rows["gaze_index"][record]]
        return int(same[self.rows["off_axis"][same].argmin()])

    def draw_pairs(
        self, rng: np.random.Generator, captures: np.ndarray, same_view: float, same_gaze: float
    ) -> np.ndarray:
        """Record numbers int64 [n, 3] of source, target and frontal image; one random pair inside each capture [n].

        A share `same_view` of the targets keeps the source's camera, the others change it; a share `same_gaze` keeps
        the gaze. A wish that a capture cannot fulfil is dropped, the view first.
        """
        return np.array([self._draw(rng, int(c), same_view, same_gaze) for c in captures], np.int64).reshape(-1, 3)

    def _draw(self, rng: np.random.Generator, capture: int, same_view: float, same_gaze: float) -> tuple[int, int, int]:
        members = self._members[capture]
        source = int(rng.choice(members))
        keep_gaze, keep_view = rng.random() < same_gaze, rng.random() < same_view
        here = self.rows[members]
        gaze = (here["gaze_index"] == self.rows["gaze_index"][source]) == keep_gaze
        view = (here["view_index"] == self.rows["view_index"][source]) == keep_view
        wanted = next((members[mask] for mask in (gaze & view, gaze) if mask.any()), members)
        target = int(rng.choice(wanted))
        return source, target, self.frontal_of(target)

    def other_pair(self, pair: np.ndarray, attempt: int) -> np.ndarray:
        """In place of a pair that cannot be read: the pair itself at attempt 0, then pairs of the captures after it."""
        if attempt == 0:
            return pair
        capture = (int(self._capture_of[pair[0]]) + attempt) % self.captures
        rng = np.random.default_rng([*(int(n) for n in pair), attempt])
        return self.draw_pairs(rng, np.array([capture]), 0.5, 0.0)[0][: len(pair)]

    def fixed_pairs(self, count: int, seed: int = 0) -> np.ndarray:
        """Pairs of an evaluation, int64 [count, 3]: all different, the gaze always changes, captures take turns.

        Raises UserError where there are fewer.
        """
        rng = np.random.default_rng([seed, len(self)])
        turns = [self._different_gazes(rng, members) for members in self._members]
        listed = [pair for round_ in itertools.zip_longest(*turns) for pair in round_ if pair is not None][:count]
        if len(listed) < count:
            raise UserError(f"the data has only {len(listed)} different pairs, not {count}: ask for fewer")
        return np.array([(s, t, self.frontal_of(t)) for s, t in listed], np.int64).reshape(-1, 3)

    def _different_gazes(self, rng: np.random.Generator, members: np.ndarray, most: int = 2000) -> list[tuple]:
        """Shuffled (source, target) records with different gazes, at most about `most` of them."""
        chosen = members if len(members) ** 2 <= 4 * most else rng.choice(members, int(np.sqrt(4 * most)), False)
        gaze = self.rows["gaze_index"][chosen]
        source, target = np.nonzero(gaze[:, None] != gaze[None])
        order = rng.permutation(len(source))[:most]
        return [(int(chosen[source[i]]), int(chosen[target[i]])) for i in order]
