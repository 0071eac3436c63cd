"""PyTorch layers as JAX parameters: transposed kernels, batch normalisation folded into the convolution before it."""

import numpy as np

from rtgaze_jax.errors import UserError

State = dict[str, np.ndarray]


def take(state: State, name: str) -> np.ndarray:
    """A float32 tensor of the state dict. Raises UserError where it is missing: the file is of another network."""
    if name not in state:
        raise UserError(f"the file has no tensor {name!r}: it holds another network than the KIND you named")
    return state[name].astype(np.float32)


def conv(state: State, name: str) -> dict[str, np.ndarray]:
    """A convolution OIHW -> HWIO, with its bias if it has one."""
    params = {"kernel": np.ascontiguousarray(take(state, f"{name}.weight").transpose(2, 3, 1, 0))}
    if f"{name}.bias" in state:
        params["bias"] = take(state, f"{name}.bias")
    return params


def conv_norm(state: State, conv_name: str, norm_name: str, epsilon: float = 1e-5) -> dict[str, np.ndarray]:
    """A convolution and the batch normalisation after it as one convolution with a bias (exact at inference)."""
    variance = take(state, f"{norm_name}.running_var").astype(np.float64)
    scale = take(state, f"{norm_name}.weight") / np.sqrt(variance + epsilon)
    shift = take(state, f"{norm_name}.bias") - take(state, f"{norm_name}.running_mean") * scale
    params = conv(state, conv_name)
    bias = shift + params.get("bias", 0.0) * scale
    return {"kernel": (params["kernel"] * scale).astype(np.float32), "bias": bias.astype(np.float32)}


def dense(state: State, name: str) -> dict[str, np.ndarray]:
    """A linear layer [out, in] -> {"kernel": [in, out], "bias": [out]}."""
    params = {"kernel": np.ascontiguousarray(take(state, f"{name}.weight").T)}
    if f"{name}.bias" in state:
        params["bias"] = take(state, f"{name}.bias")
    return params
