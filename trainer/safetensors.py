"""safetensors files, read and written with the standard library alone.

A file is: the header's length (u64), the header (JSON, padded with spaces to 8 bytes), the tensors' bytes.

    {"__metadata__": {"format": "pt"}, "wte": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}

Everything is little-endian and in C order. What is written equals the reference implementation's output,
byte for byte (its metadata come in random order, here they are sorted). What it refuses is refused here. So
are four things that the format's description forbids or doesn't know, and that the reference lets pass:
duplicate keys, white space before the header's `{`, fields of a tensor other than its three, and a tensor
or dtype spelled as serde's alternative forms (`["U8", [0], [0, 0]]`, `{"U8": null}`).

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import re
import struct
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from trainer import storage
from trainer.errors import SafetensorsError

# Bits of an element, in the reference's order of alignment: tensors are written from the last dtype to the
# first.
DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
DTYPE_RANK = {dtype: rank for rank, dtype in enumerate(DTYPE_BITS)}

MAX_HEADER = 100_000_000  # bytes
WORD = 1 << 64  # sizes are unsigned 64-bit numbers
METADATA = "__metadata__"
DEEPEST = 3  # the header, a tensor in it, its shape
BRACKET_OR_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]')
FIELDS = ("dtype", "shape", "data_offsets")
DAMAGED = "the file is damaged or no safetensors file: copy or download it again"

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class TensorData:
    """A tensor's raw bytes: little-endian, C order."""

    dtype: str  # a name in DTYPE_BITS
    shape: tuple[int, ...]
    data: Buffer

    @property
    def nbytes(self) -> int:
        return memoryview(self.data).nbytes


def parse(
    buffer: Buffer, source: str | Path = "safetensors data"
) -> tuple[dict[str, TensorData], dict[str, str]]:
    """Tensors by name, in the order of their bytes, and the metadata of the file in `buffer`.

    The tensors are views of `buffer`: nothing is copied. `source` names the file in errors.
    Raises SafetensorsError for whatever the format forbids.
    """
    view = memoryview(buffer).cast("B").toreadonly()
    length = _header_length(view, source)
    header = _header(view[8 : 8 + length], source)
    data = view[8 + length :]

    metadata = _metadata(header.pop(METADATA, None), source)
    infos = [(name, *_tensor_info(name, info, source)) for name, info in header.items()]
    infos.sort(key=lambda info: info[3:])
    tensors = {}
    end = 0
    for name, dtype, shape, start, stop in infos:
        if start != end or stop < start:
            expected = f"the tensor before it ends at {end}"
            raise SafetensorsError(
                f"{source}: tensor {name!r} has data_offsets [{start}, {stop}] but {expected}", DAMAGED
            )
        size = _size(dtype, shape)
        if size != stop - start:
            wanted = "an impossible number of" if size is None else size
            raise SafetensorsError(
                f"{source}: tensor {name!r} has {stop - start} bytes, but {dtype} {_short(list(shape))} takes"
                f" {wanted}",
                DAMAGED,
            )
        tensors[name] = TensorData(dtype, shape, data[start:stop])
        end = stop
    if end != len(data):
        raise SafetensorsError(f"{source} has {len(data)} bytes of tensors, its header says {end}", DAMAGED)
    return tensors, metadata


def read_file(path: str | Path) -> tuple[dict[str, TensorData], dict[str, str]]:
    """`parse` of the file at `path`, memory-mapped: bytes are read when they are used.

    Raises SafetensorsError for what the format forbids and for a file that cannot be read.
    """
    try:
        buffer = storage.map_file(Path(path))
    except OSError as error:
        raise SafetensorsError(
            f"cannot read {path} ({error.strerror})", "check the path and its permissions"
        ) from error
    return parse(buffer, path)


