"""Read other people's checkpoints without running them.

A pickle is a program: ``REDUCE`` calls whatever it names. Here its opcodes are read one by one by `_interpret`, which
knows how to build tensors, numpy arrays and plain containers, and has no instruction that imports or calls anything
else. Modules and other objects become an inert `Stub`: the name of their class and what was in them.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import re
import zipfile
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class UnsafePickle(ValueError):
    """The file asks for a call that has no place in a checkpoint. Nothing was executed."""


@dataclass(frozen=True)
class Global:
    """A class or function that a pickle mentions; it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:  # noqa: D105
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Stub:
    """An object of some class, not revived: its class's name and its attributes."""

    class_name: str
    state: dict[Hashable, Any] = field(default_factory=dict)

    def __repr__(self) -> str:  # noqa: D105
        return f"Stub({self.class_name!r}, {len(self.state)} attributes)"


@dataclass
class _Storage:
    data: Tensor  # (numel,)


Calls = Mapping[str, Callable[..., object]]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}


def load(path: str | os.PathLike[str]) -> Any:
    """Read a checkpoint: torch's zip or legacy format (also of a whole module), or the official StyleGAN2 ``.pkl``.

    Returns
    -------
    object
        Tensors (CPU, no gradients), numpy arrays, plain containers, `Stub` for modules and other objects,
        `Global` for classes that are only mentioned.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    UnsafePickle
        It wants to call something that builds neither tensors nor containers. Nothing was executed.
    ValueError
        It is empty, truncated, damaged, or no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}: check the path")
    try:
        if zipfile.is_zipfile(path):
            return _load_zip(path)
        return _load_stream(io.BytesIO(path.read_bytes()), _CALLS)
    except UnsafePickle as error:
        raise UnsafePickle(f"{path}: {error}. Nothing was executed; do not trust this file") from None
    except OSError:
        raise
    except Exception as error:  # damaged bytes can make any step fail, with nearly any error
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path} is damaged, cut short, or no checkpoint ({reason}): download it again, or give a .pt, .pth or .pkl"
        ) from error


def state_dict(module: object) -> dict[str, Tensor]:
    """Flatten a module's `Stub` to the dotted names of its parameters and buffers, as ``Module.state_dict`` does.

    A plain dict of tensors passes through.

    Raises
    ------
    ValueError
        It is neither, or a module that contains itself.
    """
    if isinstance(module, dict):
        return {name: value for name, value in module.items() if isinstance(value, Tensor)}
    tensors: dict[str, Tensor] = {}
    pending = [("", module)]
    for _ in range(10_000):
        if not pending:
            return tensors
        prefix, part = pending.pop()
        state = part.state if isinstance(part, Stub) else {}
        parameters, buffers, submodules = map(state.get, ("_parameters", "_buffers", "_modules"))
        if not (isinstance(parameters, dict) and isinstance(buffers, dict) and isinstance(submodules, dict)):
            raise ValueError(f"expected a module at {prefix or 'the top'!r}, got a {type(part).__name__}")
        transient = state.get("_non_persistent_buffers_set") or ()
        for name, value in (parameters | buffers).items():
            if isinstance(value, Tensor) and name not in transient:
                tensors[f"{prefix}{name}"] = value
        pending += [(f"{prefix}{name}.", value) for name, value in reversed(submodules.items()) if value is not None]
    raise ValueError("this module has more than 10,000 submodules: it probably contains itself")


def _load_zip(path: Path) -> object:
    storages: dict[str, _Storage] = {}
    with zipfile.ZipFile(path) as archive:
        (program,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = program.removesuffix("data.pkl")

        def storage(reference: object) -> object:
            dtype, key, numel = _storage_reference(reference)
            if key not in storages:
                info = archive.getinfo(f"{folder}data/{key}")
                if info.compress_type != zipfile.ZIP_STORED or info.file_size != numel * dtype.itemsize:
                    raise ValueError(f"storage {key} does not hold {numel} values of {dtype}")
                storages[key] = _Storage(_from_bytes(archive.read(info), dtype))
            elif storages[key].data.dtype != dtype:
                raise ValueError(f"storage {key} is used with two types")
            return storages[key]

        return _interpret(io.BytesIO(archive.read(program)), _CALLS, storage)


def _load_stream(stream: io.BytesIO, calls: Calls) -> object:
    """Read a plain pickle, or torch's legacy format: magic number, version, system, object, keys, raw storages."""
    first = _interpret(stream, calls)
    if not (isinstance(first, int) and first == _LEGACY_MAGIC):
        return first
    if _interpret(stream, {}) != 1001:
        raise ValueError("unknown version of torch's legacy format")
    system = _interpret(stream, {})
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("written on a big-endian machine")

    storages: dict[str, _Storage] = {}
    budget = len(stream.getbuffer())

    def storage(reference: object) -> object:
        nonlocal budget
        if isinstance(reference, tuple) and len(reference) == 4 and reference[0] == "module":
            return reference[1]  # a class, with the source code it had
        dtype, key, numel = _storage_reference(reference)
        if key not in storages:
            budget -= numel * dtype.itemsize
            if budget < 0:
                raise ValueError("its storages are larger than the file")
            storages[key] = _Storage(torch.zeros(numel, dtype=dtype))
        elif storages[key].data.dtype != dtype:
            raise ValueError(f"storage {key} is used with two types")
        return storages[key]

    contents = _interpret(stream, calls, storage)
    keys = _interpret(stream, {})
    if not isinstance(keys, list) or set(keys) != set(storages):
        raise ValueError("its list of storages does not match its contents")
    for key in keys:
        data = storages[key].data
        if int.from_bytes(stream.read(8), "little") != len(data):
            raise ValueError(f"storage {key} has another length than announced")
        data.copy_(_from_bytes(stream.read(data.nbytes), data.dtype, len(data)))
    return contents


