"""Which configuration a checkpoint belongs to, and which keys may differ when it is continued."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rtgaze_jax.errors import UserError

# How a run is spread, watched and stored does not change what it computes.
FREE = (
    "parallel",
    "log",
    "checkpoint",
    "guards",
    "max_minutes",
    "compile_cache",
    "quick_compile",
    "init_from",
    "data.workers",
)


def plain(config: Any) -> dict[str, Any]:
    """The configuration as nested JSON values."""
    return json.loads(json.dumps(config.to_dict() if hasattr(config, "to_dict") else config))


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _covered(key: str, prefixes: Iterable[str]) -> bool:
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def check(saved: Mapping[str, Any], current: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Raises UserError unless the two differ in FREE and `allowed` keys only ("optim" allows "optim.lr")."""
    old, new = flatten(saved), flatten(current)
    missing = object()
    changed = [
        k
        for k in sorted(old | new)
        if old.get(k, missing) != new.get(k, missing) and not _covered(k, (*FREE, *allowed))
    ]
    if changed:
        shown = ", ".join(f"{k} {old.get(k, '(none)')!r} -> {new.get(k, '(none)')!r}" for k in changed[:6])
        raise UserError(
            f"this run was started with another configuration: {shown}{', ...' if len(changed) > 6 else ''}; "
            f"to continue it so: --allow_change={','.join(changed)}; to start anew: another --workdir"
        )
