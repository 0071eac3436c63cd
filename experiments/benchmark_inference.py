"""Speed of presets and resolutions side by side: one table, and every figure as JSON.

  python experiments/benchmark_inference.py --out results/                          small and paper at 512
  python experiments/benchmark_inference.py --out results/ --presets small --resolutions 256 512 --limit 240

Each row is a process of its own (`rtgaze benchmark`), so that memory and compilation are its own and a row that fails
takes no other with it. The table (inference.md) and the figures (inference.json) are written anew after each row, and
a row that was stopped keeps what it had measured.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rtgaze_jax.files import write_bytes
from rtgaze_jax.inference.benchmark_report import comparison


def measure(command: list[str], result: Path, limit: float | None) -> dict[str, Any]:
    """Runs one row, its output shown as it comes; the figures it has written, and `failed` if it did not end well."""
    result.unlink(missing_ok=True)
    process = subprocess.Popen(command, start_new_session=True)  # a group of its own: it starts processes as well
    failed = None
    try:
        if process.wait(limit):
            failed = f"exit code {process.returncode}"
    except subprocess.TimeoutExpired:
        failed = f"stopped after {limit:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    report = json.loads(result.read_text()) if result.exists() else {}
    return report | ({"failed": failed} if failed else {})


def main() -> int:
    """The command line. Returns 1 if any row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--presets", nargs="+", default=["small", "paper"])
    parser.add_argument("--resolutions", type=int, nargs="+", default=[512])
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="for all rows together")
    args, options = parser.parse_known_args()  # what is left is for `rtgaze benchmark`
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # rows start processes that need memory as well
    end = time.monotonic() + args.limit if args.limit else None
    reports: list[dict[str, Any]] = []
    rows = [(preset, resolution) for preset in args.presets for resolution in args.resolutions]
    for done, (preset, resolution) in enumerate(rows):
        result = args.out / f"{preset}_{resolution}.json"
        command = [sys.executable, "-m", "rtgaze_jax.cli", "benchmark", "--preset", preset]
        command += ["--resolution", str(resolution), "--json", str(result), *options]
        share = max(1.0, (end - time.monotonic()) / (len(rows) - done)) if end else None
        report = {"preset": preset, "resolution": resolution} | measure(command, result, share)
        reports.append(report)
        print(comparison(reports).splitlines()[-1], report.get("failed", ""), flush=True)
        title = f"# Inference: {reports[0].get('device', 'no device')}, jax {reports[0].get('jax_version', '?')}\n\n"
        failures = "".join(f"\n{r['preset']} at {r['resolution']}: {r['failed']}\n" for r in reports if "failed" in r)
        write_bytes(args.out / "inference.md", (title + comparison(reports) + failures).encode())
        write_bytes(args.out / "inference.json", (json.dumps(reports, indent=1) + "\n").encode())
    return int(any("failed" in report for report in reports))


if __name__ == "__main__":
    sys.exit(main())
