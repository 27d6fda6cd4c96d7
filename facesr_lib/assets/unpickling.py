"""Read other people's checkpoints without running them.

A pickle is a program: ``REDUCE`` calls whatever it names. Here its opcodes are read one by one by `_Reader`,
which knows how to build tensors, numpy arrays and plain containers, and has no instruction that imports or calls
anything else. Modules and other objects become an inert `Stub`: the name of their class and what was in them; what
another call would have made, the name of what was to be called. The worst of calls are told as what they are.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from facesr_lib import files


class UnsafePickle(ValueError):
    """The file asks for a call that has no place in a checkpoint. Nothing was executed."""


@dataclass(eq=False, slots=True)
class Stub:
    """An object of some class, not revived: its class's name and its attributes.

    Of what a call would have made: the called function's name, and ``None``; what is put into it is dropped.
    """

    class_name: str
    state: dict[Any, Any] | None = field(default_factory=dict, repr=False)


def load(path: str | os.PathLike[str]) -> Any:
    """Read a checkpoint: torch's zip or legacy format, also of a whole module, TorchScript, or StyleGAN2's ``.pkl``.

    Returns
    -------
    object
        Tensors (CPU, no gradients), numpy arrays, plain containers, `Stub` for modules and other objects, the dotted
        name of a class or function that is only mentioned. All together it takes a few times the file's size.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is empty, truncated, damaged, or no checkpoint; `UnsafePickle`, if it wants to run or to open something.
    """
    path = files.expanded(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}: check the path.")
    try:
        reader = _Reader(path.stat().st_size)
        return reader.zipped(path) if zipfile.is_zipfile(path) else reader.plain(io.BytesIO(path.read_bytes()))
    except UnsafePickle as error:
        raise UnsafePickle(f"{path}: {error}. Nothing was executed; do not trust this file.") from None
    except OSError:
        raise
    except Exception as error:  # damaged bytes can make any step fail, with nearly any error
        reason = f"{path} is damaged, cut short, or no checkpoint ({type(error).__name__}: {error})"
        raise ValueError(f"{reason}: download it again, or give a .pt, .pth or .pkl.") from error


def state_dict(contents: object) -> dict[str, Tensor]:
    """Name every tensor in modules and nested dicts by its dotted path, as ``Module.state_dict`` does.

    Arrays of floating-point numbers become tensors. A tensor that cannot be read (sparse, quantised, ...) stands there
    empty, under a name that says so. A ``ValueError`` says that this is neither a dict nor a module's `Stub`, or
    contains itself.
    """
    tensors: dict[str, Tensor] = {}
    pending, letters = [("", contents)], 100_000_000
    while pending:
        prefix, part = pending.pop()
        parts: dict[Any, Any] = {}
        match part:
            case Tensor():
                tensors[prefix[:-1]] = part
            case np.ndarray() if part.dtype.kind == "f" and prefix:
                tensors[prefix[:-1]] = torch.from_numpy(part.astype(np.float32))
            case dict():
                parts = part
            case Stub(state=dict(module)) if all(isinstance(module.get(kind), dict) for kind in _OF_A_MODULE):
                transient = module.get("_non_persistent_buffers_set") or ()
                buffers = {k: v for k, v in module["_buffers"].items() if k not in transient}
                parts = module["_parameters"] | buffers | module["_modules"]
            case Stub(class_name=name, state=dict(all_of_it)) if name.startswith("__torch__."):
                parts = all_of_it  # TorchScript, which tells them not apart
            case _ if not prefix:
                what = part.class_name if isinstance(part, Stub) else type(part).__name__
                raise ValueError(f"expected a module at 'the top', got a {what:.80}.")
            case Stub(class_name=name, state=None) if "._rebuild_" in name:
                tensors[f"{prefix[:-1]} (not read: {name:.80})"] = torch.empty(0)
        letters -= len(parts) * (len(prefix) + 1)
        if letters < 0:
            raise ValueError("the names of this module's parts have no end: it contains itself, or others too often.")
        pending += [(f"{prefix}{k}.", value) for k, value in reversed(parts.items()) if isinstance(k, (str, int))]
    return tensors


class _Reader:
    """Reads one file, and builds a few times its size at most: announced sizes are not believed, copies are counted."""

    def __init__(self, size: int):
        self.left = 4 * size  # bytes; a pickled tensor takes three times its own: text, bytes, storage
        self.calls = _CALLS | {
            "torch.storage._load_from_bytes": lambda raw: self.plain(io.BytesIO(raw)),
            "torch._tensor._rebuild_from_type_v2": lambda function, _, arguments, *__: self.call(function, arguments),
        }

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise ValueError("its contents are larger than the file")

    def zipped(self, path: Path) -> object:
        """Read torch's zip format: a program, and one file per storage."""
        with zipfile.ZipFile(path) as archive:
            (program,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))

            def read(name: str) -> bytes:
                info = archive.getinfo(name)
                self.spend(info.file_size)
                if info.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{name} is compressed")
                return archive.read(info)

            def make(key: str, dtype: torch.dtype, numel: int) -> Tensor:
                return _values(read(f"{program.removesuffix('data.pkl')}data/{key}"), dtype, numel)

            return self.run(io.BytesIO(read(program)), partial(_persistent, {}, make))

    def plain(self, stream: io.BytesIO) -> object:
        """Read a plain pickle, or torch's legacy format: magic number, version, system, object, keys, raw storages."""
        first = self.run(stream)
        if type(first) is not int or first != _LEGACY_MAGIC:
            return first
        version, system = self.run(stream), self.run(stream)
        if version != 1001 or system["little_endian"] is not True:
            raise ValueError("an unknown version of torch's legacy format, or written on a big-endian machine")

        def make(_: str, dtype: torch.dtype, numel: int) -> Tensor:
            self.spend(numel * dtype.itemsize)
            return torch.zeros(numel, dtype=dtype)

        storages: dict[str, Tensor] = {}
        contents, keys = self.run(stream, partial(_persistent, storages, make)), self.run(stream)
        if set(map(_key, keys)) != storages.keys():
            raise ValueError("its list of storages does not match its contents")
        for data in (storages[key] for key in keys):
            numel = int.from_bytes(stream.read(8), "little")
            data.copy_(_values(stream.read(data.nbytes), data.dtype, numel))
        return contents

    def run(self, stream: io.BytesIO, persistent: Callable[[object], object] | None = None) -> Any:
        """Run one pickle on a stack machine."""
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}
        makers = _MAKERS | dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), memo.__getitem__)
        makers |= {"REDUCE": self.call, "BUILD": self.build, "STACK_GLOBAL": self.mention}
        makers["OBJ"] = lambda function, *arguments: self.call(function, arguments)
        makers["INST"] = lambda *items: self.call(items[-1].replace(" ", ".", 1), items[:-1])
        if persistent:
            makers["BINPERSID"] = persistent
        argument: Any
        for opcode, argument, _ in pickletools.genops(stream):
            name, takes = opcode.name, opcode.stack_before
            if name == "STOP":
                return stack.pop()
            if name == "MARK":
                marks.append(len(stack))
            elif name == "DUP":
                stack.append(stack[-1])
            elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
                memo[len(memo) if argument is None else argument] = stack[-1]
            elif name in makers:  # takes what pickletools says that it takes, and makes one thing of it, or none
                mark = pickletools.markobject
                start = marks.pop() - takes.index(mark) if mark in takes else len(stack) - len(takes)
                if start < 0:
                    raise ValueError("the stack is empty")
                given = [argument] if opcode.arg else []
                stack[start:] = [makers[name](*stack[start:], *given)][: len(opcode.stack_after)]
            else:
                raise ValueError(f"the pickle opcode {name} is not supported")
        raise ValueError("the pickle does not end")

    def mention(self, module: object, name: object) -> str:
        self.spend(_size((module, name)))
        return f"{_name(module)}.{_name(name)}"

    def call(self, function: Any, arguments: Any) -> object:
        self.spend(_size(arguments))
        if not isinstance(function, str) or _HOSTILE.match(function, 0, 100):
            _refuse(function)
        if function not in self.calls:
            return Stub(function, None)
        if not function.startswith("torch._utils.") and any(isinstance(x, (Tensor, np.ndarray)) for x in arguments):
            raise ValueError(f"{function} of an array or a tensor")  # what is copied must have been counted
        return self.calls[function](*arguments)

    def build(self, target: Any, state: Any) -> object:
        self.spend(_size(state if isinstance(state, tuple) else [state]))
        match target, state:
            case Stub(state=entries), _:
                if entries is not None:
                    entries.update(state if isinstance(state, dict) else {"__state__": state})
            case dict(), _:
                pass  # the attributes of an OrderedDict, such as a state dict's _metadata
            case np.ndarray(), (int(), tuple(shape), kind, int(fortran), bytes(raw)) if dtype := _number(kind):
                values = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")  # checks the sizes
                target.__setstate__((1, values.shape, dtype, bool(fortran), raw))  # type: ignore[arg-type]
            case np.ndarray(), _:
                target.__setstate__((1, (), np.dtype(object), False, [_UNREAD]))  # type: ignore[arg-type]
            case _:
                raise ValueError(f"a {type(target).__name__} with an unknown state")
        return target


