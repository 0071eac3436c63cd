"""Stages that run side by side: order, bounds, errors, endings."""

import threading
from concurrent.futures import Future

import cv2
import pytest

from rtgaze_jax.inference.stages import AHEAD, ahead, one_core_a_stage, side_by_side


class Source:
    """Counts, and knows how far it was read and whether it was closed."""

    def __init__(self, fails_at=None):
        self.read, self.closed, self._fails_at = 0, False, fails_at

    def __call__(self):
        try:
            while True:
                if self.read == self._fails_at:
                    raise ValueError("broken")
                yield self.read
                self.read += 1
        finally:
            self.closed = True


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_results_come_in_order_whoever_is_done_first():
    """Of each pair the second is done first: the first waits for it."""
    done = [threading.Event() for _ in range(40)]

    def work(i):
        if i % 2 == 0:
            assert done[i + 1].wait(30)
        done[i].set()
        return i

    assert list(side_by_side(work, iter(range(40)), 4)) == list(range(40))
    assert list(ahead(side_by_side(lambda i: -i, ahead(iter(range(30))), 3))) == [-i for i in range(30)]


def test_an_item_may_wait_for_the_one_before():
    answers = [Future() for _ in range(20)]

    def work(i):
        answers[i].set_result(i + (answers[i - 1].result(30) if i else 0))
        return answers[i].result()

    assert list(side_by_side(work, iter(range(20)), 5)) == [i * (i + 1) // 2 for i in range(20)]


def test_no_stage_runs_far_ahead():
    source = Source()
    stages = side_by_side(lambda i: i, ahead(ahead(source())), 3)
    for i in range(30):
        assert next(stages) == i
        # two queues, an item in each thread's hands, and those of the workers
        assert source.read <= i + 2 * (AHEAD + 1) + 3 + 1
    stages.close()
    assert source.closed


@pytest.mark.parametrize("stage", ["source", "function"])
def test_an_error_in_any_stage_ends_all(stage):
    source = Source(fails_at=7 if stage == "source" else None)

    def work(i):
        if stage == "function" and i == 7:
            raise ValueError("broken")
        return i

    stages, seen = ahead(side_by_side(work, ahead(source()), 3)), []
    with pytest.raises(ValueError, match="broken"):
        seen.extend(stages)
    assert seen == list(range(7))[: len(seen)]
    assert stage == "source" or len(seen) == 7  # what the workers still hold is lost with the source
    assert source.closed


def test_closing_before_the_first_item_and_what_cannot_be_closed():
    source = Source()
    side_by_side(abs, ahead(source()), 2).close()
    stages = ahead(side_by_side(abs, iter(range(-3, 0)), 2))
    assert list(stages) == [3, 2, 1]


def test_opencv_has_its_threads_back_after_an_error():
    def fail() -> None:
        with one_core_a_stage():
            threads.append(cv2.getNumThreads())
            raise RuntimeError("in a stage")

    threads = [cv2.getNumThreads()]
    with pytest.raises(RuntimeError, match="in a stage"):
        fail()
    assert threads == [cv2.getNumThreads(), 1]
