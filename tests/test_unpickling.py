import argparse
import collections
import datetime
import enum
import functools
import io
import os
import pickle
import sys
import types
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from facesr_lib.assets.unpickling import Stub, UnsafePickle, load, state_dict


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 1)
        self.norm = torch.nn.BatchNorm2d(3)
        self.register_buffer("scratch", torch.ones(1), persistent=False)
        self.inner = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LeakyReLU())


def save(path: Path, contents: object, kind: str, protocol: int = 2) -> Path:
    with path.open("wb") as file:
        if kind == "plain":
            pickle.dump(contents, file, protocol)
        else:
            zipped = kind == "zip"
            torch.save(contents, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return path


# what is good is read


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_reads_tensors_arrays_and_containers(tmp_path, kind, protocol):
    base = torch.arange(24.0).view(2, 3, 4)
    contents = {
        "transposed": base.transpose(0, 2),
        "slice": base[:, 1:, ::2],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "ints": torch.arange(5, dtype=torch.int16),
        "bools": torch.tensor([True, False]),
        "array": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        "numpy scalar": np.float32(0.1),
        "plain": [1, -(2**40), 2.5, "é", b"\xff", b"", None, True, (1, (2,)), {3: {"x"}}, frozenset({1})],
        "ordered": collections.OrderedDict(a=1),
    }
    read = load(save(tmp_path / "x.pt", contents, kind, protocol))
    assert list(read) == list(contents)
    for name, value in contents.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(read[name], value, atol=0, rtol=0)
        elif isinstance(value, np.ndarray):
            assert read[name].dtype == value.dtype
            np.testing.assert_array_equal(read[name], value)
        else:
            assert read[name] == value


def test_shared_storage_stays_shared(tmp_path):
    x = torch.zeros(4)
    for kind in ("zip", "legacy"):
        read = load(save(tmp_path / "x.pt", [x, x[1:]], kind))
        read[0][1] = 7
        assert read[1][0] == 7


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_a_pickled_module_becomes_its_state_dict(tmp_path, kind):
    module = Block()
    stub = load(save(tmp_path / "m.pth", {"model": module}, kind))["model"]
    assert isinstance(stub, Stub)
    assert stub.class_name.endswith("Block")
    ours, theirs = state_dict(stub), module.state_dict()
    assert list(ours) == list(theirs)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name])
        assert not ours[name].requires_grad
    assert state_dict(load(save(tmp_path / "s.pth", theirs, kind))).keys() == theirs.keys()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_becomes_its_state_dict_and_its_program_is_not_run(tmp_path):
    module = Block().eval()
    path = tmp_path / "traced.zip"
    torch.jit.save(torch.jit.trace(module.norm, torch.rand(1, 3, 2, 2)), path)
    found = state_dict(load(path))
    assert found.keys() == module.norm.state_dict().keys()
    nested = torch.nn.Sequential(module.conv, module.norm).eval()
    torch.jit.save(torch.jit.script(nested), path)
    found = state_dict(load(path))
    assert found.keys() == nested.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in nested.state_dict().items())


def test_reads_the_released_distilled_fan():
    model = Path(os.environ.get("FACESR_DATA", ""), "models", "distilled_fan_official.pth")
    oracle = Path(os.environ.get("FACESR_ORACLES", ""), "distilled_fan.safetensors")
    if not (model.is_file() and oracle.is_file()):
        pytest.skip("the released model or its oracle is missing: set FACESR_DATA and FACESR_ORACLES")
    weights = {k.removeprefix("net."): v for k, v in load_file(oracle).items() if k.startswith("net.")}
    read = state_dict(load(model))
    assert read.keys() == weights.keys()
    for name in weights:
        torch.testing.assert_close(read[name], weights[name], atol=0, rtol=0)


@pytest.fixture
def persistence(monkeypatch):
    """Imitate the official release: classes that pickle as a call with their own source code."""
    module = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("was called")

    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = _reconstruct_persistent_obj.__name__
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    easydict = types.ModuleType("dnnlib.util")
    easydict.EasyDict = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    for name, value in {"torch_utils.persistence": module, "dnnlib.util": easydict}.items():
        monkeypatch.setitem(sys.modules, name, value)
        monkeypatch.setitem(sys.modules, name.split(".")[0], types.ModuleType(name.split(".")[0]))

    class Persistent(torch.nn.Module):
        def __reduce__(self):
            meta = {
                "type": "class",
                "version": 6,
                "module_src": "raise SystemExit",
                "class_name": type(self).__name__,
                "state": self.__dict__,
            }
            return _reconstruct_persistent_obj, (meta,), None

    return types.SimpleNamespace(Persistent=Persistent, EasyDict=easydict.EasyDict)


