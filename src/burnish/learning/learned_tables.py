"""What was learnt, as Markdown and as JSON."""

from dataclasses import asdict
from typing import Any

from burnish.learning.learning import Learned
from burnish.learning.report import Taught


def learned_table(learned: Learned) -> str:
    """Effect, cost and how they were measured, in a few lines."""
    damage, refusals = learned.damage, learned.refusals
    lines = [
        f"**Left alone**: {learned.reason}." if learned.abstained else _chosen(learned),
        "",
        "| on held-out prompts, nats per token | the teacher itself | enhanced |",
        "|---|---|---|",
        *(row for taught in learned.taught for row in _rows(taught)),
        f"| KL on {damage.prompts} everyday and protect prompts (budget {learned.options.budget:g}) | | {damage.kl.mean:.4f} "
        f"[{damage.kl.low:.4f}, {damage.kl.high:.4f}] |",
        f"| its 95th percentile and root mean square over tokens | | {damage.kl_p95:.3f}, {damage.kl_rms:.3f} |",
        f"| repeated 4-grams in {len(learned.samples)} greedy answers: {learned.repetition[0]:.1%} in the base model's | | "
        f"{learned.repetition[1]:.1%} |",
        f"| refusals of {refusals.harmful} harmful requests: {refusals.refused_base} by the base model | | {refusals.refused_enhanced} ({refusals.refusals_kept} "
        "kept) |",
        *(["", *(f"Note: {caveat}" for caveat in learned.caveats)] if learned.caveats else []),
        "",
        f"Taught by {', '.join(learned.teachers)}: {learned.answers} answers to {learned.questions} questions, {learned.options.steps} steps; "
        f"{learned.model} in {learned.dtype}, seed {learned.options.seed}.",
    ]
    return "\n".join(lines)


def _chosen(learned: Learned) -> str:
    gains, layers = learned.enhancement.gains, len(learned.enhancement.edited_layers())
    return (
        f"{gains.shape[1]} directions a layer in {layers} layers, gains from {float(gains.min()):+.2f} to {float(gains.max()):+.2f} "
        f"({learned.scale:.2f} times the learnt ones, by measured damage)."
    )


def _rows(taught: Taught) -> list[str]:
    rows = [
        f"| {taught.name}: share of the distance to the teacher that is gone ({taught.prompts} prompts) | 1 | {taught.removed.short} |",
        f"| {taught.name}: likelihood of the teacher's answers | {taught.teacher_likelihood:+.3f} | {taught.likelihood.short} |",
    ]
    if taught.references is not None:
        rows.append(
            f"| {taught.name}: likelihood of {taught.references.n} reference answers | {taught.teacher_references:+.3f} | "
            f"{taught.references.short} |"
        )
    return rows


def samples_table(learned: Learned) -> str:
    """Every answer that was read, base and enhanced, none picked."""
    parts = []
    for sample in learned.samples:
        parts += [
            f"**{_line(sample.prompt)}**",
            "",
            f"*base*: {_line(sample.base)}",
            "",
            f"*enhanced*: {_line(sample.enhanced)}",
            "",
        ]
    return "\n".join(parts)


def _line(text: str) -> str:
    return " ".join(text.split())


def learned_summary(learned: Learned) -> dict[str, Any]:
    """Everything but the tensors of the directions, for JSON."""
    plain = {
        name: value
        for name, value in vars(learned).items()
        if name not in ("enhancement", "taught", "samples", "seconds")
    }
    for name in ("damage", "refusals", "options"):
        plain[name] = asdict(plain[name])
    plain["taught"] = [asdict(t) for t in learned.taught]
    plain["samples"] = [asdict(s) for s in learned.samples]
    plain["gains"] = [[round(g, 9) for g in row] for row in learned.enhancement.gains.tolist()]
    return plain
