"""Kills a run with -9 at random moments, resumes it each time, and compares the end with an undisturbed run's.

  python experiments/kill_test.py --kills 20 --workdir runs/kill_test  # the tiny student on records of synthetic heads
  python experiments/kill_test.py --workdir runs/kill_test \
      --command "python tests/training/toy.py --config=tests/training/toy.py --delay 0.05"

--command is the program to run; `--workdir DIR` is appended. It must end by itself. Moments are drawn from the whole
life of a process (start, compilation, steps, checkpoints), after an undisturbed run has shown how long that is. Prints
one line per kill; exit code 0 if both ends have the same SHA-256 (parameters, optimizer, keys, loader position).
"""

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# From records: batches of a stream depend on timing, so no two such runs end in the same bits (training/sources.py).
DATA = f"{sys.executable} -m rtgaze_jax.cli data heads --people 4 --gazes 3 --views 2 --resolution 64 --workers 1 --out"
TINY = (
    f"{sys.executable} -m rtgaze_jax.training.main --config configs/rtgaze.py:tiny --config.total_steps=40 "
    "--config.checkpoint.every_steps=4 --config.data.source=records"
)


def launch(command: list[str], log: Path) -> subprocess.Popen:
    """Starts the program in its own process group, so that its workers die with it."""
    with open(log, "ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to the process and everything it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def describe(workdir: Path) -> dict:
    """Step, digest and position of the newest checkpoint."""
    from rtgaze_jax.training.checkpoint import describe_workdir

    return describe_workdir(workdir)


def main() -> int:
    """Returns 0 if the killed run ended in the same bits as the undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", help="default: the tiny student on records of four people, drawn first")
    parser.add_argument("--workdir", type=Path, required=True, help="both runs go below; emptied first")
    parser.add_argument("--json", type=Path, help="write the result there")
    args = parser.parse_args()

    shutil.rmtree(args.workdir, ignore_errors=True)
    args.workdir.mkdir(parents=True)
    log, command = args.workdir / "log.txt", shlex.split(args.command or TINY)
    if args.command is None:
        data, cache = args.workdir / "data", args.workdir / "cache"
        if launch([*shlex.split(DATA), str(data)], log).wait():
            print(f"no data could be drawn; see {log}", file=sys.stderr)
            return 1
        command += [f"--config.data.dir={data}", f"--config.compile_cache={cache}"]
    began = time.monotonic()
    if launch([*command, f"--workdir={args.workdir / 'undisturbed'}"], log).wait():
        print(f"the undisturbed run failed; see {log}", file=sys.stderr)
        return 1
    life = time.monotonic() - began
    expected = describe(args.workdir / "undisturbed")
    print(f"undisturbed: {life:.1f} s, step {expected['step']}, {expected['sha256']}", flush=True)

    draw, killed, early, target = random.Random(args.seed), [], 0, args.workdir / "killed"
    while len(killed) < args.kills:
        process = launch([*command, f"--workdir={target}"], log)
        moment = draw.uniform(0.1, 1.0) * life
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            kill(process)
            steps = sorted(int(p.name) for p in (target / "checkpoints").glob("*") if p.name.isdigit())
            killed.append(round(moment, 2))
            print(f"kill {len(killed)} after {moment:.2f} s; checkpoints {steps}", flush=True)
            continue
        if process.returncode:
            print(f"a resumed run failed; see {log}", file=sys.stderr)
            return 1
        early += 1  # it reached its end before the kill: compare, then start a new life to go on killing
        if describe(target)["sha256"] != expected["sha256"]:
            break
        shutil.rmtree(target)
    if launch([*command, f"--workdir={target}"], log).wait():
        print(f"the last resume failed; see {log}", file=sys.stderr)
        return 1
    found = describe(target)
    same = found["sha256"] == expected["sha256"]
    verdict = "equal" if same else "DIFFERENT"
    print(f"{len(killed)} kills in {early + 1} lives: step {found['step']}, {found['sha256']}: {verdict}")
    if args.json:
        record = {"kills": killed, "lives": early + 1, "equal": same, "expected": expected, "found": found}
        args.json.write_text(json.dumps(record, indent=1))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