@pytest.mark.parametrize("protocol", [3, 4])
def test_reads_an_official_stylegan2_pickle(tmp_path, persistence, protocol):
    class Synthesis(persistence.Persistent):
        def __init__(self):
            super().__init__()
            self.const = torch.nn.Parameter(torch.randn(4, 2, 2))
            self.register_buffer("noise_const", torch.randn(3, 3).half())
            self._init_kwargs = persistence.EasyDict(channel_base=32, nested=persistence.EasyDict(a=1))

    class Generator(persistence.Persistent):
        def __init__(self):
            super().__init__()
            self.synthesis = Synthesis()
            self.z_dim = 512

    g = Generator()
    read = load(
        save(tmp_path / "ffhq.pkl", {"G": None, "D": None, "G_ema": g, "augment_pipe": None}, "plain", protocol)
    )
    assert read["G"] is None
    assert read["G_ema"].class_name == "Generator"
    assert read["G_ema"].state["z_dim"] == 512
    assert read["G_ema"].state["_modules"]["synthesis"].state["_init_kwargs"] == {
        "channel_base": 32,
        "nested": {"a": 1},
    }
    ours = state_dict(read["G_ema"])
    assert list(ours) == ["synthesis.const", "synthesis.noise_const"]
    torch.testing.assert_close(ours["synthesis.const"], g.synthesis.const.detach())
    torch.testing.assert_close(ours["synthesis.noise_const"], g.synthesis.noise_const)


# what is unknown is left alone


