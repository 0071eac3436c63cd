"""The paper's efficiency table: time from a face crop to an image, and its parts, on this machine.

  python experiments/tables/efficiency.py [--weights FILE | --preset paper|small] [--json FILE] [--out FILE.md]

Medians of one face at a time, after compilation, waiting for each result. A preset without weights has random ones:
the time is the same.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from paper import arguments, finish, markdown, run

from rtgaze_jax import files
from rtgaze_jax.geometry.camera import frontal_camera
from rtgaze_jax.inference.network import Network
from rtgaze_jax.models.config import preset
from rtgaze_jax.models.layers import initialize
from rtgaze_jax.models.rtgaze import RTGaze
from rtgaze_jax.weights import io

PAPER = {  # seconds per image, as published; encoding is the fit to one person where there is one
    "HeadNeRF": "60.058",
    "GazeNeRF": "60.060 (60 s of fitting, 0.060 s of rendering)",
    "RTGaze": "0.061",
    "GazeGaussian": "1/74 (rendering only)",
}


def network(weights: str | None, name: str) -> tuple[Network, str]:
    """The network to time, and what it is."""
    if weights:
        params, header = io.load(weights)
        return Network.from_weights(params, header), f"{header['config']['preset']} preset"
    config = preset(name)
    image = jnp.zeros((1, config.image_size, config.image_size, 3))
    params = initialize(RTGaze(config), jax.random.key(0), image, jnp.zeros((1, 2)), frontal_camera()[None])
    return Network(params, config), f"{name} preset, random weights"


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """The median of `repeats` calls, each waited for, after three that are not counted."""
    times = []
    for _ in range(repeats + 3):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return statistics.median(times[3:])


def measure(net: Network, repeats: int) -> dict[str, float]:
    """Seconds of encoding, redirecting, rendering, and all three in a row."""
    image = np.random.default_rng(0).integers(0, 255, (1, net.size, net.size, 3), np.uint8)
    gaze, eyes = jnp.array([[0.1, -0.2]]), jnp.array([[[0.58, 0.45], [0.42, 0.45]]])
    camera = frontal_camera()[None]
    features = net.encode(image)
    scene = net.redirect(features, gaze, eyes)

    def one_shot() -> Any:
        found = net.encode(image)
        return net.render(found, net.redirect(found, gaze, eyes), camera)["image"]

    return {
        "encode": median_seconds(lambda: net.encode(image), repeats),
        "redirect": median_seconds(lambda: net.redirect(features, gaze, eyes), repeats),
        "render": median_seconds(lambda: net.render(features, scene, camera)["image"], repeats),
        "one_shot": median_seconds(one_shot, repeats),
    }


def main() -> None:
    """Measures and writes the table."""
    parser = arguments(__doc__)
    parser.add_argument("--weights", help="a weights file")
    parser.add_argument("--preset", default="paper", choices=["paper", "small", "tiny"])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    net, what = network(args.weights, args.preset)
    found = measure(net, args.repeats)
    device = jax.devices()[0].device_kind
    rows = {name: ["-", "-", "-", value] for name, value in PAPER.items()}
    rows[f"**ours** ({what}, {device})"] = [f"{found[k]:.4f}" for k in ("encode", "redirect", "render", "one_shot")]
    note = (
        f"Seconds. Ours: {net.size} x {net.size}, one face, median of {args.repeats}; the published times are of other "
        "cards. A new gaze of a face costs redirect + render, a new view of a result render alone."
    )
    if args.json:
        files.write_bytes(args.json, json.dumps(found | {"device": device, "what": what}, indent=1).encode())
    finish(markdown("Efficiency", ("encode", "redirect", "render", "photo to image"), rows, note), args.out)


if __name__ == "__main__":
    run(main)
