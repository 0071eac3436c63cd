"""Runs in processes of their own: killed ones, and two that train together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rtgaze_jax.training.checkpoint import describe_workdir, load_host

ROOT, TOY = Path(__file__).parents[2], Path(__file__).parent / "toy.py"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def command(workdir, cache, *options):
    return [sys.executable, str(TOY), f"--config={TOY}", f"--workdir={workdir}", "--cache", str(cache), *options]


def start(*args, devices=1, **options):
    environment = {**os.environ, "TOY_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command(*args), env=environment, **options)


def test_kills_at_random_moments_change_no_bit(tmp_path, cache):
    """The same as experiments/kill_test.py --kills 20, in small."""
    program = [sys.executable, str(TOY), f"--config={TOY}", "--cache", str(cache), "--delay", "0.02"]
    script = [sys.executable, str(ROOT / "experiments" / "kill_test.py"), "--kills", "2", "--workdir", str(tmp_path)]
    options = [
        "--json",
        str(tmp_path / "out.json"),
        "--command",
        " ".join([*program, "--config.checkpoint.every_steps=3"]),
    ]
    done = subprocess.run([*script, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["equal"]
    assert len(found["kills"]) == 2
    assert found["found"]["step"] == 50


def test_sigterm_ends_a_process_with_zero_and_a_checkpoint(tmp_path, cache):
    process = start(tmp_path, cache, "--delay", "0.05", "--config.total_steps=5000", stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "SIGTERM: saving a checkpoint" in errors
    assert describe_workdir(tmp_path)["step"] > 0


def two(workdir, cache, *options, devices=2):
    """Two processes of one run; returns them running."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    together = [f"--config.parallel.coordinator=localhost:{port}", "--config.parallel.processes=2", *options]
    return [
        start(workdir, cache, *together, f"--config.parallel.process_id={i}", devices=devices, stderr=subprocess.PIPE)
        for i in range(2)
    ]


def finish(processes):
    """Waits for all of them and expects success."""
    errors = [process.communicate(timeout=120)[1].decode()[-2000:] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_two_processes_train_as_one(tmp_path, cache, mode):
    sgd = ("--config.optim.kind=sgd", "--config.total_steps=30", f"--config.parallel.mode={mode}")
    alone = start(tmp_path / "one", cache, *sgd)
    assert alone.wait() == 0
    finish(two(tmp_path / "two", cache, *sgd))
    one, both = (load_host(tmp_path / name)[0]["params"]["model"] for name in ("one", "two"))
    np.testing.assert_allclose(one["kernel"], both["kernel"], atol=1e-5)
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30]


def test_a_signal_to_one_of_two_processes_stops_both_and_one_alone_goes_on(tmp_path, cache):
    pair = two(tmp_path, cache, "--delay", "0.15", "--config.checkpoint.every_steps=0")
    while not (tmp_path / "metrics.jsonl").exists() or not (tmp_path / "metrics.jsonl").read_text():
        assert all(process.poll() is None for process in pair), pair[0].communicate()[1].decode()[-2000:]
        time.sleep(0.1)
    pair[1].send_signal(signal.SIGTERM)
    finish(pair)
    stopped = describe_workdir(tmp_path)
    assert 10 <= stopped["step"] < 50
    assert stopped["position"] == {"batches": stopped["step"]}
    alone = start(tmp_path, cache, devices=1)
    assert alone.wait() == 0
    assert describe_workdir(tmp_path)["step"] == 50
