"""Volume rendering along rays: sample depths, marching, and the two-pass render.

Marching follows EG3D's MipRayMarcher2. Shapes are [..., rays, samples] with channels last; nothing larger than
[..., rays, samples, channels] is made. Without a random key everything is deterministic (bin centres, even quantiles).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from rtgaze_jax.geometry.camera import Scalar

Field = Callable[[Float[Array, "batch points 3"]], tuple[Float[Array, "batch points"], Float[Array, "batch points c"]]]
"""World points to raw densities (before the softplus) and features."""
Density = Callable[[Float[Array, "batch points 3"]], Float[Array, "batch points"]]
"""World points to raw densities."""
Resampler = Callable[[Float[Array, "*rays s"], Float[Array, "*rays s-1"]], Float[Array, "*rays n"]]
"""Depths and marching weights of a first pass to the depths of the second."""

_EMPTY = 1e-10  # a ray with less opacity has no depth of its own


class Rendered(NamedTuple):
    """What a set of rays saw.

    features: composited over zero.
    depth: mean ray length weighted by visibility, world units; the depth of the last sample where a ray met nothing.
    opacity: in [0, 1].
    weights: of the intervals between successive samples; they sum to the opacity.
    """

    features: Float[Array, "*rays c"]
    depth: Float[Array, "*rays"]
    opacity: Float[Array, "*rays"]
    weights: Float[Array, "*rays s-1"]


def stratified_depths(
    near: Float[Array, "*#rays"] | Scalar,
    far: Float[Array, "*#rays"] | Scalar,
    samples: int,
    key: PRNGKeyArray | None = None,
    shape: tuple[int, ...] = (),
) -> Float[Array, "*#rays samples"]:
    """One depth in each of `samples` equal bins between near and far: at random, or its centre without a key.

    Args:
        near, far: world units, one for all rays or one a ray.
        shape: of the rays.
    """
    offsets = 0.5 if key is None else _uniform(key, (*shape, samples))
    steps = (jnp.arange(samples) + offsets) / samples
    near, far = (jnp.broadcast_to(jnp.asarray(x, jnp.float32), shape)[..., None] for x in (near, far))
    return near + (far - near) * steps


def eg3d_stratified_depths(near: Scalar, far: Scalar, uniforms: Float[Array, "*rays s"]) -> Float[Array, "*rays s"]:
    """EG3D's stratified depths from uniform numbers in [0, 1): the last may lie beyond `far` by a step."""
    samples = uniforms.shape[-1]
    return jnp.linspace(near, far, samples, dtype=jnp.float32) + uniforms * ((far - near) / (samples - 1))


def importance_depths(
    depths: Float[Array, "*rays s"],
    weights: Float[Array, "*rays s-1"],
    samples: int,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "*rays samples"]:
    """Sorted depths drawn where the weights are: a stratified draw, or even quantiles without a key.

    The density is constant between successive `depths`, in proportion to the smoothed weights. No gradient flows back.
    """
    depths, mass = jax.lax.stop_gradient((depths, _smooth(weights)))
    mass = mass / jnp.sum(mass, axis=-1, keepdims=True)
    below = jnp.cumsum(mass, axis=-1) - mass
    offsets = 0.5 if key is None else _uniform(key, (*depths.shape[:-1], samples))
    quantiles = jnp.broadcast_to((jnp.arange(samples) + offsets) / samples, (*depths.shape[:-1], samples))
    # The inverse of the distribution as a sum over intervals, each passed as far as the quantile reaches into it:
    # no search, no gather, one fused reduction.
    passed = jnp.clip((quantiles[..., None] - below[..., None, :]) / mass[..., None, :], 0, 1)
    return depths[..., :1] + _weighted_sum(jnp.diff(depths, axis=-1), jnp.moveaxis(passed, -1, -2))


