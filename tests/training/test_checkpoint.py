"""Checkpoints: what comes back, what stays, and what happens when the disk lies or is full."""

import errno
import resource
import shutil

import chex
import jax
import numpy as np
import pytest
from toy import Toy, toy_config

from rtgaze_jax.errors import FailureError, UserError
from rtgaze_jax.training import checkpoint, fingerprint, optim, parallel, state
from rtgaze_jax.training.checkpoint import Checkpoints, describe_workdir, digest, load_host

CONFIG = {"optim": {"lr": 0.1}, "log": {"every": 5}}


def accept(saved):
    """Takes any configuration."""


def make_state(step=0, devices=8, seed=0):
    spread = parallel.make_parallel(toy_config(parallel__devices=devices).parallel)
    params = Toy().init(jax.random.key(seed))
    return spread.replicate(
        state.create(params, optim.make_optimizer(toy_config().optim), seed=seed, ema=True, start=step)
    )


def save(workdir, *steps, **options):
    """Checkpoints at `steps`, whose loss is the step; returns their states."""
    store, states = Checkpoints(workdir, **options), [make_state(step, seed=step) for step in steps]
    for now in states:
        store.save(now, {"batches": int(now.step)}, CONFIG, {"loss": float(now.step)})
    store.close()
    return states


def save_now(store, now):
    """One checkpoint, written to the end."""
    store.save(now, {}, CONFIG, {"loss": 0.0})
    store.wait()


def data_files(workdir, step):
    """The files that hold a checkpoint's arrays: those that Orbax names by a hash."""
    return list((workdir / "checkpoints" / str(step)).glob("state/**/d/*"))


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_a_state_comes_back_on_other_devices(tmp_path, devices):
    (saved,) = save(tmp_path, 3)
    found, about = Checkpoints(tmp_path).restore(make_state(devices=devices), accept)
    chex.assert_trees_all_equal(jax.device_get(found), jax.device_get(saved))
    assert about["position"] == {"batches": 3}
    assert about["config"] == CONFIG
    assert found.params["model"]["kernel"].sharding.num_devices == devices


def test_an_empty_folder_has_none(tmp_path):
    assert Checkpoints(tmp_path).restore(make_state(), accept) is None
    with pytest.raises(UserError, match="no checkpoint"):
        describe_workdir(tmp_path)


def test_newest_and_best_are_kept(tmp_path):
    save(tmp_path, 1, 2, 3, 4, 5, keep_last=2, keep_best=1)
    assert Checkpoints(tmp_path).steps == [1, 4, 5]  # 1 has the lowest loss


def test_the_digest_covers_every_part():
    now, position = make_state(), {"batches": 1}
    before = digest(now, position)
    assert before == digest(jax.device_get(now), dict(position))
    kernel = now.params["model"]["kernel"]
    nudged = {**now.params, "model": {**now.params["model"], "kernel": kernel.at[0, 0].add(1e-6)}}
    others = [
        digest(now.replace(params=nudged), position),
        digest(now.replace(key=now.key + 1), position),
        digest(now.replace(opt_state=jax.tree.map(lambda x: x + 1, now.opt_state)), position),
        digest(now.replace(step=now.step + 1), position),
        digest(now, {"batches": 2}),
    ]
    assert len({before, *others}) == 6


def test_a_workdir_is_described_without_the_model(tmp_path):
    states = save(tmp_path, 4, 7)
    about = describe_workdir(tmp_path)
    assert about["step"] == 7
    assert about["intact"]
    assert about["sha256"] == digest(states[-1], {"batches": 7})
    assert about["parameters"] == 4 * 8 + 8 + 8
    host, _ = load_host(tmp_path, 4)
    np.testing.assert_array_equal(host["params"]["model"]["kernel"], states[0].params["model"]["kernel"])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's late callbacks
