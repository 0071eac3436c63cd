"""Fixed feature networks for losses and metrics, in plain JAX.

perceptual: a distance for training (Lite0 as shipped, VGG16 from the user's file). distances: the metrics on uint8
images.
lite0, vgg, inception, identity, resnet: the networks.
"""

from rtgaze_jax.evaluation.features.perceptual import Perceptual, load_perceptual

__all__ = ["Perceptual", "load_perceptual"]