def _persistent(
    storages: dict[str, Tensor], make: Callable[[str, torch.dtype, int], Tensor], reference: object
) -> object:
    """What a persistent id refers to: a storage (numel,) by key, made when it is first mentioned."""
    match reference:
        case ("module", kind, _, _):
            return kind  # a class, with the source code it had
        case ("storage", str(kind), str(key), _, int(numel), *view) if numel >= 0 and not any(view):
            if key not in storages:
                storages[key] = make(key, _DTYPES[kind], numel)
            if storages[key].dtype != _DTYPES[kind]:
                raise ValueError(f"storage {key} is used with two types")
            return storages[key]
    raise ValueError("unknown kind of persistent id")


def _size(parts: Any) -> int:
    sized = (str, bytes, bytearray, tuple, list, dict, set, frozenset)
    return sum(len(part) for part in parts if isinstance(part, sized))


def _values(raw: bytes, dtype: torch.dtype, numel: int) -> Tensor:
    if len(raw) != numel * dtype.itemsize:
        raise ValueError(f"a storage does not hold {numel} values of {dtype}")
    return torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)


def _name(kind: object) -> str:
    """Let through a name; what stands in a name's place may have a text of any length."""
    return kind if isinstance(kind, str) else f"a {type(kind).__name__}"


