"""Products of small matrices."""

from jaxtyping import Array, Float


def times(matrix: Float[Array, "*#batch m 3"], vector: Float[Array, "*#batch 3"]) -> Float[Array, "*batch m"]:
    """Matrix times vector, for many vectors at once.

    Written out: accelerators would round the inputs of a matrix product to fewer bits, and on processors XLA of jax
    0.10 gets the fused sum over the last axis wrong for some numbers of vectors (17,920 for one).
    """
    first, second, third = (matrix[..., i] * vector[..., i, None] for i in range(3))
    return first + second + third
