"""Where a training step's time goes on this machine: each stage forward and with gradients, with its compile time.

  python experiments/profile_step.py [--preset small] [--batch 16] [--json FILE]

Set XLA_FLAGS to compare compiler settings; the result names them. Inputs are random.
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rtgaze_jax.files import write_bytes
from rtgaze_jax.geometry.camera import orbit_camera
from rtgaze_jax.models.config import preset
from rtgaze_jax.models.layers import initialize
from rtgaze_jax.models.rtgaze import RTGaze


def total(tree: Any) -> jax.Array:
    """One number that depends on every float of a tree."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum(jnp.mean(x.astype(jnp.float32)) for x in floats)


def measure(function: Callable, *args: Any, repeats: int = 5) -> dict[str, float]:
    """Compile seconds, and the median milliseconds of a call."""
    began = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - began
    jax.block_until_ready(compiled(*args))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append(1000 * (time.perf_counter() - began))
    return {"compile_s": round(seconds, 1), "ms": round(sorted(times)[repeats // 2], 2)}


def main() -> None:
    """Measures and prints one line a stage, as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json")
    args = parser.parse_args()
    config, b = preset(args.preset), args.batch
    model, size = RTGaze(config), config.image_size
    image = jax.random.uniform(jax.random.key(0), (b, size, size, 3)) * 2 - 1
    gaze = jnp.full((b, 2), 0.1)
    camera = jnp.broadcast_to(orbit_camera(10.0, 5.0), (b, 25))
    eyes = jnp.broadcast_to(jnp.array([[0.085, 0.05, 0.07], [-0.085, 0.05, 0.07]]), (b, 2, 3))
    variables = {"params": initialize(model, jax.random.key(1), image[:1], gaze[:1], camera[:1], eyes[:1])}
    found = {
        "device": jax.devices()[0].device_kind,
        "preset": args.preset,
        "batch": b,
        "flags": os.getenv("XLA_FLAGS", ""),
    }
    print(json.dumps(found), flush=True)

    def stage(name: str, method: str, *inputs: Any) -> Any:
        run = functools.partial(model.apply, method=method)
        found[name] = measure(run, variables, *inputs)
        print(name, found[name], flush=True)
        slope = jax.grad(lambda v, *rest: total(run(v, *rest)), allow_int=True)
        found[f"{name} + gradient"] = measure(slope, variables, *inputs)
        print(f"{name} + gradient", found[f"{name} + gradient"], flush=True)
        return jax.jit(run)(variables, *inputs)

    features = stage("encode", "encode", image)
    scene = stage("redirect", "redirect", features, gaze, eyes)
    stage("render", "render", scene, camera)
    if args.json:
        write_bytes(args.json, json.dumps(found, indent=1).encode())


if __name__ == "__main__":
    main()
