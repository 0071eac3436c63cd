"""Every test runs on eight virtual CPU devices, so that parallel code meets more than one."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
