"""CUDA graphs of whole programs, and results that the host reads without a further copy.

A program of this project is hundreds of short kernels: started one by one the host is slower than the GPU. XLA records
most kernels into CUDA graphs anyway, but cuts them at every convolution unless told otherwise.
"""

import functools

import jax
import jax.numpy as jnp

from rtgaze_jax.rendering.kernels import capability

_GRAPHS = {
    "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONVOLUTION",
    "xla_gpu_command_buffer_scheduling_mode": "CONCURRENT",  # independent parts of a network side by side
}


@functools.cache
def compiler_options() -> dict[str, str]:
    """For jax.jit: programs as CUDA graphs, where an NVIDIA GPU and its compiler can; else none."""
    if not capability():
        return {}
    image, kernel = jnp.ones((1, 32, 32, 32), jnp.bfloat16), jnp.ones((3, 3, 32, 32), jnp.bfloat16)

    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    # cuDNN cannot be started while a graph records it: that failed with CUDNN_STATUS_EXECUTION_FAILED
    jax.block_until_ready(jax.jit(convolve)(image, kernel))
    try:
        jax.jit(convolve, compiler_options=_GRAPHS).lower(image, kernel).compile()
    except jax.errors.JaxRuntimeError:  # another version's compiler, which does not know these options
        return {}
    return _GRAPHS


def host_memory() -> jax.sharding.Sharding | None:
    """Where programs put results that only the host reads, so that fetching one is no further step; None: as usual.

    On an H100 `np.asarray` of a 512 x 512 image in the GPU's memory takes 0.6 ms, most of it waiting. Nor does XLA use
    such results as scratch memory while it computes, whose places it would have to write into the graph on each call.
    """
    if not capability():
        return None
    return jax.sharding.SingleDeviceSharding(jax.devices()[0], memory_kind="pinned_host")
