"""The loop: it stops, continues, watches and tells without changing what is computed."""

import json
import os
import signal
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from toy import Toy, ToySource, toy_config

from rtgaze_jax.errors import FailureError, UserError
from rtgaze_jax.training import guards, loop, parallel
from rtgaze_jax.training.checkpoint import describe_workdir, load_host
from rtgaze_jax.training.logging import Means, clock, read_metrics
from rtgaze_jax.training.sources import Prefetcher
from rtgaze_jax.weights import io


def run(workdir, source=None, **changes):
    """A run of the toy on one device, and how it ended."""
    config = toy_config(**{"parallel__devices": 1, **changes})
    return loop.train(config, Toy(), source or ToySource(config.batch_size), workdir)


class Signalling(ToySource):
    """Sends this process a signal while a batch is drawn."""

    def __init__(self, at, number=signal.SIGTERM):
        super().__init__(16)
        self.at, self.number = at, number

    def __next__(self):
        if self.count == self.at:
            os.kill(os.getpid(), self.number)
        return super().__next__()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, run(workdir)


def test_a_run_trains_and_leaves_everything(undisturbed):
    workdir, result = undisturbed
    rows = read_metrics(workdir)
    assert (result.reason, result.step) == ("finished", 50)
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["samples_per_second"] > 0
    assert json.loads((workdir / "result.json").read_text())["metrics"]["loss"] == result.metrics["loss"]
    assert json.loads((workdir / "config.json").read_text())["optim"]["lr"] == 0.05
    params, header = io.load(workdir / "weights.safetensors")
    state, _ = load_host(workdir)
    np.testing.assert_allclose(params["kernel"], state["params"]["model"]["kernel"], atol=1e-3)
    told = {"step": 50, "position": {"batches": 50}, "group": "model", "metrics": result.metrics}
    assert header["training"] == told
    assert header["config"] == {"preset": "toy"}


def test_sigterm_saves_and_the_continuation_ends_in_the_same_bits(tmp_path, undisturbed):
    stopped = run(tmp_path, Signalling(23))
    assert stopped.reason == "stopped"
    assert 20 < stopped.step < 50
    assert describe_workdir(tmp_path)["step"] == stopped.step
    source = ToySource(16)
    assert run(tmp_path, source).reason == "finished"
    assert source.closed
    assert describe_workdir(tmp_path)["sha256"] == describe_workdir(undisturbed[0])["sha256"]
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20, 30, 40, 50]


def test_ctrl_c_saves_first(tmp_path):
    before = signal.getsignal(signal.SIGINT)  # not Python's own where the tests run in the background
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Signalling(5, signal.SIGINT))
    assert describe_workdir(tmp_path)["step"] >= 3
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_continues_on_other_devices_and_in_the_other_mode(tmp_path, undisturbed):
    run(tmp_path, Signalling(20))
    run(tmp_path, parallel__devices=8, parallel__mode="pmap")
    here, there = (load_host(workdir)[0]["params"] for workdir in (tmp_path, undisturbed[0]))
    chex.assert_trees_all_close(here, there, atol=1e-5)


def test_a_finished_run_stays_finished(tmp_path):
    run(tmp_path, total_steps=10)
    before = describe_workdir(tmp_path)
    result = run(tmp_path, total_steps=10)
    assert (result.reason, result.step) == ("finished", 10)
    assert result.metrics["loss"] > 0
    assert describe_workdir(tmp_path) == before


def test_another_configuration_is_refused_unless_allowed(tmp_path):
    run(tmp_path, total_steps=10)
    with pytest.raises(UserError, match="total_steps 10 -> 20"):
        run(tmp_path, total_steps=20)
    config = toy_config(parallel__devices=1, total_steps=20)
    assert loop.train(config, Toy(), ToySource(16), tmp_path, allow_change=["total_steps"]).step == 20


def test_minutes_end_a_run_with_everything_saved(tmp_path):
    result = run(tmp_path, ToySource(16, delay=0.05), max_minutes=1e-6, total_steps=10_000)
    assert result.reason == "time"
    assert describe_workdir(tmp_path)["step"] == result.step < 10_000
    assert (tmp_path / "weights.safetensors").exists()


def test_checkpoints_come_by_seconds(tmp_path):
    run(tmp_path, ToySource(16, delay=0.05), checkpoint__every_steps=0, checkpoint__every_seconds=0.3, total_steps=20,
        checkpoint__keep_last=100)  # fmt: skip
    assert len(list((tmp_path / "checkpoints").iterdir())) >= 3


def test_weights_continue_elsewhere_with_a_new_warm_up(tmp_path, undisturbed):
    weights = undisturbed[0] / "weights.safetensors"
    config = {"init_from": str(weights), "total_steps": 60, "log__every": 1}
    source = ToySource(16)
    run(tmp_path / "on", source, **config)
    rows = read_metrics(tmp_path / "on")
    assert [row["step"] for row in rows] == list(range(51, 61))
    assert source.count >= 60  # it went on in the data as well
    assert rows[0]["loss"] < 1.0 < read_metrics(undisturbed[0])[0]["loss"]
    assert rows[0]["learning_rate"] < 0.4 * rows[4]["learning_rate"] > rows[9]["learning_rate"] * 0.4
    run(tmp_path / "anew", **config, init_step=0)
    assert read_metrics(tmp_path / "anew")[0]["step"] == 1


