"""A pickle as data: an interpreter for Python's pickle format in which nothing from the file can run.

A pickle is a small program, and Python's own unpickler executes it. Here it is a stack machine over
`pickletools.genops` whose names of functions and classes stay names. What a name stands for is looked up in a
`Vocabulary` of our own functions; any other name is refused with a UserError that says which.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from rtgaze_jax.errors import UserError


@dataclass(frozen=True)
class Name:
    """A function or class that the pickle mentions: its dotted name and nothing else."""

    path: str


@dataclass
class Record:
    """An object of a class whose code is not run: the class's name and the attributes stored with it."""

    path: str
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Vocabulary:
    """What a pickle may say.

    rebuilders: our functions for the functions it may call, by dotted name.
    mentions: whether it may mention a name without calling it (a tensor's type, say).
    records: whether it may hold objects of a class; they become `Record`.
    """

    rebuilders: Mapping[str, Callable[..., Any]]
    mentions: Callable[[str], bool] = lambda path: False
    records: Callable[[str], bool] = lambda path: False


class Shell:
    """An object that a rebuilder makes and that `filled` completes when the pickle sets its state."""

    def filled(self, state: Any) -> Any:
        """The complete object. Raises UserError where the state is not what it should be."""
        raise UserError("the file's pickle sets the state of something that has none; it is refused")


PersistentLoad = Callable[[Any], Any]


def _no_persistent(identifier: Any) -> Any:
    raise UserError("the file refers to data outside itself; convert a file written by torch.save or safetensors")


def interpret(file: BinaryIO, vocabulary: Vocabulary, persistent_load: PersistentLoad = _no_persistent) -> Any:
    """The data of ONE pickle at the file's position, which is left behind its end.

    Args:
        file: binary, seekable.
        vocabulary: the names it may use.
        persistent_load: turns a persistent id (torch's way to name a storage) into a value.
    Raises UserError for names that are not data and for a broken pickle.
    """
    try:
        return _run(file, vocabulary, persistent_load)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, OverflowError) as error:
        raise UserError(f"not a readable pickle ({error}); is the file complete?") from error


class _Mark:
    """The place of a MARK on the stack."""


def _run(file: BinaryIO, vocabulary: Vocabulary, persistent_load: PersistentLoad) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def to_mark() -> list[Any]:
        items = []
        while not isinstance(item := stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def set_items(target: Any, flat: list[Any]) -> None:
        if isinstance(target, Record):
            target = target.state
        target.update(zip(flat[::2], flat[1::2], strict=True))

    for opcode, argument, _ in pickletools.genops(file):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_Mark())
            case "POP":
                stack.pop()
            case "POP_MARK":
                to_mark()
            case "DUP":
                stack.append(stack[-1])
            case "NONE":
                stack.append(None)
            case "NEWTRUE":
                stack.append(True)
            case "NEWFALSE":
                stack.append(False)
            case name if name in _LITERALS:
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                stack.append(tuple(to_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append(to_mark())
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                flat = to_mark()
                stack.append(dict(zip(flat[::2], flat[1::2], strict=True)))
            case "EMPTY_SET":
                stack.append(set())
            case "FROZENSET":
                stack.append(frozenset(to_mark()))
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = to_mark()
                stack[-1].extend(items)
            case "ADDITEMS":
                items = to_mark()
                stack[-1].update(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                set_items(stack[-1], [key, value])
            case "SETITEMS":
                flat = to_mark()
                set_items(stack[-1], flat)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[int(argument or 0)] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[int(argument or 0)])
            case "GLOBAL":
                stack.append(_name(vocabulary, *str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_name(vocabulary, module, name))
            case "REDUCE" | "NEWOBJ":
                arguments, callee = stack.pop(), stack.pop()
                stack.append(_rebuild(vocabulary, callee, arguments, opcode.name))
            case "BUILD":
                state = stack.pop()
                before, after = stack[-1], _set_state(stack[-1], state)
                stack[-1] = after
                if after is not before:  # an array took the place of its empty shell
                    memo.update({key: after for key, value in memo.items() if value is before})
            case "BINPERSID":
                stack.append(persistent_load(stack.pop()))
            case other:
                raise UserError(f"the file's pickle uses {other}, which no weights file needs; it is refused")
    raise UserError("the pickle has no end; is the file complete?")


_INTEGERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_LITERALS = _INTEGERS | _TEXTS | {"FLOAT", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}


def _name(vocabulary: Vocabulary, module: str, name: str) -> Name:
    path = f"{module}.{name}"
    if path in vocabulary.rebuilders or vocabulary.mentions(path) or vocabulary.records(path):
        return Name(path)
    raise UserError(f"the file's pickle names {path}, which is not data; it is refused")


def _rebuild(vocabulary: Vocabulary, callee: Any, arguments: Any, opcode: str) -> Any:
    if not isinstance(callee, Name) or not isinstance(arguments, tuple):
        raise UserError("the file's pickle calls something that is not a name; it is refused")
    if callee.path in vocabulary.rebuilders:
        return vocabulary.rebuilders[callee.path](*arguments)
    if opcode == "NEWOBJ" and vocabulary.records(callee.path):
        return Record(callee.path)
    raise UserError(f"the file's pickle calls {callee.path}, which is not data; it is refused")


def _set_state(target: Any, state: Any) -> Any:
    if isinstance(target, Record) and isinstance(state, dict):
        target.state.update(state)
        return target
    if isinstance(target, dict):  # the `_metadata` of a state dict
        return target
    if isinstance(target, np.dtype):  # (version, byte order, ...)
        if state[1] not in ("<", "|", "="):
            raise UserError("the file holds big-endian numbers; write it again on an ordinary machine")
        return target
    return target.filled(state) if isinstance(target, Shell) else Shell().filled(state)