class Call:
    """Pickles as the call ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Colour(enum.Enum):
    RED = 1


def adam() -> torch.optim.Optimizer:
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer


def company() -> dict[str, object]:
    """What people keep beside a network."""
    return {
        "options": argparse.Namespace(out=Path("runs")),
        "path": Path("runs"),
        "defaultdict": collections.defaultdict(list, a=[1]),
        "counter": collections.Counter("abba"),
        "deque": collections.deque([1, 2, 3], 3),
        "time": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
        "enum": Colour.RED,
        "enum by its name": Call(getattr, Colour, "RED"),
        "partial": functools.partial(len, [1]),
        "generator": np.random.default_rng(0),
        "optimizer": adam(),
        "module": Call(torch.nn.Linear, 1, 1),
        "device": torch.device("meta"),
        "error": ValueError("diverged"),
        "keys": {(1, 2): 3, Colour.RED: 4, np.int64(5): 6, torch.ones(1): 7},
        "texts": np.array(["a", "bc"]),
        "a text": np.str_("a"),
        "objects": np.array([None, {}], dtype=object),
        "records": np.zeros(2, "f4, i4"),
        "dates": np.array(["2020-01-01"], "M8[D]"),
        "sparse": torch.eye(2).to_sparse(),
        "quantised": Call(
            torch._utils._rebuild_qtensor, torch.ones(1).untyped_storage(), 0, (1,), (1,), None, False, {}
        ),
    }


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("name", company())
def test_whatever_lies_beside_a_network_it_is_read(tmp_path, kind, name):
    module = Block()
    contents = {name: company()[name], "G_ema": module, "also": company()[name]}
    ours, theirs = state_dict(load(save(tmp_path / "mixed.pt", contents, kind))), module.state_dict()
    assert [key for key in ours if key.startswith("G_ema.")] == [f"G_ema.{key}" for key in theirs]
    for key, value in theirs.items():
        torch.testing.assert_close(ours[f"G_ema.{key}"], value)


def test_what_an_unknown_call_would_have_made_holds_nothing(tmp_path):
    rows = {"a": collections.Counter(a=1), "b": collections.defaultdict(list, a=[1]), "c": collections.deque([1, 2])}
    read = load(save(tmp_path / "x.pt", rows, "zip"))
    assert {name: (stub.class_name, stub.state) for name, stub in read.items()} == {
        "a": ("collections.Counter", None),
        "b": ("collections.defaultdict", None),
        "c": ("collections.deque", None),
    }
    (tmp_path / "x.pkl").write_bytes(b"(ioptparse\nValues\n}S'a'\nI1\nsb.")  # as Python 2 writes instances
    assert (load(tmp_path / "x.pkl").class_name, load(tmp_path / "x.pkl").state) == ("optparse.Values", None)
    with pytest.raises(ValueError, match=r"expected a module at 'the top', got a optparse\.Values"):
        state_dict(load(tmp_path / "x.pkl"))
    array = load(save(tmp_path / "o.pkl", [np.array([None, {}], dtype=object)] * 2, "plain"))[1]
    assert array.shape == ()
    assert isinstance(array[()], Stub)


def test_a_tensor_that_cannot_be_read_is_named_in_its_place(tmp_path):
    contents = {"net": {"w": torch.eye(2).to_sparse(), "b": torch.ones(2)}}
    assert list(state_dict(load(save(tmp_path / "x.pt", contents, "zip")))) == [
        "net.w (not read: torch._utils._rebuild_sparse_tensor)",
        "net.b",
    ]


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_reads_rarer_kinds_of_numbers(tmp_path, kind):
    parameter = torch.nn.Parameter(torch.arange(3.0))
    parameter.group = tensor_with_attribute = torch.arange(3.0)
    tensor_with_attribute.group = "biases"
    contents = [parameter, tensor_with_attribute, torch.arange(6.0).view(3, 2).to(torch.float8_e4m3fn).t()]
    contents += [torch.tensor([1, 65535], dtype=torch.uint16), torch.tensor([1 + 2j]), torch.tensor([1 + 2j]).cdouble()]
    for read, value in zip(load(save(tmp_path / "x.pt", contents, kind)), contents, strict=True):
        assert read.dtype == value.dtype
        assert type(read) is torch.Tensor
        assert read.tolist() == value.tolist()
    for array in (np.arange(3, dtype=">f4"), np.arange(3, dtype=">i2")):
        np.testing.assert_array_equal(load(save(tmp_path / "x.pt", array, kind)), array)


# what is evil is refused


def evil_calls(marker: Path) -> dict[str, Call]:
    return {
        "system": Call(os.system, f"touch {marker}"),
        "eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        "exec": Call(exec, f"open({str(marker)!r}, 'w')"),
        "getattr": Call(getattr, "text", "upper"),
        "open": Call(io.open, str(marker), "w"),
        "__import__": Call(__import__, "antigravity"),
        "load": Call(torch.load, str(marker)),
    }


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("name", evil_calls(Path()))
def test_calls_are_refused_and_nothing_runs(tmp_path, kind, name):
    marker = tmp_path / "marker"
    call = evil_calls(marker)[name]
    path = save(tmp_path / "evil.pt", {"weights": torch.zeros(2), "evil": [call]}, kind)
    with pytest.raises(
        UnsafePickle, match=rf"evil\.pt: refused to call .*{call.call[0].__name__}.*Nothing was executed"
    ):
        load(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"(S'touch {}'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch {}'\no.",  # OBJ
        b"cos\nsystem\n(S'touch {}'\ntR.",  # GLOBAL, REDUCE
        b"\x80\x04\x8c\x02os\x8c\x06system\x93S'touch {}'\n\x85R.",  # STACK_GLOBAL
        b"\x80\x02ctorch.storage\n_load_from_bytes\nB%b\x85R.",  # an evil pickle inside an innocent call
        b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN(S'touch {}'\ntNtR.",  # a call inside a call
    ],
)
def test_every_way_to_call_is_refused(tmp_path, program):
    marker = tmp_path / "marker"
    touch = str(marker).encode()
    inner = b"cos\nsystem\n(S'touch " + touch + b"'\ntR."
    program = program.replace(b"{}", touch).replace(b"%b", len(inner).to_bytes(4, "little") + inner)
    (tmp_path / "evil.pkl").write_bytes(program)
    with pytest.raises(UnsafePickle, match=r"os\.system"):
        load(tmp_path / "evil.pkl")
    assert not marker.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n}S'__code__'\nNsb.",  # BUILD on a function
        b"cos\nsystem\n)\x81}S'__setstate__'\ncos\nsystem\nsb.",  # NEWOBJ, then BUILD with a __setstate__
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",
        b"\x82\x01.",  # EXT1
        b"Pos.system\n.",  # PERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
    ],
)
def test_other_opcodes_are_inert(tmp_path, program):
    (tmp_path / "odd.pkl").write_bytes(program)
    try:
        read = load(tmp_path / "odd.pkl")
    except ValueError as error:
        assert "odd.pkl" in str(error)  # noqa: PT017
    else:
        assert type(read) is Stub


def test_classes_are_never_imported(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02cantigravity\nFlight\n)\x81}X\x01\x00\x00\x00aK\x01sb.")
    read = load(tmp_path / "x.pkl")
    assert (read.class_name, read.state) == ("antigravity.Flight", {"a": 1})
    assert "antigravity" not in sys.modules


# what is broken is named


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("part", [0, 0.02, 0.3, 0.6, 0.99])
def test_truncated_files_are_named(tmp_path, kind, part):
    path = save(tmp_path / "cut.pt", {"a": torch.randn(100), "b": Block()}, kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ValueError, match=r"cut\.pt is damaged, cut short, or no checkpoint"):
        load(path)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.pt"):
        load(tmp_path / "no.pt")
    (tmp_path / "t.pt").write_text("just some text")
    with pytest.raises(ValueError, match=r"t\.pt is damaged"):
        load(tmp_path / "t.pt")
    with zipfile.ZipFile(tmp_path / "z.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"z\.pt is damaged"):
        load(tmp_path / "z.pt")


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (0, (2, 2), (4, 1)),
        (-1, (1,), (1,)),
        (0, (2,), (-1,)),
        (0, (2**62,), (0,)),
        (0, (9,), (0,)),
    ],
)
def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path, offset, size, stride):
    storage = torch.UntypedStorage(16)
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    call = Call(torch._utils._rebuild_tensor_v2, typed, offset, size, stride, False, collections.OrderedDict())
    for kind in ("zip", "legacy", "plain"):
        with pytest.raises(ValueError, match="a tensor"):
            load(save(tmp_path / "far.pt", call, kind))


def test_announced_sizes_are_not_believed(tmp_path):
    path = save(tmp_path / "big.pt", torch.zeros(1000), "legacy")
    raw = path.read_bytes()
    assert raw.count(b"M\xe8\x03") == 2  # the storage's and the tensor's size: BININT2 1000
    path.write_bytes(raw.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f"))
    with pytest.raises(ValueError, match="larger than the file"):
        load(path)


def test_hostile_shapes_of_data_are_refused(tmp_path):
    deep = b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"Ns."  # a tuple of a million levels as a dict's key
    (tmp_path / "deep.pkl").write_bytes(deep)
    with pytest.raises(ValueError, match="a tuple as a key"):
        load(tmp_path / "deep.pkl")
    (tmp_path / "memo.pkl").write_bytes(b"Nr\xff\xff\xff\x7f.")  # C's unpickler would allocate 16 GB
    assert load(tmp_path / "memo.pkl") is None
    snake = Stub("Snake", {"_parameters": {}, "_buffers": {}, "_modules": {}})
    snake.state["_modules"]["tail"] = snake
    with pytest.raises(ValueError, match="contains itself"):
        state_dict(snake)
    odd = Stub("Thing", {"_parameters": 1, "_buffers": {}, "_modules": {}}), Stub("__torch__.Thing", [])
    for nothing in (None, Stub("Thing"), *odd):
        with pytest.raises(ValueError, match="expected a module at 'the top'"):
            state_dict(nothing)


def deep(levels: int = 200_000) -> bytes:
    return b")" + b"\x85" * levels  # a tuple of so many levels


@pytest.mark.parametrize(
    "program",
    [
        b"c_codecs\nencode\nX\x01\x00\x00\x00a" + deep() + b"\x86R.",  # an encoding
        deep() + b")R.",  # a function
        b"cbuiltins\nset\n(" + deep() + b"e\x85R.",
        b"(" + deep() + b"\x91.",  # FROZENSET
        b"ccollections\nOrderedDict\n](" + deep() + b"N\x86e\x85R.",
        b"cnumpy\ndtype\n" + deep() + b"\x85R.",
    ],
)
def test_deep_values_do_not_exhaust_the_c_stack(tmp_path, program):
    (tmp_path / "deep.pkl").write_bytes(b"\x80\x02" + program)
    with pytest.raises(ValueError, match=r"deep\.pkl"):
        load(tmp_path / "deep.pkl")


def test_deep_keys_of_the_legacy_format_are_refused(tmp_path):
    raw = save(tmp_path / "x.pt", torch.zeros(1), "legacy").read_bytes()
    keys = raw.rindex(b"\x80\x02]")
    (tmp_path / "x.pt").write_bytes(raw[:keys] + b"\x80\x02](" + deep() + b"e.")
    with pytest.raises(ValueError, match="a tuple as a key"):
        load(tmp_path / "x.pt")


MEGABYTE = b"B" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20)


@pytest.mark.parametrize(
    ("once", "again"),
    [
        (b"cbuiltins\nset\nq\x01](" + b"K\x01" * 500_000 + b"eq\x00", b"h\x01h\x00\x85R"),  # calls
        (MEGABYTE + b"q\x00", b"ctorch\nSize\nh\x00\x85R"),
        (
            b"}(" + b"".join(b"J%bN" % i.to_bytes(4, "little") for i in range(100_000)) + b"uq\x00",
            b"ca\nb\n)\x81h\x00b",
        ),
        (b"X\xe8\x03\x00\x00" + b"a" * 1000 + b"q\x00", b"h\x00h\x00\x93"),  # names
    ],
)
def test_one_value_is_not_built_a_thousand_times(tmp_path, once, again):
    (tmp_path / "bomb.pkl").write_bytes(b"\x80\x03" + once + again * 1000 + b".")
    with pytest.raises(ValueError, match="larger than the file"):
        load(tmp_path / "bomb.pkl")


@pytest.mark.parametrize(
    "function",
    [b"torch.jit._pickle\nbuild_intlist", b"torch\nSize", b"builtins\nset", b"numpy.core.numeric\n_frombuffer"],
)
def test_arrays_are_not_taken_apart_uncounted(tmp_path, function):
    """A list of an array's values takes many times its bytes."""
    array = b"cnumpy.core.numeric\n_frombuffer\n(B\x08\x00\x00\x00" + bytes(8)
    array += b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85RK\x01\x85X\x01\x00\x00\x00CtR"
    rest = b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85RK\x01\x85\x87R." if b"numpy" in function else b"\x85R."
    (tmp_path / "array.pkl").write_bytes(b"\x80\x05" + array + b".")
    assert load(tmp_path / "array.pkl").tolist() == [0.0]
    (tmp_path / "array.pkl").write_bytes(b"\x80\x05c" + function + b"\n" + array + rest)
    with pytest.raises(ValueError, match="of an array or a tensor"):
        load(tmp_path / "array.pkl")