def test_weights_that_fit_nowhere_are_refused(tmp_path):
    io.save(tmp_path / "other.safetensors", {"head": {"kernel": np.ones(3)}}, {})
    with pytest.raises(UserError, match="no tensor that fits"):
        run(tmp_path / "run", init_from=str(tmp_path / "other.safetensors"))


def test_bad_batches_are_skipped_and_counted(tmp_path, capsys):
    result = run(tmp_path, ToySource(16, poison=[7, 8, 20]), total_steps=30)
    assert result.metrics["skipped"] == 3
    assert capsys.readouterr().out.count("update skipped") == 3
    assert np.isfinite(read_metrics(tmp_path)[0]["loss"])


def test_too_many_bad_batches_stop_the_run_with_the_batch(tmp_path):
    with pytest.raises(FailureError, match=r"3 steps in a row .*step_15\.npz"):
        run(tmp_path, ToySource(16, poison=range(12, 20)))
    with np.load(tmp_path / "bad" / "step_15.npz") as saved:
        np.testing.assert_array_equal(saved["x"], np.random.default_rng(14).normal(size=(16, 4)).astype(np.float32))
    assert describe_workdir(tmp_path)["step"] == 10


def test_a_jump_keeps_the_batch_and_the_checkpoint_before_it(tmp_path, capsys):
    class Jumping(ToySource):
        def __next__(self):
            batch = super().__next__()
            return {**batch, "y": batch["y"] + 1000 * (self.count == 26)}

    run(tmp_path, Jumping(16), checkpoint__keep_last=1, checkpoint__keep_best=0)
    assert "loss jumped to" in capsys.readouterr().out
    with np.load(tmp_path / "jumps" / "step_26.npz") as saved:
        assert saved["y"].min() > 900
    kept = tmp_path / "again" / "checkpoints" / "20"
    kept.parent.mkdir(parents=True)
    (tmp_path / "jumps" / "checkpoint_20").rename(kept)
    assert describe_workdir(tmp_path / "again")["intact"]


def test_a_failing_source_stops_the_run(tmp_path):
    class Failing(ToySource):
        def __next__(self):
            if self.count == 12:
                raise FailureError("all records are damaged")
            return super().__next__()

    with pytest.raises(FailureError, match="all records"):
        run(tmp_path, Failing(16))
    assert describe_workdir(tmp_path)["step"] == 10


def test_two_runs_cannot_share_a_folder(tmp_path):
    with guards.sole_user(tmp_path), pytest.raises(UserError, match="another run"):
        run(tmp_path)


def test_metrics_are_read_one_step_late(tmp_path, monkeypatch):
    """The next step is dispatched before the host looks at the last one's result."""
    events = []

    class Lazy:
        def __init__(self, step):
            self.step = step

        def __array__(self, dtype=None, copy=None):
            events.append(f"read {self.step}")
            return np.float32(0.5)

    config = toy_config(total_steps=4, parallel__devices=1)
    spread = parallel.make_parallel(config.parallel)
    trainer = loop.Trainer(config, Toy(), ToySource(16), tmp_path, parallel=spread)

    def step(state, frozen, batch):
        number = int(state.step) + 1
        events.append(f"step {number}")
        names = ("grad_norm", "learning_rate", "skipped", "streak")
        return state.replace(step=state.step + 1), {"loss": Lazy(number), **dict.fromkeys(names, np.float32(0))}

    trainer.step_fn = step
    trainer.run()
    trainer.close()
    assert events == ["step 1", "step 2", "read 1", "step 3", "read 2", "step 4", "read 3", "read 4"]


def test_pictures_are_written(tmp_path):
    run(tmp_path, total_steps=10, log__images_every=5, log__image_rows=3)
    from PIL import Image

    pictures = sorted((tmp_path / "images").iterdir())
    assert [p.name for p in pictures] == ["0000005_rows.png", "0000010_rows.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.size == (4, 3)


def test_tensorboard_gets_scalars_and_pictures(tmp_path):
    pytest.importorskip("tensorboardX")
    run(tmp_path, total_steps=10, log__tensorboard=True, log__images_every=5)
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"samples_per_second" in content
    assert b"PNG" in content


def test_tensorboard_without_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"rtgaze-jax\[tensorboard\]"):
        run(tmp_path, log__tensorboard=True)


def test_lines_that_a_kill_undid_or_cut_are_dropped(tmp_path):
    run(tmp_path, total_steps=10)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 12, "loss": 1.0}\n{"step": 13, "lo')
    config = toy_config(parallel__devices=1, total_steps=20)
    loop.train(config, Toy(), ToySource(16), tmp_path, allow_change=["total_steps"])
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20]


def test_prefetching_keeps_order_and_positions():
    feed = Prefetcher(ToySource(4), lambda batch: batch, depth=3)
    items = [next(feed) for _ in range(6)]
    feed.close()
    assert [item.position["batches"] for item in items] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(items[2].host["x"], np.random.default_rng(2).normal(size=(4, 4)).astype(np.float32))


def test_means_leave_out_what_is_not_finite():
    means = Means()
    for value in (1.0, np.nan, 3.0):
        means.add({"loss": value})
    assert means.steps == 3
    assert means.take() == {"loss": 2.0}
    assert means.take() == {}
    assert clock(3725) == "1:02:05"


def test_init_is_deterministic_in_the_seed(tmp_path):
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(Path(tmp_path / name), total_steps=2, seed=seed)
        digests.append(describe_workdir(tmp_path / name)["sha256"])
    assert digests[0] == digests[1] != digests[2]
    assert jax.device_count() == 8
