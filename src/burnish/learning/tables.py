"""What was learnt, as Markdown and as JSON."""

from dataclasses import asdict
from typing import Any

from burnish.learning.learning import Learned, Taught


def learned_table(found: Learned) -> str:
    """Effect, cost and how they were measured, in a few lines."""
    damage, refusals = found.damage, found.refusals
    lines = [
        f"**Left alone**: {found.reason}." if found.abstained else _chosen(found),
        "",
        "| on held-out prompts, nats per token | the teacher itself | enhanced |",
        "|---|---|---|",
        *(row for taught in found.taught for row in _rows(taught)),
        f"| KL on {damage.kl.n} everyday and protect prompts (budget {found.options.budget:g}) | | {damage.kl.mean:.4f} "
        f"[{damage.kl.low:.4f}, {damage.kl.high:.4f}] |",
        f"| its 95th percentile and root mean square over tokens | | {damage.p95:.3f}, {damage.rms:.3f} |",
        f"| repeated 4-grams in {len(found.samples)} greedy answers: {found.repetition[0]:.1%} in the base model's | | "
        f"{found.repetition[1]:.1%} |",
        f"| refusals of {refusals.asked} harmful requests: {refusals.base} by the base model | | {refusals.enhanced} ({refusals.kept} "
        "kept) |",
        "",
        f"Taught by {', '.join(found.teachers)}: {found.answers} answers to {found.questions} questions, {found.options.steps} steps, about "
        f"{found.forward_tokens:,} tokens; {found.model} in {found.dtype}, seed {found.options.seed}, {found.seconds:.0f} s.",
    ]
    return "\n".join(lines)


def _chosen(found: Learned) -> str:
    gains, layers = found.enhancement.gains, len(found.enhancement.edited_layers())
    return (
        f"{gains.shape[1]} directions a layer in {layers} layers, gains from {float(gains.min()):+.2f} to {float(gains.max()):+.2f} "
        f"({found.scale:.2f} times the learnt ones, by measured damage)."
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


def samples_table(found: Learned) -> str:
    """Every answer that was read, base and enhanced, none picked."""
    parts = []
    for sample in found.samples:
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


def learned_summary(found: Learned) -> dict[str, Any]:
    """Everything but the tensors of the directions, for JSON."""
    plain = {name: value for name, value in vars(found).items() if name not in ("enhancement", "taught", "samples")}
    for name in ("damage", "refusals", "options"):
        plain[name] = asdict(plain[name])
    plain["taught"] = [asdict(t) for t in found.taught]
    plain["samples"] = [asdict(s) for s in found.samples]
    plain["gains"] = [[round(g, 9) for g in row] for row in found.enhancement.gains.tolist()]
    return plain