def test_a_numpy_type_that_is_renamed_makes_no_objects(tmp_path):
    """Eight bytes as an object would be a pointer to anywhere."""
    renamed = b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R}X\x04\x00\x00\x00nameX\x02\x00\x00\x00O8sb"
    array = b"cnumpy.core.numeric\n_frombuffer\n(B\x08\x00\x00\x00" + bytes(8)
    (tmp_path / "o.pkl").write_bytes(b"\x80\x05" + array + renamed + b"K\x01\x85X\x01\x00\x00\x00CtR.")
    assert isinstance(load(tmp_path / "o.pkl")[()], Stub)


WIDE = b")" + b"2\x86" * 18  # a pair of twice the same pair of twice the same …: a megabyte as a text


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (WIDE + b")R.", "refused to call a tuple"),
        (b"cfunctools\npartial\n)R)R.", "refused to call a Stub"),
        (b"(" + WIDE + b"o.", "refused to call a tuple"),
        (WIDE + b"X\x01\x00\x00\x00a\x93)R.", r"refused to call a tuple\.a"),
    ],
)
def test_what_is_no_name_is_not_written_out(tmp_path, program, message):
    (tmp_path / "wide.pkl").write_bytes(b"\x80\x04" + program)
    with pytest.raises(UnsafePickle, match=message):
        load(tmp_path / "wide.pkl")
    (tmp_path / "wide.pkl").write_bytes(b"\x80\x04" + WIDE + b")\x81.")
    assert load(tmp_path / "wide.pkl").class_name == "a tuple"


