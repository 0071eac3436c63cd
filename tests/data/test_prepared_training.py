"""The student takes a training step from each prepared data set, and from all of them mixed in one configuration."""

import analytic_head
import jax
import jax.numpy as jnp
import miniature as mini
import numpy as np
import pytest
from test_eth_xgaze import FEWER, MOMENTS
from test_mpii_face_gaze import write_raw
from test_portraits import head

from configs.rtgaze import get_config
from rtgaze_jax.data.datasets import gaze_heads, prepare
from rtgaze_jax.training import objective, optim, parallel, sources, state, step

RESOLUTION = 64


@pytest.fixture
def prepared(tmp_path):
    """{data set: prepared folder}: three real ones from miniatures of their original files, and synthetic people."""
    mini.write_eth_raw(tmp_path / "eth", {3: MOMENTS}, FEWER)
    (tmp_path / "mpii").mkdir()
    write_raw(tmp_path / "mpii", 5)
    originals = {"eth_xgaze": (tmp_path / "eth", 3), "mpii_face_gaze": (tmp_path / "mpii", 2)}
    rows = [(0, i, *head(pose), -head(pose)[1], mini.dots(mini.ETH_SIX), {}) for i, pose in enumerate((0, 15))]
    mini.write_lineage(tmp_path / "columbia" / "columbia_subject0001.h5", rows, 1600)
    originals["columbia_gaze"] = tmp_path / "columbia", 1
    found = {}
    for name, (place, person) in originals.items():
        found[name] = tmp_path / f"{name}_prepared"
        options = prepare.Options("train", people=(person,), resolution=RESOLUTION)
        prepare.prepare(name, place, found[name], options, workers=1)
    found["gaze_heads"] = tmp_path / "heads"
    settings = gaze_heads.Settings("train", people=2, gazes=2, views=2, resolution=RESOLUTION, seed=0)
    gaze_heads.generate(found["gaze_heads"], settings, workers=1, make_renderer=analytic_head.Camera)
    return found


def test_the_student_learns_from_each_set_and_from_all_mixed(prepared):
    config = get_config("tiny")
    config.batch_size = 4
    config.parallel.devices = 1
    config.optim.warmup = 0
    config.distill.source = "none"  # depth is known of synthetic people alone
    config.data.source = "records"
    config.losses.update(perceptual=0.0, eye_perceptual=0.0)  # half of the compilation
    goal = objective.build(config)
    spread = parallel.make_parallel(config.parallel)
    optimizer = optim.make_optimizer(config.optim)
    schedule = optim.make_schedule(config.optim, config.total_steps)
    run = spread.compile(lambda axis: step.make_step(goal.loss, optimizer, schedule, axis_name=axis))
    params = goal.init(jax.random.key(0))
    frozen = spread.replicate(goal.frozen)
    folders = [*map(str, prepared.values()), ",".join(map(str, prepared.values()))]
    for folder in folders:
        config.data.dir = folder
        feed = sources.make_source(config, config.batch_size)
        before = spread.replicate(state.create(params, optimizer, seed=0, ema=False))
        after, metrics = run(before, frozen, spread.place(next(feed)))
        feed.close()
        assert np.isfinite(float(metrics["loss"]))
        assert int(metrics["skipped"]) == 0
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params, jax.device_get(after.params))
        for part in ("eye_planes", "low", "pose", "renderer"):
            assert max(jax.tree.leaves(moved["model"][part])) > 0, (folder, part)
