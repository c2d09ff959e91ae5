"""Damaged safetensors files: what the reference implementation refuses is refused, at little cost."""

from __future__ import annotations

import itertools
import json
import math
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors_oracle import accepts, accepts_reference, encode, tensor

from trainer import safetensors
from trainer.errors import SafetensorsError

FIELDS = '"dtype":"U8","shape":[0],"data_offsets":[0,0]'
EMPTY = "{" + FIELDS + "}"

# name → file, and what the error has to say
MALFORMED: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "0 bytes"),
    "half a header length": (b"\x02\0\0\0", "4 bytes"),
    "no header": (encode(""), "starts with b''"),
    "truncated header": (encode({"a": tensor()}, b"ab")[:30], "only 22 follow"),
    "truncated data": (encode({"a": tensor()}, b"a"), "1 bytes of tensors, its header says 2"),
    "trailing bytes": (encode({"a": tensor()}, b"abc"), "3 bytes of tensors, its header says 2"),
    "header over 100 MB": (encode("{}", length=100_000_001), "100,000,001"),
    "header length beyond the file": (encode("{}", length=3), "3 bytes, but only 2 follow"),
    "largest header length": (encode("{}", length=2**64 - 1), "18,446,744,073,709,551,615"),
    "negative header length": (b"\xff" * 8 + b"{}", "over 100,000,000"),
    "not UTF-8": (encode(b'{"\xff":1}'), "can't decode"),
    "overlong UTF-8": (encode(b'{"\xc0\x80":1}'), "can't decode"),
    "byte order mark": (encode("\ufeff{}"), "starts with b'\\xef'"),
    "not JSON": (encode("{nothing}"), "not valid"),
    "trailing comma": (encode('{"a":' + EMPTY + ",}"), "not valid"),
    "padded with zeros": (encode("{}\0\0"), "Extra data"),
    "two objects": (encode("{}{}"), "Extra data"),
    "an array": (encode("[]"), "starts with b'['"),
    "a control character in a string": (encode('{"a\n":' + EMPTY + "}"), "control character"),
    "half a surrogate pair in a name": (encode('{"\\ud800":' + EMPTY + "}"), "not valid Unicode"),
    "half a surrogate pair in the metadata": (encode('{"__metadata__":{"a":"\\udc00"}}'), "not a string"),
    "nested deeply": (encode('{"a":' + "[" * 100_000), "nested too deeply"),
    "nested deeply in an ignored field": (
        encode('{"a":{"x":' + "[" * 200 + "]" * 200 + "," + FIELDS + "}}"),
        "nested too deeply",
    ),
    "metadata is a list": (encode({"__metadata__": []}), "not an object of strings"),
    "metadata holds a number": (encode({"__metadata__": {"step": 3}}), "'step': 3"),
    "metadata twice": (encode('{"__metadata__":{},"__metadata__":{}}'), "twice"),
    "a field twice": (encode('{"a":{"dtype":"U8",' + FIELDS + "}}"), "'dtype' stands there twice"),
    "a tensor that is a number": (encode({"a": 1}), "'a' is 1"),
    "no offsets": (encode({"a": {"dtype": "U8", "shape": [0]}}), "without exactly"),
    "no dtype": (encode({"a": {"shape": [0], "data_offsets": [0, 0]}}), "without exactly"),
    "unknown dtype": (encode({"a": tensor("F128")}, b"ab"), "unknown dtype 'F128'"),
    "dtype in lower case": (encode({"a": tensor("u8")}, b"ab"), "unknown dtype 'u8'"),
    "dtype is a list": (encode({"a": tensor(["U8"])}, b"ab"), "unknown dtype ['U8']"),
    "shape is null": (encode({"a": tensor(shape=None)}, b"ab"), "shape None"),
    "shape is a string": (encode({"a": tensor(shape="2")}, b"ab"), "shape '2'"),
    "negative shape": (encode({"a": tensor(shape=[-1, -2])}, b"ab"), "shape [-1, -2]"),
    "shape is true": (encode({"a": tensor("U8", [True], [0, 1])}, b"a"), "shape [True]"),
    "shape is a fraction": (encode({"a": tensor(shape=[2.0])}, b"ab"), "number 2.0"),
    "shape in scientific notation": (
        encode('{"a":{"dtype":"U8","shape":[0e0],"data_offsets":[0,0]}}'),
        "0e0",
    ),
    "shape is minus zero": (encode('{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}'), "-0"),
    "shape is NaN": (encode('{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,0]}}'), "NaN"),
    "shape is infinite": (encode('{"a":{"dtype":"U8","shape":[Infinity],"data_offsets":[0,0]}}'), "Infinity"),
    "shape has a leading zero": (encode('{"a":{"dtype":"U8","shape":[02],"data_offsets":[0,2]}}', b"ab"), ""),
    "shape over 64 bits": (encode({"a": tensor(shape=[0, 2**64], offsets=[0, 0])}), str(2**64)),
    "shape of 5,000 digits": (encode('{"a":{"shape":[' + "9" * 5000 + '],"dtype":"U8"}}'), "9999"),
    "elements overflow": (encode({"a": tensor(shape=[2**32, 2**32], offsets=[0, 0])}), "impossible"),
    "elements overflow before a zero": (encode({"a": tensor(shape=[2**63, 2, 0], offsets=[0, 0])}), "impos"),
    "bytes overflow": (encode({"a": tensor("F32", [2**62], [0, 0])}), "impossible"),
    "bits overflow": (encode({"a": tensor("U8", [2**61], [0, 2**61])}), "impossible"),
    "half a byte": (encode({"a": tensor("F4", [3], [0, 2])}, b"ab"), "impossible"),
    "offsets disagree with the shape": (
        encode({"a": tensor(shape=[3])}, b"ab"),
        "has 2 bytes, but U8 [3] takes 3",
    ),
    "offsets disagree with the dtype": (
        encode({"a": tensor("F32")}, b"ab"),
        "has 2 bytes, but F32 [2] takes 8",
    ),
    "one offset": (encode({"a": tensor(offsets=[2])}, b"ab"), "data_offsets [2]"),
    "three offsets": (encode({"a": tensor(offsets=[0, 2, 2])}, b"ab"), "data_offsets [0, 2, 2]"),
    "offsets are an object": (encode({"a": tensor(offsets={"0": 0, "1": 2})}, b"ab"), "data_offsets {"),
    "negative offset": (encode({"a": tensor(offsets=[-2, 0])}, b"ab"), "data_offsets [-2, 0]"),
    "offsets backwards": (encode({"a": tensor(offsets=[2, 0])}, b"ab"), "data_offsets [2, 0]"),
    "offsets over 64 bits": (encode({"a": tensor(offsets=[0, 2**64])}, b"ab"), str(2**64)),
    "offsets beyond the file": (encode({"a": tensor(shape=[2**40], offsets=[0, 2**40])}, b"ab"), str(2**40)),
    "hole at the start": (encode({"a": tensor(offsets=[1, 3])}, b"abc"), "data_offsets [1, 3]"),
    "hole between tensors": (
        encode({"a": tensor(), "b": tensor(offsets=[3, 5])}, b"abcde"),
        "'b' has data_offsets [3, 5] but the tensor before it ends at 2",
    ),
    "overlapping tensors": (
        encode({"a": tensor(), "b": tensor(offsets=[1, 3])}, b"abc"),
        "'b' has data_offsets",
    ),
    "the same bytes twice": (encode({"a": tensor(), "b": tensor()}, b"ab"), "data_offsets [0, 2]"),
}

