"""The tokenizer against Hugging Face's `tokenizers` and tiktoken, on books and on generated text."""

import json
import lzma
import random
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tokenizer_oracle import BOOKS, book, huggingface, huggingface_train, texts
from tokenizers import Tokenizer as HuggingFace

from trainer import bpe
from trainer.bpe import Learner, Merge
from trainer.errors import TokenizerError
from trainer.events import Event, Notice, Progress
from trainer.pretokenize import split
from trainer.tokenizer import Tokenizer

GPT2 = Path(__file__).parent / "fixtures" / "tokenizer" / "gpt2"
ENGLISH = Tokenizer.train([book("Oz")], 1024)
THEIR_ENGLISH = huggingface(ENGLISH.to_json())


@pytest.fixture(scope="session")
def gpt2_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """GPT-2's encoder.json and vocab.bpe, unpacked."""
    folder = tmp_path_factory.mktemp("gpt2")
    for name in ("encoder.json", "vocab.bpe"):
        (folder / name).write_bytes(lzma.decompress((GPT2 / f"{name}.xz").read_bytes()))
    return folder / "encoder.json", folder / "vocab.bpe"


@pytest.fixture(scope="session")
def gpt2(gpt2_files: tuple[Path, Path]) -> Tokenizer:
    return Tokenizer.from_gpt2(*gpt2_files)


@pytest.fixture(scope="session")
def their_gpt2(gpt2: Tokenizer) -> HuggingFace:
    return huggingface(gpt2.to_json())


# Training


@pytest.mark.parametrize("vocab", [257, 258, 1024, 4096])
@pytest.mark.parametrize("name", ["Alice", "Grimms", "Treasure"])
def test_learns_huggingfaces_merges_from_a_book(name: str, vocab: int) -> None:
    text = book(name)
    assert Tokenizer.train([text], vocab).to_json() == huggingface_train([text], vocab).to_str()


def test_learns_huggingfaces_merges_from_several_documents() -> None:
    documents = [book("Alice"), "", book("Oz"), "of and of and"]
    assert Tokenizer.train(documents, 2000).to_json() == huggingface_train(documents, 2000).to_str()


# Few letters and short texts: most pairs are equally frequent, and runs of one letter overlap themselves.
@given(st.lists(texts | st.text("ab. "), min_size=1).filter(any), st.integers(257, 600))
def test_learns_huggingfaces_merges_from_any_text(documents: list[str], vocab: int) -> None:
    assert Tokenizer.train(documents, vocab).to_json() == huggingface_train(documents, vocab).to_str()


def test_example() -> None:
    tokenizer = Tokenizer.train(["the cat", "the hat"], vocab=260)
    assert tokenizer.encode("the cat") == [259, 221, 67, 257]
    assert tokenizer.token_bytes(259) == b"the"
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (260, 0)


