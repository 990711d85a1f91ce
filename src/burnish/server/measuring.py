"""What an expression does, measured while the server runs: damage, dose, tokens. Each is work in pieces for the engine."""

from dataclasses import replace
from typing import Any

import torch

from burnish.artifacts.direction import Enhancement
from burnish.errors import InputError
from burnish.evaluation.material import Progress, answered_items, damage_prompts, greedy_answers
from burnish.maths.intervals import interval
from burnish.model.model import Model
from burnish.model.reading import token_projections
from burnish.model.scoring import Candidate, Item, score
from burnish.personal import enhancing
from burnish.personal.features import READ_TOKENS
from burnish.pieces import Pieces
from burnish.prompts import Prompt
from burnish.prompts.domains import load_domain, load_general
from burnish.server.text import token_pieces

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0)
PROMPTS = 16  # everyday and protect prompts that damage is measured on
CURVE, REFERENCES = 8, 6  # prompts, and reference answers of a domain, in a dose curve
PIECE = 8  # rows (prompts times edits, the base model among them) between two steps of the decoder


def damage_items(model: Model, language: str, progress: Progress | None = None) -> list[Item]:
    """Held-out everyday and protect prompts with the base model's own answers. Profiles are scaled on the other half of them."""
    options = replace(enhancing.MEASURED, prompts=PROMPTS)
    prompts = damage_prompts(load_general(language), options)[1]
    return answered_items(model, greedy_answers(model, prompts, options, progress))


def damage(model: Model, enhancement: Enhancement | None, language: str) -> Pieces[dict[str, Any]]:
    """Nats per token that everyday prompts move, with a 95 % interval over prompts."""
    items = damage_items(model, language)
    rows = yield from _divergences(model, items, [enhancement])
    found = interval(rows[0])
    return {"kl": found.mean, "low": found.low, "high": found.high, "prompts": found.n}


def dose(model: Model, enhancement: Enhancement | None, language: str, domain: str | None) -> Pieces[dict[str, Any]]:
    """Damage, and likelihood of the domain's reference answers, at several scales."""
    plans = [_scaled(enhancement, scale) for scale in SCALES]
    items = damage_items(model, language)
    items = items[:: max(1, len(items) // CURVE)]
    rows = yield from _divergences(model, items, plans)
    likelihood = None
    good = [] if domain is None else _references(model, domain)
    if good:
        change = yield from _likelihoods(model, good, plans)
        likelihood = {"name": domain, "change": change}
    return {"scales": list(SCALES), "kl": [float(row.mean()) for row in rows], "likelihood": likelihood}


def tokens(
    model: Model, enhancement: Enhancement | None, prompt: list[int], answer: str, context: int
) -> Pieces[list[dict[str, Any]]]:
    """What the edit does to the probability of each token of an answer, and where each lies along its strongest direction.

    Raises InputError for an answer without tokens, or one that is longer than the model's context with its prompt.
    """
    ids = model.tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not ids:
        raise InputError("The answer is empty: it has no tokens to show. Pass one with text.")
    if len(prompt) + len(ids) > context:
        raise InputError(
            f"Prompt and answer have {len(prompt) + len(ids)} tokens, more than the model's context of {context}. Shorten them."
        )
    yield
    item = Item(prompt, ids)
    texts = token_pieces(model.tokenizer, answer, ids)
    if enhancement is None:
        return [{"text": text, "gain": 0.0, "projection": None} for text in texts]
    found = score(model, [item], [Candidate("edit", enhancement)])
    gains = (found.candidates[0][0].log_probability - found.base[0].log_probability).tolist()
    yield
    strongest = int(enhancement.gains.abs().sum(0).argmax())
    direction = enhancement.directions[strongest]
    vector = enhancement.vectors[direction.layer, strongest]
    states = token_projections(model, [prompt + ids], vector[None], direction.layer, site=direction.site)
    along = states[0][len(prompt) :, 0].double()
    spread = along.std() if len(along) > 1 else torch.zeros(())
    places = ((along - along.mean()) / spread).tolist() if spread > 0 else [None] * len(ids)
    return [
        {"text": text, "gain": gain, "projection": place}
        for text, gain, place in zip(texts, gains, places, strict=True)
    ]


def _scaled(enhancement: Enhancement | None, scale: float) -> Enhancement | None:
    """Gains stop at -1, where a component is gone."""
    if enhancement is None or not scale:
        return None
    return replace(enhancement, gains=(enhancement.gains * scale).clamp_min(-1))


def _divergences(model: Model, items: list[Item], plans: list[Enhancement | None]) -> Pieces[list[torch.Tensor]]:
    """KL per token of each item under each plan: [items] for each."""
    rows: list[list[torch.Tensor]] = [[] for _ in plans]
    candidates = [Candidate("edit", plan) for plan in plans if plan is not None]
    for part in _parts(items, candidates):
        scores = iter(score(model, part, candidates).candidates if candidates else ())
        for row, plan in zip(rows, plans, strict=True):
            row += [torch.zeros(()) for _ in part] if plan is None else [s.kl.mean() for s in next(scores)]
        yield
    return [torch.stack(row) for row in rows]


def _parts(items: list[Item], candidates: list[Candidate]) -> list[list[Item]]:
    size = max(1, PIECE // (1 + len(candidates)))
    return [items[start : start + size] for start in range(0, len(items), size)]


def _likelihoods(model: Model, items: list[Item], plans: list[Enhancement | None]) -> Pieces[list[float]]:
    """Change of the mean log probability per token, in nats, under each plan."""
    changes: list[list[float]] = [[] for _ in plans]
    candidates = [Candidate("edit", plan) for plan in plans if plan is not None]
    for part in _parts(items, candidates) if candidates else ():
        found = score(model, part, candidates)
        edited = iter(found.candidates)
        for change, plan in zip(changes, plans, strict=True):
            if plan is not None:
                pairs = zip(next(edited), found.base, strict=True)
                change += [float((e.log_probability - b.log_probability).mean()) for e, b in pairs]
        yield
    return [sum(change) / len(change) if change else 0.0 for change in changes]


def _references(model: Model, domain: str) -> list[Item]:
    rows = load_domain(domain).references_report.spread(REFERENCES).prompts
    answers = [model.tokenizer(p.answer or "", add_special_tokens=False)["input_ids"][:READ_TOKENS] for p in rows]
    return [Item(model.tokens(Prompt(p.messages)), answer) for p, answer in zip(rows, answers, strict=True) if answer]
