"""A loaded model: the subject of everything else."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from burnish.anatomy import Anatomy
from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.direction import Enhancement
from burnish.errors import BurnishWarning, ContextWarning, InputError, ModelError
from burnish.model.device import choose
from burnish.model.limits import context_length, known_tokens, require_text, stored_positions
from burnish.model.live import device_of, live_edit
from burnish.model.loading import load_model, load_tokenizer
from burnish.model.shared_prefix import SHORTEST_PREFIX, growing_cache, shared_prefix
from burnish.model.skeleton import anatomy_of, skeleton
from burnish.model.source import resolve
from burnish.model.template import templated
from burnish.model.unknown import leaves_out, lost_characters
from burnish.options import ModelOptions
from burnish.prompts import Prompt
from burnish.steps import Advance

ANSWERS = 32  # generated at once
SHOWN_TOKENS = 60  # of a sequence that is too long


@dataclass
class Model:
    """A causal language model in eval mode, its tokenizer, and where it came from.

    Attributes:
        name: as the user calls it.
        folder: its files.
        network: the `transformers.PreTrainedModel`.
        tokenizer: the `transformers.PreTrainedTokenizerBase`.
        anatomy: where attention writes, layer by layer.
    """

    name: str
    folder: Path
    network: Any
    tokenizer: Any
    anatomy: Anatomy
    _warned: bool = field(default=False, init=False, repr=False)  # of a sequence longer than the context
    _told_unknown: bool = field(default=False, init=False, repr=False)  # of characters without a token

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights' contents, by which directions know their model."""
        return Checkpoint(self.folder).fingerprint

    @property
    def device(self) -> torch.device:
        """Where token ids go and logits come from; other layers may lie elsewhere (see `device_of`)."""
        return device_of(self.network.get_input_embeddings())

    @property
    def tensor_parallel(self) -> bool:
        """Whether several processes hold a part of every layer each: all of them then run every prompt."""
        return (getattr(self.network, "tp_size", None) or 1) > 1

    @property
    def chat_template(self) -> bool:
        """Whether prompts go through a template; base models take them raw."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    def render(self, prompt: Prompt | str, system: str | None = None, *, answer: str | None = None) -> str:
        """The text the model reads, up to where its answer begins.

        Args:
            prompt: a text or turns.
            system: goes before the prompt's own system turn, if any.
            answer: the answer as well, closed as the template closes it: what a model is trained on.

        Returns:
            The rendered text.

        Raises:
            ModelError: the template refuses the prompt, or leaves out some of its words.
        """
        prompt = Prompt.of(prompt) if isinstance(prompt, str) else prompt
        messages = [*([] if system is None else [("system", system)]), *prompt.messages]
        if answer is not None:
            messages.append(("assistant", answer))
        if not self.chat_template:
            return "\n\n".join(content for _, content in messages).strip()
        words = [content for _, content in takewhile(lambda message: message[0] == "system", messages)]
        turns = [{"role": role, "content": content} for role, content in messages[len(words) :]]
        if words:
            before = "\n\n".join(words)
            with suppress(ModelError):  # templates without a system turn refuse it, or leave it out
                return templated(
                    self.tokenizer, self.name, [{"role": "system", "content": before}, *turns], asked=answer is None
                )
            turns[0]["content"] = f"{before}\n\n{turns[0]['content']}"
        return templated(self.tokenizer, self.name, turns, asked=answer is None)

    def tokens(self, prompt: Prompt | str, system: str | None = None) -> list[int]:
        """Token ids of the rendered prompt. A template already writes the special tokens: none are added twice.

        Args:
            prompt: a text or turns.
            system: goes before the prompt's own system turn, if any.

        Returns:
            Token ids.
        """
        text = self.render(prompt, system)
        ids = self.encode(text, special=not self.chat_template)
        if not ids:
            raise InputError(
                f"{text[:60]!r} is no token for {self.name}, and it needs one to go on from. Write a prompt."
            )
        self.require_fit(len(ids), prompt if isinstance(prompt, str) else prompt.text)
        return ids

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            text: any text.
            special: with the tokens that the tokenizer puts around it.

        Returns:
            Token ids.

        Raises:
            InputError: the text is none that can be encoded.
            ModelError: the model has no row for a token.
        """
        require_text(text)
        ids = list(self.tokenizer(text, add_special_tokens=special)["input_ids"])
        self._tell_unknown(text, ids)
        if ids and max(ids) >= self.known_tokens:
            beyond = max(ids)
            raise ModelError(
                f"The tokenizer of {self.name} writes {str(self.tokenizer.convert_ids_to_tokens(beyond))!r} as token {beyond}, and the model "
                f"knows {self.known_tokens} tokens, from 0 on. Pass the tokenizer that belongs to the weights, or resize the model's table of "
                "tokens (resize_token_embeddings) and train what is new."
            )
        return ids

    def _tell_unknown(self, text: str, ids: list[int]) -> None:
        """Warns, once, of characters that the tokenizer has no token for and writes as an unknown one, or leaves out."""
        lost = "" if self._told_unknown else lost_characters(self.tokenizer, text, ids, left_out=self._leaves_out)
        if not lost:
            return
        self._told_unknown = True
        warnings.warn(
            f"The tokenizer of {self.name} has no token for a part of {' '.join(text.split())[:60]!r}: the model reads it {lost}. Use prompts in "
            "a language that the model was made for (said once).",
            BurnishWarning,
            stacklevel=3,
        )

    @cached_property
    def _leaves_out(self) -> bool:
        return leaves_out(self.tokenizer)

    @cached_property
    def known_tokens(self) -> int:
        """Tokens that the model has rows for."""
        return known_tokens(self.network)

    @cached_property
    def padding(self) -> int:
        """The id that fills up batches: the tokenizer's, unless the model has no row for it."""
        stated = self.tokenizer.pad_token_id
        return stated if stated is not None and 0 <= stated < self.known_tokens else 0

    @cached_property
    def context(self) -> int | None:
        """The longest sequence the model was made for, in tokens; None where its config does not say."""
        return context_length(self.network)

    @cached_property
    def _ends_at_context(self) -> bool:
        return self.context is not None and stored_positions(self.network, self.context)

    def require_fit(self, length: int, text: str) -> None:
        """Checks that the model can read a sequence, and warns of one longer than it was made for.

        Args:
            length: in tokens.
            text: what the sequence begins with, for the message.

        Raises:
            InputError: the model cannot read so long a sequence.
        """
        if self.context is None or length <= self.context:
            return
        what = f"{' '.join(text[:200].split())[:60]!r} and so on is {length} tokens long, and the context of {self.name} is {self.context}"
        if self._ends_at_context:
            raise InputError(f"{what}: it cannot be read to its end. Shorten it.")
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{what}: what a model does beyond the length it was made for is not what it does within. Shorten it (said once).",
                ContextWarning,
                stacklevel=2,
            )

    def require_all_fit(self, sequences: Iterable[list[int]]) -> None:
        """The same for the longest of some sequences.

        Args:
            sequences: of token ids.

        Raises:
            InputError: the model cannot read so long a sequence.
        """
        longest = max(sequences, key=len, default=[])
        self.require_fit(len(longest), str(self.tokenizer.decode(longest[:SHOWN_TOKENS])))

    def room(self, length: int, tokens: int) -> int:
        """Tokens that may follow others.

        Args:
            length: tokens that are there.
            tokens: wanted behind them.

        Returns:
            At most `tokens`.

        Raises:
            InputError: there is room for none.
        """
        if not self._ends_at_context:
            return tokens
        assert self.context is not None
        if length >= self.context:
            raise InputError(
                f"A prompt of {length} tokens leaves no room for an answer in the context of {self.name}, {self.context} tokens. Shorten it."
            )
        return min(tokens, self.context - length)

    @contextmanager
    def enhanced(self, enhancement: Enhancement, *, force: bool = False) -> Iterator["Model"]:
        """The live form: hooks on the projections' outputs, gone on exit; no weight is read or changed.

        Args:
            enhancement: made on these weights.
            force: check the shape only.

        Yields:
            This model.

        Raises:
            WrongModelError: the enhancement was made for other weights.
        """
        known = enhancement.provenance.fingerprint if force else self.fingerprint
        enhancement.require(known, self.anatomy.layers, self.anatomy.hidden_size)
        with live_edit(self.network, self.anatomy, enhancement):
            yield self

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt | str], *, tokens: int = 128, system: str | None = None) -> list[str]:
        """Greedy answers.

        Args:
            prompts: texts or turns.
            tokens: at most, an answer.
            system: a system prompt for all of them.

        Returns:
            Answers, in order.
        """
        answers = self.continuations([self.tokens(p, system) for p in prompts], tokens)
        return [str(self.tokenizer.decode(a, skip_special_tokens=True)).strip() for a in answers]

    def continuations(
        self, prompts: Sequence[list[int]], tokens: int, *, advance: Advance | None = None
    ) -> list[list[int]]:
        """Greedy continuations; each ends before its end-of-text token.

        Args:
            prompts: token ids of each.
            tokens: at most, a continuation.
            advance: told how many more answers are finished.

        Returns:
            Token ids of each continuation, in order.
        """
        return self._batched(prompts, tokens, advance, do_sample=False)

    def samples(
        self,
        prompts: Sequence[list[int]],
        tokens: int,
        *,
        seed: int,
        temperature: float = 0.8,
        advance: Advance | None = None,
    ) -> list[list[int]]:
        """Seeded samples at a temperature; each ends before its end-of-text token.

        Args:
            prompts: token ids of each.
            tokens: at most, a continuation.
            seed: the same seed gives the same samples.
            temperature: logits are divided by it.
            advance: told how many more answers are finished.

        Returns:
            Token ids of each continuation, in order.
        """
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            return self._batched(prompts, tokens, advance, seed=seed, **sampling)

    def _batched(
        self, prompts: Sequence[list[int]], tokens: int, advance: Advance | None, *, seed: int = 0, **sampling: Any
    ) -> list[list[int]]:
        """The shortest prompts first: a batch is as wide as its longest one."""
        answers: list[list[int]] = [[] for _ in prompts]
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(prompts), ANSWERS):
            if sampling["do_sample"]:
                torch.manual_seed(seed + start)
            batch = by_length[start : start + ANSWERS]
            for i, answer in zip(batch, self._generated([prompts[i] for i in batch], tokens, **sampling), strict=True):
                answers[i] = answer
            if advance is not None:
                advance(len(batch))
        return answers

    @torch.inference_mode()
    def _generated(self, prompts: Sequence[list[int]], tokens: int, **sampling: Any) -> list[list[int]]:
        """Batched; padded between what all prompts begin with, which is run once, and the rest. The checkpoint's own settings
        (sampling, penalties, bans) are left out."""
        pad = self.padding
        tokens = self.room(max(map(len, prompts)), tokens)
        prefix = shared_prefix(prompts)
        cache = growing_cache(self, prompts[0][:prefix], len(prompts)) if prefix >= SHORTEST_PREFIX else None
        prefix = 0 if cache is None else prefix
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            for part, place in ((prompt[:prefix], 0), (prompt[prefix:], width - len(prompt) + prefix)):
                ids[row, place : place + len(part)] = torch.tensor(part)
                mask[row, place : place + len(part)] = 1
        settings = self.network.generation_config
        self.network.generation_config = GenerationConfig(
            pad_token_id=pad, eos_token_id=sorted(self.stop_tokens) or None, **sampling
        )
        try:
            out: Tensor = self.network.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=tokens,
                **({} if cache is None else {"past_key_values": cache}),
            )
        finally:
            self.network.generation_config = settings
        answers = []
        for row in out[:, width:].tolist():
            end = next((i for i, token in enumerate(row) if token in self.stop_tokens), len(row))
            answers.append(row[:end])
        return answers

    @cached_property
    def stop_tokens(self) -> frozenset[int]:
        """Raises ModelError for ends of text that are no token ids."""
        ends = self.network.generation_config.eos_token_id
        listed = ends if isinstance(ends, list) else [ends]
        tokenizer_end = self.tokenizer.eos_token_id
        stated = [token for token in [*listed, tokenizer_end] if token is not None]
        if not all(isinstance(token, int) for token in stated):
            raise ModelError(
                f"The generation settings of {self.name} name {str(stated)[:80]!r} as ends of text, which are no token ids. Mend "
                "eos_token_id in its generation_config.json."
            )
        return frozenset(stated)

    def chat(self, prompt: str, *, tokens: int = 256, system: str | None = None) -> str:
        """One greedy answer.

        Args:
            prompt: a text.
            tokens: at most.
            system: a system prompt.

        Returns:
            The answer.
        """
        return self.generate([prompt], tokens=tokens, system=system)[0]