def _refuse(function: object) -> NoReturn:
    raise UnsafePickle(f"refused to call {_name(function):.80}")


def _fill(target: Any, *items: Any) -> Any:
    match target:
        case list():
            target.extend(items)
        case set():
            target.update(map(_key, items))
        case dict():
            target.update(zip(map(_key, items[::2]), items[1::2], strict=True))
        case Stub():
            pass  # what other containers hold, nobody asks
        case _:
            raise ValueError(f"a {type(target).__name__} takes no items")
    return target


def _key(key: Any) -> Any:
    """Let through what is cheap to hash: hashing a tuple of a million levels would exhaust the C stack."""
    parts = key if isinstance(key, tuple) and len(key) < 100 else (key,)
    if all(part is None or isinstance(part, (str, bytes, int, float, np.generic, Tensor, Stub)) for part in parts):
        return key
    raise ValueError(f"a {type(key).__name__} as a key")


def _new(kind: object, *_: object) -> object:
    """Make an object without running its constructor."""
    return {} if kind in ("collections.OrderedDict", "dnnlib.util.EasyDict") else Stub(_name(kind))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> Tensor:
    """Build a view into a storage that has been checked to lie inside it."""
    if not isinstance(storage, Tensor) or storage.ndim != 1 or not len(size) == len(stride) <= 64:
        raise ValueError("a tensor without a storage or with unlike size and stride")
    if any(type(n) is not int or not 0 <= n < 2**48 for n in (offset, *size, *stride)):
        raise ValueError("a tensor with an impossible size")
    numel, held = math.prod(size), len(storage)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if numel and (last >= held or numel > held):
        raise ValueError("a tensor reaches beyond its storage")
    return storage.as_strided(size, stride, offset) if numel else storage.new_empty(size)


