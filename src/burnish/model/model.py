"""A loaded model: the subject of everything else."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from threading import Timer
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import GenerationConfig

from burnish.anatomy import Anatomy
from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.direction import Enhancement
from burnish.errors import BurnishWarning, ModelError
from burnish.model.live import device_of, live_edit
from burnish.model.loading import load_model, load_tokenizer
from burnish.model.outlines import anatomy_of, skeleton
from burnish.model.prefix import SHORTEST_PREFIX, growing_cache, shared_prefix
from burnish.model.source import resolve
from burnish.options import ModelOptions
from burnish.prompts import Prompt

SLOW = 20  # seconds
# A template is a stranger's program: it runs in jinja's sandbox, without files, network or Python's own objects.
TEMPLATE_ERRORS = (
    TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
    MemoryError,
)


@dataclass
class Model:
    """A causal language model in eval mode, its tokenizer, and where it came from."""

    name: str
    folder: Path
    network: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    anatomy: Anatomy

    @cached_property
    def fingerprint(self) -> str:
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
        """The text the model reads, up to where its answer begins. `system` goes before the prompt's own system turn, if any.

        answer: the answer as well, closed as the template closes it: what a model is trained on.
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
                text = self._templated([{"role": "system", "content": before}, *turns], asked=answer is None)
                if before.strip() in text:
                    return text
            turns[0]["content"] = f"{before}\n\n{turns[0]['content']}"
        return self._templated(turns, asked=answer is None)

    def _templated(self, turns: list[dict[str, str]], *, asked: bool) -> str:
        """Raises ModelError for a template that fails. One that never ends cannot be stopped; it is said that it takes long."""
        long = (
            f"The chat template of {self.name} has been running for {SLOW} seconds: it may never end. Stop with Ctrl-C."
        )
        watch = Timer(SLOW, warnings.warn, (long, BurnishWarning))
        watch.daemon = True
        watch.start()
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asked))
        except TEMPLATE_ERRORS as error:
            raise ModelError(
                f"The chat template of {self.name} fails: {str(error)[:200]!r}. Pass a model with a template that works, or remove it."
            ) from error
        finally:
            watch.cancel()

    def tokens(self, prompt: Prompt | str, system: str | None = None) -> list[int]:
        """Token ids of the rendered prompt. A template already writes the special tokens: none are added twice."""
        text = self.render(prompt, system)
        return list(self.tokenizer(text, add_special_tokens=not self.chat_template)["input_ids"])

    @contextmanager
    def enhanced(self, enhancement: Enhancement, *, force: bool = False) -> Iterator["Model"]:
        """The live form: hooks on the projections' outputs, gone on exit; no weight is read or changed.

        Raises WrongModelError when the enhancement was made for other weights (`force` checks the shape only).
        """
        known = enhancement.provenance.fingerprint if force else self.fingerprint
        enhancement.require(known, self.anatomy.layers, self.anatomy.hidden_size)
        with live_edit(self.network, self.anatomy, enhancement):
            yield self

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt | str], *, tokens: int = 128, system: str | None = None) -> list[str]:
        """Greedy answers, in order."""
        answers = self.continuations([self.tokens(p, system) for p in prompts], tokens)
        return [str(self.tokenizer.decode(a, skip_special_tokens=True)).strip() for a in answers]

    def continuations(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        """Greedy continuations; each ends before its end-of-text token."""
        return self._generated(prompts, tokens)

    def samples(
        self, prompts: Sequence[list[int]], tokens: int, *, seed: int, temperature: float = 0.8
    ) -> list[list[int]]:
        """Seeded samples at a temperature; each ends before its end-of-text token."""
        with torch.random.fork_rng(devices=[] if self.device.type == "cpu" else [self.device]):
            torch.manual_seed(seed)
            return self._generated(prompts, tokens, do_sample=True, temperature=temperature, top_k=0, top_p=1.0)

    @torch.inference_mode()
    def _generated(self, prompts: Sequence[list[int]], tokens: int, **sampling: Any) -> list[list[int]]:
        """Batched; padded between what all prompts begin with, which is run once, and the rest. The checkpoint's own settings
        (sampling, penalties, bans) are left out."""
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
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
        own = self.network.generation_config
        self.network.generation_config = GenerationConfig(
            pad_token_id=pad, eos_token_id=sorted(self.stop_tokens) or None, **(sampling or {"do_sample": False})
        )
        try:
            out: Tensor = self.network.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=tokens,
                **({} if cache is None else {"past_key_values": cache}),
            )
        finally:
            self.network.generation_config = own
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
        own = self.tokenizer.eos_token_id
        stated = [token for token in [*listed, own] if token is not None]
        if not all(isinstance(token, int) for token in stated):
            raise ModelError(
                f"The generation settings of {self.name} name {str(stated)[:80]!r} as ends of text, which are no token ids. Mend "
                "eos_token_id in its generation_config.json."
            )
        return frozenset(stated)

    def chat(self, prompt: str, *, tokens: int = 256, system: str | None = None) -> str:
        """One greedy answer."""
        return self.generate([prompt], tokens=tokens, system=system)[0]


def outline(model: str | Path, options: ModelOptions | None = None) -> Model:
    """The same without its weights (the network is on the meta device): it renders and tokenises prompts. Raises as `load` does."""
    options = options or ModelOptions()
    folder = resolve(model, revision=options.revision)
    network, config = skeleton(folder, options)
    if options.dtype != "auto":
        network = network.to(getattr(torch, options.dtype))
    return Model(str(model), folder, network, load_tokenizer(folder, options), anatomy_of(network, config))


def load(model: str | Path, options: ModelOptions | None = None) -> Model:
    """Loads a hub id, local folder, `.gguf` file or packaged name. Raises ModelNotFoundError, ModelError, NoProjectionError."""
    options = options or ModelOptions()
    folder = resolve(model, revision=options.revision)
    network, tokenizer = load_model(folder, options)
    return Model(str(model), folder, network, tokenizer, anatomy_of(network, network.config))
