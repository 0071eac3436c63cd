"""Image metrics with the definitions of the published protocols (piq's PSNR and SSIM, the Frechet distance).

Images are float NHWC in [0, 1]; every metric gives one value an image.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2


def psnr(
    a: Float[Array | np.ndarray, "batch h w c"], b: Float[Array | np.ndarray, "batch h w c"]
) -> Float[Array, "batch"]:
    """Peak signal-to-noise ratio in dB; 80 for equal images."""
    return _decibels(jnp.mean((a - b) ** 2, axis=(1, 2, 3)))


def masked_psnr(
    a: Float[Array | np.ndarray, "batch h w c"],
    b: Float[Array | np.ndarray, "batch h w c"],
    mask: Bool[Array | np.ndarray, "batch h w"],
) -> Float[Array, "batch"]:
    """PSNR over the pixels of a mask; NaN where the mask is empty, so that a nanmean leaves the image out."""
    pixels = jnp.sum(mask, axis=(1, 2))
    error = jnp.sum(jnp.mean((a - b) ** 2, axis=-1) * mask, axis=(1, 2)) / jnp.maximum(pixels, 1)
    return jnp.where(pixels > 0, _decibels(error), jnp.nan)


def ssim(
    a: Float[Array | np.ndarray, "batch h w c"], b: Float[Array | np.ndarray, "batch h w c"], downsample: bool = True
) -> Float[Array, "batch"]:
    """Structural similarity as piq computes it: Gaussian window of 11 pixels and sigma 1.5, whole windows only.

    With `downsample` (piq's default, and what the published tables used) images whose shorter side is 384 pixels or
    more are first averaged over blocks of round(side / 256) pixels.
    """
    if downsample:
        a, b = (_block_mean(x, max(1, round(min(x.shape[1:3]) / 256))) for x in (a, b))
    mean_a, mean_b = _blur(a), _blur(b)
    variances = _blur(a * a) - mean_a**2 + _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    structure = (2 * covariance + _SSIM_C2) / (variances + _SSIM_C2)
    luminance = (2 * mean_a * mean_b + _SSIM_C1) / (mean_a**2 + mean_b**2 + _SSIM_C1)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def frechet_distance(a: Float[np.ndarray, "n features"], b: Float[np.ndarray, "m features"]) -> float:
    """Frechet distance between Gaussians fitted to two sets of features (FID, if they are Inception's). Float64, NumPy.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)). With centred data X, Y such that A = X'X and B = Y'Y, the last
    trace is the sum of the singular values of X Y', or of their QR factors: no matrix root, exact for few samples.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    roots = [np.asarray(np.linalg.qr((x - x.mean(axis=0)) / np.sqrt(len(x) - 1), mode="r")) for x in (a, b)]
    variance = sum(np.sum(root**2) for root in roots)
    overlap = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return float(np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2) + variance - 2 * overlap)


def piq_frechet_distance(a: Float[np.ndarray, "n features"], b: Float[np.ndarray, "m features"]) -> float:
    """The Frechet distance as piq 0.7 approximates it, to stand beside tables that were made with it. Float64, NumPy.

    piq takes the matrix root of A B by Newton-Schulz steps and stops at a relative error of 1e-5 in its square: the
    trace of the root is then a little too small and the distance too large.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b)]
    root = _newton_schulz_root(covariances[0] @ covariances[1])
    if not np.isfinite(root).all():
        shifted = [c + 1e-6 * np.eye(len(c)) for c in covariances]
        root = _newton_schulz_root(shifted[0] @ shifted[1])
    trace = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(root)
    return float(np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2) + trace)


def _newton_schulz_root(matrix, steps=100, tolerance=1e-5):
    norm = np.linalg.norm(matrix)
    identity = np.eye(len(matrix))
    root, inverse = matrix / norm, identity
    with np.errstate(all="ignore"):  # divergence shows as infinities, which the caller handles
        for _ in range(steps):
            step = (3 * identity - inverse @ root) / 2
            root, inverse = root @ step, step @ inverse
            if np.linalg.norm(matrix - norm * root @ root) / norm <= tolerance:
                break
    return root * np.sqrt(norm)


def _decibels(mean_square):
    return -10 * jnp.log10(mean_square + 1e-8)


def _block_mean(image, size):
    batch, height, width, channels = image.shape
    height, width = height // size, width // size
    blocks = image[:, : height * size, : width * size].reshape(batch, height, size, width, size, channels)
    return blocks.mean(axis=(2, 4))


def _blur(image):
    """Gaussian window, valid pixels only, as sums of shifted images (float32 exact on every device)."""
    offsets = np.arange(_SSIM_WINDOW) - _SSIM_WINDOW // 2
    kernel = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    kernel = (kernel / kernel.sum()).tolist()
    for axis in (1, 2):
        length = image.shape[axis] - _SSIM_WINDOW + 1
        image = sum(k * lax.slice_in_dim(image, i, i + length, axis=axis) for i, k in enumerate(kernel))
    return image
