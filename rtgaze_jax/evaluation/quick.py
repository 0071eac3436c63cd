"""A fast evaluation on people rendered in memory, for the end of a training run."""

import concurrent.futures
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from rtgaze_jax.data.heads.stream import stream_captures
from rtgaze_jax.data.record import Grid, Record
from rtgaze_jax.evaluation import protocol, run
from rtgaze_jax.evaluation.gaze import Estimator
from rtgaze_jax.evaluation.predictors import Predictor, Student, load_baselines
from rtgaze_jax.evaluation.run import CHUNK
from rtgaze_jax.evaluation.scores import score, truth_of
from rtgaze_jax.geometry.camera import FOCAL, FRONTAL_POSE
from rtgaze_jax.models.config import ModelConfig

GAZES, VIEWS = 5, 3
BRIEF = ("gaze_error_deg", "gaze_error_label_deg", "head_error_deg", "psnr_face", "psnr_eyes", "identity")


def render_people(people: int, resolution: int, workers: int | None = None) -> list[Record]:
    """The first test people, GAZES x VIEWS records each, rendered by `workers` processes (default: all cores)."""
    workers = workers or os.cpu_count() or 1
    captures = stream_captures("test", resolution=resolution, gazes=GAZES, views=VIEWS, workers=workers, count=people)
    return [record for capture in captures for record in capture]


def quick_evaluate(
    weights_params: Mapping[str, Any],
    config: ModelConfig,
    estimator: Estimator,
    people: int = 20,
    pairs: int = 200,
    resolution: int = 512,
    workers: int | None = None,
    records: list[Record] | None = None,
) -> dict[str, Any]:
    """Measures a student against the baselines on new test people and prints one JSON line of the main figures.

    Renders while the programs compile. records: of people rendered before (render_people), instead of new ones.
    Returns the whole result (evaluation/run.py).
    """
    began = time.monotonic()
    methods: dict[str, Predictor] = {"model": Student(weights_params, config), **load_baselines()}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        rendering = pool.submit(lambda: records or render_people(people, resolution, workers))
        warm: list[concurrent.futures.Future] = [pool.submit(m, _blank(resolution)) for m in methods.values()]
        warm.append(pool.submit(_warm_scores, estimator, resolution))
        for done in warm:
            done.result()
        faces = rendering.result()
    rendered = time.monotonic()
    grid = Grid(len(faces) // (GAZES * VIEWS), GAZES, VIEWS)
    chosen = protocol.from_records(faces, grid, min(pairs, protocol.most_pairs(grid)))
    measured = run.measure(chosen, methods, estimator)
    found = run.result(measured, chosen, {})
    seconds = {"prepare": round(rendered - began, 1), "measure": round(time.monotonic() - rendered, 1)}
    print(json.dumps(brief(found) | {"seconds": seconds}), flush=True)
    return found


def brief(found: Mapping[str, Any]) -> dict[str, Any]:
    """The means of the main figures as {figure: {method: [all, same view, cross view]}}."""

    def means(source: Mapping[str, Any], name: str) -> list[float | None]:
        return [_short(part[name]["mean"]) for part in (source, source["same_view"], source["cross_view"])]

    tables = {"model": found} | {n: t for n, t in found["baselines"].items() if t is not None}
    short: dict[str, Any] = {n: {m: means(t, n) for m, t in tables.items()} for n in BRIEF}
    for name in ("estimator_error_deg", "consistency_3d", "depth_error_mm", "iris_slope_x", "iris_slope_y"):
        short[name] = _short(found[name]["mean"])
    return short


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _blank(resolution: int) -> protocol.Batch:
    """A batch that shows nothing, to compile with."""
    square = (CHUNK, resolution, resolution)
    label = np.concatenate([FRONTAL_POSE.reshape(16), np.diag([FOCAL, FOCAL, 1.0]).reshape(9)]).astype(np.float32)
    label[[18, 21]] = 0.5
    camera, gaze = np.tile(label, (CHUNK, 1)), np.zeros((CHUNK, 2), np.float32)
    batch = {
        f"{which}_{name}": value
        for which in ("source", "target")
        for name, value in (("camera", camera), ("gaze", gaze))
    }
    return batch | {
        "source_image": np.zeros((*square, 3), np.uint8),
        "target_image": np.zeros((*square, 3), np.uint8),
        "source_parts": np.zeros(square, np.uint8),
        "target_parts": np.zeros(square, np.uint8),
        "target_depth": np.zeros(square, np.float16),
        "target_face_mask": np.zeros(square, bool),
        "target_eye_mask": np.zeros(square, bool),
        "eye_centers": np.tile(np.array([[0.085, 0.05, 0.06], [-0.085, 0.05, 0.06]], np.float32), (CHUNK, 1, 1)),
        "person": np.zeros(CHUNK, np.int32),
    }


def _warm_scores(estimator: Estimator, resolution: int) -> None:
    batch = _blank(resolution)
    score({"image": batch["target_image"]}, batch, truth_of(batch, estimator), estimator)
