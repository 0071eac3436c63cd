"""The part of a configuration that all runs share; configs/*.py add model, data and losses.

Written once, with types: ml_collections refuses unknown keys and values of another type on the command line.
"""

from typing import Any

from ml_collections import ConfigDict


def tuples(value: Any) -> Any:
    """Lists as tuples, at any depth: what ConfigDict overrides from the command line can replace."""
    if isinstance(value, dict):
        return {key: tuples(inner) for key, inner in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value


def base() -> ConfigDict:
    """A run's configuration, without what is trained (`objective`, `model`, `losses`) and on what (`data`)."""
    return ConfigDict(
        {
            "seed": 0,
            "batch_size": 8,  # global, over all devices and micro-batches
            "accumulate": 1,  # micro-batches per step; same result, less memory
            "total_steps": 1000,  # of the whole run, however many pieces it is run in
            "max_minutes": 0.0,  # end with a checkpoint after this time; 0: no limit
            "ema_decay": 0.0,  # average of the weights, exported instead of them; 0: none
            "init_from": "",  # weights (.safetensors) to begin with where the workdir has no checkpoint
            "init_step": -1,  # the step they count as; -1: the step and data position they were saved at
            "compile_cache": "",  # folder that keeps compiled programs between runs
            "quick_compile": False,  # for small tests: compile in half the time, run slower
            "optim": {
                "kind": "adamw",  # or sgd
                "lr": 1e-4,
                "warmup": 100,
                "final_scale": 0.05,
                "clip": 1.0,
                "b1": 0.9,
                "b2": 0.99,
                "eps": 1e-8,
                "weight_decay": 0.0,
                "groups": {},  # {regular expression over parameter paths: factor on lr}; 0 freezes
            },
            "parallel": {
                "mode": "jit",  # or pmap
                "devices": 0,  # 0: all
                "coordinator": "",
                "processes": 1,
                "process_id": 0,  # several hosts: see training/parallel.py
            },
            "checkpoint": {
                "every_steps": 1000,
                "every_seconds": 600.0,  # 0: not by that
                "keep_last": 2,
                "keep_best": 1,
                "best": "loss",  # lowest mean since the checkpoint before
            },
            "guards": {"max_skips": 10, "jump_factor": 8.0, "history": 100, "snapshots": 3},
            "log": {"every": 20, "images_every": 0, "image_rows": 4, "tensorboard": False},
            "data": {"prefetch": 2},  # batches placed on the devices ahead of use
        }
    )
