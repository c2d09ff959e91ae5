"""tokenizer.json: exchanged with Hugging Face's `tokenizers` both ways; anything else is one clear error."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_oracle import book, huggingface_train
from tokenizers import Tokenizer as HuggingFace
from tokenizers import decoders, models, pre_tokenizers

from trainer.errors import StorageError, TokenizerError
from trainer.tokenizer import Tokenizer

TEXT = "The cat, the hat and 42 «naïve» 猫s. <|endoftext|>"
GOOD = Tokenizer.train([book("Alice")], 300).to_json()

Edit = Callable[[dict[str, Any]], object]


def edited(edit: Edit) -> str:
    data = json.loads(GOOD)
    edit(data)
    return json.dumps(data)


def test_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    Tokenizer.from_json(GOOD).save(path)
    assert path.read_bytes() == GOOD.encode()
    loaded = Tokenizer.load(str(path))
    assert loaded.to_json() == GOOD
    assert loaded.encode(TEXT) == Tokenizer.from_json(GOOD).encode(TEXT)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]


def test_huggingface_loads_ours(tmp_path: Path) -> None:
    ours = Tokenizer.from_json(GOOD)
    ours.save(tmp_path / "tokenizer.json")
    theirs = HuggingFace.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.get_vocab_size() == ours.vocab_size
    assert theirs.token_to_id("<|endoftext|>") == ours.end_of_text
    assert theirs.encode("The cat").ids == ours.encode("The cat")
    assert theirs.to_str() == GOOD


@pytest.mark.parametrize("pretty", [False, True])
def test_huggingfaces_is_loaded(tmp_path: Path, pretty: bool) -> None:
    theirs = huggingface_train([book("Alice")], 300)
    theirs.save(str(tmp_path / "tokenizer.json"), pretty=pretty)
    assert Tokenizer.load(tmp_path / "tokenizer.json").to_json() == GOOD


def test_end_of_text_that_was_added_to_a_trained_model_is_found() -> None:
    model = json.loads(GOOD)["model"]
    vocab = {token: i - 1 for token, i in model["vocab"].items() if i}
    theirs = HuggingFace(models.BPE(vocab=vocab, merges=[tuple(merge) for merge in model["merges"]]))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[attr-defined]
    theirs.decoder = decoders.ByteLevel()  # type: ignore[attr-defined]
    theirs.add_special_tokens(["<|endoftext|>"])
    ours = Tokenizer.from_json(theirs.to_str())
    assert (ours.vocab_size, ours.end_of_text) == (300, 299)
    assert ours.encode("The cat") == theirs.encode("The cat").ids
    assert HuggingFace.from_str(ours.to_json()).token_to_id("<|endoftext|>") == 299


def gpt2_style(data: dict[str, Any]) -> None:
    """As the `gpt2` repository on Hugging Face's hub has it, which was written by an older version."""
    data["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    data["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    model = data["model"]
    for name in ("type", "byte_fallback", "ignore_merges"):
        del model[name]
    model.update(unk_token="", continuing_subword_prefix="", end_of_word_suffix="")
    model["merges"] = [" ".join(merge) for merge in model["merges"]]


def test_a_file_of_an_older_version_is_loaded() -> None:
    assert Tokenizer.from_json(edited(gpt2_style)).to_json() == GOOD


def model(**changes: Any) -> Edit:
    return lambda data: data["model"].update(changes)


def top(**changes: Any) -> Edit:
    return lambda data: data.update(changes)


def vocab(**changes: Any) -> Edit:
    return lambda data: data["model"]["vocab"].update(changes)


def add_merge(merge: Any) -> Edit:
    return lambda data: data["model"]["merges"].append(merge)


def added(**changes: Any) -> Edit:
    return lambda data: data["added_tokens"][0].update(changes)


def without(name: str) -> Edit:
    return lambda data: data["model"]["vocab"].pop(name)


def grow(data: dict[str, Any]) -> None:
    names = data["model"]["vocab"]
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for name in (
        a + b + c + d for a in letters for b in letters for c in letters for d in "QXZ!,;:()?-|&<>@#%*+~="
    ):
        if len(names) == 65_536:
            return
        names.setdefault(name, len(names))


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
REFUSED: list[tuple[Edit, str]] = [
    (top(version="2.0"), "version is '2.0', where \"1.0\" was expected"),
    (top(truncation={"max_length": 9}), "truncation is {'max_length': 9}, where null was"),
    (top(padding={"pad_id": 0}), "padding is {'pad_id': 0}"),
    (top(normalizer={"type": "NFC"}), "normalizer is {'type': 'NFC'}"),
    (top(pre_tokenizer=None), 'pre_tokenizer.type is None, where "ByteLevel" was'),
    (top(pre_tokenizer="ByteLevel"), "pre_tokenizer.add_prefix_space is 'ByteLevel', where false"),
    (top(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer.type is 'Whitespace'"),
    (
        top(pre_tokenizer={"type": "Sequence", "pretokenizers": [BYTE_LEVEL]}),
        "pre_tokenizer.type is 'Sequence'",
    ),
    (top(pre_tokenizer={**BYTE_LEVEL, "add_prefix_space": True}), "pre_tokenizer.add_prefix_space is True"),
    (top(pre_tokenizer={**BYTE_LEVEL, "use_regex": False}), "pre_tokenizer.use_regex is False"),
    (top(post_processor={"type": "TemplateProcessing"}), "post_processor.type is 'TemplateProcessing'"),
    (top(decoder=None), "decoder.type is None"),
    (top(decoder=[]), "decoder.type is []"),
    (top(decoder={"type": "WordPiece"}), "decoder.type is 'WordPiece'"),
    (top(model=None), "model is None, not a JSON object"),
    (model(type="WordPiece"), "model.type is 'WordPiece', where \"BPE\" was expected"),
    (model(type="Unigram"), "model.type is 'Unigram'"),
    (model(dropout=0.1), "model.dropout is 0.1"),
    (model(continuing_subword_prefix="##"), "model.continuing_subword_prefix is '##'"),
    (model(end_of_word_suffix="</w>"), "model.end_of_word_suffix is '</w>'"),
    (model(ignore_merges=True), "model.ignore_merges is True"),
    (top(added_tokens=None), "its added tokens are []: the only one must be <|endoftext|>"),
    (top(added_tokens=[]), "its added tokens are []"),
    (top(added_tokens=["<|endoftext|>"]), "added token is '<|endoftext|>', not a JSON object"),
    (added(content="</s>"), "its added tokens are ['</s>']"),
    (lambda data: data["added_tokens"].append({"content": "<pad>", "id": 300}), "['<|endoftext|>', '<pad>']"),
    (added(id=5), "<|endoftext|> has id 0 in the model and 5 as an added token"),
    (added(id=None), "<|endoftext|> has id 0 in the model and None as an added token"),
    (model(vocab=None), "model.vocab is None"),
    (model(vocab=["a"]), "model.vocab is ['a']"),
    (model(vocab={}), "token '!' is missing from the vocabulary"),
    (without("a"), "token 'a' is missing from the vocabulary"),
    (without("Ġ"), "token 'Ġ' is missing from the vocabulary"),
    (without("he"), "has id 299: number its 299 tokens from 0"),
    (vocab(hq=301), "token 'hq' has id 301: number its 301 tokens from 0"),
    (vocab(hq=-1), "token 'hq' has id -1"),
    (vocab(hq=299), "token 'hq' has id 299, as another token: give each its own id"),
    (vocab(hq="300"), "token 'hq' has id '300'"),
    (vocab(hq=True), "token 'hq' has id True"),
    (vocab(hq=300.0), "token 'hq' has id 300.0"),
    (vocab(hq=[300]), "token 'hq' has id [300]"),
    (vocab(**{"a b": 300}), "token 'a b' has the character ' ', which stands for no byte"),
    (vocab(猫=300), "token '猫' has the character '猫'"),
    (vocab(**{"\ud800": 300}), r"token '\ud800' has the character '\ud800'"),
    (grow, "it has 65,536 tokens: ids are stored in 16 bits: 65,535 tokens at most"),
    (model(merges=None), "merges are None, not a list"),
    (model(merges={}), "merges are {}"),
    (add_merge(["q", "x"]), "merge 44, ['q', 'x'], needs the unknown token 'qx'"),
    (add_merge("q x"), "merge 44, 'q x', needs the unknown token 'qx'"),
    (add_merge(["qx", "y"]), "needs the unknown token 'qx'"),
    (add_merge(["y", "qx"]), "needs the unknown token 'qx'"),
    (add_merge(["h", "e"]), "merge 44, ['h', 'e'], is there twice: keep one of the two"),
    (add_merge("h e"), "merge 44, 'h e', is there twice"),
    (add_merge("he"), "merge 44 is 'he', not two tokens"),
    (add_merge("h e r"), "merge 44 is 'h e r', not two tokens"),
    (add_merge(["h", "e", "r"]), "merge 44 is ['h', 'e', 'r'], not two tokens"),
    (add_merge(["h", 5]), "merge 44 is ['h', 5], not two tokens"),
    (add_merge(None), "merge 44 is None, not two tokens"),
]


@pytest.mark.parametrize(("edit", "message"), REFUSED, ids=[message[:50] for _, message in REFUSED])
def test_what_is_not_ours_is_refused(edit: Edit, message: str) -> None:
    with pytest.raises(TokenizerError, match=re.escape(message)) as caught:
        Tokenizer.from_json(edited(edit))
    assert str(caught.value).startswith("tokenizer.json: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON (Expecting value"),
        (GOOD[:-1], "not JSON (Expecting"),
        ("[" * 100_000, "not JSON (maximum recursion depth"),
        ("[]", "the file is [], not a JSON object"),
        ("null", "the file is None"),
        ("{}", "model is None"),
    ],
)
def test_what_is_no_tokenizer_is_refused(text: str, message: str) -> None:
    with pytest.raises(TokenizerError, match=re.escape(f"tokenizer.json: {message}")):
        Tokenizer.from_json(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = [
    ("version",), ("added_tokens",), ("added_tokens", 0), ("added_tokens", 0, "id"), ("normalizer",),
    ("pre_tokenizer",), ("post_processor",), ("decoder",), ("model",), ("model", "type"),
    ("model", "dropout"), ("model", "vocab"), ("model", "vocab", "he"),
    ("model", "merges"), ("model", "merges", 3),
]  # fmt: skip


@given(st.sampled_from(PLACES), json_values)
def test_any_value_in_any_place_is_refused_or_harmless(place: tuple[str | int, ...], value: Any) -> None:
    data = json.loads(GOOD)
    *path, last = place
    parent: Any = data
    for key in path:
        parent = parent[key]
    parent[last] = value
    try:
        tokenizer = Tokenizer.from_json(json.dumps(data))
    except TokenizerError:
        return
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no\.json: cannot be read \(No such file or directory\): give"):
        Tokenizer.load(tmp_path / "no.json")
    with pytest.raises(TokenizerError, match=r"cannot be read \(Is a directory\)"):
        Tokenizer.load(tmp_path)
    (tmp_path / "binary.json").write_bytes(b'{"a\xff')
    with pytest.raises(TokenizerError, match=r"binary\.json: not UTF-8 \(byte 3\): "):
        Tokenizer.load(tmp_path / "binary.json")


def test_a_file_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        Tokenizer.from_json(GOOD).save(tmp_path / "no" / "tokenizer.json")


def test_damaged_gpt2_files_are_refused(tmp_path: Path) -> None:
    encoder, merges = tmp_path / "encoder.json", tmp_path / "vocab.bpe"
    model = json.loads(GOOD)["model"]
    lines = [" ".join(merge) for merge in model["merges"]]
    encoder.write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges.write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    assert Tokenizer.from_gpt2(encoder, merges).to_json() == GOOD
    merges.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"vocab\.bpe: it begins with 'Ġ t': give the vocab\.bpe"):
        Tokenizer.from_gpt2(encoder, merges)
    merges.write_text("\n".join(["#version: 0.2", *lines, "q"]), encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"vocab\.bpe: merge 44 is 'q', not two tokens"):
        Tokenizer.from_gpt2(encoder, merges)
    encoder.write_text("[]", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"encoder\.json: the file is \[\], not a JSON object"):
        Tokenizer.from_gpt2(encoder, merges)
    encoder.unlink()
    with pytest.raises(TokenizerError, match=r"encoder\.json: cannot be read"):
        Tokenizer.from_gpt2(encoder, merges)
