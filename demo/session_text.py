"""The commands from text to tokens."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from demo import material, trouble
from demo.material import Material
from demo.session_base import Message, SessionBase
from demo.writing import Model
from trainer.corpus import BUNDLED, GUTENBERG
from trainer.errors import CheckpointError, ConfigError, CorpusError
from trainer.gutenberg import manifest


class TextCommands(SessionBase):
    """Data, Tokenizer and Tokenize."""

    async def do_load(self, sources: Sequence[Mapping[str, Any]]) -> Message:
        loaded: material.Loaded = await self._alone(self._read(sources))
        self.material = loaded.material
        for told in loaded.troubles:
            self.post(trouble.event(told))
        return {**loaded.material.summary(), "failed": loaded.failed}

    async def _read(self, sources: Sequence[Mapping[str, Any]]) -> material.Loaded:
        return await material.load(
            sources, **self.fetching, prepare_books=self.prepare_books, on_event=self.hear
        )

    def _text(self) -> Material:
        if self.material is None:
            raise CorpusError("there is no text yet", "choose some in Data")
        return self.material

    async def do_preview(self, index: int) -> Message:
        documents = self._text().documents
        if not 0 <= index < len(documents):
            raise ConfigError(f"there is no document {index}", "choose one of the list")
        return {"text": documents[index].text[: material.PREVIEW]}

    async def do_library(self) -> Message:
        return {
            "books": [
                {
                    "id": book.id,
                    "repo": book.repo,
                    "title": book.title,
                    "author": book.author,
                    "bytes": book.files[0].bytes,
                }
                for book in manifest().values()
            ]
        }

    async def do_train_tokenizer(self, vocab: int) -> Message:
        text = self._text()
        began = time.perf_counter()
        texts = [document.text for document in text.training]
        tokenizer = await self._alone(material.train_tokenizer(texts, int(vocab), self.post, self.hear))
        self.material = replace(text, tokenizer=tokenizer, dataset=None)
        return {"vocab": tokenizer.vocab_size, "seconds": time.perf_counter() - began}

    async def do_use_tokenizer(self, run: str) -> Message:
        text = self._text()
        tokenizer = (await self._kept(run)).tokenizer
        self.material = replace(text, tokenizer=tokenizer, dataset=None)
        return {"vocab": tokenizer.vocab_size}

    async def _kept(self, run: str) -> Model:
        """The model of a run as it was last saved. Raises CheckpointError."""
        return self.model if self.model and self.model.run == run else await self.shelf.open(run)

    async def do_try_tokenizer(self, text: str) -> Message:
        known = (self.material, self.model)  # a run may have been opened whose text is not here
        tokenizer = next((one.tokenizer for one in known if one and one.tokenizer), None)
        if tokenizer is None:
            raise ConfigError("there is no tokenizer yet", "train one first")
        ids = tokenizer.encode(text.encode(errors="replace").decode())
        return {"tokens": [{"id": id, "text": material.shown(tokenizer.token_bytes(id))} for id in ids]}

    async def do_tokenize(self) -> Message:
        text = self._text()
        if text.tokenizer is None:
            raise ConfigError("there is no tokenizer yet", "train one first")
        self.material, summary = await self._alone(self._tokenized(text))
        return summary

    async def _tokenized(self, text: Material) -> tuple[Material, Message]:
        """A text with its tokens, and what there is to tell of them."""
        done = replace(text, dataset=await material.tokenize(text, self.hear))
        return done, await done.tokens_summary()

    async def _some_tokens(self, model: Model) -> Material:
        """The text of a model; where it has weights only, the text at hand or the books, in its tokens."""
        if model.material or not model.weights_only:
            return await self._with_tokens(model)
        text = self.material or (await self._read([{"kind": "books"}])).material
        text = replace(text, tokenizer=model.tokenizer)
        return replace(text, dataset=await material.tokenize(text, self.hear))

    async def _with_tokens(self, model: Model) -> Material:
        """The text of a model, fetched and tokenized where that was not done yet. Raises CheckpointError."""
        text = model.material
        if text is None:
            kept = (model.checkpoint and (model.checkpoint.state or {}).get("text")) or {}
            wanted = [_source(name) for name in kept.get("sources", [])]
            if not wanted or None in wanted:
                raise CheckpointError(
                    f"the text of “{model.title}” is not here",
                    "it can write; to train it, use its own computer",
                )
            loaded = await self._read([entry for entry in wanted if entry])
            text = replace(loaded.material, tokenizer=model.tokenizer)
        if text.dataset is None:
            text = replace(text, dataset=await material.tokenize(text, self.hear))
        model.material = text
        return text


def _source(name: str) -> dict[str, str] | None:
    """A source of the command line as one of the page's; None for a file of another computer."""
    if name == BUNDLED:
        return {"kind": "books"}
    if name.startswith(GUTENBERG):
        return {"kind": "gutenberg", "name": name.removeprefix(GUTENBERG)}
    return None
