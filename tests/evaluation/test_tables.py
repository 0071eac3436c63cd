"""The paper's tables with figures of ours beside the published ones."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "tables"))

import ablations
import cross_dataset
import main_table

from rtgaze_jax.errors import UserError


def figures(value):
    names = ("gaze_error_deg", "head_error_deg", "psnr", "ssim", "identity", "frechet_lite0", "estimator_error_deg")
    return {name: {"mean": value, "low": value - 0.125, "high": value + 0.125} for name in names}


@pytest.fixture
def result(tmp_path):
    path = tmp_path / "evaluation.json"
    protocol = {"data": "gaze_heads", "pairs_sha256": "0123456789abcdef"}
    copied = figures(31.5) | {"psnr": {"mean": None, "low": None, "high": None}}
    path.write_text(json.dumps({"protocol": protocol, **figures(5.25), "baselines": {"copy": copied, "warp": None}}))
    return path


def rows(text):
    return {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
        for line in text.splitlines()
        if "|" in line
    }


def call(module, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["table", *map(str, arguments)])
    module.main()
    return capsys.readouterr().out


def test_main_table(result, monkeypatch, capsys, tmp_path):
    text = call(main_table, monkeypatch, capsys, result, "--out", tmp_path / "main.md")
    found = rows(text)
    assert found["RTGaze"][:2] == ["9.047", "3.631"]
    columns = found[""]
    mine, copied = found["**ours** (gaze_heads)"], found["**baseline: copy** (gaze_heads)"]
    assert mine[columns.index("gaze deg")] == "5.25 [5.12, 5.38]"
    assert mine[columns.index("ID")] == "525.00 [512.50, 537.50]"
    assert mine[columns.index("FID")] == "-"  # never the Frechet distance of other features
    assert copied[columns.index("PSNR")] == "-"
    assert "5.25 degrees" in text
    assert (tmp_path / "main.md").read_text().strip() == text.strip()


def test_ablations_read_the_sweeps_folders(result, monkeypatch, capsys):
    for name in ("low", "high"):
        folder = result.parent / name
        folder.mkdir()
        (folder / "evaluation.json").write_bytes(result.read_bytes())
    found = rows(call(ablations, monkeypatch, capsys, "injection", result.parent))
    assert found["paper: low"][:4] == ["67.298", "38.517", "18.973", "5.409"]
    assert found["**ours: high** (gaze_heads)"][2] == "5.25 [5.12, 5.38]"
    with pytest.raises(UserError, match="--data"):
        call(ablations, monkeypatch, capsys, "losses", result.parent)


def test_cross_dataset_keeps_sets_apart(result, monkeypatch, capsys):
    text = call(cross_dataset, monkeypatch, capsys, result)
    assert "# Cross-dataset: ColumbiaGaze (published only" in text
    ours = text.split("# Cross-dataset: gaze_heads")[1]
    assert "**ours** (gaze_heads)" in ours
    assert "RTGaze" not in rows(ours)
