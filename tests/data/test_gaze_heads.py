"""The data set on disk: the same bytes whatever happens on the way; tensorflow-datasets reads it without TensorFlow."""

import json
import sys
from pathlib import Path

import analytic_head
import numpy as np
import pytest
from killing import kill_when_stopped, stop_here

from rtgaze_jax import files
from rtgaze_jax.data import record, storage
from rtgaze_jax.data.datasets import gaze_heads
from rtgaze_jax.errors import FailureError, UserError

SETTINGS = gaze_heads.Settings("train", people=10, gazes=2, views=2, resolution=32, seed=0)


def generate(directory, settings=SETTINGS, workers=1, **options):
    return gaze_heads.generate(directory, settings, workers=workers, make_renderer=analytic_head.Camera, **options)


def contents(directory):
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


class StuckCamera(analytic_head.Camera):
    def __call__(self, split, person, *arguments, **options):
        if person == SETTINGS.people - 1:
            stop_here()
        return super().__call__(split, person, *arguments, **options)


class DeadCamera:
    def __init__(self, resolution, device):
        raise FailureError("rendering would be needed")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("heads") / "made"
    generate(path)
    return path


def test_records_come_back_in_order(directory):
    source = storage.RecordSource(directory, "train")
    assert source.grid == record.Grid(10, 2, 2)
    assert len(source) == 40
    for person in (0, 3, 9):
        wanted = analytic_head.render_capture(32, "train", person, gazes=2, views=2)
        for i, expected in enumerate(wanted):
            got = record.decode(source[person * 4 + i])
            record.validate(got)
            for key in set(expected) - {"depth"}:
                np.testing.assert_array_equal(got[key], expected[key])
    with pytest.raises(IndexError):
        source[40]


def test_the_manifest_tells_the_truth(directory):
    manifest = json.loads((directory / "manifest-train.json").read_text())
    assert manifest["schema"] == 1
    assert (manifest["captures"], manifest["records"], manifest["resolution"]) == (10, 40, 32)
    assert manifest["settings"]["seed"] == 0
    assert [shard["records"] for shard in manifest["shards"]] == [16, 16, 8]
    for shard in manifest["shards"]:
        path = directory / shard["file"]
        assert shard["sha256"] == files.sha256(path)
        assert shard["bytes"] == path.stat().st_size


def test_the_number_of_workers_does_not_change_a_byte(directory, tmp_path):
    generate(tmp_path / "again", workers=3)
    assert contents(tmp_path / "again") == contents(directory)


def test_killed_in_the_middle_and_rerun_gives_the_same_bytes(directory, tmp_path):
    target, script = tmp_path / "killed", tmp_path / "main.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[2]); import test_gaze_heads as t\n"
        "if __name__ == '__main__':\n"
        "    t.gaze_heads.generate(sys.argv[1], t.SETTINGS, workers=2, make_renderer=t.StuckCamera)\n"
    )
    kill_when_stopped(script, target, Path(__file__).parent)
    left = sorted(path.name[-14:-9] for path in target.glob("gaze_heads-*"))
    assert left in (["00000"], ["00001"], ["00000", "00001"])
    assert list(target.glob(".gaze_heads-*-00002-of-00003"))  # half of the last one
    with pytest.raises(UserError, match="holds no finished data set"):
        storage.RecordSource(target, "train")
    generate(target)
    assert contents(target) == contents(directory)


def test_finished_data_is_not_rendered_again_but_damage_is_repaired(directory, tmp_path):
    made = contents(directory)
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    gaze_heads.generate(tmp_path, SETTINGS, workers=1, make_renderer=DeadCamera)
    shard = tmp_path / storage.shard_name("gaze_heads", "train", 1, 3)
    shard.write_bytes(made[shard.name][:-1000])
    with pytest.raises(FailureError, match="rendering would be needed"):
        gaze_heads.generate(tmp_path, SETTINGS, workers=1, make_renderer=DeadCamera)
    generate(tmp_path)
    assert contents(tmp_path) == made


