"""An evaluation as a folder to read: report.md, result.json, the worst cases and the errors over angles as pictures."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rtgaze_jax import files
from rtgaze_jax.evaluation.plots import Series, line_chart, sheet
from rtgaze_jax.evaluation.predictors import Predictor
from rtgaze_jax.evaluation.protocol import PairSet
from rtgaze_jax.evaluation.run import CHUNK, Measured
from rtgaze_jax.evaluation.scores import whiten
from rtgaze_jax.evaluation.statistics import Interval, mean_interval

WORST = 16
COLUMNS = {  # figure: heading, digits, which way is better
    "gaze_error_deg": ("gaze, deg", 2, "lower"),
    "gaze_error_label_deg": ("gaze to label, deg", 2, "lower"),
    "head_error_deg": ("head, deg", 2, "lower"),
    "psnr_face": ("PSNR face", 2, "higher"),
    "psnr_eyes": ("PSNR eyes", 2, "higher"),
    "psnr": ("PSNR image", 2, "higher"),
    "ssim": ("SSIM", 3, "higher"),
    "identity": ("identity", 3, "higher"),
    "perceptual_lite0": ("perceptual_lite0", 3, "lower"),
    "frechet_lite0": ("frechet_lite0", 1, "lower"),
    "lpips": ("LPIPS", 3, "lower"),
    "fid": ("FID", 1, "lower"),
    "consistency_3d": ("3D consistency, dB", 1, "higher"),
    "depth_error_mm": ("depth, mm", 2, "lower"),
    "iris_slope_x": ("iris slope x", 2, "to 1"),
    "iris_slope_y": ("iris slope y", 2, "to 1"),
}
_BINS = {"gaze_deg": np.array([0, 8, 16, 24, 32, 48]), "view_deg": np.array([0, 10, 20, 30, 45, 75])}
_AXES = {"gaze_deg": "target gaze, degrees from straight ahead", "view_deg": "target view, degrees from frontal"}
_FEWEST = 5  # pairs in a bin worth a point


def write_report(
    directory: Path, result: Mapping[str, Any], measured: Measured, pairs: PairSet, model: Predictor
) -> Path:
    """Writes the folder and returns the path of report.md. Raises FailureError where it cannot be written."""
    directory = Path(directory)
    files.write_bytes(directory / "result.json", as_json(result))
    for name in _BINS:
        chart = line_chart(over_angle(measured, name), "Gaze error", _AXES[name], "degrees")
        _write_png(directory / f"error_over_{name.removesuffix('_deg')}.png", chart)
    _write_png(directory / "worst.png", worst_cases(measured, pairs, model))
    files.write_bytes(directory / "report.md", markdown(result).encode())
    return directory / "report.md"


def as_json(result: Mapping[str, Any]) -> bytes:
    """The result as JSON text; equal results are equal bytes."""
    return (json.dumps(result, indent=1, allow_nan=False) + "\n").encode()


def table(result: Mapping[str, Any], subset: str = "all") -> str:
    """The methods side by side as a Markdown table: mean and interval of each figure."""
    methods = {"model": result, **{n: f for n, f in result["baselines"].items() if f is not None}}
    methods = {n: f if subset == "all" else f[subset] for n, f in methods.items()}
    lines = ["| | " + " | ".join(methods) + " |", "|---|" + "---|" * len(methods)]
    for name, (heading, digits, better) in COLUMNS.items():
        if name not in methods["model"]:
            continue
        cells = [_cell(figures[name], digits) for figures in methods.values()]
        lines.append(f"| {heading} ({better}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown(result: Mapping[str, Any]) -> str:
    """The report's text."""
    about = {k: v for k, v in result.items() if isinstance(v, str | int)}
    protocol = dict(result["protocol"])
    protocol["pairs_measured"] = ", ".join(f"{n} {s.replace('_', ' ')}" for s, n in protocol["pairs_measured"].items())
    facts = [f"- {name.replace('_', ' ')}: {value}" for name, value in (protocol | about).items()]
    missing = [name for name, figures in result["baselines"].items() if figures is None]
    own, head = _cell(result["estimator_error_deg"], 2), _cell(result["estimator_head_error_deg"], 2)
    parts = [
        "# Evaluation",
        "",
        *facts,
        "",
        f"The estimator's own error on the true images is {own} degrees (gaze) and {head} degrees (head): no gaze or "
        "head error below says more than that. Cells are mean [95 % interval over people].",
        "",
        "model: rendered. look: the model's eyes in the source picture itself, as photos are edited. copy: the source "
        "picture. warp: its eyes moved in 2D. Only model (and a teacher) can change the view.",
        *([f"Not run: baseline {', '.join(missing)} (no weights)."] if missing else []),
    ]
    titles = {"all": "All pairs", "same_view": "Same view", "cross_view": "Other view"}
    for subset, title in titles.items():
        parts += ["", f"## {title}", "", table(result, subset)]
    if jitter := result.get("temporal_jitter"):
        parts += [
            "",
            "## Evenness over time",
            "",
            "Mean second difference along an even sweep of the gaze: "
            f"{_cell(jitter['levels'], 3)} of 255 levels, {_cell(jitter['gaze_deg'], 3)} degrees a step squared.",
        ]
    parts += ["", "## Error over angles", "", "![gaze](error_over_gaze.png)", "![view](error_over_view.png)"]
    parts += ["", f"## The {WORST} worst gaze errors", "", "Source, prediction, truth.", "", "![worst](worst.png)", ""]
    return "\n".join(parts)


def over_angle(measured: Measured, angle: str) -> dict[str, Series]:
    """The gaze error of every method in bins of an angle ("gaze_deg" or "view_deg" of Measured.about)."""
    edges = _BINS[angle]
    bins = np.digitize(measured.about[angle], edges) - 1
    curves = {}
    for name, values in measured.methods.items():
        points = []
        for i in range(len(edges) - 1):
            rows = bins == i
            if rows.sum() >= _FEWEST:
                found = mean_interval(values["gaze_error_deg"][rows], measured.about["person"][rows])
                points.append((measured.about[angle][rows].mean(), found["mean"], found["low"], found["high"]))
        curves[name] = Series(*([list(c) for c in zip(*points, strict=True)] if points else [[]] * 4))
    return curves


def worst_cases(measured: Measured, pairs: PairSet, model: Predictor) -> Image.Image:
    """The pairs with the largest gaze errors of "model": source, prediction and truth."""
    errors = measured.methods["model"]["gaze_error_deg"]
    rows = np.argsort(-errors, kind="stable")[:WORST]
    tiles, captions = [], []
    for first in range(0, len(rows), CHUNK):
        chosen = rows[np.minimum(np.arange(first, first + CHUNK), len(rows) - 1)]
        batch = pairs.batch(chosen)
        mask = batch["target_face_mask"]
        made, truth = whiten(model(batch)["image"], mask), whiten(batch["target_image"], mask)
        for i, row in enumerate(chosen[: len(rows) - first]):
            tiles.append((batch["source_image"][i], made[i], truth[i]))
            view = "same view" if measured.about["same_view"][row] else "other view"
            captions.append(f"pair {row}, person {batch['person'][i]}, {view}: {errors[row]:.1f} degrees")
    return sheet(tiles, captions)


def _cell(value: Interval, digits: int) -> str:
    if value["mean"] is None:
        return "-"
    return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def _write_png(path: Path, image: Image.Image) -> None:
    content = io.BytesIO()
    image.save(content, "PNG")
    files.write_bytes(path, content.getvalue())
