"""Byte pair encoding (Sennrich et al. 2016, over bytes): learning the merges, and applying them.

A symbol is a token id; a word is a string with one character, chr(id), for every symbol, and a pair is a
string of two. Strings make the work C's: finding a pair is `str.find`, merging it is `str.replace`. (Ids that
fall among the surrogates do no harm: these strings are never encoded.)
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import add
from typing import NamedTuple

from trainer.config import MAX_VOCAB
from trainer.errors import TokenizerError

END_OF_TEXT = b"<|endoftext|>"

# Bytes that GPT-2's alphabet writes as themselves; it writes the others, in order, as U+0100 and on. Both
# GPT-2 and Hugging Face's BpeTrainer number the bytes in the order of those characters.
PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
BYTES = (*PRINTABLE, *(byte for byte in range(256) if byte not in PRINTABLE))

# The vocabulary before the first merge: <|endoftext|> is 0, the bytes are 1 to 256.
FIRST_TOKENS = (END_OF_TEXT, *(bytes([byte]) for byte in BYTES))

CACHED_WORDS = 1 << 17  # pre-tokens whose ids an Encoder remembers: some 20 MB
CACHED_LENGTH = 64  # characters; longer ones rarely come back


class Merge(NamedTuple):
    """A learned merge: the two ids, the id that replaces them, its bytes, and how often the pair occurred."""

    left: int
    right: int
    token: int
    content: bytes
    occurrences: int


def check_vocab(vocab: int) -> None:
    """Raises TokenizerError if no vocabulary of `vocab` tokens can be trained."""
    if not len(FIRST_TOKENS) <= vocab <= MAX_VOCAB:
        raise TokenizerError(
            f"a vocabulary of {vocab:,} tokens cannot be trained",
            f"choose from {len(FIRST_TOKENS)} (bytes and <|endoftext|>) to {MAX_VOCAB:,} (ids have 16 bits)",
        )


class Learner:
    """Learns merges from pre-tokens and how often each occurs: the most frequent pair next, one at a time.

    Words may be added part by part, and merges are made as they are taken: others may work in between.

        learner = Learner()
        learner.add(counts.items())
        for merge in learner.merges(vocab): ...
    """

    def __init__(self) -> None:
        self._symbols = [chr(FIRST_TOKENS.index(bytes([byte]))) for byte in range(256)]
        self._texts: list[str] = []
        self._words: list[str] = []  # of the texts, as symbols
        self._counts: list[int] = []  # of the words
        self._pair_counts: dict[str, int] = {}
        self._found: dict[str, list[int]] = {}  # pair → the words that it is in

    def add(self, counts: Iterable[tuple[str, int]]) -> None:
        """Takes in pre-tokens, each of which comes once, and how often it occurs."""
        pair_counts, found, symbol = self._pair_counts, self._found, self._symbols.__getitem__
        for text, count in counts:
            word = "".join(map(symbol, text.encode()))
            i = len(self._words)
            self._texts.append(text)
            self._words.append(word)
            self._counts.append(count)
            for pair in map(add, word, word[1:]):
                pair_counts[pair] = pair_counts.get(pair, 0) + count
                found.setdefault(pair, []).append(i)

    def merges(self, vocab: int) -> Iterator[Merge]:
        """What makes a vocabulary of `vocab` tokens of FIRST_TOKENS, or fewer where no pair is left.
        Once only: the words are merged in place.

        The order is that of Hugging Face's BpeTrainer: of pairs that occur equally often, the one with the
        smaller ids goes first. Every merge makes a token that was not there before: all words take the same
        merges in the same order, so the same bytes come together in the same way wherever they become one
        token.

        Raises TokenizerError for a vocabulary out of range, and where there is no text.
        """
        check_vocab(vocab)
        if not self._words:
            raise TokenizerError("the text to train the tokenizer on is empty", "give at least one word")
        pair_counts = self._pair_counts
        tokens = list(FIRST_TOKENS)
        # Entries are (-count, pair, words). A count may be out of date: it is checked when its turn comes.
        queue = [(-pair_counts[pair], pair, where) for pair, where in self._found.items()]
        heapq.heapify(queue)

        while queue and len(tokens) < vocab:
            count, pair, where = heapq.heappop(queue)
            current = pair_counts[pair]
            if -count != current:
                if current > 0:
                    heapq.heappush(queue, (-current, pair, where))
                continue
            left, right = map(ord, pair)
            token = tokens[left] + tokens[right]
            new = len(tokens)
            tokens.append(token)
            formed = _merge_words(self._words, self._counts, where, pair, chr(new), pair_counts)
            for pair, where in formed.items():
                if pair_counts[pair] > 0:
                    heapq.heappush(queue, (-pair_counts[pair], pair, where))
            yield Merge(left, right, new, token, current)

    def cut(self) -> Iterator[tuple[str, str]]:
        """Each pre-token, and the symbols that the merges made of it: an Encoder need not make them again."""
        return zip(self._texts, self._words, strict=True)


def _merge_words(
    words: list[str], counts: list[int], where: list[int], pair: str, new: str, pair_counts: dict[str, int]
) -> dict[str, list[int]]:
    """Replaces `pair` by `new` in the words `where`, and updates `pair_counts`.

    Returns the pairs that formed, with the words in which they did.
    """
    first, second = pair
    formed: dict[str, list[int]] = {}
    for i in dict.fromkeys(where):  # a word is there twice if the pair is
        word, count = words[i], counts[i]
        end = 0
        at = word.find(pair)
        while at >= 0:
            if at:
                # Directly behind the last occurrence, its replacement is the neighbour.
                before = new if at == end else word[at - 1]
                pair_counts[before + first] -= count
                pair_counts[before + new] = pair_counts.get(before + new, 0) + count
                formed.setdefault(before + new, []).append(i)
            end = at + 2
            if end < len(word):
                after = word[end]
                pair_counts[second + after] -= count
                pair_counts[new + after] = pair_counts.get(new + after, 0) + count
                formed.setdefault(new + after, []).append(i)
            at = word.find(pair, end)
        words[i] = word.replace(pair, new)
    return formed


class Encoder(dict[str, bytes]):
    """The ids of a pre-token, as packed native u16: `encoder["word"]` merges once, then remembers.

    `byte_ids` has the ids of the 256 bytes; `merges` are (left, right, merged) ids, the first to be applied
    first. As in Hugging Face's package, each step merges the pair of lowest rank, the leftmost of several.
    """

    def __init__(self, byte_ids: Iterable[int], merges: Iterable[tuple[int, int, int]]) -> None:
        super().__init__()
        self._symbols = [chr(i) for i in byte_ids]
        self._ranks: dict[str, int] = {}
        self._merged: list[str] = []
        for rank, (left, right, merged) in enumerate(merges):
            self._ranks[chr(left) + chr(right)] = rank
            self._merged.append(chr(merged))
        self._known: dict[str, str] = {}  # pre-token → its symbols, merged

    def know(self, cut: Iterable[tuple[str, str]]) -> None:
        """Takes what `Learner.cut` gives once it has learned these merges."""
        self._known = dict(islice(cut, CACHED_WORDS))

    def __missing__(self, word: str) -> bytes:
        merged = self._known.get(word)
        if merged is None:
            merged = self._merge("".join(map(self._symbols.__getitem__, word.encode())))
        ids = array("H", map(ord, merged)).tobytes()
        if len(word) <= CACHED_LENGTH:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = ids
        return ids

    def _merge(self, word: str) -> str:
        """Merges in O(n log n): a queue of (rank, position) over a doubly linked list of symbols."""
        ranks = self._ranks
        symbols = [*word, ""]  # the empty string, here and for what was merged away, makes no pair
        after = list(range(1, len(symbols) + 1))
        before = list(range(-1, len(symbols) - 1))
        queue = [(ranks[pair], at) for at, pair in enumerate(map(add, word, word[1:])) if pair in ranks]
        heapq.heapify(queue)
        while queue:
            rank, at = heapq.heappop(queue)
            following = after[at]
            if ranks.get(symbols[at] + symbols[following]) != rank:
                continue  # one of the two has been merged since
            symbols[at] = self._merged[rank]
            symbols[following] = ""
            after[at] = after[following]
            before[after[at]] = at
            for left in (before[at], at):
                if left >= 0 and (pair := symbols[left] + symbols[after[left]]) in ranks:
                    heapq.heappush(queue, (ranks[pair], left))
        return "".join(symbols)
