"""Streaming: the right records in order, through crashes and failures, within fixed memory, and a clean end."""

import multiprocessing
import threading
import time

import analytic_head
import numpy as np
import pytest

from rtgaze_jax.data.heads import workers
from rtgaze_jax.data.heads.stream import StreamSource, stream_captures
from rtgaze_jax.errors import FailureError

SMALL = {"resolution": 32, "gazes": 3, "views": 2, "make_renderer": analytic_head.Camera}


def broken_camera(resolution, device):
    raise FailureError("no OpenGL here: install it")


class NoCamera:
    def __init__(self, resolution, device):
        pass

    def __call__(self, split, person, *, gazes, views):
        raise RuntimeError("lens cap")


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    threads = threading.active_count()
    yield
    assert not multiprocessing.active_children()
    assert threading.active_count() == threads


def test_records_arrive_whole_and_in_order_without_those_that_fail(caplog):
    # 666 cannot be rendered, 667 kills its process each time
    captures = list(stream_captures("train", workers=2, start=663, count=6, **SMALL))
    assert [c[0]["person"] for c in captures] == [663, 664, 665, 668]
    for capture in captures:
        expected = analytic_head.render_capture(32, "train", int(capture[0]["person"]), gazes=3, views=2)
        for got, wanted in zip(capture, expected, strict=True):
            assert set(got) == set(wanted)
            for key, value in wanted.items():
                np.testing.assert_array_equal(got[key], value)
                assert got[key].dtype == np.asarray(value).dtype
    text = caplog.text
    assert "person 666 of train is left out: RuntimeError: no such person" in text
    assert "person 667 of train is left out: its process died with exit code 9" in text


class DeviceCamera(analytic_head.Camera):
    def __call__(self, split, person, *, gazes, views):
        records = super().__call__(split, person, gazes=gazes, views=views)
        return [dict(r, capture=np.int32(-1 if self.device is None else self.device)) for r in records]


def test_processes_share_the_devices():
    options = SMALL | {"make_renderer": DeviceCamera, "workers": 2}
    assert {int(c[0]["capture"]) for c in stream_captures("train", count=2, **options)} == {-1}
    assert {int(c[0]["capture"]) for c in stream_captures("train", count=8, devices=(0, 1), **options)} <= {0, 1}


def test_leaving_the_stream_early_ends_its_processes():
    endless = stream_captures("test", workers=1, **SMALL)
    next(endless)
    assert multiprocessing.active_children()
    endless.close()


def test_batches_hold_pairs_of_one_capture_and_people_are_renewed():
    with StreamSource(
        batch_size=4, workers=1, capacity=3, minimum=2, start=10, stride=2, frontal=True, **SMALL
    ) as source:
        truth, seen = {}, set()
        while len(seen) < 8:
            batch = next(source)
            for i, person in enumerate(batch["person"]):
                person = int(person)
                seen.add(person)
                if person not in truth:
                    truth[person] = analytic_head.render_capture(32, "train", person, gazes=3, views=2)
                check_pair(truth[person], {key: value[i] for key, value in batch.items()})
        assert all(person % 2 == 0 and person >= 10 for person in seen)
        stats, state = source.stats(), source.state()
    assert stats.captures >= 7
    assert stats.reuse > 0
    assert stats.images_per_second > 0
    assert stats.megabytes_per_second > 0
    assert (stats.skipped, stats.restarts) == (0, 0)
    assert state["start"] > max(seen) - 2 * 3
    assert not state["start"] % 2
    with pytest.raises(StopIteration):
        next(source)


def check_pair(records, pair):
    """All parts of a pair are records of this person's capture, never a mixture of two captures."""

    def named(role):
        (found,) = (
            r
            for r in records
            if (r["gaze_head"] == pair[f"{role}_gaze"]).all()
            and (r["cam2world"].ravel() == pair[f"{role}_camera"][:16]).all()
        )
        np.testing.assert_array_equal(pair[f"{role}_image"], found["image"])
        np.testing.assert_array_equal(pair[f"{role}_parts"], found["parts"])
        return found

    named("source")
    target = named("target")
    np.testing.assert_allclose(pair["target_depth"], target["depth"], atol=1e-3)
    np.testing.assert_array_equal(pair["frontal_image"], records[target["gaze_index"] * 2]["image"])


def test_batches_go_on_while_nothing_is_rendered():
    # From person 661 on a single worker soon meets one who is skipped and one who kills it; batches keep coming.
    with StreamSource(batch_size=2, workers=1, capacity=4, minimum=2, start=661, **SMALL) as source:
        deadline = time.monotonic() + 120
        while source.stats().captures < 7 and time.monotonic() < deadline:
            next(source)
        stats = source.stats()
    assert stats.captures >= 7
    assert stats.skipped == 2
    assert stats.restarts == 2
    assert stats.batches > stats.captures


def test_memory_does_not_grow_with_captures():
    with StreamSource(batch_size=2, workers=1, capacity=2, minimum=1, **SMALL) as source:
        next(source)
        before = {key: array.__array_interface__["data"] for key, array in source._buffer.items()}
        while source.stats().captures < 8:
            next(source)
        assert before == {key: array.__array_interface__["data"] for key, array in source._buffer.items()}
        assert len(source._live) <= 2


@pytest.mark.parametrize(
    ("camera", "message"), [(broken_camera, "no OpenGL here: install it"), (NoCamera, "failed in a row.*lens cap")]
)
def test_a_renderer_that_never_works_stops_the_training(camera, message):
    with (
        StreamSource(batch_size=2, workers=1, resolution=32, make_renderer=camera) as source,
        pytest.raises(FailureError, match=message),
    ):
        next(source)


def test_arrays_survive_shared_memory():
    memory = np.zeros(4096, np.uint8)
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(3, 5)).astype(np.float16), "b": rng.integers(0, 9, (7,)), "c": np.array(True)}
    views = workers.read_arrays(memory, workers.write_arrays(memory, arrays))
    for key, array in arrays.items():
        np.testing.assert_array_equal(views[key], array)
    with pytest.raises(ValueError, match="does not fit"):
        workers.write_arrays(memory[:64], arrays)
