"""experiments/sweep.py: a sweep that was killed goes on and ends with the full table; so do single runs."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOY = Path(__file__).parent / "toy.py"


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sweep():
    return load_script("sweep")


FILE = f"""
from sweep import Sweep, grid

def get_sweep():
    return Sweep(config={str(TOY)!r}, runs=grid(optim__lr=(0.01, 0.05), seed=(0, 1)), columns=("loss", "worst"),
                 command=({sys.executable!r}, {str(TOY)!r}, "--delay", "0.02", "--cache", "CACHE"))
"""


def test_four_runs_killed_and_resumed_give_the_full_table(tmp_path, sweep):
    (tmp_path / "file.py").write_text(FILE.replace("CACHE", str(tmp_path / "cache")))
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "experiments" / "sweep.py"), str(tmp_path / "file.py"), f"--workdir={out}"]
    command += ["--parallel", "2", "--set", "total_steps=40", "checkpoint.every_steps=5"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    while not [path for path in out.glob("*/checkpoints/*") if path.name.isdigit()]:
        assert process.poll() is None, (out / "results.md").read_text()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "results.md").exists()

    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == [f"lr={lr}_seed={seed}" for lr in (0.01, 0.05) for seed in (0, 1)]
    assert all(row["step"] == 40 and row["loss"] > 0 and row["keys"]["total_steps"] == "40" for row in rows)
    assert len({row["loss"] for row in rows}) == 4
    table = (out / "results.md").read_text()
    assert done.stdout.endswith(table)
    assert len(table.splitlines()) == 6
    assert any("continued from" in path.read_text() for path in out.glob("*/log.txt"))

    before = {path: path.stat().st_mtime for path in out.glob("*/result.json")}
    subprocess.run(command, capture_output=True, check=True)  # nothing is left to do
    assert before == {path: path.stat().st_mtime for path in out.glob("*/result.json")}


def test_a_failing_run_is_a_row_with_its_error(tmp_path, sweep):
    script = tmp_path / "fail.py"
    script.write_text("import sys; sys.exit('rtgaze: no space left')")
    plan = sweep.Sweep(config="x", runs={"a": {}, "b": {}}, command=(sys.executable, str(script)))
    rows = sweep.run(plan, tmp_path / "out")
    assert rows["b"]["error"] == "rtgaze: no space left"
    assert "no space left" in (tmp_path / "out" / "results.md").read_text()


def test_an_evaluation_joins_the_row(tmp_path, sweep):
    script = tmp_path / "train.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "where = pathlib.Path(next(a for a in sys.argv if a.startswith('--workdir=')).split('=')[1])\n"
        "(where / 'result.json').write_text(json.dumps({'reason': 'finished', 'step': 3, 'metrics': {'loss': 0.5}}))\n"
    )
    plan = sweep.Sweep(
        config="x",
        runs={"a": {}},
        columns=("loss", "gaze", "other.eyes", "other.nose"),
        evaluate=f"{sys.executable} {tmp_path / 'measure.py'} {{weights}} {{json}}",
        command=(sys.executable, str(script)),
    )
    found = {"gaze": {"mean": 5.25, "low": 1.0}, "other": {"eyes": {"mean": 7.5}}}
    (tmp_path / "measure.py").write_text(f"import json, sys; json.dump({found}, open(sys.argv[2], 'w'))")
    assert sweep.run(plan, tmp_path / "out")["a"] == {"name": "a", "keys": {}, "step": 3, "loss": 0.5, **found}
    assert "| a | 3 | 0.5 | 5.25 | 7.5 |  |" in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.parametrize(("name", "count"), [("injection", 2), ("losses", 3), ("levers", 8)])
def test_the_sweeps_name_keys_that_exist(sweep, name, count, monkeypatch):
    from rtgaze_jax.training import main

    monkeypatch.chdir(ROOT)
    plan = sweep.load(ROOT / "experiments" / "sweeps" / f"{name}.py")
    assert len(plan.runs) == count
    for keys in plan.runs.values():
        flags = [f"--config.{k}={v}" for k, v in keys.items()]
        config, _, _ = main.parse([f"--config={plan.config}", "--workdir=x", *flags])
        assert name == "levers" or not config.model.eyes.enabled