@pytest.mark.parametrize(
    "program",
    [
        b"cnumpy.core.numeric\n_frombuffer\n(\x8a\x06\x00\x00\x00\x00\x00\x01"  # 2^40 for the bytes
        b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85RK\x01\x85X\x01\x00\x00\x00CtR.",
        b"\x96\x00\x00\x00\x00\x00\x01\x00\x00.",  # BYTEARRAY8
        b"\x8e\x00\x00\x00\x00\x00\x01\x00\x00.",  # BINBYTES8
    ],
)
def test_a_terabyte_is_not_reserved(tmp_path, program):
    (tmp_path / "large.pkl").write_bytes(b"\x80\x05" + program)
    with pytest.raises(ValueError, match=r"large\.pkl"):
        load(tmp_path / "large.pkl")


@pytest.mark.parametrize("part", ["data.pkl", "data/0"])
def test_a_zip_bomb_is_refused(tmp_path, part):
    save(tmp_path / "x.pt", torch.zeros(1 << 22), "zip")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as bomb:
        for info in archive.infolist():
            packed = zipfile.ZIP_DEFLATED if info.filename.endswith(part) else zipfile.ZIP_STORED
            bomb.writestr(info.filename, archive.read(info), packed)
    with pytest.raises(ValueError, match="larger than the file" if part == "data/0" else "is compressed"):
        load(tmp_path / "bomb.pt")


