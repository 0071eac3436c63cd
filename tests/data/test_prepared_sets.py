"""What prepared data sets share: resuming, pairs with holes, batches, sheets, builders."""

from pathlib import Path

import analytic_head
import numpy as np
import pytest
from killing import kill_when_stopped
from test_mpii_face_gaze import write_raw

from rtgaze_jax.data import check, index, pairs, pipeline, record, sheet, storage
from rtgaze_jax.data.datasets import columbia_gaze, eth_xgaze, folder, gaze_heads, mpii_face_gaze, prepare
from rtgaze_jax.errors import UserError

OPTIONS = prepare.Options("train", people=(2, 5, 7), resolution=32)


def contents(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in Path(directory).rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three people, one of whose pictures is damaged."""
    root = tmp_path_factory.mktemp("mpii")
    write_raw(root, 5)
    for name in ("p05", "p07"):
        (root / name).mkdir()
        for path in sorted((root / "p02").rglob("*")):
            target = root / name / str(path.relative_to(root / "p02")).replace("p02", name)
            target.mkdir(exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    (root / "p05" / "day01" / "0001.jpg").write_bytes(b"damaged")
    return root


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare.prepare("mpii_face_gaze", source, out, OPTIONS, workers=2)
    return out


def test_killed_in_the_middle_and_rerun_gives_the_same_bytes(source, prepared, tmp_path):
    out, script = tmp_path / "out", tmp_path / "main.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[3]); import killing\n"
        "from rtgaze_jax.data.datasets import mpii_face_gaze, prepare\n"
        "read = mpii_face_gaze.read_picture\n"
        "def stuck(path):\n"
        "    if str(path).endswith('p07/day02/0004.jpg'):\n"
        "        killing.stop_here()\n"
        "    return read(path)\n"
        "mpii_face_gaze.read_picture = stuck\n"
        "if __name__ == '__main__':\n"
        "    options = prepare.Options('train', people=(2, 5, 7), resolution=32)\n"
        "    prepare.prepare('mpii_face_gaze', sys.argv[1], sys.argv[2], options, workers=1)\n"
    )
    kill_when_stopped(script, source, out, Path(__file__).parent)
    assert sorted(path.name[-14:-9] for path in out.glob("mpii_face_gaze-*")) == ["00000", "00001"]
    with pytest.raises(UserError, match="holds no finished data set"):
        storage.RecordSource(out, "train")
    made = []
    prepare.prepare("mpii_face_gaze", source, out, OPTIONS, workers=1, report=made.append)
    assert contents(out) == contents(prepared)
    assert made[-1].done == made[-1].total == 15
    assert made[-1].made == 5  # the rest was there
    with pytest.raises(UserError, match="made with resolution 32, not 64: give the same settings"):
        prepare.prepare("mpii_face_gaze", source, out, OPTIONS._replace(resolution=64), workers=1)


def test_damaged_pictures_are_listed_and_shards_repaired(source, prepared, tmp_path):
    assert b'"item": "p05/day01/0001.jpg"' in (prepared / "quarantine-train.json").read_bytes()
    whole = contents(prepared)
    for name, content in whole.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    shard = next(name for name in whole if "00001-of-00003" in name)
    (tmp_path / shard).write_bytes(whole[shard][:-500])
    prepare.prepare("mpii_face_gaze", source, tmp_path, OPTIONS, workers=1)
    assert contents(tmp_path) == whole


def make_index():
    """Two people: one with gazes 3, 8 and 9 in views 0, 4, 5 (with holes), one with a single picture."""
    rows = [
        (1, 0, 3, 0, 0.1),
        (1, 0, 3, 4, 0.5),
        (1, 0, 8, 4, 0.6),
        (1, 0, 8, 5, 0.2),
        (1, 0, 9, 0, 0.3),
        (6, 0, 0, 0, 0.0),
    ]
    return index.Index(np.array(rows, index.DTYPE))


def test_pairs_stay_within_captures_and_fill_holes():
    made = make_index()
    assert made.captures == 2
    assert made.members(0).tolist() == [0, 1, 2, 3, 4]
    assert made.frontals(0).tolist() == [0, 3, 4]
    drawn = pairs.draw_pairs(np.random.default_rng(0), made, np.zeros(4000, int), same_view=0.5)
    rows = made.rows
    assert (rows["person"][drawn] == 1).all()
    assert (rows["gaze_index"][drawn[:, 1]] == rows["gaze_index"][drawn[:, 2]]).all()
    assert set(map(tuple, drawn[:, 1:])) == {(0, 0), (1, 0), (2, 3), (3, 3), (4, 4)}
    same_gaze = rows["gaze_index"][drawn[:, 0]] == rows["gaze_index"][drawn[:, 1]]
    assert same_gaze.mean() == pytest.approx(pairs.SAME_GAZE, abs=0.02)
    same_view = rows["view_index"][drawn[:, 0]] == rows["view_index"][drawn[:, 1]]
    assert 0.3 < same_view.mean() < 0.6  # record 3 has no other of its view
    assert pairs.draw_pairs(np.random.default_rng(0), made, np.array([1]), 0.5).tolist() == [[5, 5, 5]]


def test_fixed_pairs_of_an_index():
    made = make_index()
    listed = pairs.fixed_pairs(made, 16)
    assert len({tuple(pair) for pair in listed}) == 16
    assert (made.rows["gaze_index"][listed[:, 0]] != made.rows["gaze_index"][listed[:, 1]]).all()
    np.testing.assert_array_equal(listed, pairs.fixed_pairs(make_index(), 16))
    with pytest.raises(UserError, match="only 16 different pairs, not 17"):
        pairs.fixed_pairs(made, 17)


def test_batches_of_real_and_mixed_sets_are_like_those_of_synthetic_people(prepared, tmp_path):
    heads = tmp_path / "heads"
    settings = gaze_heads.Settings("train", people=2, gazes=2, views=2, resolution=32, seed=0)
    gaze_heads.generate(heads, settings, workers=1, make_renderer=analytic_head.Camera)
    real, mixed, synthetic = (
        next(iter(pipeline.pair_dataset(place, batch_size=6, frontal=True)))
        for place in (prepared, f"{heads},{prepared}", heads)
    )
    for key, value in synthetic.items():
        assert (real[key].shape, real[key].dtype) == (mixed[key].shape, mixed[key].dtype) == (value.shape, value.dtype)
    assert (real["target_depth"] == 0).all()
    assert set(real["person"].tolist()) <= {2, 5, 7}
    known = (mixed["target_depth"] > 0).any((1, 2))
    assert known.tolist() == [True, False] * 3  # the sets take turns
    larger = tmp_path / "64"
    gaze_heads.generate(larger, settings._replace(resolution=64), workers=1, make_renderer=analytic_head.Camera)
    with pytest.raises(UserError, match="different sizes"):
        pipeline.pair_dataset(f"{heads},{larger}", batch_size=2)


def test_training_on_depth_that_is_not_there_is_refused(prepared):
    from ml_collections import ConfigDict

    from rtgaze_jax.training.sources import make_source

    config = ConfigDict({"data": {"source": "records", "dir": str(prepared)}, "distill": {"source": "ground_truth"}})
    with pytest.raises(UserError, match="has no depth to learn from"):
        make_source(config, 4)


def test_sheets_and_overlays_can_be_drawn(prepared):
    source = storage.RecordSource(prepared, "train")
    assert sheet.contact_sheet(source, people=3, size=32).ndim == 3
    assert sheet.eye_sheet(source, people=2).ndim == 3
    drawn = sheet.overlay(storage.load_record(prepared, "train", 0), 64)
    plain = sheet.overlay({k: v for k, v in record.decode(source[0]).items() if k not in record.GAZE}, 64)
    assert drawn.shape == plain.shape == (64, 64, 3)
    assert (drawn != plain).any()
    assert check.check_split(prepared, "train").records == 14


def test_absent_fields_are_part_of_the_schema(prepared):
    entry = record.decode(storage.RecordSource(prepared, "train")[0])
    record.validate(entry, ("depth",))
    with pytest.raises(ValueError, match="missing depth"):
        record.validate(entry)
    with pytest.raises(ValueError, match="unknown field depth"):
        record.validate(entry | {"depth": np.zeros((32, 32), np.float32)}, ("depth",))
    with pytest.raises(UserError, match="no gaze labels"):
        pairs.pack([{key: value for key, value in entry.items() if key != "gaze_head"}])
    with pytest.raises(ValueError, match="image cannot be absent"):
        record.fields(("image",))


def test_tensorflow_datasets_builder_makes_the_same(source, prepared, tmp_path):
    import tensorflow_datasets as tfds

    config = mpii_face_gaze.PreparedConfig(name="mini", options=(OPTIONS,), workers=1)
    builder = mpii_face_gaze.MpiiFaceGaze(config=config, data_dir=tmp_path)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(source)))
    assert storage.manifests(builder.data_dir)["train"].identity == storage.manifests(prepared)["train"].identity
    assert "depth" not in builder.as_data_source("train")[0]
    names = {
        b.name for b in (eth_xgaze.EthXgaze, mpii_face_gaze.MpiiFaceGaze, columbia_gaze.ColumbiaGaze, folder.Folder)
    }
    assert names == set(prepare.DATASETS)


def test_the_command(source, tmp_path, capsys):
    from rtgaze_jax.cli import main

    out = tmp_path / "out"
    base = ["data", "prepare", "mpii_face_gaze", "--source", str(source), "--resolution", "32", "--workers", "1"]
    assert main([*base, "--out", str(out), "--people", "5", "9"]) == 0
    printed = capsys.readouterr()
    assert "4 records of 'test'" in printed.out
    assert "rejected: p09: p09, p09.txt, Camera.mat is missing" in printed.out
    assert "rejected: p05/day01/0001.jpg: the picture cannot be decoded" in printed.out
    assert "5/5 pictures, 2 rejected" in printed.err
    assert main(["data", "prepare", "gaze360", "--source", str(source), "--out", str(out)]) == 2
    assert "no data set 'gaze360': choose one of eth_xgaze," in capsys.readouterr().err
    assert main(["data", "prepare", "folder", "--source", str(tmp_path / "no"), "--out", str(out)]) == 2
