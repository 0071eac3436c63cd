"""Parameters as compiled programs want them: only those that a program reads, in the type in which it reads them.

Modules that compute in bfloat16 cast their float32 parameters on every call. A parameter of which a program only ever
reads that cast can be cast once instead: the very same numbers, half the memory, and no work in each frame. Which
parameters these are is read off the traced program, so it stays true whatever the modules do.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

Reads = frozenset[np.dtype]
"""The types in which a program reads a parameter: empty if it never does."""

# Primitives that hand their operands to one inner program, in order and unchanged. Anything else reads them.
_CALLS = frozenset(("jit", "pjit", "closed_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call"))


def parameter_reads(function: Callable[..., Any], params: Any, *shapes: Any) -> Any:
    """How `function(params, *arguments)` reads each parameter: a tree like `params` with `Reads` as leaves.

    Args:
        params: arrays or shapes.
        shapes: of the arguments (trees of jax.ShapeDtypeStruct or arrays). Nothing is computed.
    """
    leaves, tree = jax.tree.flatten(params)
    jaxpr = jax.jit(function).trace(params, *shapes).jaxpr.jaxpr
    return jax.tree.unflatten(tree, _reads(jaxpr, jaxpr.invars[: len(leaves)]))


def merge_reads(trees: Sequence[Any]) -> Any:
    """The reads of several programs together."""
    return jax.tree.map(lambda *reads: frozenset().union(*reads), *trees, is_leaf=_is_reads)


def read_types(reads: Any) -> dict[str, str]:
    """Names ('/'-joined keys) of all parameters that are read, with the type to keep each in: see `cast`."""
    found = jax.tree_util.tree_leaves_with_path(reads, is_leaf=_is_reads)
    names = [(jax.tree_util.keystr(path, simple=True, separator="/"), types) for path, types in found]
    return {name: _kept_type(types).name for name, types in names if types}


def cast(params: Any, reads: Any) -> Any:
    """The parameters (arrays of the host), each in the one type in which it is read, or in float32."""
    return jax.tree.map(
        lambda types, leaf: np.asarray(leaf).astype(_kept_type(types)), reads, params, is_leaf=_is_reads
    )


def _kept_type(types: Reads) -> np.dtype:
    return next(iter(types)) if len(types) == 1 else np.dtype(np.float32)


def put(params: Any, outputs_first: bool) -> Any:
    """The parameters (arrays of the host) on the default device. `outputs_first`: convolutions' kernels as cuDNN reads
    them, (output, row, column, input); programs that are given them otherwise turn every kernel on every call.

    They are turned arrays, not arrays of another layout: with those each call costs half a microsecond a kernel more.
    """
    return jax.device_put(jax.tree.map(lambda x: _turned(x, (3, 0, 1, 2)), params) if outputs_first else params)


def put_back(params: Any) -> Any:
    """The parameters of `put` with `outputs_first` as they were, inside a program: it computes nothing for that."""
    return jax.tree.map(lambda x: _turned(x, (1, 2, 3, 0)), params)


def _turned(leaf: Any, order: tuple[int, ...]) -> Any:
    if leaf.ndim != len(order):
        return leaf
    return np.ascontiguousarray(leaf.transpose(order)) if isinstance(leaf, np.ndarray) else leaf.transpose(order)


def prune(params: Mapping[str, Any], reads: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that are read at all, without the branches that this leaves empty.

    Every argument of a program costs host time on each call, read or not. A module that declares a parameter which it
    then never reads would miss it here.
    """
    kept: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            if inner := prune(value, reads[key]):
                kept[key] = inner
        elif reads[key]:
            kept[key] = value
    return kept


def _is_reads(value: Any) -> bool:
    return isinstance(value, frozenset)


def _reads(jaxpr: Any, variables: Sequence[Any]) -> list[Reads]:
    """The reads of some of a jaxpr's variables, in their order."""
    found: dict[Any, set[np.dtype]] = {variable: set() for variable in variables}
    watched = {id(variable): variable for variable in variables}  # literals among the operands cannot be hashed
    for equation in jaxpr.eqns:
        places = [(place, watched[id(x)]) for place, x in enumerate(equation.invars) if id(x) in watched]
        if not places:
            continue
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        inner = getattr(inner, "jaxpr", inner)
        if equation.primitive.name in _CALLS and len(inner.invars) == len(equation.invars):
            types = _reads(inner, [inner.invars[place] for place, _ in places])
        elif equation.primitive.name == "convert_element_type":
            types = [frozenset((np.dtype(equation.params["new_dtype"]),))]
        else:
            types = [frozenset((variable.aval.dtype,)) for _, variable in places]
        for (_, variable), seen in zip(places, types, strict=True):
            found[variable] |= seen
    for variable in jaxpr.outvars:
        if id(variable) in watched:
            found[variable].add(variable.aval.dtype)
    return [frozenset(found[variable]) for variable in variables]
