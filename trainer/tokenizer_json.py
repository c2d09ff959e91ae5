"""The files a tokenizer is kept in: Hugging Face's `tokenizer.json`, and the two that OpenAI gave for GPT-2.

Both write a token's bytes as characters, one for each byte, that are neither blank nor control characters
(`bytes_to_unicode` in GPT-2's encoder.py): " the" is "Ġthe". Readers give (tokens, merges): the bytes of
every id, and the merges as pairs of ids. A setting that would give other ids is refused, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any, NoReturn

from trainer.bpe import BYTES, END_OF_TEXT, PRINTABLE
from trainer.config import MAX_VOCAB
from trainer.errors import TokenizerError

CHARACTERS = {
    byte: chr(byte if i < len(PRINTABLE) else 256 + i - len(PRINTABLE)) for i, byte in enumerate(BYTES)
}
BYTE_OF = {character: byte for byte, character in CHARACTERS.items()}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
END = END_OF_TEXT.decode()

# What each setting may be; the last is what is told in errors. None: not there. Not listed is what changes no
# id of ours, as unk_token: every byte has a token.
SETTINGS: dict[str, tuple[Any, ...]] = {
    "version": (None, "1.0"),
    "truncation": (None,),
    "padding": (None,),
    "normalizer": (None,),
    "pre_tokenizer.type": ("ByteLevel",),
    "pre_tokenizer.add_prefix_space": (False,),
    "pre_tokenizer.use_regex": (None, True),
    "post_processor.type": ("ByteLevel", None),
    "decoder.type": ("ByteLevel",),
    "model.type": (None, "BPE"),  # older files, GPT-2's own among them, name none
    "model.dropout": (0, None),
    "model.continuing_subword_prefix": ("", None),
    "model.end_of_word_suffix": ("", None),
    "model.ignore_merges": (None, False),
}

Parsed = tuple[list[bytes], list[tuple[int, int]]]


def render(tokens: Sequence[bytes], merges: Sequence[tuple[int, int]], end_of_text: int) -> str:
    """The tokenizer.json, to the byte as `tokenizers` 0.23 writes it."""
    names = ["".join(map(CHARACTERS.__getitem__, token)) for token in tokens]
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": end_of_text,
                "content": END,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": None,
        "decoder": {
            **BYTE_LEVEL,
            "add_prefix_space": True,
        },  # means nothing in a decoder; the package's default
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {name: i for i, name in enumerate(names)},
            "merges": [[names[left], names[right]] for left, right in merges],
        },
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def parse(text: str, source: str) -> Parsed:
    """Reads a tokenizer.json; `source` names it in errors. Raises TokenizerError."""
    data = _object(_json(text, source), "the file", source)
    model = _object(data.get("model"), "model", source)
    _check_settings(data, source)
    added = data.get("added_tokens")
    added = [_object(token, "added token", source) for token in added] if isinstance(added, list) else []
    contents = [token.get("content") for token in added]
    if contents != [END]:
        _fail(source, f"its added tokens are {short(contents)}", f"the only one must be {END}")
    vocab = dict(_object(model.get("vocab"), "model.vocab", source))
    own, other = vocab.get(END), added[0].get("id")
    if vocab.setdefault(END, other) != other:
        _fail(source, f"{END} has id {short(own)} in the model and {short(other)} as an added token")
    return _check(vocab, model.get("merges"), source)


def parse_gpt2(encoder_json: Path | str, vocab_bpe: Path | str) -> Parsed:
    """Reads OpenAI's encoder.json (token to id) and vocab.bpe (one merge a line). Raises TokenizerError."""
    vocab = _object(_json(read_text(encoder_json), str(encoder_json)), "the file", str(encoder_json))
    header, *lines = read_text(vocab_bpe).rstrip("\n").split("\n")
    if not header.startswith("#version"):
        _fail(
            str(vocab_bpe),
            f"it begins with {short(header)}",
            "give the vocab.bpe whose first line is #version: 0.2",
        )
    return _check(vocab, lines, str(vocab_bpe))


def read_text(path: Path | str) -> str:
    """The file's text. Raises TokenizerError where it cannot be read or is not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        _fail(str(path), f"cannot be read ({error.strerror})", "give the path of a tokenizer.json")
    except UnicodeDecodeError as error:
        _fail(str(path), f"not UTF-8 (byte {error.start:,})")


def _fail(
    source: str, problem: str, remedy: str = "give a byte-level BPE tokenizer, or train one"
) -> NoReturn:
    raise TokenizerError(f"{source}: {problem}", remedy)


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        _fail(source, f"not JSON ({error})")


def _object(value: Any, what: str, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _fail(source, f"{what} is {short(value)}, not a JSON object")
    return value


def _check_settings(data: dict[str, Any], source: str) -> None:
    for name, accepted in SETTINGS.items():
        value: Any = data
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else value
        if value not in accepted:
            _fail(source, f"{name} is {short(value)}, where {json.dumps(accepted[-1])} was expected")


def _check(vocab: dict[str, Any], merges: Any, source: str) -> Parsed:
    """Tokens and merges by id, if ids are 0 to V-1, every byte has a token, and merges name tokens."""
    for character in (*BYTE_OF, END):
        if character not in vocab:
            _fail(source, f"token {short(character)} is missing from the vocabulary")
    if not isinstance(merges, list):
        _fail(source, f"merges are {short(merges)}, not a list")
    return _tokens(vocab, source), _merges(merges, vocab, source)


def _tokens(vocab: dict[str, Any], source: str) -> list[bytes]:
    V = len(vocab)
    if V > MAX_VOCAB:
        _fail(source, f"it has {V:,} tokens", f"ids are stored in 16 bits: {MAX_VOCAB:,} tokens at most")
    tokens: dict[int, bytes] = {}
    for name, i in vocab.items():
        if type(i) is not int or not 0 <= i < V:
            _fail(source, f"token {short(name)} has id {short(i)}", f"number its {V:,} tokens from 0")
        if i in tokens:
            _fail(source, f"token {short(name)} has id {i}, as another token", "give each its own id")
        try:
            tokens[i] = bytes(map(BYTE_OF.__getitem__, name))
        except KeyError as error:
            _fail(source, f"token {short(name)} has the character {error}, which stands for no byte")
    return [tokens[i] for i in range(V)]


def _merges(merges: list[Any], vocab: dict[str, int], source: str) -> list[tuple[int, int]]:
    pairs: dict[tuple[int, int], None] = {}
    for line, merge in enumerate(merges, 1):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            _fail(source, f"merge {line:,} is {short(merge)}, not two tokens")
        left, right = parts
        for name in (left, right, left + right):
            if name not in vocab:
                _fail(source, f"merge {line:,}, {short(merge)}, needs the unknown token {short(name)}")
        pair = (vocab[left], vocab[right])
        if pair in pairs:
            _fail(source, f"merge {line:,}, {short(merge)}, is there twice", "keep one of the two")
        pairs[pair] = None
    return list(pairs)