@pytest.mark.parametrize(
    "damage",
    [flip_a_byte, lambda p: p.write_bytes(p.read_bytes()[:50]), lambda p: p.unlink()],
    ids=["bit", "cut", "gone"],
)
def test_a_damaged_newest_falls_back_with_a_warning(tmp_path, capsys, damage):
    older, _ = save(tmp_path, 1, 2)
    for path in data_files(tmp_path, 2):
        damage(path)
    store = Checkpoints(tmp_path)
    found, about = store.restore(make_state(), accept)
    chex.assert_trees_all_equal(jax.device_get(found), jax.device_get(older))
    assert about["position"] == {"batches": 1}
    assert "step 2 is damaged" in capsys.readouterr().err
    assert (tmp_path / "corrupt" / "2").is_dir()
    store.save(make_state(2), {}, CONFIG, {"loss": 0.0})  # its place is free again
    store.close()
    assert store.committed() == [1, 2]


def test_wrong_content_with_right_files_is_found_by_the_digest(tmp_path, capsys, monkeypatch):
    save(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "digest", lambda *_: "0" * 64)
    save(tmp_path, 2)
    monkeypatch.undo()
    found, _ = Checkpoints(tmp_path).restore(make_state(), accept)
    assert int(found.step) == 1
    assert "SHA-256" in capsys.readouterr().err


def test_another_model_is_refused_and_left_alone(tmp_path):
    save(tmp_path, 1)
    other = make_state()
    other = other.replace(params={"model": other.params["model"]})
    with pytest.raises(UserError, match="another model"):
        Checkpoints(tmp_path).restore(other, accept)
    assert Checkpoints(tmp_path).steps == [1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_file_size_limit_in_the_middle_of_a_save_stops_clearly(tmp_path):
    """The limit makes the writes themselves fail, as a full disk does."""
    (good,) = save(tmp_path, 1)
    store, limits = Checkpoints(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(FailureError, match="the checkpoint of step 1 is intact"):
            save_now(store, make_state(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found, _ = Checkpoints(tmp_path).restore(make_state(), accept)
    chex.assert_trees_all_equal(jax.device_get(found), jax.device_get(good))


def test_a_full_disk_is_named_before_anything_is_written(tmp_path, monkeypatch):
    save(tmp_path, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(FailureError, match=r"no space left .* step 1 is intact; free some space"):
        Checkpoints(tmp_path).save(make_state(2), {}, CONFIG, {"loss": 0.0})
    assert Checkpoints(tmp_path).steps == [1]


def test_a_failure_in_the_background_is_raised_by_the_next_look(tmp_path):
    class Failing:
        def result(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    save(tmp_path, 1)
    store = Checkpoints(tmp_path)
    store._response = Failing()
    with pytest.raises(FailureError, match="no space left"):
        store.check()
    store.check()  # once


def test_pinned_checkpoints_outlive_the_policy(tmp_path):
    save(tmp_path, 1, keep_best=0)
    store = Checkpoints(tmp_path, keep_last=1, keep_best=0)
    kept = store.pin(1, "jumps/checkpoint_1")
    store.save(make_state(2), {}, CONFIG, {"loss": 0.0})
    store.close()
    assert store.committed() == [2]
    shutil.copytree(kept, tmp_path / "again" / "checkpoints" / "1")
    assert describe_workdir(tmp_path / "again")["intact"]


def test_a_changed_configuration_needs_permission():
    saved = {"optim": {"lr": 0.1, "clip": 1.0}, "log": {"every": 5}, "seed": 0}
    fingerprint.check(saved, {**saved, "log": {"every": 7}}, [])  # watching differently is free
    changed = {**saved, "optim": {"lr": 0.2, "clip": 1.0}}
    with pytest.raises(UserError, match=r"optim\.lr 0\.1 -> 0\.2; .*--allow_change=optim\.lr"):
        fingerprint.check(saved, changed, ["seed"])
    fingerprint.check(saved, changed, ["optim.lr"])
    fingerprint.check(saved, changed, ["optim"])
    with pytest.raises(UserError, match=r"optim\.lr"):
        fingerprint.check(saved, changed, ["opt"])  # prefixes end at dots
    with pytest.raises(UserError, match=r"ema .* -> 0\.5"):
        fingerprint.check(saved, {**saved, "ema": 0.5}, [])


def test_the_fingerprint_of_a_config_is_json():
    plain = fingerprint.plain(toy_config(optim__groups={"critic": 0.5}))
    assert plain["optim"]["groups"] == {"critic": 0.5}
    assert fingerprint.flatten(plain)["optim.lr"] == 0.05
