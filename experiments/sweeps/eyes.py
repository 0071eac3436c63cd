"""Our own ablation: the eye branch.

  python experiments/sweep.py experiments/sweeps/eyes.py --workdir runs/eyes

Two trainings of the small_256 preset, with eye-local triplanes and rays at output resolution and without.
"""

from sweep import Sweep


def get_sweep() -> Sweep:
    """Without against with."""
    return Sweep(
        config="configs/rtgaze.py:small_256",
        runs={"without": {"model.eyes.enabled": False}, "with": {}},
        columns=("loss", "psnr_face", "psnr_eyes"),
    )