# What the format's description forbids or doesn't know, and the reference lets pass.
STRICTER: dict[str, tuple[bytes, str]] = {
    "a tensor twice": (encode('{"a":' + EMPTY + ',"a":' + EMPTY + "}"), "'a' stands there twice"),
    "a metadata key twice": (encode('{"__metadata__":{"a":"1","a":"2"}}'), "'a' stands there twice"),
    "space before the header": (encode(" {}"), "starts with b' '"),
    "a fourth field": (encode('{"a":{"x":1,' + FIELDS + "}}"), "without exactly"),
    "a tensor as a list": (encode({"a": ["U8", [0], [0, 0]]}), "without exactly"),
    "dtype as an object": (encode({"a": tensor({"U8": None})}, b"ab"), "unknown dtype {'U8': None}"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_refuses_what_the_reference_refuses(name: str) -> None:
    data, says = MALFORMED[name]
    with pytest.raises(SafetensorError):
        deserialize(data)
    with pytest.raises(SafetensorsError) as caught:
        safetensors.parse(data, "model.safetensors")
    message = str(caught.value)
    assert says in message
    assert "model.safetensors" in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize("name", STRICTER)
def test_refuses_more_than_the_reference(name: str) -> None:
    data, says = STRICTER[name]
    deserialize(data)
    with pytest.raises(SafetensorsError) as caught:
        safetensors.parse(data)
    assert says in str(caught.value)


def test_every_truncation_is_refused() -> None:
    whole = encode({"__metadata__": {"a": "b"}, "a": tensor(), "b": tensor(offsets=[2, 4])}, b"abcd")
    assert accepts(whole)
    assert [n for n in range(len(whole)) if accepts(whole[:n])] == []


# Differential fuzzing: a valid file, hurt in one or two places.

json_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 9),
    st.sampled_from([2**31, 2**32, 2**61, 2**63, 2**64 - 1, 2**64, 10**30]),
    st.sampled_from([0.0, 1.5, float("nan"), float("inf")]),
    st.sampled_from([*safetensors.DTYPE_BITS, "", "x", "f32"]),
    st.lists(st.integers(-1, 4), max_size=3),
    st.just({}),
)