def outline(model: str | Path, options: ModelOptions | None = None) -> Model:
    """The same without its weights (the network is on the meta device): it renders and tokenises prompts. Raises as `load` does."""
    options = options or ModelOptions()
    folder = resolve(model, revision=options.revision)
    network, config = skeleton(folder, options)
    options = choose(folder, options).options
    if options.dtype != "auto":
        network = network.to(getattr(torch, options.dtype))
    return Model(str(model), folder, network, load_tokenizer(folder, options), anatomy_of(network, config))


def load(
    model: str | Path, options: ModelOptions | None = None, *, tell: Callable[[str], object] | None = None
) -> Model:
    """Loads a model.

    Args:
        model: a hub id, a local folder, a `.gguf` file or a packaged name.
        options: number type, device, revision; device and number type are chosen where they are left at auto.
        tell: called with a line on the device and the number type that were chosen, before any weight is read.

    Returns:
        The model in eval mode.

    Raises:
        ModelNotFoundError: there is no such model.
        HubError: it could not be fetched from the hub.
        ModelError: it cannot be loaded, or is no causal language model.
        NoProjectionError: no attention output projection was found in it.
    """
    options = options or ModelOptions()
    folder = resolve(model, revision=options.revision)
    network, tokenizer = load_model(folder, options, tell)
    return Model(str(model), folder, network, tokenizer, anatomy_of(network, network.config))
