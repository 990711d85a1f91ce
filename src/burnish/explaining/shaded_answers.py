"""Base and enhanced answers, token by token: where each lies on the direction, and what the edit did to its probability."""

from collections.abc import Sequence

import torch
from torch import Tensor

from burnish.artifacts.direction import Direction, Enhancement
from burnish.explaining.facts import ShadedAnswers, ShadedToken
from burnish.model.logit_lens import token_projections
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, Progress, score
from burnish.prompts import Prompt


def shaded_answers(
    model: Model,
    enhancement: Enhancement,
    direction: Direction,
    prompts: Sequence[Prompt],
    *,
    tokens: int,
    progress: Progress | None = None,
) -> tuple[ShadedAnswers, ...]:
    """Greedy answers of both, read by the base model. Projections are in standard deviations of the base answers' tokens, 0 at
    their mean; empty answers stay empty."""
    rendered = [model.tokens(p) for p in prompts]
    base = model.continuations(rendered, tokens)
    with model.enhanced(enhancement):
        enhanced = model.continuations(rendered, tokens)
    items = [Item(p, a) for p, a in zip(rendered * 2, base + enhanced, strict=True) if a]
    scores = score(model, items, [Candidate("enhanced", enhancement)], progress=progress)
    changes = [s.log_probability - b.log_probability for b, s in zip(scores.base, scores.candidates[0], strict=True)]
    vector = direction.used()[direction.layer]
    along = token_projections(
        model, [i.prompt + i.answer for i in items], vector[None], direction.layer, site=direction.site
    )
    own = [values[len(item.prompt) :, 0] for item, values in zip(items, along, strict=True)]
    pool = torch.cat(own[: sum(1 for a in base if a)] or own or [torch.zeros(1)])
    spread = pool.std().clamp_min(1e-30) if len(pool) > 1 else torch.ones(())
    rows = iter(zip(items, own, changes, strict=True))
    shaded = [_shaded(model, *next(rows), pool.mean(), spread) if a else () for a in base + enhanced]
    half = len(prompts)
    return tuple(ShadedAnswers(p.text, shaded[i], shaded[half + i]) for i, p in enumerate(prompts))


def _shaded(
    model: Model, item: Item, along: Tensor, changes: Tensor, centre: Tensor, spread: Tensor
) -> tuple[ShadedToken, ...]:
    texts = token_texts(model, item.answer)
    values = ((along - centre) / spread).tolist()
    return tuple(ShadedToken(*row) for row in zip(texts, values, changes.tolist(), strict=True))


def token_texts(model: Model, tokens: Sequence[int]) -> list[str]:
    """What each token adds to the decoded text: the pieces joined are the whole. Bytes of a character that is not complete yet
    wait for the token that completes it."""
    pieces, shown = [], ""
    for end in range(1, len(tokens) + 1):
        text = str(model.tokenizer.decode(list(tokens[:end]), skip_special_tokens=False))
        if text.endswith("\N{REPLACEMENT CHARACTER}") and end < len(tokens):
            pieces.append("")
            continue
        pieces.append(text[len(shown) :])
        shown = text
    return pieces
