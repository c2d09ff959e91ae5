"""Hugging Face's tokenizers, set up as ours is documented to be, and the texts that both are tried on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFace
from tokenizers import decoders, models, pre_tokenizers, trainers

BOOKS = sorted((Path(__file__).parent.parent / "docs" / "books").rglob("*.txt"))

# What makes pre-tokenization hard: contractions, runs of several blanks, controls that only look like blanks.
HARD = (
    "'sStrevmld aAéßÅǅʰª١²½Ⅷ一が𝐀𝟘😀\u0301\u200d\ufeff.!-_"
    "\x00\x1c\x1f\x85\xa0\u1680\u2028\u3000\u180e\u200b\t\n\r"
)
texts = st.lists(
    st.one_of(
        st.text(), st.text(st.sampled_from(HARD)), st.sampled_from(["'ll", "'RE", "  \n", "<|endoftext|>"])
    )
).map("".join)


def book(name: str) -> str:
    """The text of the bundled book in whose path `name` stands."""
    (path,) = (path for path in BOOKS if name in str(path))
    return path.read_text(encoding="utf-8-sig")


def huggingface_train(texts: Iterable[str], vocab: int) -> HuggingFace:
    """What their trainer makes of `texts`."""
    tokenizer = HuggingFace(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)  # type: ignore[attr-defined]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[attr-defined]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def huggingface(tokenizer_json: str) -> HuggingFace:
    """Theirs from our file, but for the added token: they would find <|endoftext|> in text, we never do."""
    return HuggingFace.from_str(json.dumps({**json.loads(tokenizer_json), "added_tokens": []}))
