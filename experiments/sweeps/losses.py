"""The paper's second ablation: the terms of the loss.

  python experiments/sweep.py experiments/sweeps/losses.py --workdir runs/losses

The paper (ETH-XGaze): L_R alone 9.33 degrees, FID 101; with L_P 10.91, FID 54.7; with L_P and L_D 9.05, FID 38.3.
Three trainings of the small_256 preset with the paper's weights, without the eye branch and our own extra terms.
"""

from sweep import Sweep

OWN = ("raw", "opacity", "gradient", "eye_image", "eye_raw", "eye_depth", "eye_gradient", "eye_perceptual")


def get_sweep() -> Sweep:
    """Three sums of terms."""
    common = {"model.eyes.enabled": False, **{f"losses.{name}": 0.0 for name in OWN}}
    terms = {"R": (0.0, 0.0), "R+P": (0.8, 0.0), "R+P+D": (0.8, 1.0)}
    return Sweep(
        config="configs/rtgaze.py:small_256",
        runs={name: {**common, "losses.perceptual": p, "losses.depth": d} for name, (p, d) in terms.items()},
        columns=("loss", "gaze_error_label_deg", "same_view.psnr_face", "cross_view.psnr_face", "depth_error_mm"),
    )