def test_nested_dicts_of_modules_and_tensors_are_flattened():
    module = Stub("Block", {"_parameters": {"w": torch.ones(1)}, "_buffers": {}, "_modules": {}})
    nested = {"net": {"encoder": module, "step": 3}, "mean": torch.zeros(2), "args": Stub("Namespace", {"x": 1})}
    assert list(state_dict(nested)) == ["net.encoder.w", "mean"]
    nested["net"]["again"] = nested
    with pytest.raises(ValueError, match="contains itself"):
        state_dict(nested)
    for _ in range(60):
        module = {"left": module, "right": module}
    with pytest.raises(ValueError, match="others too often"):
        state_dict(module)


def test_a_state_dict_may_have_as_many_entries_as_it_likes():
    counts = {f"step_{i}": i for i in range(100_000)}
    assert list(state_dict({"history": counts, "net": {"w": torch.ones(1)}})) == ["net.w"]
    weights = {f"layer{i}.weight": torch.ones(()) for i in range(30_000)}
    assert state_dict({"net": weights}).keys() == {f"net.{name}" for name in weights}


def test_arrays_of_numbers_are_tensors_too():
    found = state_dict({"a": np.arange(3, dtype=">f8"), "b": np.arange(3), "c": np.array(["x"])})
    assert list(found) == ["a"]
    assert torch.equal(found["a"], torch.tensor([0.0, 1, 2]))


def test_a_tilde_is_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save(tmp_path / "x.pt", [1], "zip")
    assert load("~/x.pt") == [1]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    contents = {
        "a": torch.randn(3, 4).t(),
        "b": np.arange(3),
        "c": Block(),
        "d": {1, 2},
        "e": collections.OrderedDict(x=1),
    }
    return folder, [
        save(folder / f"{k}.pt", contents, k, p).read_bytes() for k, p in [("zip", 2), ("legacy", 2), ("plain", 4)]
    ]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_flipped_bytes_return_or_raise_value_error(checkpoints, data):
    folder, originals = checkpoints
    raw = bytearray(data.draw(st.sampled_from(originals)))
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "flipped.pt"
    path.write_bytes(raw)
    with suppress(ValueError):
        read = load(path)
        if isinstance(read, dict) and "c" in read:
            state_dict(read["c"])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_random_programs_return_or_raise_value_error(tmp_path_factory, program):
    path = tmp_path_factory.getbasetemp() / "random.pkl"
    path.write_bytes(b"\x80\x02" + program + b".")
    try:
        load(path)
    except ValueError as error:
        assert "random.pkl" in str(error)  # noqa: PT017
