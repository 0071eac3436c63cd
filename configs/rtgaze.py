"""The student: one photo and a gaze direction -> the same person looking there.

  rtgaze train --config configs/rtgaze.py:small --workdir runs/small
  rtgaze train --config configs/rtgaze.py:paper --workdir runs/paper --config.data.dir=data/eth_xgaze \
      --config.distill.teacher=runs/portrait/weights.safetensors
  rtgaze train --config configs/rtgaze.py:tiny --workdir runs/tiny

| preset | data | on | cost | expect |
|---|---|---|---|---|
| tiny | synthetic heads, 64 x 64 | a laptop's CPU | 2 minutes | loss halves; a smoke test, no faces |
| small_128 | synthetic heads, 128 x 128 | two CPU cores | 20 minutes | the eye branch alone begins to follow |
| small_256 | synthetic heads, 256 x 256 | one H200 | 9 minutes, 2.5 to compile | 2.5 degrees on new synthetic people |
| small | synthetic heads, 512 x 512 | one H200, one draws | 8 minutes more, from small_256 | docs/model_card.md |
| paper | ETH-XGaze, 512 x 512 | not run here | 50 epochs of 14,400 images | 9.0 degrees, PSNR 19 (the paper) |
"""

import dataclasses

from ml_collections import ConfigDict

from rtgaze_jax.models.config import preset, to_dict
from rtgaze_jax.training.defaults import base, tuples
from rtgaze_jax.training.terms import SMALL_WEIGHTS, LossWeights


def get_config(name: str = "small") -> ConfigDict:
    """The configuration of the preset "tiny", "small_128", "small_256", "small" or "paper"."""
    config = base()
    config.kind = "student"
    config.model = ConfigDict(tuples(to_dict(preset(name))))
    weights = {"paper": LossWeights(), "small_128": SMALL_WEIGHTS.eyes_only()}.get(name, SMALL_WEIGHTS)
    config.losses = dataclasses.asdict(weights)
    config.perceptual = "lite0"  # shipped features; or a converted VGG16 (.safetensors), the paper's
    config.gaze_estimator = ""  # for losses.gaze: weights of configs/estimator.py, but not those that evaluation uses
    config.distill = ConfigDict({"source": "ground_truth", "teacher": ""})  # L_D from: teacher | ground_truth | none
    config.eye_jitter = 0.002  # world units (0.7 mm; twice that in depth): eye centres of a photo are never exact
    config.augment = True
    config.data.update(
        source="stream",  # people rendered while training; or records (data.dir)
        dir="",
        workers=0,  # processes that render (0: all cores but one) or decode (0: threads of this one)
        gazes=6,
        views=4,
        capacity=64,  # captures kept by the stream
        minimum=8,  # captures before the first batch
        people=0,  # stop rendering after so many; 0: never
        gpus=(),  # that draw, by EGL number, better not those that train; none: the default one
        same_view=0.5,  # share of pairs that keep the source's view
    )
    if name == "tiny":
        config.update(batch_size=8, total_steps=200, quick_compile=True)
        config.optim.update(lr=2e-3, warmup=20)
        config.data.update(workers=1, gazes=3, views=2, capacity=8, minimum=2)
        config.checkpoint.every_steps = 50
        config.log.every = 10
    elif name == "small_128":
        config.update(batch_size=16, total_steps=1000, ema_decay=0.99)
        config.model.dtype = "float32"
        config.optim.update(lr=1e-3, warmup=20)
        config.data.update(workers=1, gazes=10, views=1, people=150, capacity=150, minimum=6)
        config.checkpoint.update(every_steps=0, every_seconds=240.0)
    elif name in ("small", "small_256"):
        config.update(batch_size=16, total_steps=60_000, ema_decay=0.999)
        config.optim.update(lr=3e-4, warmup=500)
        config.log.images_every = 1000
    else:
        config.update(batch_size=4, total_steps=180_000)  # 50 epochs of 14,400 images
        config.optim.update(lr=1e-5, warmup=0, final_scale=1.0)
        config.distill.source = "teacher"
        config.data.update(source="records", dir="data/eth_xgaze")
        config.log.images_every = 5000
    return config
