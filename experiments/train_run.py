"""One training run from start to record: trains for minutes, then packs weights, curve and circumstances in a folder.

  python experiments/train_run.py small --config configs/rtgaze.py:small --minutes 9 --workdir runs/small --out OUT \\
      [--commit HASH] [--evaluate --estimator FILE] [--config.KEY=VALUE ...]

Runs are short and continued many times: the same workdir goes on bit by bit; on another machine begin with
--config.init_from=WEIGHTS. OUT gets NAME.json (command, commit, hardware, curve, evaluation), NAME.log, and
the weights in parts of at most 15 MiB (join with `cat NAME.safetensors.part* > NAME.safetensors`).
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

PART = 15 << 20
CURVE_POINTS = 200


def hardware() -> dict[str, object]:
    """The GPUs as the driver names them, and the host."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        gpus = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    except (OSError, subprocess.CalledProcessError):
        gpus = []
    return {"gpus": gpus, "machine": platform.machine(), "python": platform.python_version()}


def curve(path: Path) -> list[dict[str, float]]:
    """The metrics of the run, thinned to a few hundred rows."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    return rows[:: max(1, len(rows) // CURVE_POINTS)]


def split(path: Path, out: Path) -> list[str]:
    """Copies a file in parts; returns their names."""
    content, names = path.read_bytes(), []
    for i in range(0, len(content), PART):
        names.append(f"{out.name}.part{i // PART}")
        (out.parent / names[-1]).write_bytes(content[i : i + PART])
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--config", required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--evaluate", action="store_true", help="on unseen synthetic people, with --estimator")
    parser.add_argument("--estimator", type=Path)
    args, overrides = parser.parse_known_args()
    args.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "rtgaze_jax.cli", "train", "--config", args.config, "--workdir", str(args.workdir)]
    command += [f"--config.max_minutes={args.minutes}", *overrides]
    began = time.time()
    with open(args.out / f"{args.name}.log", "w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        for line in process.stdout:
            log.write(line)
            log.flush()
            print(f"[{args.name}] {line}", end="", flush=True)
        code = process.wait()
    record = {
        "name": args.name,
        "command": " ".join(["rtgaze", *command[3:]]),
        "commit": args.commit,
        "seconds": round(time.time() - began, 1),
        "exit_code": code,
        "hardware": hardware(),
        "curve": curve(args.workdir / "metrics.jsonl"),
    }
    for part in ("config", "result"):
        path = args.workdir / f"{part}.json"
        record[part] = json.loads(path.read_text()) if path.exists() else None
    weights = args.workdir / "weights.safetensors"
    if weights.exists():
        record["weights"] = split(weights, args.out / f"{args.name}.safetensors")
    target = args.out / f"{args.name}.json"
    target.write_text(json.dumps(record, indent=1))
    if args.evaluate and weights.exists():
        found = args.out / f"{args.name}_evaluation.json"
        script = Path(__file__).with_name("evaluate_run.py")
        extra = ["--estimator", str(args.estimator)] if args.estimator else []
        subprocess.run([sys.executable, str(script), str(weights), "--json", str(found), *extra], check=False)
        if found.exists():
            record["evaluation"] = json.loads(found.read_text())
            target.write_text(json.dumps(record, indent=1))
    return code


if __name__ == "__main__":
    sys.exit(main())
