"""One metric of several training runs over the minutes of their steps (compilation and start not counted), as a chart.

  python experiments/plot_curves.py loss/depth --scale 370 --label "depth, mm" --out curves.png \\
      "head frame=experiments/results/A.json" "source frame=experiments/results/B.json,experiments/results/C.json"

Runs are records of experiments/train_run.py, NAME=FILE[,FILE...]; a second file goes on where the first ended.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from rtgaze_jax.evaluation.plots import Series, line_chart


def curve(paths: list[str], metric: str) -> tuple[list[float], list[float]]:
    """Minutes and values of one run."""
    minutes, values, past = [], [], 0.0
    for path in paths:
        record = json.loads(Path(path).read_text())
        before, batch = 0, record["config"]["batch_size"]
        for row in record["curve"]:
            past += (row["step"] - before) * batch / row["samples_per_second"] / 60
            before = row["step"]
            minutes.append(past)
            values.append(row[metric])
    return minutes, values


def smooth(values: list[float], width: int = 3) -> list[float]:
    """Means of neighbours: the metrics are of random training batches."""
    padded = np.pad(values, width, mode="edge")
    return [float(padded[i : i + 2 * width + 1].mean()) for i in range(len(values))]


def main() -> None:
    """Draws the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metric")
    parser.add_argument("runs", nargs="+", metavar="NAME=FILE[,FILE]")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--label", help="of the values (default: the metric's name)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    series = {}
    for run in args.runs:
        name, _, files = run.partition("=")
        minutes, values = curve(files.split(","), args.metric)
        level = [args.scale * v for v in smooth(values)]
        series[name] = Series(minutes, level, level, level)
    line_chart(series, "Training", "minutes of steps on one GPU", args.label or args.metric).save(args.out)


if __name__ == "__main__":
    main()
