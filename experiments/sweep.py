"""Runs one configuration with many values of its keys, and makes one table of the results.

  python experiments/sweep.py experiments/sweeps/injection.py --workdir runs/injection [--parallel 2] [--set KEY=VALUE]

A sweep file defines `get_sweep() -> Sweep`. Every run gets WORKDIR/NAME and is an ordinary `rtgaze train`: kill the
sweep whenever you like, the same command goes on where each run was, and leaves finished ones alone. `--set` gives keys
to all runs (a smaller total_steps, another data.dir). With `evaluate`, each run's weights are then measured by that
command. The table is WORKDIR/results.jsonl and results.md, rewritten after every run. Exit code 1 if any run failed.
"""

import argparse
import concurrent.futures
import dataclasses
import importlib.util
import itertools
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtgaze_jax import files
from rtgaze_jax.errors import FailureError, UserError

TRAIN = (sys.executable, "-m", "rtgaze_jax.training.main")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What to run. `runs`: name -> {configuration key: value}; `columns`: metrics in the table, in order, those of an
    evaluation as "same_view.psnr_face".

    `evaluate`: a command whose "{weights}" and "{json}" are replaced; the JSON object it writes joins the metrics.
    """

    config: str
    runs: Mapping[str, Mapping[str, Any]]
    columns: Sequence[str] = ("loss",)
    evaluate: str = ""
    command: Sequence[str] = TRAIN


def grid(**axes: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """All combinations as named runs; "__" in an axis's name stands for a dot: optim__lr=(1e-4, 1e-3)."""
    keys = [name.replace("__", ".") for name in axes]
    combinations = (dict(zip(keys, values, strict=True)) for values in itertools.product(*axes.values()))
    return {"_".join(f"{k.split('.')[-1]}={v}" for k, v in run.items()): run for run in combinations}


def load(path: Path) -> Sweep:
    """The sweep that a file defines."""
    spec = importlib.util.spec_from_file_location("sweep_file", path)
    if spec is None or spec.loader is None or not path.exists():
        raise UserError(f"no sweep file {path}; see experiments/sweeps/")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("sweep", sys.modules[__name__])  # the file says `from sweep import Sweep`
    spec.loader.exec_module(module)
    return module.get_sweep()


def finished(workdir: Path) -> dict[str, Any] | None:
    """A run's result if it has done all its steps."""
    path = workdir / "result.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    return result if result.get("reason") == "finished" else None


def one(sweep: Sweep, name: str, common: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Runs, or finishes, one entry of the table: its keys, and its metrics or its error."""
    workdir = root / name
    workdir.mkdir(parents=True, exist_ok=True)
    keys = {**common, **sweep.runs[name]}
    row: dict[str, Any] = {"name": name, "keys": keys}
    with open(workdir / "log.txt", "ab") as log:
        if finished(workdir) is None:
            flags = [
                f"--config={sweep.config}",
                f"--workdir={workdir}",
                *(f"--config.{k}={v}" for k, v in keys.items()),
            ]
            subprocess.run([*sweep.command, *flags], stdout=log, stderr=log, check=False)
        result = finished(workdir)
        if result is None:
            last = (workdir / "log.txt").read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
            return {**row, "error": last[0][:200]}
        row |= {"step": result["step"], **result["metrics"]}
        scores = workdir / "evaluation.json"
        if sweep.evaluate and not scores.exists():
            places = {"weights": workdir / "weights.safetensors", "json": scores}
            subprocess.run(shlex.split(sweep.evaluate.format(**places)), stdout=log, stderr=log, check=False)
        if sweep.evaluate:
            row |= json.loads(scores.read_text()) if scores.exists() else {"error": "the evaluation failed"}
    return row


def write_table(sweep: Sweep, rows: Mapping[str, dict[str, Any]], root: Path) -> str:
    """Writes both tables with the rows known so far; returns the Markdown."""
    known = [rows[name] for name in sweep.runs if name in rows]
    files.write_bytes(root / "results.jsonl", "".join(json.dumps(row) + "\n" for row in known).encode())

    def cell(row: Mapping[str, Any], column: str) -> str:
        value: Any = row
        for key in column.split("."):
            value = value.get(key, "") if isinstance(value, Mapping) else ""
        if isinstance(value, Mapping):  # with its interval
            value = value["mean"]
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    columns = ["name", "step", *sweep.columns, *(["error"] if any("error" in row for row in known) else [])]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row, column) for column in columns) + " |" for row in known]
    text = "\n".join(lines) + "\n"
    files.write_bytes(root / "results.md", text.encode())
    return text


def run(
    sweep: Sweep, root: Path, *, workers: int = 1, common: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Runs everything that is not finished; returns the rows by name."""
    root.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = {}
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(one, sweep, name, common or {}, root): name for name in sweep.runs}
        for future in concurrent.futures.as_completed(futures):
            name = futures[future]
            rows[name] = future.result()
            write_table(sweep, rows, root)
            print(f"{len(rows)}/{len(sweep.runs)} {name}: {rows[name].get('error', 'done')}", flush=True)
    return rows


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="runs at a time (give each its device)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="for all runs")
    parser.add_argument("--evaluate", metavar="COMMAND", help="for each run's {weights}; it writes {json}")
    args = parser.parse_args()
    try:
        sweep = load(args.sweep)
        if args.evaluate:
            sweep = dataclasses.replace(sweep, evaluate=args.evaluate)
        rows = run(sweep, args.workdir, workers=args.parallel, common=dict(pair.split("=", 1) for pair in args.set))
    except (UserError, FailureError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    print(write_table(sweep, rows, args.workdir), end="")
    return 1 if any("error" in row for row in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
