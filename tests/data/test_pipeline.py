"""The same batches however they are loaded, exact resume, and damaged records that do not stop a training."""

import itertools
import logging

import analytic_head
import numpy as np
import pytest

from rtgaze_jax.data import pairs, pipeline, record, storage
from rtgaze_jax.data.datasets import gaze_heads
from rtgaze_jax.errors import UserError

SETTINGS = gaze_heads.Settings("train", people=7, gazes=3, views=2, resolution=32, seed=0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("heads")
    gaze_heads.generate(path, SETTINGS, workers=1, make_renderer=analytic_head.Camera)
    return path


def batches(directory, count=6, **options):
    options = {"batch_size": 4, "seed": 3, "frontal": True} | options
    return list(itertools.islice(pipeline.pair_dataset(directory, **options), count))


def assert_equal(got, wanted):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def identity(*arrays):
    return tuple(array.tobytes() for array in arrays)


def test_batches_are_what_pairs_make_of_the_records(directory):
    records = [record.decode(encoded) for encoded in storage.RecordSource(directory, "train")]
    numbers = {identity(r["image"], r["gaze_head"], r["cam2world"]): i for i, r in enumerate(records)}
    arrays = pairs.pack(records)
    captures = []
    for batch in batches(directory, count=7):
        roles = (("source", "source"), ("target", "target"), ("frontal", "target"))
        listed = [
            [
                numbers[identity(batch[f"{a}_image"][i], batch[f"{b}_gaze"][i], batch[f"{a}_camera"][i, :16])]
                for a, b in roles
            ]
            for i in range(4)
        ]
        captures += [number[0] // 6 for number in listed]
        assert all(len({number // 6 for number in row}) == 1 for row in listed)
        assert_equal([batch], [pairs.gather(arrays, np.array(listed), frontal=True)])
    # 28 pairs are four passes over seven captures
    for start in range(0, 28, 7):
        assert sorted(captures[start : start + 7]) == list(range(7))
    assert captures[:7] != captures[7:14]


def test_order_and_resume_do_not_depend_on_workers(directory):
    wanted = batches(directory, count=8, frontal=False)
    iterator = iter(pipeline.pair_dataset(directory, batch_size=4, seed=3, workers=2))
    assert_equal([next(iterator) for _ in range(5)], wanted[:5])
    state = iterator.get_state()
    resumed = iter(pipeline.pair_dataset(directory, batch_size=4, seed=3, workers=2))
    resumed.set_state(state)
    assert_equal([next(resumed) for _ in range(3)], wanted[5:])


def test_the_seed_decides_the_order(directory):
    assert_equal(batches(directory), batches(directory))
    first, second = batches(directory, 1)[0], batches(directory, 1, seed=4)[0]
    assert (first["source_image"] != second["source_image"]).any()


@pytest.mark.parametrize("count", [2, 4])
def test_processes_together_see_the_global_batch(directory, count):
    parts = [batches(directory, process_index=p, process_count=count) for p in range(count)]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)
    ]
    assert_equal(joined, batches(directory))


def test_resume_is_exact_for_any_number_of_processes(directory):
    iterator = iter(pipeline.pair_dataset(directory, batch_size=4, seed=3))
    for _ in range(5):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(5)]
    resumed = iter(pipeline.pair_dataset(directory, batch_size=4, seed=3))
    resumed.set_state(state)
    assert_equal([next(resumed) for _ in range(5)], expected)
    second_half = iter(pipeline.pair_dataset(directory, batch_size=4, seed=3, process_index=1, process_count=2))
    second_half.set_state(state)
    wanted = [{key: value[2:] for key, value in batch.items()} for batch in expected]
    assert_equal([next(second_half) for _ in range(5)], wanted)


def test_a_batch_must_split_into_the_processes(directory):
    with pytest.raises(UserError, match="6 does not split into 4 processes"):
        pipeline.pair_dataset(directory, batch_size=6, process_count=4)


def test_damaged_records_are_reported_and_replaced(directory, tmp_path, caplog):
    copy = tmp_path / "damaged"
    copy.mkdir()
    for path in directory.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    shard = copy / storage.shard_name("gaze_heads", "train", 0, 2)
    records = storage.read_shard(shard)
    for damaged in records[:6]:  # the whole first capture
        damaged["image"] = damaged["image"][:100]
    storage.write_shard(shard, records)
    with caplog.at_level(logging.WARNING):
        got = batches(copy, count=7)
    assert "skipped a damaged record: image cannot be decoded" in caplog.text
    people = np.concatenate([batch["person"] for batch in got])
    assert not (people == 0).any()
    whole = batches(directory, count=7)
    for damaged, intact in zip(got, whole, strict=True):
        keep = intact["person"] != 0
        np.testing.assert_array_equal(damaged["target_image"][keep], intact["target_image"][keep])
