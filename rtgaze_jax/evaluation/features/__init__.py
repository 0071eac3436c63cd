"""Fixed feature networks for losses and metrics, in plain JAX: Lite0, VGG16 and LPIPS, FID's Inception, a face
embedding."""

from rtgaze_jax.evaluation.features.perceptual import Perceptual, load_perceptual

__all__ = ["Perceptual", "load_perceptual"]
