"""The restricted reader: nothing in a file runs; torch's two formats and EG3D's pickles are read without torch.

All files are assembled opcode by opcode, so that the tests do not depend on the libraries they imitate.
"""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from rtgaze_jax.errors import UserError
from rtgaze_jax.weights import restricted
from rtgaze_jax.weights.pickles import Record

VALUES = np.arange(6, dtype="<f4").reshape(2, 3) / 7


# --- a small pickle assembler ---------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def name(module: str, attribute: str) -> bytes:
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def items(*parts: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + items(*arguments) + b"R"


def mapping(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(key.replace("__", ".")) + value for key, value in values.items()) + b"u"


def whole(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def storage(key: str, kind: str, count: int, *, legacy: bool) -> bytes:
    parts = [text("storage"), name("torch", kind), text(key), text("cpu"), integer(count)]
    return items(*parts, *([b"N"] if legacy else [])) + b"Q"


def tensor(stored: bytes, size: tuple, stride: tuple, offset: int = 0) -> bytes:
    hooks = call(name("collections", "OrderedDict"))
    sizes, strides = (items(*map(integer, n)) for n in (size, stride))
    return call(name("torch._utils", "_rebuild_tensor_v2"), stored, integer(offset), sizes, strides, b"\x89", hooks)


def state_of(key: str, *, legacy: bool, size=(2, 3), stride=(3, 1), offset=0, count=6, kind="FloatStorage") -> bytes:
    stored = storage(key, kind, count, legacy=legacy)
    return (
        call(name("collections", "OrderedDict")) + b"(" + text("a.weight") + tensor(stored, size, stride, offset) + b"u"
    )


def zip_file(body: bytes, data: dict[str, bytes], compression=zipfile.ZIP_STORED, folder="archive") -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(f"{folder}/data.pkl", whole(body))
        archive.writestr(f"{folder}/byteorder", b"little")
        for key, content in data.items():
            archive.writestr(f"{folder}/data/{key}", content)
        archive.writestr(f"{folder}/version", b"3\n")
    file.seek(0)
    return file


def legacy_file(body: bytes, data: dict[str, bytes], element_size=4) -> bytes:
    magic = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
    head = whole(b"\x8a\x0a" + magic) + whole(integer(1001)) + whole(mapping(little_endian=b"\x88"))
    keys = whole(b"](" + b"".join(map(text, data)) + b"e")
    numbers = b"".join(struct.pack("<q", len(content) // element_size) + content for content in data.values())
    return head + whole(body) + keys + numbers


# --- what is read ---------------------------------------------------------------------------------------------------


def test_zip_format():
    state = restricted.state_dict(zip_file(state_of("0", legacy=False), {"0": VALUES.tobytes()}))
    assert list(state) == ["a.weight"]
    np.testing.assert_array_equal(state["a.weight"], VALUES)


def test_legacy_format(tmp_path):
    path = tmp_path / "old.pth"
    path.write_bytes(legacy_file(state_of("94", legacy=True), {"94": VALUES.tobytes()}))
    np.testing.assert_array_equal(restricted.state_dict(path)["a.weight"], VALUES)


def test_views_and_other_number_types():
    transposed = zip_file(state_of("0", legacy=False, size=(2, 2), stride=(1, 3), offset=1), {"0": VALUES.tobytes()})
    np.testing.assert_array_equal(restricted.state_dict(transposed)["a.weight"], VALUES[:, 1:].T)
    halves = zip_file(state_of("0", legacy=False, kind="BFloat16Storage"), {"0": struct.pack("<6H", *[0x3FC0] * 6)})
    np.testing.assert_array_equal(restricted.state_dict(halves)["a.weight"].astype(np.float32), np.full((2, 3), 1.5))


def test_state_dict_inside_a_training_checkpoint():
    inner = state_of("0", legacy=False).replace(text("a.weight"), text("module.a.weight"))
    body = mapping(epoch=integer(3), state_dict=inner)
    state = restricted.state_dict(zip_file(body, {"0": VALUES.tobytes()}))
    np.testing.assert_array_equal(state["a.weight"], VALUES)


def test_options_beside_the_weights():
    """Training checkpoints carry sets and argparse options; the options come back as a record of their names and
    values."""
    options = name("argparse", "Namespace") + b")\x81" + mapping(batch=integer(2)) + b"b"
    numbers = call(name("__builtin__", "set"), b"](" + integer(1) + integer(2) + b"e")
    found = restricted.load(io.BytesIO(whole(mapping(opts=options, seen=numbers))))
    assert found == {"opts": Record("argparse.Namespace", {"batch": 2}), "seen": {1, 2}}


def test_numpy_arrays_and_scalars():
    content = {"a": VALUES, "b": np.float64(2.5), "c": VALUES.T}
    for protocol in (2, 4, 5):  # numpy writes itself differently in each; protocol 5's buffers are not used in files
        found = restricted.load(io.BytesIO(pickle.dumps(content, protocol=min(protocol, 4))))
        np.testing.assert_array_equal(found["a"], VALUES)
        np.testing.assert_array_equal(found["c"], VALUES.T)
        assert found["b"] == 2.5


def test_eg3d_module_keeps_its_tensors_and_drops_its_source():
    """G_ema of an EG3D pickle: a persistent object whose state is its __dict__; tensors are nested legacy files."""
    inner = legacy_file(storage("7", "FloatStorage", 6, legacy=True), {"7": VALUES.tobytes()})
    stored = call(name("torch.storage", "_load_from_bytes"), b"B" + struct.pack("<I", len(inner)) + inner)
    parameter = call(name("torch._utils", "_rebuild_parameter"), tensor(stored, (2, 3), (3, 1)), b"\x88", b"}")

    def persistent(class_name: str, state: bytes) -> bytes:
        source = text("import os; os.system('touch never')")
        meta = mapping(type=text("class"), module_src=source, class_name=text(class_name), state=state)
        return call(name("torch_utils.persistence", "_reconstruct_persistent_obj"), meta)

    plain = name("torch.nn.modules.activation", "Softplus") + b")\x81" + mapping(beta=integer(1), _modules=b"}") + b"b"
    layer = persistent("FullyConnectedLayer", mapping(_parameters=mapping(weight=parameter), _modules=b"}"))
    network = persistent("Generator", mapping(_parameters=b"}", _modules=mapping(net=layer, act=plain)))
    content = restricted.load(io.BytesIO(whole(mapping(G_ema=network))))
    assert isinstance(content["G_ema"], Record)
    assert content["G_ema"].path == "Generator"
    state = restricted.state_dict(io.BytesIO(whole(mapping(G_ema=network))))
    assert list(state) == ["net.weight"]
    np.testing.assert_array_equal(state["net.weight"], VALUES)


# --- what is refused ------------------------------------------------------------------------------------------------


class _Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, protocol):
    victim = tmp_path / "victim"
    for function, argument in ((os.mkdir, str(victim)), (exec, f"import os; os.mkdir({str(victim)!r})")):
        bad = pickle.dumps({"state_dict": {"weight": _Evil(function, argument)}}, protocol)
        with pytest.raises(UserError, match="refused"):
            restricted.state_dict(io.BytesIO(bad))
        with pytest.raises(UserError, match="refused"):  # the same inside torch's zip
            restricted.state_dict(zip_file(bad[2:-1] if protocol >= 2 else bad[:-1], {}))
        assert not victim.exists()
        pickle.loads(bad)  # the file really is a weapon: Python's own reader runs it
        assert victim.exists()
        victim.rmdir()


@pytest.mark.parametrize(
    "body",
    [
        call(name("os", "system"), text("true")),
        call(name("builtins", "getattr"), text("a"), text("b")),
        b"(" + text("true") + b"ios\nsystem\n",  # INST
        b"(" + name("torch.nn.modules.linear", "Linear") + integer(1) + b"o",  # OBJ
        call(name("torch.nn.modules.linear", "Linear"), integer(1)),  # a constructor call would run code
        b"\x82\x01",  # EXT1
        text("os") + text("system") + b"\x93" + items(text("true")) + b"R",  # STACK_GLOBAL
        name("collections", "OrderedDict.fromkeys"),
        b"}" + b"}" + b"R",  # a call of something that is no name
        call(name("torch._utils", "_rebuild_tensor_v2")),  # wrong number of arguments
        name("torch", "load"),
        b"]" + mapping(a=integer(1)) + b"b",  # state of a list
        b"Pelsewhere\n",  # data outside the file
        call(name("torch.storage", "_load_from_bytes"), b"B" + struct.pack("<I", 12) + whole(name("os", "abort"))[:12]),
    ],
)
def test_anything_but_data_is_refused(body):
    with pytest.raises(UserError):
        restricted.load(io.BytesIO(whole(body)))


@pytest.mark.parametrize(
    "view",
    [
        {"size": (2, 4), "stride": (4, 1)},
        {"size": (2, 3), "stride": (3, 1), "offset": 1},
        {"size": (2, 3), "stride": (-3, 1)},
        {"size": (2, 3), "stride": (3, 1), "offset": -1},
        {"size": (100000, 100000), "stride": (0, 0)},
        {"size": (2, 3), "stride": (3,)},
    ],
)
def test_tensors_beyond_their_data_are_refused(view):
    with pytest.raises(UserError, match="damaged"):
        restricted.state_dict(zip_file(state_of("0", legacy=False, **view), {"0": VALUES.tobytes()}))


def test_damaged_and_foreign_files_are_refused(tmp_path):
    good = zip_file(state_of("0", legacy=False), {"0": VALUES.tobytes()}).getvalue()
    old = legacy_file(state_of("94", legacy=True), {"94": VALUES.tobytes()})
    plain_zip = io.BytesIO()
    with zipfile.ZipFile(plain_zip, "w") as archive:
        archive.writestr("hello.txt", b"hello")
    contents = {
        "empty": b"",
        "text": b"hello world",
        "cut zip": good[:-30],
        "cut legacy": old[:-5],
        "cut pickle": old[:90],
        "other zip": plain_zip.getvalue(),
        "no tensors": whole(mapping(a=integer(1))),
        "a list": whole(b"]"),
        "missing data": zip_file(state_of("1", legacy=False), {"0": b""}).getvalue(),
        "short data": zip_file(state_of("0", legacy=False), {"0": b"1234"}).getvalue(),
        "compressed": zip_file(state_of("0", legacy=False), {"0": bytes(24)}, zipfile.ZIP_DEFLATED).getvalue(),
    }
    for title, content in contents.items():
        path = tmp_path / f"{title}.pth"
        path.write_bytes(content)
        with pytest.raises(UserError):
            restricted.state_dict(path)
    with pytest.raises(UserError, match="cannot read"):
        restricted.state_dict(tmp_path / "missing.pth")