def _storage_reference(reference: object) -> tuple[torch.dtype, str, int]:
    """Take apart a persistent id: ("storage", type, key, device, numel[, view])."""
    if not (isinstance(reference, tuple) and 5 <= len(reference) <= 6 and reference[0] == "storage"):
        raise ValueError("unknown kind of persistent id")
    _, kind, key, _, numel, *view = reference
    if str(kind) not in _DTYPES or type(key) is not str or type(numel) is not int or numel < 0 or any(view):
        raise ValueError(f"unknown kind of storage {kind}")
    return _DTYPES[str(kind)], key, numel


def _from_bytes(raw: bytes, dtype: torch.dtype, numel: int | None = None) -> Tensor:
    if numel is not None and len(raw) != numel * dtype.itemsize:
        raise ValueError("the file ends within a storage")
    return torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)


def _interpret(stream: io.BytesIO, calls: Calls, persistent: Callable[[object], object] | None = None) -> Any:
    """Run one pickle on a stack machine whose only calls are those in ``calls``."""
    stack: list[Any] = []
    marked: list[list[Any]] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, marked.pop()
        return items

    def push(value: Any) -> None:
        stack.append(value)

    def pop(n: int) -> list[Any]:
        return [stack.pop() for _ in range(n)][::-1]

    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case name if name in _VALUES:
                push(argument)
            case "NONE":
                push(None)
            case "NEWTRUE":
                push(True)
            case "NEWFALSE":
                push(False)
            case "EMPTY_LIST":
                push([])
            case "EMPTY_DICT":
                push({})
            case "EMPTY_TUPLE":
                push(())
            case "EMPTY_SET":
                push(set())
            case "MARK":
                marked.append(stack)
                stack = []
            case "LIST":
                push(pop_to_mark())
            case "DICT":
                push(_fill({}, pop_to_mark()))
            case "TUPLE":
                push(tuple(pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                push(tuple(pop(int(name[-1]))))
            case "FROZENSET":
                push(frozenset(map(_key, pop_to_mark())))
            case "APPEND":
                _fill(stack[-2], pop(1))
            case "SETITEM":
                _fill(stack[-3], pop(2))
            case "APPENDS" | "SETITEMS" | "ADDITEMS":
                items = pop_to_mark()
                _fill(stack[-1], items)
            case "POP":
                stack.pop()
            case "POP_MARK":
                pop_to_mark()
            case "DUP":
                push(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                push(memo[argument])
            case "GLOBAL":
                push(Global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                push(Global(*map(str, pop(2))))
            case "BINPERSID" if persistent:
                push(persistent(stack.pop()))
            case "NEWOBJ" | "NEWOBJ_EX" as name:
                kind, *_ = pop(2 if name == "NEWOBJ" else 3)  # arguments are dropped: no constructor runs
                push({} if str(kind) in _DICTS else Stub(str(kind)))
            case "BUILD":
                state = stack.pop()
                _set_state(stack[-1], state)
            case "REDUCE":
                function, arguments = pop(2)
                if not isinstance(function, Global) or str(function) not in calls:
                    raise UnsafePickle(f"refused to call {function!s:.80}")
                push(calls[str(function)](*arguments))
            case "INST":
                raise UnsafePickle(f"refused to call {argument.replace(' ', '.')}")
            case "OBJ":
                raise UnsafePickle(f"refused to call {pop_to_mark()[0]!s:.80}")
            case name:
                raise ValueError(f"the pickle opcode {name} is not supported")
    raise ValueError("the pickle does not end")


def _fill(target: Any, items: list[Any]) -> Any:
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, set):
        target.update(map(_key, items))
    elif isinstance(target, (dict, Stub)):
        entries = target if isinstance(target, dict) else target.state
        if len(items) % 2:
            raise ValueError("a key without a value")
        entries.update(zip(map(_key, items[::2]), items[1::2], strict=True))
    else:
        raise ValueError(f"a {type(target).__name__} takes no items")
    return target


def _key(key: Any) -> Hashable:
    """Let through what is cheap to hash: hashing a tuple of a million levels would exhaust the C stack."""
    if key is None or isinstance(key, (str, bytes, int, float)):
        return key
    raise ValueError(f"a {type(key).__name__} as a key")


def _set_state(target: Any, state: Any) -> None:
    match target, state:
        case Stub(), (first, second):  # __dict__ and __slots__
            target.state.update(first or {}, **(second or {}))
        case Stub(), dict():
            target.state.update(state)
        case Stub(), _:
            target.state["__state__"] = state
        case dict(), dict():
            pass  # the attributes of an OrderedDict, such as a state dict's _metadata
        case np.dtype(), (_, "<" | "|" | "=", None, None, None, *_):
            pass  # the dtype's name has said it all
        case np.ndarray(), (int(), tuple(), np.dtype(), bool() | int(), bytes()):
            _, shape, dtype, fortran, raw = state
            values = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")  # checks the sizes
            target.__setstate__((1, values.shape, dtype, bool(fortran), raw))  # type: ignore[arg-type]
        case _:
            raise ValueError(f"a {type(target).__name__} with an unknown state")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> Tensor:
    """Build a view into a storage that has been checked to lie inside it."""
    if not isinstance(storage, _Storage) or len(size) != len(stride):
        raise ValueError("a tensor without a storage or with unlike size and stride")
    if any(type(n) is not int or not 0 <= n < 2**48 for n in (offset, *size, *stride)):
        raise ValueError("a tensor with an impossible size")
    numel = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if numel and (last >= len(storage.data) or numel > len(storage.data)):
        raise ValueError("a tensor reaches beyond its storage")
    return storage.data.as_strided(size, stride, offset) if numel else storage.data.new_empty(size)


def _parameter(data: Any, *_: object) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError("a parameter without a tensor")
    return data


def _persistent_object(meta: Any) -> Stub:
    """Read NVlabs' persistent classes, which carry their own source code; it is left alone."""
    if meta["type"] != "class" or not isinstance(meta["state"], dict):
        raise ValueError("unknown kind of persistent object")
    return Stub(str(meta["class_name"]), meta["state"])


def _dtype(name: Any, *_: object) -> np.dtype:
    if not re.fullmatch(r"[<|=]?[biufc]\d{1,2}", name):
        raise ValueError(f"numpy type {name!r:.20} is not a plain number")
    return np.dtype(name)


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(bytearray(raw), _dtype(dtype.str)).reshape(shape, order=order)


def _scalar(dtype: Any, raw: Any) -> Any:
    (value,) = np.frombuffer(raw, _dtype(dtype.str))
    return value


_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_DICTS = {"collections.OrderedDict", "dnnlib.util.EasyDict"}
_CALLS: Calls = {
    "collections.OrderedDict": lambda pairs=(): _fill({}, [item for key, value in pairs for item in (key, value)]),
    **{f"{module}.set": lambda items=(): set(map(_key, items)) for module in ("builtins", "__builtin__")},
    **{f"{module}.frozenset": lambda items=(): frozenset(map(_key, items)) for module in ("builtins", "__builtin__")},
    **{f"{module}.bytes": lambda: b"" for module in ("builtins", "__builtin__")},  # others go through _codecs
    "_codecs.encode": lambda text, encoding: text.encode({"latin1": "latin1"}[encoding]),
    "torch.Size": tuple,
    "torch.device": torch.device,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.storage._load_from_bytes": lambda raw: _load_stream(io.BytesIO(raw), {}),
    "torch.nn.backends.thnn._get_thnn_function_backend": lambda: None,  # in modules saved by torch < 1.1
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": lambda *_: np.empty(0) for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _array for core in ("core", "_core")},
}
