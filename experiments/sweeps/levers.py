"""What each part of the small preset is worth: the whole, and the whole with one thing changed.

  python experiments/sweep.py experiments/sweeps/levers.py --workdir runs/levers

Trainings of the small_256 preset. gaze_loss needs --set gaze_estimator=FILE, an estimator that evaluation does not use.
"""

from sweep import Sweep


def get_sweep() -> Sweep:
    """One row a lever."""
    runs = {
        "whole": {},
        "no_eye_branch": {"model.eyes.enabled": False},
        "no_source_pixels_in_eyes": {"model.eyes.skip": False},
        "no_source_pixels_in_face": {"model.render.skip": False},
        "no_eye_perceptual": {"losses.eye_perceptual": 0.0},
        "quarter_of_the_tokens": {"model.encoder.pool": 2},
        "no_augmentation": {"augment": False},
        "gaze_loss": {"losses.gaze": 0.5},
    }
    eyes = ("same_view.psnr_eyes", "cross_view.psnr_eyes")
    return Sweep(
        config="configs/rtgaze.py:small_256",
        runs=runs,
        columns=(
            "loss",
            "gaze_error_label_deg",
            *eyes,
            "same_view.psnr_face",
            "cross_view.psnr_face",
            "depth_error_mm",
        ),
    )
