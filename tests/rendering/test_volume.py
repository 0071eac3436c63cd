"""Volume rendering against closed forms and invariants."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtgaze_jax.geometry import camera
from rtgaze_jax.rendering import rays, volume

NEAR, FAR = 2.25, 3.3


def raw_density(absorption):
    """The raw density whose softplus(x - 1) is `absorption` (per world unit)."""
    return 1 + jnp.log(jnp.expm1(absorption))


def blobs(points):
    """An analytic, lopsided field: two soft blobs with position-dependent colours."""
    near, far = jnp.array([0.1, 0.05, 0.2]), jnp.array([-0.1, -0.1, -0.1])
    first = 9 * jnp.exp(-jnp.sum((points - near) ** 2, axis=-1) / 0.02)
    second = 6 * jnp.exp(-jnp.sum((points - far) ** 2, axis=-1) / 0.03)
    return raw_density(first + second + 1e-3), jax.nn.sigmoid(4 * points)


@partial(jax.jit, static_argnums=0)
def frontal_rays(resolution):
    return tuple(r[None] for r in rays.camera_rays(camera.frontal_camera(), resolution))


render_rays = jax.jit(volume.render_rays, static_argnames=("field", "coarse", "fine", "merge"))
importance_depths = jax.jit(volume.importance_depths, static_argnames="samples")
march = jax.jit(volume.march)


# Depths -----------------------------------------------------------------------------------------------------------


def test_stratified_depths():
    np.testing.assert_allclose(volume.stratified_depths(1.0, 3.0, 4), [1.25, 1.75, 2.25, 2.75])
    near = jnp.array([1.0, 2.0])
    drawn = volume.stratified_depths(near, near + 1, 5, jax.random.key(0), (2,))
    bins = (np.asarray(drawn) - np.asarray(near)[:, None]) * 5
    np.testing.assert_array_equal(np.floor(bins), np.broadcast_to(np.arange(5), (2, 5)))
    assert np.unique(bins % 1).size == 10


def test_importance_depths_are_the_quantiles():
    """Against NumPy's interpolation of the inverse distribution."""
    rng = np.random.default_rng(0)
    depths, weights = np.sort(rng.uniform(2, 3, (6, 9)), axis=-1), rng.dirichlet(np.full(8, 0.3), 6)
    drawn = importance_depths(jnp.asarray(depths), jnp.asarray(weights), 20)
    for t, w, actual in zip(depths, weights, np.asarray(drawn), strict=True):
        padded = np.concatenate([[0], w, [0]])
        blurred = (np.maximum(padded[:-1], padded[1:])[:-1] + np.maximum(padded[:-1], padded[1:])[1:]) / 2 + 0.01
        cumulative = np.concatenate([[0], np.cumsum(blurred / blurred.sum())])
        np.testing.assert_allclose(actual, np.interp((np.arange(20) + 0.5) / 20, cumulative, t), atol=1e-5)
    assert (np.diff(drawn, axis=-1) >= 0).all()


def test_importance_depths_have_no_bias_and_eg3ds_have():
    depths = jnp.linspace(2, 3, 25)  # 24 intervals of 1/24; all weight around 2.5, symmetric
    weights = jnp.zeros(24).at[11:13].set(0.5)
    step = 1 / 24
    assert abs(float(importance_depths(depths, weights, 1000).mean()) - 2.5) < 1e-4
    even = (jnp.arange(1000) + 0.5) / 1000
    shift = float(jax.jit(volume.eg3d_importance_depths)(depths, weights, even).mean()) - 2.5
    assert -step < shift < -0.3 * step  # towards the camera by about half a bin


def test_random_importance_depths_are_sorted_and_inside():
    depths = jnp.broadcast_to(volume.stratified_depths(NEAR, FAR, 8), (50, 8))
    weights = jax.random.uniform(jax.random.key(1), (50, 7)) ** 8
    drawn = importance_depths(depths, weights, 16, jax.random.key(2))
    assert (jnp.diff(drawn, axis=-1) >= 0).all()
    assert (drawn >= depths[:, :1]).all()
    assert (drawn <= depths[:, -1:] + 1e-5).all()
    assert not np.allclose(drawn, importance_depths(depths, weights, 16, jax.random.key(3)))


