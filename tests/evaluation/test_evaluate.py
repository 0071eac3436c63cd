"""The command, from a folder of records to JSON and report."""

import dataclasses
import json
import os

import analytic_head
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax import cli
from rtgaze_jax.data.datasets import gaze_heads
from rtgaze_jax.evaluation import plots
from rtgaze_jax.models import config as sizes
from rtgaze_jax.models import estimator
from rtgaze_jax.models.layers import initialize
from rtgaze_jax.models.rtgaze import RTGaze
from rtgaze_jax.weights import io

KEYS = {
    *("gaze_error_deg", "gaze_error_label_deg", "head_error_deg", "estimator_error_deg", "psnr_face", "psnr_eyes"),
    *("ssim", "identity", "perceptual_lite0", "frechet_lite0", "consistency_3d"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of spheres, a tiny student and a tiny estimator."""
    path = tmp_path_factory.mktemp("evaluation")
    settings = gaze_heads.Settings("test", people=3, gazes=3, views=2, resolution=64, seed=0)
    gaze_heads.generate(path / "data", settings, workers=1, make_renderer=analytic_head.Camera)
    config = sizes.preset("tiny")
    image, camera = jnp.zeros((1, 64, 64, 3)), jnp.ones((1, 25))
    student = initialize(RTGaze(config), jax.random.key(0), image, jnp.zeros((1, 2)), camera)
    io.save(path / "student.safetensors", student, {"kind": "student", "config": sizes.to_dict(config)})
    judge = dataclasses.replace(estimator.PRESETS["tiny"], widths=(8,), depths=(1,))
    params = estimator.init_estimator(judge, jax.random.key(0))
    header = {"kind": "estimator", "config": dataclasses.asdict(judge)}
    io.save(path / "estimator.safetensors", params, header)
    return path


@pytest.fixture
def evaluate(folder, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # the command adds to it

    def command(*arguments):
        weights = [str(folder / "student.safetensors"), "--estimator", str(folder / "estimator.safetensors")]
        return cli.main(["evaluate", *weights, "--data", str(folder / "data"), "--pairs", "7", *map(str, arguments)])

    return command


def test_the_same_command_writes_the_same_bytes_and_a_report(evaluate, folder, tmp_path, capsys):
    for name in ("a", "b"):
        assert evaluate("--json", tmp_path / f"{name}.json", "--report", tmp_path / name) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    result = json.loads((tmp_path / "a.json").read_text())
    assert result.keys() >= KEYS
    for table in (result, result["same_view"], result["cross_view"], result["baselines"]["copy"]):
        assert all(table[key].keys() == {"mean", "low", "high"} for key in KEYS)
    for key in KEYS:
        found = result[key]
        assert found["low"] <= found["mean"] <= found["high"], key
    assert result["protocol"]["pairs_measured"] == {"all": 7, "same_view": 4, "cross_view": 3}
    assert len(result["protocol"]["pairs_sha256"]) == 64
    assert result["weights_sha256"] == io.read_header(folder / "student.safetensors")["sha256"]
    text = (tmp_path / "a" / "report.md").read_text()
    assert f"{result['estimator_error_deg']['mean']:.2f}" in text
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"report.md", "result.json", "worst.png", "error_over_gaze.png", "error_over_view.png"}
    assert "| gaze, deg (lower) |" in capsys.readouterr().out


def test_bad_arguments_are_told_in_one_line(evaluate, tmp_path, capsys):
    assert evaluate("--pairs", "0") == 2
    assert "--pairs must be at least 1" in capsys.readouterr().err
    assert cli.main(["evaluate", str(tmp_path / "none.safetensors"), "--data", "x"]) == 2
    assert "no weights at" in capsys.readouterr().err


def test_ticks_are_round_and_reach_the_largest_value():
    for largest in (0.003, 0.9, 1, 7.3, 23, 40, 99, 1234):
        found = plots.ticks(largest)
        assert found[0] == 0
        assert found[-1] >= largest
        assert 3 <= len(found) <= 9
        step = found[1] / 10 ** np.floor(np.log10(found[1]))
        assert any(abs(step - nice) < 1e-9 for nice in (1, 2, 5, 10))


def test_a_chart_shows_its_curve_where_it_is():
    curve = plots.Series([0.0, 10.0], [10.0, 10.0], [10.0, 10.0], [10.0, 10.0])
    picture = np.asarray(plots.line_chart({"flat": curve}, "title", "x", "y")).astype(int)
    blue = (np.abs(picture - [31, 95, 168]).sum(-1) < 40)[:, 100:560]
    rows = np.nonzero(blue)[0]
    assert abs(rows.mean() - 66) < 2  # 10 is the top of the axis
    assert blue.any(0).all()