def eg3d_importance_depths(
    depths: Float[Array, "*rays s"], weights: Float[Array, "*rays s-1"], uniforms: Float[Array, "*rays n"]
) -> Float[Array, "*rays n"]:
    """EG3D's importance depths from uniform numbers in [0, 1), in their order.

    Its bins are the midpoints of `depths` without the last one, with weights that belong half a bin further away, so
    the samples are biased towards the camera. For networks trained with it; `importance_depths` has no bias.
    """
    depths, mass = jax.lax.stop_gradient((depths, _smooth(weights)[..., 1:-1] + 1e-5))
    edges = (depths[..., 1:] + depths[..., :-1]) / 2
    cumulative = jnp.cumsum(mass / jnp.sum(mass, axis=-1, keepdims=True), axis=-1)
    cumulative = jnp.concatenate([jnp.zeros_like(cumulative[..., :1]), cumulative], axis=-1)
    found = jnp.sum(cumulative[..., None, :] <= uniforms[..., None], axis=-1)
    low, high = jnp.maximum(found - 1, 0), jnp.minimum(found, cumulative.shape[-1] - 1)
    low_cumulative = jnp.take_along_axis(cumulative, low, axis=-1)
    gap = jnp.take_along_axis(cumulative, high, axis=-1) - low_cumulative
    low_edge = jnp.take_along_axis(edges, low, axis=-1)
    width = jnp.take_along_axis(edges, high, axis=-1) - low_edge
    return low_edge + (uniforms - low_cumulative) / jnp.where(gap < 1e-5, 1.0, gap) * width


def march(
    features: Float[Array, "*rays s c"],
    densities: Float[Array, "*rays s"],
    depths: Float[Array, "*rays s"],
    density_scale: Scalar = 1.0,
) -> Rendered:
    """Composite samples along rays.

    Between two samples the raw density, the features and the depth are the means of both ends, and the absorption per
    world unit is density_scale * softplus(density - 1).

    Args:
        features, densities, depths: of the samples, sorted by depth (world units).
        density_scale: above 1 lets thin shells become opaque, as small boxes need.
    """
    weights, shares = absorb(densities, depths, density_scale)
    return _composite(_weighted_sum(shares, features), weights, depths)


def absorb(
    densities: Float[Array, "*rays s"], depths: Float[Array, "*rays s"], density_scale: Scalar = 1.0
) -> tuple[Float[Array, "*rays s-1"], Float[Array, "*rays s"]]:
    """The weights of the intervals between sorted samples, and each sample's share in them: half of its neighbours'.

    The shares spare marching to average features: sum_i w_i (f_i + f_i+1) / 2 reads each of them once.
    """
    lengths = jnp.diff(depths, axis=-1)
    absorbed = density_scale * jax.nn.softplus(_middle(densities) - 1) * lengths
    before = jnp.cumsum(absorbed, axis=-1)[..., :-1]
    before = jnp.concatenate([jnp.zeros_like(absorbed[..., :1]), before], axis=-1)
    weights = -jnp.expm1(-absorbed) * jnp.exp(-before)
    none = jnp.zeros_like(weights[..., :1])
    return weights, (jnp.concatenate([weights, none], axis=-1) + jnp.concatenate([none, weights], axis=-1)) / 2


def _weighted_sum(shares, features):
    # As a product of matrices, a hundred times faster on CPUs than as a sum of products, whose terms XLA writes to
    # memory there; on GPUs both compile to one fused loop, but only with this precision.
    return jnp.einsum("...s,...sc->...c", shares, features, precision="highest")


def _composite(features, weights, depths):
    opacity = jnp.sum(weights, axis=-1)
    # Two wheres, so that neither the value nor the gradient of an empty ray is 0 / 0.
    empty = opacity < _EMPTY
    mean = jnp.sum(weights * _middle(depths), axis=-1) / jnp.where(empty, 1.0, opacity)
    return Rendered(features, jnp.where(empty, depths[..., -1], mean), opacity, weights)