# Marching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density_scale", [1.0, 30.0])
def test_constant_density(density_scale):
    """Beer-Lambert: exact for any sampling, as the density is the same at all samples."""
    depths = jnp.sort(jax.random.uniform(jax.random.key(0), (5, 12), minval=1.0, maxval=1.2), axis=-1)
    out = march(jnp.full((5, 12, 2), 0.7), jnp.full((5, 12), 1.5), depths, density_scale)
    length = depths[:, -1] - depths[:, 0]
    opacity = 1 - np.exp(-density_scale * np.log1p(np.exp(0.5)) * length)
    np.testing.assert_allclose(out.opacity, opacity, rtol=1e-5)
    np.testing.assert_allclose(out.features, 0.7 * np.stack([opacity] * 2, -1), rtol=1e-5)
    np.testing.assert_allclose(out.weights.sum(-1), opacity, rtol=1e-5)


@pytest.mark.parametrize("merge", [False, True])
def test_sphere_of_constant_density(merge):
    """Closed forms: opacity 1 - exp(-s L) over the chord L; depth the mean of an exponential cut off at L."""
    radius, absorption = 0.3, 6.0

    def sphere(points):
        inside = jnp.linalg.norm(points, axis=-1) < radius
        return jnp.where(inside, raw_density(absorption), -40.0), jnp.ones((*points.shape[:-1], 1))

    origins, directions = frontal_rays(8)
    out = render_rays(sphere, origins, directions, NEAR, FAR, 256, 512, merge=merge)
    middle = -np.sum(np.asarray(origins) * directions, axis=-1)  # depth of the point next to the centre
    off_axis = 2.7**2 - middle**2
    chord = 2 * np.sqrt(np.maximum(radius**2 - off_axis, 0))
    hit = chord > 0.1
    assert 10 < hit.sum() < 64
    opacity = 1 - np.exp(-absorption * chord)
    depth = middle - chord / 2 + 1 / absorption - chord * (1 - opacity) / np.where(hit, opacity, 1)
    np.testing.assert_allclose(np.asarray(out.opacity)[hit], opacity[hit], atol=0.01)
    np.testing.assert_allclose(np.asarray(out.features)[hit, 0], opacity[hit], atol=0.01)
    np.testing.assert_allclose(np.asarray(out.depth)[hit], depth[hit], atol=0.003)
    missed = off_axis > (1.02 * radius) ** 2
    np.testing.assert_allclose(np.asarray(out.opacity)[missed], 0, atol=1e-6)


def test_more_samples_converge():
    origin, direction = jnp.array([0.02, 0.0, 2.7]), jnp.array([0.0, 0.0, -1.0])

    @partial(jax.jit, static_argnums=0)
    def render(samples):
        depths = volume.stratified_depths(NEAR, FAR, samples)
        densities, colors = blobs(origin + direction * depths[:, None])
        return volume.march(colors, densities, depths)

    outs = [render(samples) for samples in (8, 64, 1024)]
    for read in (lambda o: o.opacity, lambda o: o.depth, lambda o: o.features[2]):
        errors = [abs(float(read(o)) - float(read(outs[-1]))) for o in outs[:-1]]
        assert errors[-1] < 1e-3
        assert errors[-1] < errors[0] / 10  # second order would be 64


def test_empty_rays_and_finite_gradients():
    """Densities so low that every weight is exactly zero: values, and gradients to everything, stay finite."""
    depths = jnp.broadcast_to(volume.stratified_depths(NEAR, FAR, 6), (2, 6))
    densities = jnp.array([[-300.0] * 6, [-300.0] * 3 + [5.0] * 3])
    features = jnp.ones((2, 6, 3))
    out = march(features, densities, depths)
    np.testing.assert_array_equal(out.opacity[0], 0)
    np.testing.assert_array_equal(out.features[0], 0)
    np.testing.assert_array_equal(out.depth[0], depths[0, -1])

    def loss(features, densities, depths):
        out = volume.march(features, densities, depths)
        return jnp.sum(out.depth) + jnp.sum(out.opacity) + jnp.sum(out.features**2)

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(features, densities, depths)
    assert all(np.isfinite(g).all() for g in gradients)
    assert jnp.abs(gradients[1][1]).max() > 0


