"""Pre-tokenization against the `regex` package, which knows \\p{L}, and against Hugging Face's."""

import unicodedata
from pathlib import Path

import make_unicode_ranges
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_oracle import BOOKS, HARD, texts
from tokenizers.pre_tokenizers import ByteLevel

from trainer import pretokenize, unicode_ranges
from trainer.errors import TokenizerError
from trainer.pretokenize import CHUNK, chunks, split

GPT2 = regex.compile(r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""")

# Characters of this Python's Unicode, so that a later version in `regex` sees the same classes.
known = st.text(st.one_of(st.characters(exclude_categories=["Cs", "Cn"]), st.sampled_from(HARD)))


def points(table: str) -> set[int]:
    bounds = [[int(end, 16) for end in word.split("-")] for word in table.split()]
    return {i for ends in bounds for i in range(ends[0], ends[-1] + 1)}


def test_table_is_what_huggingface_does_on_every_code_point() -> None:
    assert make_unicode_ranges.render() == make_unicode_ranges.TARGET.read_text(encoding="utf-8")


@pytest.mark.parametrize(("table", "category"), [("LETTERS", "L"), ("NUMBERS", "N")])
def test_table_holds_what_python_knows_of_unicode(table: str, category: str) -> None:
    ours = points(getattr(unicode_ranges, table))
    assert len(ours) > 1000
    assigned = {i: unicodedata.category(chr(i)) for i in range(0x110000)}
    theirs = {i for i, name in assigned.items() if name.startswith(category)}
    if float(unicodedata.unidata_version[:-2]) <= float(unicode_ranges.UNICODE_VERSION[:-2]):
        assert theirs == {i for i in ours if assigned[i] != "Cn"}
    else:
        assert ours <= theirs


def test_white_space_is_unicodes() -> None:
    blank = {i for i in range(0x110000) if chr(i).isspace()}
    assert points(unicode_ranges.WHITE_SPACE) == blank - {0x1C, 0x1D, 0x1E, 0x1F}


def test_example() -> None:
    assert split("It's  42!") == ["It", "'s", " ", " 42", "!"]
    assert split("") == []


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_books_are_split_as_by_gpt2s_pattern(path: Path) -> None:
    text = path.read_text(encoding="utf-8-sig")
    assert len(text) > CHUNK
    assert split(text) == GPT2.findall(text)


@given(known)
def test_any_text_is_split_as_by_gpt2s_pattern(text: str) -> None:
    assert split(text) == GPT2.findall(text)


@given(texts)
def test_any_text_is_split_as_by_huggingface(text: str) -> None:
    theirs = ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    assert split(text) == [text[start:end] for _, (start, end) in theirs]


@given(texts, st.integers(0, 9))
def test_chunks_cut_no_pre_token(text: str, size: int) -> None:
    whole = split(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretokenize, "CHUNK", size)
        assert split(text) == whole


def test_chunks_are_short_where_there_are_words() -> None:
    lengths = [sum(map(len, words)) for words in chunks("word " * CHUNK)]
    assert len(lengths) == 5
    assert max(lengths) <= CHUNK + 5


def test_lone_surrogate_is_refused_by_its_place() -> None:
    text = "word " * CHUNK + "\ud800"
    with pytest.raises(TokenizerError, match=r"lone surrogate, U\+D800, at character 327,680: .*UTF-8"):
        split(text)
