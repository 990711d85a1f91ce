"""What all routes share: one model with its engine, expressions, people and counts."""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from burnish.errors import BurnishError, InputError, ModelError, RefusedError
from burnish.model.decoding import DecodeRequest
from burnish.model.model import Model
from burnish.model.row_edits import Candidate
from burnish.options import ServeOptions
from burnish.paths import cache_root, data_root
from burnish.personal.profile import Profile
from burnish.personal.store import Store
from burnish.prompts import Prompt
from burnish.server.directions import Directions, language_of
from burnish.server.engine import Engine
from burnish.server.expressions import Expressions, Part, mix_of, parts_of
from burnish.server.metrics import Metrics
from burnish.server.pending import Answering
from burnish.server.wire import Message
from burnish.steps import Steps

log = logging.getLogger("burnish.server")
BASE = Candidate("base")
MEASURED = 256  # measurements that are kept
HINT_SECONDS = 60.0
HINT = (
    "%d requests wait. For more load serve an enhancement with vLLM, as a LoRA adapter: "
    "burnish apply MODEL FILE -o OUT --form adapter, then vllm serve MODEL --enable-lora --lora-modules NAME=OUT"
)


@dataclass(frozen=True)
class Edit:
    """What an expression stands for now."""

    parts: tuple[Part, ...]
    candidate: Candidate
    key: str  # equal for equal edits

    @property
    def language(self) -> str:
        """The language on whose everyday prompts it is measured."""
        for part in self.parts:
            if part.profile is not None:
                return part.profile.language
            if part.kind == "packaged":
                return language_of(part.term.name)
        return "en"


class Service:
    """Created before the server starts; its engine starts with the app."""

    def __init__(self, model: Model, directions: Directions, store: Store, options: ServeOptions) -> None:
        self.model = model
        self.directions = directions
        self.store = store
        self.options = options
        self.engine = Engine(model, rows=options.rows, waiting=options.waiting, seconds=options.time_limit)
        self.fingerprint = model.fingerprint  # read from the weights once, before anyone waits
        self.expressions = Expressions(model, directions, store)
        self.metrics = Metrics(self.engine)
        self._measured: dict[tuple[str, str], dict[str, Any]] = {}  # by what was measured and the edit's key
        self.open_requests: Counter[str] = Counter()  # by person
        self._hinted = -HINT_SECONDS

    @cached_property
    def local(self) -> str:
        """The person of a server without keys."""
        return self.store.local()

    @cached_property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self.model.context or 2**31

    @cached_property
    def _hidden(self) -> list[str]:
        """Paths of this computer that errors may name, longer ones first."""
        model = self.model.name
        roots = (cache_root(), data_root(), self.model.folder)
        paths = {str(path) for root in roots for path in (root, root.resolve())}
        return sorted(paths | ({model} if os.sep in model and Path(model).exists() else set()), key=len, reverse=True)

    def public(self, error: BurnishError) -> BurnishError:
        """The same error for the network: it names no path of this computer."""
        text = str(error)
        for path in self._hidden:
            text = text.replace(
                path, "the model" if path in (self.model.name, str(self.model.folder)) else "the server's folder"
            )
        error.args = (text,)
        return error

    async def profiles(self, person: str) -> dict[str, Profile]:
        profiles = await asyncio.to_thread(self.store.profiles, person)
        return {profile.name: profile for profile in profiles}

    async def parts_of(self, person: str, model: str) -> tuple[Part, ...]:
        """What an expression adds to the base model. Raises RefusedError as `mix_of` and `parts_of`."""
        mix = mix_of(model)
        if mix is None:
            return ()
        loaded = all(term.name in self.directions.loaded for term in mix.terms)
        return parts_of(mix, self.directions, {} if loaded else await self.profiles(person))

    async def edit_of(self, person: str, model: str) -> Edit:
        """The edit of an expression, made if it is not kept. Raises as `parts_of`, and what making it raises."""
        parts = await self.parts_of(person, model)
        if not parts:
            return Edit((), BASE, "base")
        key = self.expressions.key_of(parts)
        candidate = self.expressions.known(key)
        if candidate is None:
            candidate = await self.engine.run(person, self.expressions.made(person, parts, key))
        return Edit(parts, candidate, key)

    async def prompt_of(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation. Raises InputError where the model's template refuses it, RefusedError as `checked`."""
        model = self.model
        try:
            text = await asyncio.to_thread(model.render, Prompt(tuple(m.turn for m in messages)))
        except ModelError as error:
            if error.__cause__ is None:  # a template that leaves words out
                raise
            raise InputError(
                f"The model's chat template refuses these messages: {error.__cause__}. Alternate user and assistant turns."
            ) from error
        ids = await asyncio.to_thread(partial(model.encode, text, special=not model.chat_template))
        return self.checked(ids, "messages")

    async def text_prompt(self, prompt: str | list[int]) -> list[int]:
        """Token ids of a raw prompt. Raises RefusedError as `checked`."""
        if isinstance(prompt, str):
            prompt = await asyncio.to_thread(partial(self.model.encode, prompt, special=True))
        return self.checked(prompt, "prompt")

    def checked(self, ids: list[int], param: str) -> list[int]:
        """Raises RefusedError for ids that the model does not know, none at all, or too many. param: the field that they came from."""
        known = self.model.known_tokens
        if not ids or not 0 <= min(ids) <= max(ids) < known:
            raise RefusedError(
                f"`{param}` is empty, or has token ids outside 0..{known - 1}, those that this model knows. Send text, or ids of this model's "
                "own tokenizer.",
                status=400,
                code="invalid_value",
                param=param,
            )
        if len(ids) >= self.context:
            raise RefusedError(
                f"The prompt has {len(ids)} tokens, and the model's context of {self.context} has to hold the answer too. "
                "Shorten the prompt.",
                status=400,
                code="context_length_exceeded",
                param=param,
            )
        return ids

    def room(self, prompt: list[int], tokens: int | None) -> int:
        """Tokens that an answer may have: those asked for, as far as the server's limit and the context allow."""
        limit = self.options.tokens_limit
        return min(tokens or limit, limit, self.context - len(prompt))

    def answer(self, person: str, request: DecodeRequest) -> Answering:
        """The answer, on its way. Raises RefusedError as `Engine.submit`."""
        answering = self.engine.submit(person, request)
        self.metrics.tokens.labels("prompt").inc(len(request.prompt))
        self._hint()
        return answering

    def count(self, answering: Answering) -> None:
        """Counts an answer that is over."""
        self.metrics.tokens.labels("answer").inc(answering.made)
        if answering.first is not None:
            self.metrics.first_token.observe(answering.first)

    def _hint(self) -> None:
        """Says once a minute what to do when more requests wait than run."""
        waiting, now = self.engine.waiting, time.monotonic()
        if waiting > self.options.rows and now - self._hinted >= HINT_SECONDS:
            self._hinted = now
            log.warning(HINT, waiting)

    async def measure(self, person: str, kind: str, key: str, steps: Steps[dict[str, Any]]) -> dict[str, Any]:
        """What was measured for an edit before, else what the work finds now."""
        if (kind, key) not in self._measured:
            measured = await self.engine.run(person, steps)
            self._measured[kind, key] = measured
            while len(self._measured) > MEASURED:
                del self._measured[next(iter(self._measured))]  # the oldest
            return measured
        return self._measured[kind, key]
