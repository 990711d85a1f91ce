"""What an expression does, measured while the server runs: damage, dose. Each is work in steps for the engine."""

from dataclasses import replace
from typing import Any

from burnish.artifacts.direction import Enhancement
from burnish.evaluation.pairs import answered_items, damage_prompts, greedy_answers
from burnish.explaining.dose import doses
from burnish.model.model import Model
from burnish.model.scoring import Item
from burnish.personal import enhancing
from burnish.personal.features import READ_TOKENS
from burnish.prompts import Prompt
from burnish.prompts.domains import load_domain, load_general
from burnish.steps import Progress, Steps

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0)
PROMPTS = 16  # everyday and protect prompts that damage is measured on
CURVE, REFERENCES = 8, 6  # prompts, and reference answers of a domain, in a dose curve
PIECE = 8  # rows (prompts times edits, the base model among them) between two steps of the decoder


def damage_items(model: Model, language: str, progress: Progress | None = None) -> list[Item]:
    """Held-out everyday and protect prompts with the base model's own answers. Profiles are scaled on the other half of them."""
    options = replace(enhancing.MEASURED, prompts=PROMPTS)
    prompts = damage_prompts(load_general(language), options)[1]
    return answered_items(model, greedy_answers(model, prompts, options, progress))


def damage(model: Model, enhancement: Enhancement | None, language: str) -> Steps[dict[str, Any]]:
    """Nats per token that everyday prompts move, with a 95 % interval over prompts."""
    items = damage_items(model, language)
    if enhancement is None:
        return {"kl": 0.0, "low": 0.0, "high": 0.0, "prompts": len(items)}
    (measured,) = yield from doses(model, enhancement, items, [], (1.0,), at_once=PIECE // 2)
    kl = measured.damage
    return {"kl": kl.mean, "low": kl.low, "high": kl.high, "prompts": kl.n}


def dose(model: Model, enhancement: Enhancement | None, language: str, domain: str | None) -> Steps[dict[str, Any]]:
    """Damage, and likelihood of the domain's reference answers, at several scales."""
    items = damage_items(model, language)
    items = items[:: max(1, len(items) // CURVE)]
    good = [] if domain is None else _references(model, domain)
    kl, change = [0.0] * len(SCALES), [0.0] * len(SCALES)
    if enhancement is not None:
        at_once = max(1, PIECE // len(SCALES))
        measured = yield from doses(model, enhancement, items, good, SCALES[1:], at_once=at_once)
        kl[1:] = [d.damage.mean for d in measured]
        change[1:] = [d.likelihood.mean for d in measured if d.likelihood is not None]
    likelihood = {"name": domain, "change": change} if good else None
    return {"scales": list(SCALES), "kl": kl, "likelihood": likelihood}


def _references(model: Model, domain: str) -> list[Item]:
    rows = load_domain(domain).references_report.spread(REFERENCES).prompts
    answers = [model.encode(p.answer or "")[:READ_TOKENS] for p in rows]
    return [Item(model.tokens(Prompt(p.messages)), answer) for p, answer in zip(rows, answers, strict=True) if answer]