def test_other_settings_are_refused(directory):
    with pytest.raises(UserError, match="made with people 10, not 11: give the same settings"):
        generate(directory, SETTINGS._replace(people=11))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"split": "dev"}, "no split 'dev'"), ({"people": 0}, "people must lie"), ({"resolution": 8}, "resolution must")],
)
def test_impossible_settings_are_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        generate(tmp_path, SETTINGS._replace(**change))


def test_another_seed_gives_other_people(tmp_path):
    generate(tmp_path, SETTINGS._replace(people=2, seed=5))
    people = {int(encoded["person"]) for encoded in storage.RecordSource(tmp_path, "train")}
    assert people == {5_000_000, 5_000_001}


def test_people_who_cannot_be_rendered_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(gaze_heads.Settings, "shards", lambda self: [range(664, 667)])
    manifest = generate_here(tmp_path)
    assert manifest.left_out == (666,)
    assert manifest.grid.captures == 2
    assert storage.manifests(tmp_path)["train"] == manifest
    monkeypatch.setattr(gaze_heads.Settings, "shards", lambda self: [range(666, 667)])
    with pytest.raises(FailureError, match="none of the people 666 to 666 could be rendered: no such person"):
        generate_here(tmp_path / "none")


def generate_here(directory):
    """One shard without worker processes, which would not see a patch."""
    settings = SETTINGS._replace(people=3)
    work = gaze_heads._shard_worker(None, 0, Path(directory), settings, analytic_head.Camera)
    directory.mkdir(exist_ok=True)
    done = work(0)
    manifest = storage.Manifest("gaze_heads", "train", {}, 2, 2, 32, tuple(done.notes), (done.shard,))
    storage.write_manifest(directory, manifest)
    return manifest


def test_two_splits_in_one_directory(tmp_path):
    for split in ("validation", "test"):
        generate(tmp_path, SETTINGS._replace(split=split, people=1))
    assert sorted(storage.manifests(tmp_path)) == ["test", "validation"]
    assert len(storage.RecordSource(tmp_path, "test")) == 4
    with pytest.raises(UserError, match="holds the splits test, validation: choose one"):
        storage.only_split(tmp_path, None)
    first, second = (next(iter(storage.RecordSource(tmp_path, s)))["image"] for s in ("test", "validation"))
    assert first != second


def test_missing_shards_and_broken_manifests_are_named(directory, tmp_path):
    (tmp_path / "manifest-train.json").write_bytes((directory / "manifest-train.json").read_bytes())
    with pytest.raises(UserError, match="00000-of-00003 is missing"):
        storage.RecordSource(tmp_path, "train")
    (tmp_path / "manifest-train.json").write_text('{"schema": 1')
    with pytest.raises(UserError, match=r"manifest-train\.json is damaged"):
        storage.RecordSource(tmp_path, "train")


def test_tensorflow_datasets_reads_the_directory_without_tensorflow(directory):
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(directory).as_data_source("train")
    expected = analytic_head.render_capture(32, "train", 1, gazes=2, views=2)[2]
    got = source[6]
    np.testing.assert_array_equal(got["image"], expected["image"])
    np.testing.assert_array_equal(got["parts"][..., 0], expected["parts"])
    np.testing.assert_allclose(got["depth"][..., 0] / record.DEPTH_SCALE, expected["depth"], atol=1e-4)
    np.testing.assert_array_equal(got["landmarks"], expected["landmarks"])
    assert "tensorflow" not in sys.modules


def test_the_builder_makes_the_same_data(directory, tmp_path):
    config = gaze_heads.GazeHeadsConfig(
        name="custom", people={"train": 10}, gazes=2, views=2, resolution=32, make_renderer=analytic_head.Camera
    )
    builder = gaze_heads.GazeHeads(config=config, data_dir=tmp_path)
    builder.download_and_prepare()
    made = storage.manifests(builder.data_dir)["train"]
    assert made.identity == storage.manifests(directory)["train"].identity
    assert len(builder.as_data_source("train")) == 40
    assert {c.name for c in gaze_heads.GazeHeads.BUILDER_CONFIGS} == {"paper", "tiny"}