def test_training_twice_gives_the_same_file_whatever_the_hash_seed() -> None:
    script = (
        "from trainer.tokenizer import Tokenizer; import sys;"
        "print(Tokenizer.train([sys.stdin.read()], 600).to_json())"
    )
    runs = [
        # -S hides what is installed: the page has the standard library alone.
        subprocess.run(
            [sys.executable, "-S", "-c", script],
            input=book("Alice")[:50_000],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert Tokenizer.from_json(runs[0]).vocab_size == 600


def learned(parts: Iterable[Iterable[tuple[str, int]]], vocab: int) -> list[Merge]:
    learner = Learner()
    for part in parts:
        learner.add(part)
    return list(learner.merges(vocab))


def test_steps_tell_what_was_merged() -> None:
    counts = list(Counter(split(book("Alice"))).items())
    steps = learned([counts], 300)
    assert steps == learned([[entry] for entry in counts], 300), "the words' parts do not matter"
    assert [step.token for step in steps] == list(range(257, 300))
    tokenizer = Tokenizer.from_merges((step.left, step.right) for step in steps)
    assert tokenizer.to_json() == Tokenizer.train([book("Alice")], 300).to_json()
    for step in steps:
        assert step.content == tokenizer.token_bytes(step.token)
        assert step.content == tokenizer.token_bytes(step.left) + tokenizer.token_bytes(step.right)
    assert (steps[0].content, steps[0].occurrences) == (b" t", max(step.occurrences for step in steps))


def test_a_text_with_too_few_pairs_gives_a_smaller_vocabulary_and_says_so() -> None:
    events: list[Event] = []
    tokenizer = Tokenizer.train(["abc abc"], 5000, events.append)
    # ab, abc and " abc"
    assert tokenizer.vocab_size == 260
    assert len(tokenizer.encode("abc abc")) == 2
    assert events[-1] == Notice("the text has no pairs for 5,000 tokens: the vocabulary is 260")
    assert events[-2] == Progress("train-tokenizer", 3, 4743, "merges")


def test_training_tells_how_far_it_is_and_can_be_cancelled() -> None:
    class CancelledError(Exception):
        pass

    def cancel(event: Event) -> None:
        assert isinstance(event, Progress)
        assert (event.stage, event.total, event.unit) == ("train-tokenizer", 743, "merges")
        raise CancelledError

    with pytest.raises(CancelledError):
        Tokenizer.train([book("Oz")], 1000, cancel)


@pytest.mark.parametrize("vocab", [-1, 0, 256, 65_536])
def test_vocabulary_out_of_range_is_refused(vocab: int) -> None:
    with pytest.raises(TokenizerError, match=rf"vocabulary of {vocab:,} tokens .*257 .* to 65,535"):
        learned([[("abc", 1)]], vocab)
    unread = iter(["abc"])
    with pytest.raises(TokenizerError, match=rf"vocabulary of {vocab:,} tokens"):
        Tokenizer.train(unread, vocab)
    assert next(unread) == "abc"


@pytest.mark.parametrize("documents", [[], [""], ["", ""]])
def test_no_text_is_refused(documents: list[str]) -> None:
    with pytest.raises(TokenizerError, match=r"text to train the tokenizer on is empty: give"):
        Tokenizer.train(documents, 300)


def test_lone_surrogates_are_refused() -> None:
    for call in (
        lambda: Tokenizer.train(["a\udcff"], 300),
        lambda: ENGLISH.encode("a\udcff"),
        lambda: ENGLISH.encode_documents(["a\udcff"]),
    ):
        with pytest.raises(TokenizerError, match=r"lone surrogate, U\+DCFF, at character 1"):
            call()


# Ids


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_books_get_huggingfaces_ids_and_come_back(path: Path) -> None:
    text = path.read_text(encoding="utf-8-sig")
    ids = ENGLISH.encode(text)
    assert len(ids) > 10_000
    assert ids == THEIR_ENGLISH.encode(text).ids
    assert ENGLISH.decode(ids) == text


def test_every_code_point_gets_huggingfaces_ids_and_comes_back() -> None:
    for plane in range(17):
        points = range(plane << 16, (plane + 1) << 16)
        text = "".join(chr(i) + " " * (i % 64 == 0) for i in points if not 0xD800 <= i < 0xE000)
        ids = ENGLISH.encode(text)
        assert ids == THEIR_ENGLISH.encode(text).ids
        assert ENGLISH.decode(ids) == text


@given(texts)
def test_any_text_gets_huggingfaces_ids_and_comes_back(text: str) -> None:
    ids = ENGLISH.encode(text)
    assert ids == THEIR_ENGLISH.encode(text).ids
    assert ENGLISH.decode(ids) == text
    assert ENGLISH.end_of_text not in ids


@given(st.binary())
def test_any_bytes_come_back(data: bytes) -> None:
    of_byte = {ENGLISH.token_bytes(i): i for i in range(1, 257)}
    ids = [of_byte[bytes([byte])] for byte in data]
    assert ENGLISH.decode_bytes(ids) == data
    assert ENGLISH.decode(ids) == data.decode(errors="replace")


@given(st.lists(st.integers(0, ENGLISH.vocab_size - 1)))
def test_any_ids_are_decoded_as_by_huggingface(ids: list[int]) -> None:
    assert ENGLISH.decode(ids) == THEIR_ENGLISH.decode(ids, skip_special_tokens=False)


def test_long_words_get_huggingfaces_ids() -> None:
    letters = random.Random(1)
    for text in ("a" * 20_001, " " * 20_001, "-" * 20_001, "".join(letters.choices("theand", k=20_000))):
        assert ENGLISH.encode(text) == THEIR_ENGLISH.encode(text).ids


@pytest.mark.parametrize("seed", range(100))
def test_merges_in_any_order_are_applied_as_by_huggingface(seed: int) -> None:
    """No text would teach these: tokens that two merges make, pairs that outrank their own parts."""
    rng = random.Random(seed)
    base = json.loads(Tokenizer.from_merges([]).to_json())
    names = ["a", "b"]
    merges: list[list[str]] = []
    for _ in range(rng.randrange(1, 40)):
        merge = [rng.choice(names), rng.choice(names)]
        if merge not in merges:
            merges.append(merge)
            names.append("".join(merge))
    rng.shuffle(merges)
    vocab = base["model"]["vocab"]
    for name in names:
        vocab.setdefault(name, len(vocab))
    base["model"]["merges"] = merges
    tokenizer, theirs = Tokenizer.from_json(json.dumps(base)), huggingface(json.dumps(base))
    for _ in range(20):
        text = "".join(rng.choices("ab", k=rng.randrange(100)))
        assert tokenizer.encode(text) == theirs.encode(text).ids


@given(st.lists(texts | st.text("aab. "), min_size=1).filter(any), st.integers(257, 600))
def test_words_that_were_learned_from_are_cut_as_others_are(documents: list[str], vocab: int) -> None:
    trained = Tokenizer.train(documents, vocab)
    again = Tokenizer.from_merges(trained.merges)
    for text in documents:
        assert trained.encode(text) == again.encode(text)


def test_the_cache_is_bounded_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "CACHED_WORDS", 10)
    text = book("Alice")
    tokenizer = Tokenizer.from_json(ENGLISH.to_json())
    assert tokenizer.encode(text) == ENGLISH.encode(text)
    assert 0 < len(tokenizer._encoder) <= 10
    tokenizer.encode("x" * 1000)
    assert "x" * 1000 not in tokenizer._encoder


# Documents


def test_documents_stand_behind_an_end_of_text_each() -> None:
    documents = ["One.", "", "Two: <|endoftext|>"]
    ids = ENGLISH.encode_documents(iter(documents))
    assert isinstance(ids, array)
    assert (ids.typecode, ids.itemsize) == ("H", 2)
    assert ids.tolist() == [i for text in documents for i in [ENGLISH.end_of_text, *ENGLISH.encode(text)]]
    assert ids.tolist().count(ENGLISH.end_of_text) == 3
    assert ENGLISH.decode(ids) == "<|endoftext|>One.<|endoftext|><|endoftext|>Two: <|endoftext|>"


def test_encoding_tells_how_far_it_is() -> None:
    events: list[Event] = []
    ids = ENGLISH.encode_documents([book("Oz"), "The end."], events.append)
    length = len(book("Oz")) + 8
    assert events[-1] == Progress("tokenize", length, length, "characters", f"{len(ids):,} tokens")
    assert all(isinstance(event, Progress) and event.total == length for event in events)
    assert len(events) > 1
    ENGLISH.encode_documents(iter(["The end."]), events.append)
    assert events[-1] == Progress(
        "tokenize", 8, 0, "characters", f"{len(ENGLISH.encode('The end.')) + 1} tokens"
    )


def test_chunks_are_the_ids_in_parts() -> None:
    parts = list(ENGLISH.encode_chunks(book("Oz")))
    assert len(parts) > 2
    assert [i for part in parts for i in part] == ENGLISH.encode(book("Oz"))
    assert list(ENGLISH.encode_chunks("")) == []


@pytest.mark.parametrize("id", [-1, 1024, 70_000])
def test_unknown_ids_are_refused(id: int) -> None:
    for call in (ENGLISH.token_bytes, lambda i: ENGLISH.decode([5, i]), lambda i: ENGLISH.decode_bytes([i])):
        with pytest.raises(TokenizerError, match=rf"token {id} is not in the vocabulary of 1,024: "):
            call(id)


# GPT-2


@pytest.fixture(scope="session")
def tiktoken_gpt2(gpt2_files: tuple[Path, Path]) -> tiktoken.Encoding:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")
        ranks = data_gym_to_mergeable_bpe_ranks(str(gpt2_files[1]), str(gpt2_files[0]))
    pattern = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    return tiktoken.Encoding("gpt2-files", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def test_gpt2_has_its_known_ids(gpt2: Tokenizer) -> None:
    assert (gpt2.vocab_size, gpt2.end_of_text, len(gpt2.merges)) == (50_257, 50_256, 50_000)
    assert gpt2.encode("Hello world") == [15496, 995]


@pytest.mark.parametrize("name", ["Alice", "Grimms", "Jungle"])
def test_gpt2_gives_tiktokens_and_huggingfaces_ids(
    name: str, gpt2: Tokenizer, tiktoken_gpt2: tiktoken.Encoding, their_gpt2: HuggingFace
) -> None:
    text = book(name)
    ids = gpt2.encode(text)
    assert ids == tiktoken_gpt2.encode(text, disallowed_special=())
    assert ids == their_gpt2.encode(text).ids
    assert gpt2.decode(ids) == text


def test_gpt2_gives_tiktokens_ids_for_any_text(gpt2: Tokenizer, tiktoken_gpt2: tiktoken.Encoding) -> None:
    @given(st.text(st.characters(exclude_categories=["Cs", "Cn"])) | st.text("ab 'st.\n"))
    def check(text: str) -> None:
        assert gpt2.encode(text) == tiktoken_gpt2.encode(text, disallowed_special=())

    check()