@st.composite
def hurt_headers(draw: st.DrawFn) -> bytes:
    """A file whose header's fields, shapes and offsets were replaced, dropped or moved."""
    header: dict = {}
    end = 0
    for name in draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(["U8", "BF16", "F32", "I64", "F4", "F6_E3M2"]))
        shape = draw(st.lists(st.sampled_from([0, 1, 2, 4, 8]), max_size=3))
        size = -(-math.prod(shape) * safetensors.DTYPE_BITS[dtype] // 8)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=2))
    for _ in range(draw(st.integers(0, 2))):
        target = header[draw(st.sampled_from(sorted(header)))]
        keys = sorted(target)
        if not keys:
            continue
        key = draw(st.sampled_from(keys))
        value = target[key]
        if isinstance(value, list) and value and draw(st.booleans()):
            place = draw(st.integers(0, len(value) - 1))
            value[place] = draw(json_values)
        elif draw(st.booleans()):
            target[key] = draw(json_values)
        else:
            del target[key]
            break
    pairs = draw(st.permutations(sorted(header.items())))
    text = json.dumps(dict(pairs), ensure_ascii=draw(st.booleans()))
    data = bytes(end + draw(st.sampled_from([0, 0, 0, 0, -1, 1])) if end else 0)
    return encode(text + draw(st.sampled_from(["", "", " ", "\n", "x"])), data)


@given(hurt_headers())
@settings(max_examples=1500)
def test_agrees_with_the_reference_on_hurt_headers(data: bytes) -> None:
    assert accepts(data) == accepts_reference(data)


def is_stricter(data: bytes) -> bool:
    """Whether `data` is one of the files of STRICTER's kinds: judged here by the error alone."""
    try:
        safetensors.parse(data)
    except SafetensorsError as error:
        kinds = ("stands there twice", "the header starts with", "without exactly", "unknown dtype {")
        return any(kind in str(error) for kind in kinds)
    return False


def test_refuses_whatever_the_reference_refuses_after_any_change_of_a_byte() -> None:
    whole = bytearray(
        encode(
            '{"__metadata__":{"a":"\\u00e9"},"w":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]},'
            '"x":{"dtype":"U8","shape":[],"data_offsets":[4,5]}}',
            b"abcde",
        )
    )
    end = len(whole) - 5
    replacements = b'\0\x1f "\\{}[],:0129-.eEua\x7f\x80\xff'
    outcomes = {True: 0, False: 0}
    for place, byte in itertools.product(range(end), replacements):
        data = bytes(whole[:place]) + bytes([byte]) + bytes(whole[place + 1 :])
        ours, theirs = accepts(data), accepts_reference(data)
        outcomes[ours] += 1
        assert ours == theirs or (theirs and is_stricter(data)), data
    for place in range(8, end):
        shorter = encode(bytes(whole[8:place] + whole[place + 1 : end]), b"abcde")
        assert accepts(shorter) == accepts_reference(shorter) or is_stricter(shorter), shorter
    assert min(outcomes.values()) > 100


@pytest.mark.parametrize(
    "data",
    [
        encode("{}", length=99_999_999),
        encode({"a": tensor("F64", [2**40], [0, 2**43])}),
        encode({"a": tensor("F64", [2**40, 0], [0, 0]), "b": tensor(shape=[2**50], offsets=[0, 2**50])}),
        encode('{"a":' + "[" * 100_000),
        encode('{"a":{"shape":[' + "9" * 100_000 + '],"dtype":"U8"}}'),
    ],
)
def test_memory_is_bounded_by_the_file_and_not_by_what_it_says(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SafetensorsError):
            safetensors.parse(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(data) + 200_000