def serialize(tensors: Mapping[str, TensorData], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file as bytes. Raises SafetensorsError for what a reader would refuse."""
    return b"".join(serialize_chunks(tensors, metadata))


def serialize_chunks(
    tensors: Mapping[str, TensorData], metadata: Mapping[str, str] | None = None
) -> Iterator[Buffer]:
    """A safetensors file in chunks: its header, then each tensor's own bytes, not copied.

    Tensors are ordered by alignment, largest first, and then by name. Raises SafetensorsError, before the
    first chunk, for what a reader would refuse.
    """
    header: dict[str, Any] = {} if metadata is None else {METADATA: dict(sorted(metadata.items()))}
    for key, entry in header.get(METADATA, {}).items():
        if not _is_text(key) or not _is_text(entry):
            raise SafetensorsError(f"cannot write the metadata {key!r}: {_short(entry)}", "both must be text")
    for name, tensor in tensors.items():
        if name == METADATA or not _is_text(name) or _size(tensor.dtype, tensor.shape) != tensor.nbytes:
            raise SafetensorsError(
                f"cannot write tensor {name!r}, {tensor.dtype} {list(tensor.shape)} of {tensor.nbytes} bytes",
                "its name, dtype, shape and size must agree with the safetensors format",
            )
    ordered = sorted(tensors.items(), key=lambda item: (-DTYPE_RANK[item[1].dtype], item[0]))
    start = 0
    for name, tensor in ordered:
        stop = start + tensor.nbytes
        header[name] = dict(zip(FIELDS, (tensor.dtype, tensor.shape, (start, stop)), strict=True))
        start = stop
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise SafetensorsError(
            f"the header would take {len(text):,} bytes", f"at most {MAX_HEADER:,} are allowed"
        )
    return _chunks(text, [tensor for _, tensor in ordered])


def write_file(
    path: str | Path, tensors: Mapping[str, TensorData], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically. Raises SafetensorsError and StorageError."""
    storage.write_file(Path(path), serialize_chunks(tensors, metadata))


def to_f32(tensor: TensorData) -> TensorData:
    """An F16 or BF16 tensor as F32, exactly; an F32 tensor as it is. Raises SafetensorsError for others."""
    if tensor.dtype == "F32":
        return tensor
    if tensor.dtype == "BF16":
        return TensorData("F32", tensor.shape, bf16_to_f32(tensor.data))
    if tensor.dtype == "F16":
        return TensorData("F32", tensor.shape, f16_to_f32(tensor.data))
    raise SafetensorsError(f"dtype {tensor.dtype} cannot be read as F32", "save it as F32, F16 or BF16")


def bf16_to_f32(data: Buffer) -> bytearray:
    """Bytes of bfloat16 numbers → bytes of the same numbers in float32, of which they are the upper half."""
    raw = bytes(data)  # whose slices are ten times as fast as a view's
    out = bytearray(2 * len(raw))
    out[2::4] = raw[0::2]
    out[3::4] = raw[1::2]
    return out


def f16_to_f32(data: Buffer) -> bytearray:
    """Bytes of float16 numbers → bytes of the same numbers in float32 (on a little-endian host)."""
    view = memoryview(data).cast("B")
    out = bytearray()
    block = 1 << 16  # bytes at a time: Python's floats take 16 times the room
    for start in range(0, len(view), block):
        part = view[start : start + block]
        out += array("f", struct.unpack(f"<{len(part) // 2}e", part)).tobytes()
    return out


def f32_to_f16(data: Buffer) -> bytearray:
    """Bytes of float32 numbers → bytes of the nearest float16 numbers. Raises OverflowError for one beyond
    65,504, the largest.
    """
    view = memoryview(data).cast("B").cast("f")
    out = bytearray()
    block = 1 << 15  # numbers at a time
    for start in range(0, len(view), block):
        part = view[start : start + block]
        out += struct.pack(f"<{len(part)}e", *part)
    return out


def _chunks(header: bytes, tensors: list[TensorData]) -> Iterator[Buffer]:
    yield struct.pack("<Q", len(header)) + header
    for tensor in tensors:
        yield tensor.data


def _header_length(view: memoryview, source: str | Path) -> int:
    """The header's length, checked against the file's own."""
    if len(view) < 8:
        raise SafetensorsError(f"{source} has {len(view)} bytes, too few for a header's length", DAMAGED)
    (length,) = struct.unpack_from("<Q", view)
    if length > MAX_HEADER:
        raise SafetensorsError(f"{source} says its header has {length:,} bytes, over {MAX_HEADER:,}", DAMAGED)
    if length > len(view) - 8:
        raise SafetensorsError(
            f"{source} says its header has {length:,} bytes, but only {len(view) - 8:,} follow", DAMAGED
        )
    return length


def _header(raw: memoryview, source: str | Path) -> dict[str, Any]:
    """The header's JSON, read as strictly as the reference does: a file must mean one thing."""
    if raw[:1] != b"{":
        raise SafetensorsError(
            f"{source}: the header starts with {bytes(raw[:1])!r} instead of b'{{'", DAMAGED
        )
    try:
        text = str(raw, "utf-8")
        if _too_deep(text):
            raise ValueError("it is nested too deeply")
        header = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_not_a_size,
            parse_constant=_not_a_size,
        )
    except ValueError as error:
        raise SafetensorsError(f"{source}: the header is not valid ({error})", DAMAGED) from error
    return header


