"""Redirection of face crops whose eyes are known, without a photo around them: for data sets."""

import os
from collections.abc import Callable

import cv2
import jax.numpy as jnp
import numpy as np

from rtgaze_jax.inference.network import Network
from rtgaze_jax.weights import io


def crop_redirector(path: str | os.PathLike) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """A function (crop u8[S, S, 3], eye centres [2, 2] normalised, gazes [k, 2] radians in the crop's camera) -> faces
    u8[k, N, N, 3] of the network's size N. Raises UserError where the weights are no redirector's."""
    network = Network.from_weights(*io.load(path))

    def redirect(crop: np.ndarray, eyes: np.ndarray, gazes: np.ndarray) -> np.ndarray:
        if len(crop) != network.size:
            reducing = len(crop) > network.size
            method = cv2.INTER_AREA if reducing else cv2.INTER_CUBIC
            crop = cv2.resize(crop, (network.size, network.size), interpolation=method)
        features = network.encode(jnp.asarray(crop)[None])
        points = jnp.asarray(eyes, jnp.float32)[None]
        faces = (network.look(features, jnp.asarray(gaze, jnp.float32)[None], points) for gaze in gazes)
        return np.concatenate([np.asarray(face) for face in faces])

    return redirect
