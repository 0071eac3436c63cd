"""Reads other projects' PyTorch and EG3D files without running anything that is in them.

`load` gives the content of a torch.save file (zip or legacy form) or of an EG3D pickle as plain dicts, lists, numbers,
strings and numpy arrays (bfloat16 through ml_dtypes); `state_dict` the named tensors in it. The pickle inside is
interpreted by `rtgaze_jax.weights.pickles`, which refuses every name outside the vocabulary below.
"""

import io
import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from rtgaze_jax.errors import UserError
from rtgaze_jax.weights.pickles import Name, Record, Shell, Vocabulary, interpret

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_STORAGE_DTYPES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
    "UntypedStorage": np.dtype("u1"),
}
_TORCH_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_RECORD_PREFIXES = ("torch.nn.modules.", "torch_utils.", "dnnlib.", "training.", "argparse.Namespace")


@dataclass(frozen=True)
class _Storage:
    """A flat run of numbers; `array` is None in the first pass over a legacy file, whose data follow its pickle."""

    dtype: np.dtype
    array: np.ndarray | None


# --- what the accepted names stand for ------------------------------------------------------------------------------


def _strided(flat: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    """A copy of the given view of `flat`, after checking that it lies inside (numpy's as_strided does not check)."""
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise UserError("a tensor in the file has an impossible shape; the file is damaged")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.zeros(size, flat.dtype)
    if last >= flat.size or math.prod(size) > flat.size:
        raise UserError("a tensor in the file reaches beyond its data; the file is damaged")
    steps = tuple(step * flat.itemsize for step in stride)
    return np.array(np.lib.stride_tricks.as_strided(flat[offset:], size, steps))


def _tensor(storage: Any, offset: int, size: tuple, stride: tuple, *_: Any) -> Any:
    if not isinstance(storage, _Storage):
        raise UserError("a tensor in the file has no data; the file is damaged")
    return None if storage.array is None else _strided(storage.array, offset, size, stride)


def _tensor_v3(
    storage: Any, offset: int, size: tuple, stride: tuple, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Any:
    if not isinstance(storage, _Storage) or not isinstance(dtype, Name):
        raise UserError("a tensor in the file has no data; the file is damaged")
    if storage.array is None:
        return None
    numpy_dtype = np.dtype(ml_dtypes.bfloat16 if dtype.path == "torch.bfloat16" else dtype.path.removeprefix("torch."))
    return _strided(storage.array.view(numpy_dtype), offset, size, stride)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _storage_from_bytes(content: bytes) -> Any:
    return load(io.BytesIO(content))


def _ordered_dict(*arguments: Any) -> dict:
    return dict(arguments[0]) if arguments else {}


def _persistent_object(meta: Any) -> Record:
    """EG3D's and StyleGAN's persistent classes: the source text that travels along is dropped, the state is kept."""
    meta = meta.state if isinstance(meta, Record) else meta
    return Record(str(meta["class_name"]), dict(meta.get("state") or {}))


class _NumpyArray(Shell):
    """numpy.core.multiarray._reconstruct: an array whose content comes with BUILD."""

    def filled(self, state: Any) -> np.ndarray:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, np.dtype) or not isinstance(content, bytes):
            raise UserError("the file holds an array of Python objects; it is refused")
        return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C").copy()


def _numpy_array(*_: Any) -> _NumpyArray:
    return _NumpyArray()


def _numpy_dtype(code: str, *_: Any) -> np.dtype:
    dtype = np.dtype(code)
    if dtype.kind not in "fiub":
        raise UserError(f"the file holds numpy data of type {code!r}; only numbers are read")
    return dtype


def _numpy_scalar(dtype: np.dtype, content: bytes) -> Any:
    return np.frombuffer(content, dtype)[0]


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 2 compatible pickles carry bytes: _codecs.encode(text, 'latin1')."""
    if encoding not in ("latin1", "latin-1"):
        raise UserError("the file's pickle carries bytes in an unknown form; it is refused")
    return text.encode("latin1")


_REBUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.storage._load_from_bytes": _storage_from_bytes,
    "torch.Size": tuple,
    "torch.device": lambda *arguments: ":".join(map(str, arguments)),
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
    "numpy.ndarray": _numpy_array,
    "numpy.dtype": _numpy_dtype,
    "_codecs.encode": _latin1,
    "builtins.set": set,
    "__builtin__.set": set,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _REBUILDERS[f"{_module}._reconstruct"] = _numpy_array
    _REBUILDERS[f"{_module}.scalar"] = _numpy_scalar


def _mentions(path: str) -> bool:
    name = path.removeprefix("torch.").removeprefix("storage.")
    return path.startswith("torch.") and (name in _STORAGE_DTYPES or name in _TORCH_DTYPES)


_VOCABULARY = Vocabulary(_REBUILDERS, _mentions, lambda path: path.startswith(_RECORD_PREFIXES))


# --- files ----------------------------------------------------------------------------------------------------------


def load(source: str | os.PathLike | BinaryIO) -> Any:
    """The content of a torch.save file (zip or legacy form) or of a plain pickle such as EG3D's.

    Dicts, lists, numbers and strings come as such, tensors as numpy arrays, modules as `Record`.
    Raises UserError where the file names anything that is not data, or is damaged.
    """
    if not isinstance(source, str | os.PathLike):
        return _load_open(source)
    try:
        with open(source, "rb") as file:
            return _load_open(file)
    except OSError as error:
        raise UserError(f"cannot read {source}: {error.strerror}") from error


def _load_open(file: BinaryIO) -> Any:
    start = file.tell()
    if file.read(4) == b"PK\x03\x04":
        file.seek(start)
        return _load_zip(file)
    file.seek(start)
    first = interpret(file, _VOCABULARY)
    return _load_legacy(file) if isinstance(first, int) and first == _LEGACY_MAGIC else first


def _dtype_of(storage_type: Any) -> np.dtype:
    kind = storage_type.path.rsplit(".", 1)[-1] if isinstance(storage_type, Name) else str(storage_type)
    if kind not in _STORAGE_DTYPES:
        raise UserError(f"the file holds tensors of type {kind}, which cannot be read")
    return _STORAGE_DTYPES[kind]


def _load_zip(file: BinaryIO) -> Any:
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise UserError(f"the file is damaged or incomplete ({error}); download it again") from error
    with archive:
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "data.pkl" not in entries:
            raise UserError("a zip file, but not one that torch.save wrote (data.pkl is missing)")
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise UserError("the zip file is compressed, which torch.save never does; it is refused")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise UserError("the file holds big-endian numbers; write it again on an ordinary machine")
        storages: dict[str, _Storage] = {}

        def persistent_load(identifier: Any) -> _Storage:
            _, storage_type, key, _, count = identifier
            if key not in storages:
                dtype, content = _dtype_of(storage_type), archive.read(entries[f"data/{key}"])
                storages[key] = _Storage(dtype, np.frombuffer(content, dtype, count))
            return storages[key]

        try:
            return interpret(io.BytesIO(archive.read(entries["data.pkl"])), _VOCABULARY, persistent_load)
        except zipfile.BadZipFile as error:
            raise UserError(f"the file is damaged ({error}); download it again") from error


def _load_legacy(file: BinaryIO) -> Any:
    """After the magic number: protocol, system info, the object, the storages' keys, then each storage's data."""
    interpret(file, _VOCABULARY)
    if interpret(file, _VOCABULARY).get("little_endian") is not True:
        raise UserError("the file holds big-endian numbers; write it again on an ordinary machine")
    dtypes: dict[str, np.dtype] = {}
    storages: dict[str, _Storage] = {}

    def persistent_load(identifier: Any) -> _Storage:
        _, storage_type, key, _, _, view = identifier
        if view is not None:
            raise UserError("the file shares storage in the way of torch before 0.4; save it again with a newer torch")
        dtypes[key] = _dtype_of(storage_type)
        return storages.get(key, _Storage(dtypes[key], None))

    start = file.tell()
    interpret(file, _VOCABULARY, persistent_load)
    for key in interpret(file, _VOCABULARY):
        if key not in dtypes:
            raise UserError("the file's list of tensors does not match its data; the file is damaged")
        (count,) = struct.unpack("<q", _exactly(file, 8))
        if count < 0:
            raise UserError("a tensor in the file has a negative size; the file is damaged")
        content = _exactly(file, count * dtypes[key].itemsize)
        storages[key] = _Storage(dtypes[key], np.frombuffer(content, dtypes[key]))
    if missing := set(dtypes) - set(storages):
        raise UserError(f"the file ends before the data of {len(missing)} tensors; download it again")
    file.seek(start)
    return interpret(file, _VOCABULARY, persistent_load)


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise UserError("the file ends too early; download it again")
    return content


# --- state dicts ----------------------------------------------------------------------------------------------------

_DEEPEST = 64
_WRAPPERS = (
    "G_ema",
    "G",
    "renderer_state_dict",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "params_ema",
    "params",
)


def state_dict(source: str | os.PathLike | BinaryIO) -> dict[str, np.ndarray]:
    """The named tensors of a checkpoint: a state dict, one inside a training checkpoint, or EG3D's G_ema module.

    A leading "module." (torch's DataParallel) is taken off the names.
    Raises UserError where no tensors are found or the file cannot be read.
    """
    content = load(source)
    while not isinstance(content, Record) and isinstance(content, dict):
        inner = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), dict | Record)), None)
        if inner is None:
            break
        content = inner
    tensors = dict(_module_tensors(content)) if isinstance(content, Record) else content
    if not isinstance(tensors, dict):
        raise UserError("the file holds no state dict")
    found = {str(name).removeprefix("module."): t for name, t in tensors.items() if isinstance(t, np.ndarray)}
    if not found:
        raise UserError("the file holds no named tensors")
    return found


def _module_tensors(module: Record, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """What torch's Module.state_dict() would return, from the attributes that were pickled."""
    if prefix.count(".") > _DEEPEST:
        raise UserError("the file's modules contain themselves; it is refused")
    for group in ("_parameters", "_buffers"):
        for name, tensor in (module.state.get(group) or {}).items():
            if isinstance(tensor, np.ndarray):
                yield f"{prefix}{name}", tensor
    for name, child in (module.state.get("_modules") or {}).items():
        if isinstance(child, Record):
            yield from _module_tensors(child, f"{prefix}{name}.")