def _too_deep(text: str) -> bool:
    """Whether brackets nest deeper than a header's do: found before a parser descends into them."""
    depth = 0
    for match in BRACKET_OR_STRING.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(match[0], 0)
        if depth > DEEPEST:
            return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = set()
        for name, _ in pairs:
            if name in names:
                raise ValueError(f"key {name!r} stands there twice")
            names.add(name)
    return result


def _integer(digits: str) -> int:
    # Longer numbers are out of range for certain, and Python refuses to convert the longest ones.
    if digits == "-0" or len(digits) > len(str(WORD)):
        _not_a_size(digits)
    return int(digits)


def _not_a_size(literal: str) -> NoReturn:
    raise ValueError(f"number {literal[:40]} is no unsigned 64-bit integer")


def _is_text(value: Any) -> bool:
    """Whether `value` is a string that UTF-8 can hold: half a surrogate pair cannot be written."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < WORD


def _metadata(value: Any, source: str | Path) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SafetensorsError(f"{source}: {METADATA} is {_short(value)}, not an object of strings", DAMAGED)
    for key, entry in value.items():
        if not _is_text(key) or not _is_text(entry):
            raise SafetensorsError(
                f"{source}: {METADATA} has {key!r}: {_short(entry)}, not a string", DAMAGED
            )
    return value


def _tensor_info(name: str, info: Any, source: str | Path) -> tuple[str, tuple[int, ...], int, int]:
    """(dtype, shape, start, stop) of one entry of the header, each of the right type."""
    if not _is_text(name):
        raise SafetensorsError(f"{source}: tensor name {name!r} is not valid Unicode", DAMAGED)
    if not isinstance(info, dict) or sorted(info) != sorted(FIELDS):
        raise SafetensorsError(
            f"{source}: tensor {name!r} is {_short(info)}, without exactly {', '.join(FIELDS)}", DAMAGED
        )
    dtype, shape, offsets = (info[field] for field in FIELDS)
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise SafetensorsError(f"{source}: tensor {name!r} has the unknown dtype {_short(dtype)}", DAMAGED)
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise SafetensorsError(f"{source}: tensor {name!r} has the impossible shape {_short(shape)}", DAMAGED)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise SafetensorsError(f"{source}: tensor {name!r} has data_offsets {_short(offsets)}", DAMAGED)
    return dtype, tuple(shape), offsets[0], offsets[1]


def _size(dtype: str, shape: tuple[int, ...]) -> int | None:
    """Bytes of a tensor; None if the dtype is unknown, a product overflows, or the last byte is not full."""
    if dtype not in DTYPE_BITS or not all(map(_is_size, shape)):
        return None
    elements = 1
    for extent in shape:  # one by one: the reference refuses [2**63, 2, 0], whose whole product is 0
        elements *= extent
        if elements >= WORD:
            return None
    bits = elements * DTYPE_BITS[dtype]
    return bits // 8 if bits < WORD and bits % 8 == 0 else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
