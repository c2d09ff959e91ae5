"""The tokenizer: byte-level BPE as GPT-2's, trained from text, kept as Hugging Face's `tokenizer.json`.

    tokenizer = Tokenizer.train(["the cat", "the hat"], vocab=260)
    tokenizer.encode("the cat")  ->  [259, 221, 67, 257]
    tokenizer.decode([259, 221, 67, 257])  ->  "the cat"

Text becomes UTF-8, so that every text can be encoded and comes back unchanged. `<|endoftext|>` stands between
documents and has an id of its own; text never gives that id, not even text that contains the string.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from trainer import tokenizer_json
from trainer.bpe import END_OF_TEXT, FIRST_TOKENS, Encoder, Learner, check_vocab
from trainer.errors import TokenizerError
from trainer.events import Notice, Pacer, Reader
from trainer.pretokenize import chunks
from trainer.storage import write_file


class Tokenizer:
    """Turns text into token ids and back. Build one with `train`, `load`, `from_gpt2` or `from_merges`."""

    vocab_size: int  # V, at most 65,535
    end_of_text: int  # the id of <|endoftext|>
    merges: list[tuple[int, int]]  # pairs of ids, the first to be applied first

    def __init__(self, tokens: Iterable[bytes], merges: Iterable[tuple[int, int]]) -> None:
        """`tokens` are the ids' bytes: all 256 bytes, <|endoftext|> and what the `merges` make, each once."""
        self._tokens = list(tokens)
        self.vocab_size = len(self._tokens)
        self.merges = list(merges)
        ids = {token: i for i, token in enumerate(self._tokens)}
        self.end_of_text = ids[END_OF_TEXT]
        self._encoder = Encoder(
            (ids[bytes([byte])] for byte in range(256)),
            ((a, b, ids[self._tokens[a] + self._tokens[b]]) for a, b in self.merges),
        )

    @classmethod
    def from_merges(cls, merges: Iterable[tuple[int, int]], cut: Iterable[tuple[str, str]] = ()) -> Tokenizer:
        """The tokenizer whose vocabulary is FIRST_TOKENS and what a `bpe.Learner` learned, in order; with the
        learner's `cut`, its words are encoded without merging them again.
        """
        tokens = list(FIRST_TOKENS)
        pairs = list(merges)
        for left, right in pairs:
            tokens.append(tokens[left] + tokens[right])
        tokenizer = cls(tokens, pairs)
        tokenizer._encoder.know(cut)
        return tokenizer

    @classmethod
    def train(cls, texts: Iterable[str], vocab: int, on_event: Reader | None = None) -> Tokenizer:
        """Learns a vocabulary of `vocab` tokens (257 to 65,535) from `texts`, one document each.

        Gives Progress events a few times a second, with the latest token as `detail`, and a Notice where the
        text has too few pairs for the vocabulary. What `on_event` raises ends the training. Raises
        TokenizerError for a vocabulary out of range, no text, or a lone surrogate in the text.
        """
        check_vocab(vocab)  # before a large corpus is counted
        goal = vocab - len(FIRST_TOKENS)
        progress = Pacer(on_event, "train-tokenizer", "merges", goal)
        counts: Counter[str] = Counter()
        characters = 0
        for text in texts:
            for words in chunks(text):
                counts.update(words)
                characters += sum(map(len, words))
                progress(0, f"{characters:,} characters counted")
        merges: list[tuple[int, int]] = []
        learner = Learner()
        learner.add(counts.items())
        for merge in learner.merges(vocab):
            merges.append((merge.left, merge.right))
            latest = repr(merge.content.decode(errors="replace"))
            progress(len(merges), latest)
        progress.last(len(merges))
        if on_event and len(merges) < goal:
            size = len(FIRST_TOKENS) + len(merges)
            on_event(Notice(f"the text has no pairs for {vocab:,} tokens: the vocabulary is {size:,}"))
        return cls.from_merges(merges, learner.cut())

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """The tokenizer in the `tokenizer.json` at `path`. Raises TokenizerError."""
        return cls(*tokenizer_json.parse(tokenizer_json.read_text(path), str(path)))

    @classmethod
    def from_json(cls, text: str, source: str = "tokenizer.json") -> Tokenizer:
        """The tokenizer in `text`, the content of a `tokenizer.json`; `source` names it in errors.

        Raises TokenizerError.
        """
        return cls(*tokenizer_json.parse(text, source))

    @classmethod
    def from_gpt2(cls, encoder_json: Path | str, vocab_bpe: Path | str) -> Tokenizer:
        """GPT-2's tokenizer, from the two files that OpenAI published. Raises TokenizerError."""
        return cls(*tokenizer_json.parse_gpt2(encoder_json, vocab_bpe))

    def to_json(self) -> str:
        """This tokenizer as a `tokenizer.json`, to the byte as the `tokenizers` package writes it."""
        return tokenizer_json.render(self._tokens, self.merges, self.end_of_text)

    def save(self, path: Path | str) -> None:
        """Writes `to_json()` to `path`, atomically. Raises StorageError."""
        write_file(Path(path), [self.to_json().encode()])

    def encode(self, text: str) -> list[int]:
        """The ids of `text`. Raises TokenizerError for a lone surrogate, which has no UTF-8."""
        return [i for ids in self.encode_chunks(text) for i in ids]

    def encode_chunks(self, text: str) -> Iterator[array[int]]:
        """The ids of `text` as u16, an array for about 65,536 characters of it. Raises as `encode` does."""
        for words in chunks(text):
            yield array("H", self._pack(words))

    def encode_documents(self, texts: Iterable[str], on_event: Reader | None = None) -> array[int]:
        """The ids of all `texts` as u16, with `end_of_text` before each.

        Gives Progress events in characters a few times a second (`total` is 0 where `texts` is an iterator);
        what `on_event` raises ends the work. Raises TokenizerError for a lone surrogate.
        """
        total = sum(map(len, texts)) if isinstance(texts, Collection) else 0
        progress = Pacer(on_event, "tokenize", "characters", total)
        done = 0
        ids = array("H")
        for text in texts:
            ids.append(self.end_of_text)
            for words in chunks(text):
                ids.frombytes(self._pack(words))
                done += sum(map(len, words))
                progress(done, f"{len(ids):,} tokens")
        progress.last(done, f"{len(ids):,} tokens")
        return ids

    def _pack(self, words: list[str]) -> bytes:
        return b"".join(map(self._encoder.__getitem__, words))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD. Raises as `decode_bytes`."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`. Raises TokenizerError for an id that is not in the vocabulary."""
        return b"".join(map(self.token_bytes, ids))

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token. Raises TokenizerError if it is not in the vocabulary."""
        if not 0 <= id < self.vocab_size:
            raise TokenizerError(
                f"token {id} is not in the vocabulary of {self.vocab_size:,}",
                "decode with the tokenizer that made the ids",
            )
        return self._tokens[id]