# Two passes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge", [False, True])
def test_moving_camera_and_world_together_changes_nothing(merge):
    label = camera.orbit_camera(jnp.array([25.0]), jnp.array([-15.0]))
    moved_frame = camera.unpack_camera(camera.orbit_camera(-50.0, 30.0, radius=2.2, pivot=(0.3, 0.1, -0.2)))[0]

    def moved_blobs(points):
        return blobs(camera.transform_points(camera.invert_rigid(moved_frame), points))

    @jax.jit
    def render(label):
        return volume.render_rays(blobs, *rays.camera_rays(label, 6), NEAR, FAR, 12, 24, merge=merge)

    @jax.jit
    def render_moved(label):
        label = camera.transform_camera(moved_frame, label)
        # A colour is a function of the place: `moved_blobs` gives that of the place before the move.
        return volume.render_rays(moved_blobs, *rays.camera_rays(label, 6), NEAR, FAR, 12, 24, merge=merge)

    expected, actual = render(label), render_moved(label)
    assert 0.3 < expected.opacity.mean() < 0.999
    for name in ("features", "depth", "opacity"):
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), atol=1e-4)
    assert jnp.abs(render(camera.transform_camera(moved_frame, label)).features - expected.features).max() > 0.05


def test_both_variants_agree_with_many_samples():
    ray = frontal_rays(4)
    few, merged, reference = (
        render_rays(blobs, *ray, NEAR, FAR, n, 2 * n, merge=m) for n, m in ((24, False), (24, True), (300, True))
    )
    for out in (few, merged):
        np.testing.assert_allclose(out.features, reference.features, atol=5e-3)
        np.testing.assert_allclose(out.depth, reference.depth, atol=5e-3)


def test_deterministic_without_a_key():
    ray = frontal_rays(3)

    def render(key):
        return render_rays(blobs, *ray, NEAR, FAR, 6, 8, key).features

    np.testing.assert_array_equal(render(None), render(None))
    first, again, other = (render(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert jnp.abs(first - other).max() > 1e-4


def test_the_order_of_merged_samples_does_not_matter():
    origins, directions = frontal_rays(2)
    coarse = volume.stratified_depths(NEAR, FAR, 8, shape=(1, 2, 2))

    @jax.jit
    def render(order):
        def resample(depths, weights):
            return volume.importance_depths(depths, weights, 8)[..., order]

        return volume.two_pass(blobs, origins, directions, coarse, resample, merge=True)

    expected, actual = render(jnp.arange(8)), render(jnp.array([3, 0, 7, 1, 6, 2, 5, 4]))
    np.testing.assert_allclose(actual.features, expected.features, atol=1e-6)


@pytest.mark.parametrize(("merge", "reaches_coarse"), [(False, False), (True, True)])
def test_only_merged_coarse_samples_get_a_gradient(merge, reaches_coarse):
    origins, directions = frontal_rays(2)

    def loss(shifts):
        passes = iter(shifts)  # the field's first call is the coarse pass, its second the fine one

        def field(points):
            densities, features = blobs(points)
            return densities + next(passes), features

        return jnp.sum(volume.render_rays(field, origins, directions, NEAR, FAR, 6, 8, merge=merge).features)

    gradient = jax.jit(jax.grad(loss))([jnp.float32(0), jnp.float32(0)])
    assert (gradient[0] != 0) == reaches_coarse
    assert gradient[1] != 0


def test_gradients_of_an_empty_scene_are_finite():
    ray = frontal_rays(2)

    def loss(density):
        def field(points):
            return jnp.full(points.shape[:-1], density), jnp.zeros((*points.shape[:-1], 2)) + density

        out = volume.render_rays(field, *ray, NEAR, FAR, 6, 8)
        return jnp.sum(out.features) + jnp.sum(out.depth)

    assert np.isfinite(jax.jit(jax.grad(loss))(-300.0))


def test_rays_with_their_own_ends_in_any_layout():
    """Patches of rays [batch, patch, rows, columns], each with its own near and far, equal the rays one by one."""
    origins, directions = (jnp.broadcast_to(r[:, None], (2, 2, 3, 3, 3)) for r in frontal_rays(3))
    near = jnp.linspace(2.2, 2.6, 4).reshape(2, 2, 1, 1) * jnp.ones((3, 3))

    def render(o, d, near):
        return render_rays(blobs, o, d, near, near + 0.5, 6, 8, density_scale=3.0)

    out = render(origins, directions, near)
    assert out.features.shape == (2, 2, 3, 3, 3)
    flat = render(*(x.reshape(2, 18, 3) for x in (origins, directions)), near.reshape(2, 18))
    np.testing.assert_allclose(out.features.reshape(2, 18, 3), flat.features, atol=1e-6)
    vmapped = jax.vmap(lambda *a: jax.tree.map(lambda x: x[0], render(*(x[None] for x in a))))(
        origins, directions, near
    )
    np.testing.assert_allclose(out.depth, vmapped.depth, atol=1e-5)
