"""Files for the safetensors tests, and what this reader and the reference implementation say to them."""

from __future__ import annotations

import json
import struct

from safetensors import SafetensorError, deserialize

from trainer import safetensors
from trainer.errors import SafetensorsError


def encode(header: str | bytes | dict, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, taken as it is, and these bytes of tensors."""
    if isinstance(header, dict):
        header = json.dumps(header)
    raw = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def tensor(dtype: object = "U8", shape: object = (2,), offsets: object = (0, 2), **more: object) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def accepts_reference(data: bytes) -> bool:
    try:
        deserialize(data)
    except SafetensorError:
        return False
    return True


def accepts(data: bytes) -> bool:
    try:
        safetensors.parse(data)
    except SafetensorsError:
        return False
    return True