def two_pass(
    field: Field,
    origins: Float[Array, "batch *rays 3"],
    directions: Float[Array, "batch *rays 3"],
    coarse_depths: Float[Array, "batch *rays s"],
    resample: Resampler,
    *,
    merge: bool,
    density_scale: Scalar = 1.0,
    density: Density | None = None,
) -> Rendered:
    """Render with a coarse pass at given depths and a fine pass where `resample` puts it.

    With `merge` the samples of both passes are sorted and marched together, as in EG3D. Without, the coarse pass only
    steers the fine one: it gets no gradient, its features are not used (`density`, the field's densities alone, saves
    them where the compiler cannot), and `resample` must return sorted depths.
    """

    def points(depths):
        points = origins[..., None, :] + directions[..., None, :] * depths[..., None]
        return points.reshape(points.shape[0], -1, 3)

    def evaluate(depths):
        densities, features = field(points(depths))
        return densities.reshape(depths.shape), features.reshape(*depths.shape, features.shape[-1])

    if merge or density is None:
        densities, features = evaluate(coarse_depths)
    else:
        densities = density(points(coarse_depths)).reshape(coarse_depths.shape)
    weights, _ = absorb(densities, coarse_depths, density_scale)
    depths = jax.lax.stop_gradient(resample(coarse_depths, weights))
    fine_densities, fine_features = evaluate(depths)
    if not merge:
        return march(fine_features, fine_densities, depths, density_scale)
    depths = jnp.concatenate([coarse_depths, depths], axis=-1)
    densities = jnp.concatenate([densities, fine_densities], axis=-1)
    order = jnp.argsort(depths, axis=-1)
    depths = jnp.take_along_axis(depths, order, axis=-1)
    weights, shares = absorb(jnp.take_along_axis(densities, order, axis=-1), depths, density_scale)
    # The shares go back to the samples, not the features to the order of depths: they are one number each.
    shares = jnp.take_along_axis(shares, jnp.argsort(order, axis=-1), axis=-1)
    coarse_shares, fine_shares = jnp.split(shares, [coarse_depths.shape[-1]], axis=-1)
    seen = _weighted_sum(coarse_shares, features) + _weighted_sum(fine_shares, fine_features)
    return _composite(seen, weights, depths)


def render_rays(
    field: Field,
    origins: Float[Array, "batch *rays 3"],
    directions: Float[Array, "batch *rays 3"],
    near: Float[Array, "batch *#rays"] | Scalar,
    far: Float[Array, "batch *#rays"] | Scalar,
    coarse: int,
    fine: int,
    key: PRNGKeyArray | None = None,
    *,
    merge: bool = False,
    density_scale: Scalar = 1.0,
    density: Density | None = None,
) -> Rendered:
    """The two-pass render with stratified and importance sampling.

    Args:
        field: see `Field`; it sees all samples of all rays of one image as one list of points.
        origins, directions: of rays, unit directions.
        near, far: ends of the rays, world units, one for all rays or one a ray.
        coarse, fine: samples of the two passes.
        key: random sampling (training), one key or one an example; without one the render is deterministic.
        merge: march both passes' samples together (EG3D) instead of the fine ones only (cheaper); see `two_pass`.
        density_scale: see `march`.
        density: see `two_pass`.
    """
    coarse_key, fine_key = split_key(key)
    return two_pass(
        field,
        origins,
        directions,
        stratified_depths(near, far, coarse, coarse_key, origins.shape[:-1]),
        lambda depths, weights: importance_depths(depths, weights, fine, fine_key),
        merge=merge,
        density_scale=density_scale,
        density=density,
    )


def split_key(key: PRNGKeyArray | None) -> tuple[PRNGKeyArray | None, PRNGKeyArray | None]:
    """Two independent keys from one, or from one an example; None gives None."""
    if key is None:
        return None, None
    if key.ndim == 0:
        first, second = jax.random.split(key)
        return first, second
    pairs = jax.vmap(jax.random.split)(key)
    return pairs[:, 0], pairs[:, 1]


def signed_colors(features: Float[Array, "*rays c"]) -> Float[Array, "*rays c"]:
    """EG3D's last step: composited features from [0, 1] to [-1, 1], all channels."""
    return 2 * features - 1


def _uniform(key, shape):
    # One key an example makes its samples independent of how a batch is spread over devices.
    if key.ndim == 0:
        return jax.random.uniform(key, shape)
    return jax.vmap(lambda one: jax.random.uniform(one, shape[1:]))(key)


def _middle(values):
    return (values[..., 1:] + values[..., :-1]) / 2


def _smooth(weights):
    """EG3D's blur of the coarse weights: the mean of the maxima with either neighbour, and a floor for empty space."""
    padding = [(0, 0)] * (weights.ndim - 1) + [(1, 1)]
    padded = jnp.pad(weights, padding, constant_values=-jnp.inf)
    return _middle(jnp.maximum(padded[..., 1:], padded[..., :-1])) + 0.01
