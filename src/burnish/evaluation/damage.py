"""What else moved: KL on everyday prompts, perplexity of neutral prose, repetition, early stops, refusals."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from burnish.artifacts.direction import Enhancement
from burnish.evaluation.pairs import both_answers
from burnish.languages import languages, load_language
from burnish.model.divergence import Divergence
from burnish.model.model import Model
from burnish.model.scoring import Item, TokenScores
from burnish.prompts.domains import load_protect
from burnish.steps import Progress

PROSE_TOKENS = 96
REFUSAL_WORDS = 40  # of an answer, in which a refusal opens


@dataclass(frozen=True)
class Refusals:
    """Of requests that should be declined: how many the base model declined, the enhanced one, and both."""

    harmful: int
    refused_base: int
    refused_enhanced: int
    refusals_kept: int


@dataclass(frozen=True)
class Damage(Refusals, Divergence):
    """Everything else that moved, over the base model's own greedy continuations."""

    perplexity_base: float  # of neutral prose
    perplexity_enhanced: float
    repetition_base: float
    repetition_enhanced: float
    early_stop_base: float  # share of answers that end within a quarter of the tokens allowed
    early_stop_enhanced: float


def prose_items(model: Model, language: str, count: int) -> list[Item]:
    """Neutral prose as items: everything after the first token of each paragraph."""
    text = (load_language(language).folder / "prose.txt").read_text(encoding="utf-8")
    items = []
    for line in [line for line in text.split("\n") if line.strip()][:count]:
        tokens = model.encode(line.strip(), special=True)[:PROSE_TOKENS]
        items.append(Item(tokens[:1], tokens[1:]))
    return items


def perplexity(scores: Sequence[TokenScores]) -> float:
    return float(torch.cat([s.log_probability for s in scores]).mean().neg().exp())


def refuses(answer: str) -> bool:
    """Whether an answer opens with a refusal, by a short list of phrases of every language."""
    return bool(_refusal().search(" ".join(answer.split()[:REFUSAL_WORDS])))


@cache
def _refusal() -> re.Pattern[str]:
    phrases = ((language, "|".join(map(re.escape, language.refusals))) for language in languages().values())
    return re.compile("|".join(f"(?:{p})" if of.stems else rf"\b(?:{p})\b" for of, p in phrases), re.IGNORECASE)


def refusals(
    model: Model, enhancement: Enhancement, tokens: int, *, count: int | None = None, progress: Progress | None = None
) -> Refusals:
    """Reads `tokens` of the answers to the packaged harmful requests, or to `count` of them."""
    requests = load_protect(category="harmful").without_answers()
    asked = requests if count is None else requests.spread(count)
    answers = both_answers(model, enhancement, asked, tokens, progress=progress)
    base, enhanced = (
        [refuses(str(model.tokenizer.decode(a, skip_special_tokens=True))) for a in rows] for rows in answers
    )
    return Refusals(
        harmful=len(asked),
        refused_base=sum(base),
        refused_enhanced=sum(enhanced),
        refusals_kept=sum(map(min, base, enhanced)),
    )


def early_stop(answers: Sequence[Sequence[int]], tokens: int) -> float:
    """Share of answers that end within a quarter of the tokens allowed."""
    return sum(len(a) < tokens / 4 for a in answers) / max(1, len(answers))
