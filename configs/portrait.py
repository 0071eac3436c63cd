"""The teacher: one photo -> a 3D portrait, without a gaze prompt (LP3D). The paper distils its depth into the student.

  rtgaze train --config configs/portrait.py:small --workdir runs/portrait
  rtgaze train --config configs/portrait.py:tiny --workdir runs/tiny_portrait

| preset | data | on | cost | expect |
|---|---|---|---|---|
| tiny | synthetic heads, 64 x 64 | a laptop's CPU | 2 minutes | loss halves; a smoke test |
| small_256 | synthetic heads, 256 x 256 | one H200 | 6 minutes | depth within 7.5 mm on training people |
| small, paper | synthetic heads, 512 x 512 | | not run yet | |
"""

import dataclasses

from ml_collections import ConfigDict

from rtgaze_jax.models.config import preset, to_dict
from rtgaze_jax.training.defaults import base, tuples
from rtgaze_jax.training.terms import LossWeights


def get_config(name: str = "small") -> ConfigDict:
    """The configuration of the preset "tiny", "small_256", "small" or "paper"."""
    config = base()
    config.kind = "portrait"
    config.model = ConfigDict(tuples(to_dict(preset(name))))
    config.losses = dataclasses.asdict(LossWeights(pose=0.0, perceptual=0.2, raw=0.5, opacity=0.3))
    config.perceptual = "lite0"
    config.augment = True
    config.data.update(
        source="stream",
        dir="",
        workers=0,
        gazes=1,  # one gaze per capture: source and target differ in view only
        views=8,
        capacity=64,
        minimum=8,
        people=0,
        gpus=(),  # that draw, by EGL number, better not those that train; none: the default one
        same_view=0.1,
    )
    config.update(batch_size=16, total_steps=30_000, ema_decay=0.999)
    config.optim.update(lr=3e-4, warmup=500)
    config.log.images_every = 1000
    if name == "tiny":
        config.update(batch_size=8, total_steps=200, ema_decay=0.0, quick_compile=True)
        config.optim.update(lr=2e-3, warmup=20)
        config.data.update(workers=1, views=4, capacity=8, minimum=2)
        config.checkpoint.every_steps = 50
        config.log.update(every=10, images_every=0)
    return config
