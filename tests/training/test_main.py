"""`rtgaze train` as a command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_sources import SETTINGS
from toy import TOY

from rtgaze_jax import cli
from rtgaze_jax.data.datasets import gaze_heads
from rtgaze_jax.training import main

ROOT = Path(__file__).parents[2]


def test_overrides_are_typed_and_the_rest_is_split():
    config, workdir, allowed = main.parse(
        [
            f"--config={TOY}",
            "--workdir=a/b",
            "--allow_change=optim.lr,seed",
            "--config.optim.lr=1e-3",
            "--config.seed=4",
        ]
    )
    assert (config.optim.lr, config.seed) == (1e-3, 4)
    assert workdir == Path("a/b")
    assert allowed == ["optim.lr", "seed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config.optim.rate=1e-3"], "rate"),
        (["--config.batch_size=many"], "many"),
        (["stray"], "unexpected argument 'stray'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(options, message, capsys, tmp_path):
    assert cli.main(["train", f"--config={TOY}", f"--workdir={tmp_path}", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_needs_its_two_arguments(capsys):
    assert cli.main(["train", "--workdir=x"]) == 2
    assert "--config" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["rtgaze", "portrait"])
@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
def test_configurations_open_with_their_command_and_build_their_parts(name, preset, monkeypatch):
    monkeypatch.chdir(ROOT)
    from rtgaze_jax.models.config import from_dict
    from rtgaze_jax.training import optim
    from rtgaze_jax.training.terms import LossWeights

    config, _, _ = main.parse([f"--config=configs/{name}.py:{preset}", "--workdir=x"])
    assert from_dict(config.model).preset == preset
    assert LossWeights(**config.losses).image > 0
    optim.make_optimizer(config.optim)
    text = (ROOT / "configs" / f"{name}.py").read_text()
    assert f"rtgaze train --config configs/{name}.py" in text
    assert "| cost | expect |" in text


def test_the_tiny_teacher_trains_through_the_command(tmp_path):
    """Everything real but the renderer; the teacher is what compiles fastest."""
    import analytic_head

    data = tmp_path / "data"
    gaze_heads.generate(data, SETTINGS._replace(resolution=64), workers=1, make_renderer=analytic_head.Camera)
    options = {
        "data.source": "records", "data.dir": data, "batch_size": 2, "total_steps": 3, "log.every": 1,
        "log.images_every": 3, "log.image_rows": 1, "optim.warmup": 0, "losses.perceptual": 0.0,
    }  # fmt: skip
    command = [sys.executable, "-m", "rtgaze_jax.training.main", "--config=configs/portrait.py:tiny"]
    command += [f"--workdir={tmp_path / 'run'}", *(f"--config.{k}={v}" for k, v in options.items())]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[-1]["skipped"] == 0
    assert list((tmp_path / "run" / "images").glob("0000003_*.png"))
    assert (tmp_path / "run" / "weights.safetensors").stat().st_size > 100_000