def _tensor_of_bytes(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> object:
    """Build a tensor of one of the younger types, which have no storages of their own."""
    kind = _name(rest[2])
    if kind not in _DTYPES:
        return Stub("torch._utils._rebuild_tensor_v3", None)
    return _tensor(storage.view(_DTYPES[kind]), offset, size, stride)


def _dtype(name: Any, *_: object) -> Stub:
    if not isinstance(name, str):
        raise ValueError(f"a {type(name).__name__} for the name of a numpy type")
    return Stub("numpy.dtype", {"name": name, "__state__": (3, "=", None, None, None)})


def _number(kind: object) -> np.dtype | None:
    """Return a numpy type of plain numbers; ``None`` for texts, dates, records, objects, which are not looked into."""
    match kind:
        case Stub(
            "numpy.dtype", {"name": str(name), "__state__": (_, "<" | ">" | "|" | "=" as order, None, None, None, *_)}
        ):
            return np.dtype(name).newbyteorder(order) if re.fullmatch(r"[<|=]?[biufc]\d{1,2}", name) else None
    return None


def _array(raw: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray:
    dtype = _number(kind)
    return np.frombuffer(raw, dtype).reshape(shape, order=order).copy(order) if dtype else np.array(_UNREAD)


def _attribute(of: object, *_: object) -> Stub:
    """An enum's member, as Python 3.11 may write it; another object's attribute is a way to more calls."""
    return Stub(_name(of), None) if "." in _name(of) else _refuse("builtins.getattr")


_HOSTILE = re.compile(
    r"(os|posix|nt|subprocess|pty|shutil|socket|_?io|importlib|runpy|ctypes|marshal|_?pickle|webbrowser)\."
    r"|(builtins|__builtin__)\.(eval|exec|execfile|compile|open|setattr|delattr|input|breakpoint|__import__)$"
    r"|torch\.(\w+\.)*load$|.*\s"  # the last is no name
)
"""What no checkpoint calls and exploits do: who wrote that is not to be trusted. What else is unknown is as inert."""
_OF_A_MODULE = ("_parameters", "_buffers", "_modules")
_UNREAD = Stub("numpy.ndarray", None)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    **{
        f"torch.{name}Storage": getattr(torch, name.lower())
        for name in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Bool")
    },
    **{f"torch.{name}Storage": torch.uint8 for name in ("Byte", "QUInt8", "QUInt4x2", "QUInt2x4", "storage.Untyped")},
    **{"torch.CharStorage": torch.int8, "torch.QInt8Storage": torch.int8, "torch.QInt32Storage": torch.int32},
    **{"torch.ComplexFloatStorage": torch.cfloat, "torch.ComplexDoubleStorage": torch.cdouble},
    **{f"torch.{name}": getattr(torch, name) for name in dir(torch) if re.match(r"uint(16|32|64)$|float8_", name)},
}
_VALUES = [
    code.name
    for code in pickletools.opcodes
    if code.arg and not code.stack_before and code.stack_after not in ([], [pickletools.anyobject])
]
_MAKERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_VALUES, lambda value: value),
    **dict.fromkeys(("NONE", "PROTO", "FRAME", "POP", "POP_MARK"), lambda *_: None),
    **{"NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_SET": set},
    **dict.fromkeys(("EMPTY_LIST", "LIST"), lambda *items: list(items)),
    **dict.fromkeys(("EMPTY_DICT", "DICT"), lambda *items: _fill({}, *items)),
    **dict.fromkeys(("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"), lambda *items: items),
    **dict.fromkeys(("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"), _fill),
    "FROZENSET": lambda *items: frozenset(map(_key, items)),
    "GLOBAL": lambda name: name.replace(" ", ".", 1),
    **dict.fromkeys(("NEWOBJ", "NEWOBJ_EX"), _new),
}
_CALLS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": lambda pairs=(): _fill({}, *(part for key, value in pairs for part in (key, value))),
    **{f"{module}.set": lambda items=(): set(map(_key, items)) for module in ("builtins", "__builtin__")},
    **{f"{module}.frozenset": lambda items=(): frozenset(map(_key, items)) for module in ("builtins", "__builtin__")},
    **{f"{module}.bytes": lambda: b"" for module in ("builtins", "__builtin__")},  # others go through _codecs
    **{f"{module}.getattr": _attribute for module in ("builtins", "__builtin__")},
    "_codecs.encode": lambda text, encoding: text.encode(encoding if encoding == "latin1" else None),
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_bytes,
    **{f"torch._utils._rebuild_parameter{more}": lambda data, *_: data for more in ("", "_with_state")},
    "torch.nn.backends.thnn._get_thnn_function_backend": lambda: None,  # in modules saved by torch < 1.1
    **{f"torch.jit._pickle.build_{kind}list": list for kind in ("int", "double", "bool", "tensor")},  # TorchScript's
    "torch.jit._pickle.restore_type_tag": lambda value, _: value,
    "torch_utils.persistence._reconstruct_persistent_obj": lambda meta: Stub(_name(meta["class_name"]), meta["state"]),
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": lambda *_: np.empty(0) for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": lambda kind, raw: _array(raw, kind, ())[()] for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _array for core in ("core", "_core")},
}
