"""Published figures, and what all tables share: rows of ours beside them, as Markdown.

Published: RTGaze (AAAI 2026), GazeNeRF (CVPR 2023), GazeGaussian (ICCV 2025), DiT-Gaze (2025), and the earlier methods
as the RTGaze paper quotes them. Their data, crops, estimator and face network differ from ours, so the columns are the
same by name only; every row of ours says which data it was measured on.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtgaze_jax import files
from rtgaze_jax.errors import UserError

MAIN_COLUMNS = ("gaze deg", "head deg", "FID", "PSNR", "LPIPS", "SSIM", "ID", "seconds per image")
MAIN = {
    "ST-ED (2D)": (16.217, 13.153, 115.020, 17.530, 0.300, 0.726, 24.347, None),
    "HeadNeRF": (12.117, 4.275, 69.487, 15.298, 0.294, 0.720, 46.126, 60.058),
    "GazeNeRF": (6.944, 3.470, 81.816, 15.453, 0.291, 0.733, 45.207, 60.060),
    "RTGaze": (9.047, 3.631, 38.346, 19.007, 0.262, 0.715, 60.708, 0.061),
    "GazeGaussian": (6.622, 2.128, 41.972, 18.734, 0.216, 0.823, 67.749, None),
    "DiT-Gaze": (6.353, 2.349, 38.319, 20.512, 0.187, 0.850, 71.724, None),
}
CROSS_COLUMNS = ("gaze deg", "head deg", "LPIPS", "ID")
CROSS = {
    "ColumbiaGaze": {
        "GazeNeRF": (9.464, 3.811, 0.352, 23.157),
        "RTGaze": (7.625, 3.326, 0.249, 61.765),
        "GazeGaussian": (7.415, 3.332, 0.273, 59.788),
    },
    "MPIIFaceGaze": {
        "GazeNeRF": (14.933, 7.118, 0.272, 30.981),
        "RTGaze": (9.409, 6.444, 0.251, 46.098),
        "GazeGaussian": (10.943, 5.685, 0.224, 41.505),
    },
}
ABLATION_COLUMNS = ("FID", "ID", "gaze deg", "head deg")
INJECTION = {"low": (67.298, 38.517, 18.973, 5.409), "high": (38.346, 60.708, 9.047, 3.631)}
LOSSES = {
    "R": (101.053, 47.251, 9.332, 4.208),
    "R+P": (54.682, 52.518, 10.911, 3.700),
    "R+P+D": (38.346, 60.708, 9.047, 3.631),
}
OURS = {  # a published column: the figures of ours that may stand in it, first one that was measured
    "gaze deg": ("gaze_error_deg",),
    "head deg": ("head_error_deg",),
    "FID": ("fid",),
    "PSNR": ("psnr",),
    "LPIPS": ("lpips",),
    "SSIM": ("ssim",),
    "ID": ("identity",),
    "frechet_lite0": ("frechet_lite0",),
    "perceptual_lite0": ("perceptual_lite0",),
    "PSNR face": ("psnr_face",),
    "PSNR eyes": ("psnr_eyes",),
    "gaze to label deg": ("gaze_error_label_deg",),
}
EXTRA = ("frechet_lite0", "perceptual_lite0", "PSNR face", "PSNR eyes", "gaze to label deg")
NOTE = (
    "Published rows: ETH-XGaze-trained, each paper's own crops, ResNet-50 estimator, ID = 100 x cosine of a "
    "MobileFaceNet, predictions unmasked. Our rows: the data named, our estimator, ID = 100 x cosine of dlib's ResNet "
    "(whose cosines are high for everyone: compare only among our rows), prediction and truth white outside the head. "
    "Cells of ours: mean [95 % interval over people]."
)


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that all tables have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="default: print only")
    return parser


def evaluated(data: str, weights: str | None, options: str = "", keep: Path | None = None) -> dict[str, Any]:
    """The result of `rtgaze evaluate` on a data set, kept as `keep` (default: DATA/evaluation.json).

    A path to such a result may stand in place of the data set.
    """
    if data.endswith(".json"):
        return read(Path(data))
    path = keep or Path(data) / "evaluation.json"
    command = [sys.executable, "-m", "rtgaze_jax.cli", "evaluate", *([weights] if weights else [])]
    done = subprocess.run([*command, "--data", data, "--json", str(path), *shlex.split(options)], check=False)
    if done.returncode:
        raise UserError(f"'rtgaze evaluate --data {data}' failed with exit code {done.returncode}: see above")
    return read(path)


def read(path: Path) -> dict[str, Any]:
    """A result that `rtgaze evaluate --json` wrote. UserError where there is none."""
    if not path.is_file():
        raise UserError(f"no evaluation at {path}: write it with 'rtgaze evaluate ... --json {path}'")
    return json.loads(path.read_text())


def cell(figures: Mapping[str, Any], column: str) -> str:
    """Our figure for a column, or "-" where it was not measured."""
    found = next((figures[name] for name in OURS.get(column, ()) if name in figures), None)
    if found is None or found["mean"] is None:
        return "-"
    scale = 100 if column == "ID" else 1
    mean, low, high = (scale * found[k] for k in ("mean", "low", "high"))
    digits = 3 if mean < 1 else 2
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def ours(result: Mapping[str, Any], columns: Sequence[str], name: str = "ours") -> dict[str, list[str]]:
    """Our rows by name: the model and the baselines that were run, with the data's name."""
    data = result["protocol"]["data"]
    tables = {name: result} | {f"baseline: {n}": t for n, t in result["baselines"].items() if t is not None}
    return {f"**{n}** ({data})": [cell(figures, c) for c in columns] for n, figures in tables.items()}


def published(rows: Mapping[str, Sequence[float | None]], width: int) -> dict[str, list[str]]:
    """Published rows as text, filled up to `width` columns."""
    return {
        n: [*("-" if v is None else f"{v:g}" for v in values), *["-"] * (width - len(values))]
        for n, values in rows.items()
    }


def markdown(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]], *notes: str) -> str:
    """A table with a title and notes."""
    lines = [f"# {title}", "", "| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join([*lines, "", *(f"{note}\n" for note in notes)])


def finish(text: str, out: Path | None) -> None:
    """Prints the Markdown, and writes it where asked."""
    print(text)
    if out is not None:
        files.write_bytes(out, text.encode())


def run(main: Any) -> None:
    """Runs a table's main(); errors are one line."""
    try:
        main()
    except UserError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
