"""From methods and pairs to figures: measure every pair, then means with intervals, as one JSON value."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation.features.distances import frechet_lite0
from rtgaze_jax.evaluation.gaze import Estimator
from rtgaze_jax.evaluation.metrics import frechet_distance
from rtgaze_jax.evaluation.predictors import Predictor, Student
from rtgaze_jax.evaluation.protocol import Batch, PairSet, describe
from rtgaze_jax.evaluation.scores import (
    NO_REFERENCES,
    SCORES,
    References,
    eye_positions,
    labels,
    score,
    second_difference,
    truth_of,
    whiten,
)
from rtgaze_jax.evaluation.statistics import Interval, mean_interval, set_interval, slope_interval

DIGITS = 6  # significant ones in the results
SUBSETS = {"all": None, "same_view": True, "cross_view": False}
CHUNK = 8  # pairs at a time
PATH_STEPS, PATH_YAW = 16, np.radians(20.0)

Table = dict[str, np.ndarray]
"""One value (or vector) a pair, by name."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Everything measured: `about` the pairs themselves, `truth` features of the targets, `methods` by name."""

    about: Table  # person, same_view, gaze_deg, view_deg
    truth: Table  # lite0, iris
    methods: dict[str, Table]


def measure(
    pairs: PairSet,
    methods: Mapping[str, Predictor],
    estimator: Estimator,
    *,
    chunk: int = CHUNK,
    references: References = NO_REFERENCES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Measures all methods on all pairs, `chunk` at a time (every chunk has that size, so each program compiles once).

    Nothing but figures is kept. Raises UserError where a method's images have another size than the data's.
    """
    about, truths = [], []
    tables: dict[str, list[Table]] = {name: [] for name in methods}
    for first in range(0, len(pairs), chunk):
        rows = np.minimum(np.arange(first, first + chunk), len(pairs) - 1)  # the last chunk is filled up
        real = len(pairs) - first
        batch = pairs.batch(rows)
        truth = truth_of(batch, estimator, references)
        about.append(_cut(_about(batch), real))
        truths.append(_cut({name: truth[name] for name in ("lite0", "iris", "inception") if name in truth}, real))
        for name, method in methods.items():
            prediction = method(batch)
            if prediction["image"].shape != truth["image"].shape:
                made, given = prediction["image"].shape[1], truth["image"].shape[1]
                raise UserError(f"the weights of '{name}' make images of {made} pixels, the data has {given}")
            tables[name].append(_cut(score(prediction, batch, truth, estimator, references), real))
        progress(min(first + chunk, len(pairs)), len(pairs))
    return Measured(_join(about), _join(truths), {name: _join(table) for name, table in tables.items()})


def _about(batch: Batch) -> Table:
    head = labels(batch)["head"]
    gaze = batch["target_gaze"].astype(np.float64)
    return {
        "person": batch["person"],
        "same_view": (batch["source_camera"] == batch["target_camera"]).all(1),
        "gaze_deg": np.degrees(np.arccos(np.clip(np.cos(gaze[:, 0]) * np.cos(gaze[:, 1]), -1, 1))),
        "view_deg": np.degrees(np.arccos(np.clip(-head[:, 2], -1, 1))),
    }


def figures(measured: Measured, method: str, subset: str = "all") -> dict[str, Interval]:
    """All figures of a method on a subset of the pairs ("all", "same_view", "cross_view")."""
    wanted = SUBSETS[subset]
    same = measured.about["same_view"]
    rows = np.ones(len(same), bool) if wanted is None else same == wanted
    people = measured.about["person"][rows]
    table = {name: value[rows] for name, value in measured.methods[method].items()}
    truth = {name: value[rows] for name, value in measured.truth.items()}
    found = {name: mean_interval(table[name], people) for name in SCORES}
    found["frechet_lite0"] = set_interval(frechet_lite0, table["lite0"], truth["lite0"], people)
    if "lpips" in table:
        found["lpips"] = mean_interval(table["lpips"], people)
    if "inception" in table:
        found["fid"] = set_interval(frechet_distance, table["inception"], truth["inception"], people)
    both = np.repeat(people, 2)
    for axis, name in enumerate(("iris_slope_x", "iris_slope_y")):
        true, seen = (x["iris"][..., axis].reshape(-1) for x in (truth, table))
        found[name] = slope_interval(true, seen, both)
    return found


def result(
    measured: Measured, pairs: PairSet, about: Mapping[str, Any], jitter: Mapping[str, Any] | None = None
) -> dict:
    """The whole result as a JSON value: the figures of the method "model" at the top, those of the others under
    "baselines" (None for those that were not run), each for all pairs and for same_view and cross_view."""
    sizes = {
        name: int(len(pairs) if w is None else (measured.about["same_view"] == w).sum()) for name, w in SUBSETS.items()
    }

    def of(method: str) -> dict[str, Any] | None:
        if method not in measured.methods:
            return None
        return figures(measured, method) | {s: figures(measured, method, s) for s in ("same_view", "cross_view")}

    baselines = {name: of(name) for name in dict.fromkeys(("copy", "warp", *measured.methods)) if name != "model"}
    protocol = dict(describe(pairs.name)) | {
        "pairs_sha256": pairs.hash,
        "pairs_measured": sizes,
        "people": len(np.unique(measured.about["person"])),
    }
    whole = {"protocol": protocol, **about, **(of("model") or {}), "temporal_jitter": jitter, "baselines": baselines}
    return _rounded(whole)


def temporal_jitter(model: Student, pairs: PairSet, estimator: Estimator, count: int = 8) -> dict[str, Interval]:
    """How evenly the result follows an even sweep of the gaze (yaw -20 to 20 degrees), on the first pairs.

    levels: mean absolute second difference of the head's pixels, of 255 (0: every pixel changes at constant speed);
    gaze_deg: the same of the estimated gaze, degrees a step squared (a step is 2.7 degrees).
    """
    path = np.stack([np.zeros(PATH_STEPS), np.linspace(-PATH_YAW, PATH_YAW, PATH_STEPS)], -1)
    found: dict[str, list[float]] = {"levels": [], "gaze_deg": []}
    people = []
    for row in range(min(count, len(pairs))):
        batch = pairs.batch([row] * CHUNK)
        frames = whiten(model.path(batch, path), batch["target_face_mask"][:1])
        gaze = estimator(frames, np.repeat(eye_positions(batch)[:1], len(frames), 0))["gaze"]
        found["levels"].append(float(second_difference(frames)[batch["target_face_mask"][0]].mean()))
        found["gaze_deg"].append(float(np.degrees(np.linalg.norm(second_difference(gaze)))))
        people.append(int(batch["person"][0]))
    return {name: mean_interval(np.array(values), np.array(people)) for name, values in found.items()}


def _cut(table: Mapping[str, Any], rows: int) -> Table:
    return {name: np.asarray(value)[:rows] for name, value in table.items()}


def _join(tables: list[Table]) -> Table:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _rounded(value: Any) -> Any:
    """Floats with DIGITS significant digits, which is what equal commands agree on; NaN as None."""
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
    return value
