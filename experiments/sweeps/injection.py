"""The paper's first ablation: where the gaze prompt enters.

  python experiments/sweep.py experiments/sweeps/injection.py --workdir runs/injection

The paper (ETH-XGaze): low-frequency features 18.97 degrees, FID 67.3; high-frequency features 9.05 degrees, FID 38.3.
Two trainings of the small_256 preset without the eye branch, which would hide the difference.
"""

from sweep import Sweep


def get_sweep() -> Sweep:
    """Low against high."""
    common = {"model.eyes.enabled": False}
    return Sweep(
        config="configs/rtgaze.py:small_256",
        runs={place: {"model.prompt.inject": place, **common} for place in ("low", "high")},
        columns=("loss", "gaze_error_label_deg", "same_view.psnr_face", "cross_view.psnr_face", "depth_error_mm"),
    )
