"""The gaze estimator that evaluation uses: an image and where its eyes are -> gaze and head direction.

  rtgaze train --config configs/estimator.py:small --workdir runs/estimator
  cp runs/estimator/weights.safetensors rtgaze_jax/weights/shipped/estimator.safetensors

| preset | data | on | cost | expect |
|---|---|---|---|---|
| tiny | synthetic heads, 64 x 64 | a laptop's CPU | 2 minutes | loss falls; a smoke test |
| small | synthetic heads, 512 x 512 | one H200 | 11 minutes of steps | on new people: gaze 1.4 degrees, head 1.3 |
"""

import dataclasses

from ml_collections import ConfigDict

from rtgaze_jax.models.estimator import PRESETS
from rtgaze_jax.training.defaults import base, tuples


def get_config(name: str = "small") -> ConfigDict:
    """The configuration of the preset "tiny" or "small"."""
    config = base()
    config.kind = "estimator"
    config.model = ConfigDict(tuples(dataclasses.asdict(PRESETS[name])))
    config.augment = True
    config.data.update(
        source="stream",  # people rendered while training; or records (data.dir)
        dir="",
        workers=0,  # processes that render or decode; 0: all cores but one
        gazes=8,
        views=4,
        capacity=96,  # captures kept by the stream
        minimum=8,  # captures before the first batch
        people=0,  # stop rendering after so many; 0: never
        gpus=(),  # that draw, by EGL number, better not those that train; none: the default one
        same_view=0.0,  # both images of a pair are training images: let them differ
    )
    if name == "tiny":
        config.update(batch_size=8, total_steps=200, quick_compile=True)
        config.optim.update(lr=2e-3, warmup=20)
        config.data.update(workers=1, gazes=3, views=2, capacity=8, minimum=2)
        config.checkpoint.every_steps = 50
    else:
        config.update(batch_size=32, total_steps=3000, ema_decay=0.998)
        config.optim.update(lr=1e-3, warmup=200, weight_decay=0.02, final_scale=0.01)
        config.log.images_every = 1000
    return config
