"""The safetensors reader and writer against the reference implementation, both ways."""

from __future__ import annotations

import math
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import load, save
from safetensors_oracle import accepts_reference, encode, tensor

from trainer import safetensors
from trainer.errors import SafetensorsError
from trainer.safetensors import TensorData

NUMPY_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}


@pytest.mark.parametrize(
    "data",
    [
        encode("{}"),
        encode("{} \t\r\n"),
        encode('{"__metadata__":null}'),
        encode({"a": tensor(shape=[], offsets=[0, 1])}, b"a"),
        encode({"a": tensor(shape=[0, 2**64 - 1], offsets=[0, 0])}),
        encode({"b": tensor(), "a": tensor(offsets=[2, 4])}, b"abcd"),
        encode({"b": tensor(offsets=[2, 4]), "a": tensor()}, b"abcd"),
        encode({"z": tensor(shape=[0], offsets=[2, 2]), "a": tensor(), "y": tensor(offsets=[2, 4])}, b"abcd"),
        encode({"a": tensor("BOOL")}, b"\x07\x08"),
        encode({"a": tensor("F6_E2M3", [4], [0, 3])}, b"abc"),
        encode('{"\\u00e9\\ud83d\\ude00":{"\\u0064type":"U8","shape":[0],"data_offsets":[0,0]}}'),
        encode({"": tensor()}, b"ab"),
    ],
)
def test_accepts_what_the_reference_accepts(data: bytes) -> None:
    expected = {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in deserialize(data)}
    tensors, _ = safetensors.parse(data)
    assert {name: (t.dtype, t.shape, bytes(t.data)) for name, t in tensors.items()} == expected


def test_dtypes_and_their_sizes_are_the_references() -> None:
    with pytest.raises(SafetensorError) as caught:
        deserialize(encode({"a": tensor("none")}))
    # "... unknown variant `none`, expected one of `BOOL`, `F4`, ... at line 1": in order of alignment
    listed = str(caught.value).split("expected one of ")[1].split(" at ")[0]
    assert list(safetensors.DTYPE_BITS) == [name.strip("`") for name in listed.split(", ")]
    for dtype, bits in safetensors.DTYPE_BITS.items():
        assert accepts_reference(encode({"a": tensor(dtype, [8], [0, bits])}, bytes(bits)))


names = st.text(max_size=8).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = draw(shapes)
    dtype = np.dtype(NUMPY_DTYPES[draw(st.sampled_from(sorted(NUMPY_DTYPES)))])
    size = math.prod(shape) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    return np.frombuffer(raw, np.uint8).view(dtype).reshape(shape) if size else np.zeros(shape, dtype)


def to_tensor(array: np.ndarray) -> TensorData:
    names = {numpy_name: name for name, numpy_name in NUMPY_DTYPES.items()}
    return TensorData(names[array.dtype.name], array.shape, array.tobytes())


@given(
    st.dictionaries(names, arrays(), max_size=5),
    st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=1),
)
@settings(max_examples=300)
def test_written_bytes_are_the_references(
    arrays: dict[str, np.ndarray], metadata: dict[str, str] | None
) -> None:
    assume(arrays or metadata != {})  # the reference writes a broken header then: see below
    ours = safetensors.serialize({name: to_tensor(array) for name, array in arrays.items()}, metadata)
    assert ours == save(arrays, metadata)
    loaded = load(ours)
    assert loaded.keys() == arrays.keys()
    tensors, read_metadata = safetensors.parse(ours)
    assert read_metadata == (metadata or {})
    for name, array in arrays.items():
        assert loaded[name].tobytes() == array.tobytes()
        assert tensors[name] == to_tensor(array)


def test_no_tensors_and_empty_metadata_where_the_reference_writes_a_broken_header() -> None:
    assert not accepts_reference(save({}, {}))
    assert safetensors.serialize({}, {}) == encode('{"__metadata__":{}}     ')
    assert accepts_reference(safetensors.serialize({}, {}))


def test_several_metadata_are_sorted_and_otherwise_the_references() -> None:
    metadata = {"b": "2", "a": "1", 'é"\\\x01\x7f\n': "\u2028"}
    ours = safetensors.serialize({"x": TensorData("U8", (1,), b"x")}, metadata)
    theirs = save({"x": np.array([ord("x")], np.uint8)}, metadata)
    assert sorted(ours) == sorted(theirs)
    assert list(safetensors.parse(ours)[1]) == sorted(metadata)
    assert safetensors.parse(ours) == safetensors.parse(theirs)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"__metadata__": TensorData("U8", (1,), b"a")}, None),
        ({"\ud800": TensorData("U8", (1,), b"a")}, None),
        ({"a": TensorData("U9", (1,), b"a")}, None),
        ({"a": TensorData("U8", (2,), b"a")}, None),
        ({"a": TensorData("U8", (-1, -1), b"a")}, None),
        ({"a": TensorData("F4", (3,), b"ab")}, None),
        ({}, {"step": 3}),
        ({}, {"\ud800": ""}),
    ],
)
def test_refuses_to_write_what_it_would_not_read(tensors: dict, metadata: dict | None) -> None:
    with pytest.raises(SafetensorsError, match="cannot write"):
        safetensors.serialize(tensors, metadata)


def test_refuses_to_write_a_header_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "MAX_HEADER", 64)
    with pytest.raises(SafetensorsError, match="at most 64"):
        safetensors.serialize({"a" * 40: TensorData("U8", (0,), b"")})


def test_chunks_are_the_tensors_own_buffers() -> None:
    large = bytearray(1 << 20)
    _, chunk = safetensors.serialize_chunks({"a": TensorData("U8", (1 << 20,), large)})
    assert chunk is large


def test_parsing_copies_no_tensor() -> None:
    data = safetensors.serialize({"a": TensorData("U8", (1 << 24,), bytes(1 << 24))})
    tracemalloc.start()
    try:
        tensors, _ = safetensors.parse(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tensors["a"].nbytes == 1 << 24
    assert peak < 100_000


def test_files(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"a": TensorData("F32", (2,), struct.pack("<2f", 1, 2)), "b": TensorData("U8", (0,), b"")}
    safetensors.write_file(path, tensors, {"format": "pt"})
    assert safetensors.read_file(path) == (tensors, {"format": "pt"})
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(b"")
    with pytest.raises(SafetensorsError, match=f"{path} has 0 bytes"):
        safetensors.read_file(path)
    with pytest.raises(SafetensorsError, match=r"cannot read .*gone"):
        safetensors.read_file(tmp_path / "gone")


def test_half_precision_converts_exactly() -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    f16 = np.frombuffer(safetensors.f16_to_f32(every.tobytes()), np.float32)
    np.testing.assert_array_equal(f16, every.view(np.float16).astype(np.float32))
    bf16 = np.frombuffer(safetensors.bf16_to_f32(every.tobytes()), np.uint32)
    np.testing.assert_array_equal(bf16, every.astype(np.uint32) << 16)


def test_conversion_keeps_f32_and_refuses_integers() -> None:
    tensor = TensorData("F32", (1,), b"abcd")
    assert safetensors.to_f32(tensor) is tensor
    assert safetensors.to_f32(TensorData("BF16", (1,), b"\x80\x3f")).data == struct.pack("<f", 1)
    assert safetensors.to_f32(TensorData("F16", (1,), b"\x00\x3c")).data == struct.pack("<f", 1)
    with pytest.raises(SafetensorsError, match="I32"):
        safetensors.to_f32(TensorData("I32", (1,), b"abcd"))
