"""Where batches come from: positions that survive, errors that say what to do."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from toy import toy_config

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import analytic_head
from ml_collections import ConfigDict

from rtgaze_jax.data.datasets import gaze_heads
from rtgaze_jax.errors import UserError
from rtgaze_jax.training.sources import RecordBatches, StreamBatches, make_source

SETTINGS = gaze_heads.Settings(split="train", people=3, gazes=2, views=2, resolution=32, seed=0)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    path = tmp_path_factory.mktemp("records")
    gaze_heads.generate(path, SETTINGS, workers=1, make_renderer=analytic_head.Camera)
    return path


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_records_go_on_where_a_position_says(records):
    source = RecordBatches(str(records), batch_size=4, seed=1)
    batches = [next(source) for _ in range(5)]
    assert source.get_state() == {"batches": 5} == json.loads(json.dumps(source.get_state()))
    assert not same(batches[0], batches[1])
    source.set_state({"batches": 3})
    assert same(next(source), batches[3])
    assert same(next(source), batches[4])
    source.close()
    other = RecordBatches(str(records), batch_size=4, seed=1, workers=1)
    other.set_state({"batches": 4})
    again = next(other)
    other.close()
    assert same(again, batches[4])
    assert again["source_image"].flags.owndata


def test_the_stream_goes_on_with_unseen_people():
    options = {"resolution": 32, "batch_size": 2, "workers": 1, "gazes": 2, "views": 2, "minimum": 1, "capacity": 2}
    source = StreamBatches(make_renderer=analytic_head.Camera, **options)
    source.set_state({"start": 40})
    assert source.stats() == {}
    assert source.get_state() == {"start": 40}
    batch = next(source)
    assert source.get_state()["start"] > 40
    assert batch["source_image"].shape == (2, 32, 32, 3)
    assert batch["person"].min() >= 40
    shapes = {name: (value.shape, value.dtype) for name, value in batch.items()}
    assert {name: (value.shape, value.dtype) for name, value in source.example().items()} == shapes
    assert source.stats()["data/images_per_second"] > 0
    source.close()


def configured(**data):
    config = toy_config()
    config.model = ConfigDict({"image_size": 32})
    config.data.update(
        dir="", workers=0, gazes=2, views=2, capacity=2, minimum=1, same_view=0.5, people=0, gpus=(), **data
    )
    return config


def test_a_configuration_chooses_its_source(records):
    config = configured(source="records")
    with pytest.raises(UserError, match=r"needs data\.dir"):
        make_source(config, 4)
    config.data.dir = str(records)
    source = make_source(config, config.batch_size, frontal=True)
    assert next(source)["frontal_image"].shape == (16, 32, 32, 3)
    source.close()
    assert isinstance(make_source(configured(source="stream"), 4), StreamBatches)  # renders only when asked for a batch
    with pytest.raises(UserError, match="stream or records"):
        make_source(configured(source="web"), 4)
