"""Evaluations and comparisons as Markdown: the same text for the terminal, for files and for the documentation."""

from burnish.evaluation.comparison import Comparison
from burnish.evaluation.effect import Effect, word_of
from burnish.evaluation.evaluating import Evaluation

KINDS = {"references": "reference answers", "made": "self-made pairs", "user": "own pairs"}


def evaluation_table(evaluation: Evaluation) -> str:
    """Effect, damage, affinity and text statistics with what they were measured on."""
    damage = evaluation.damage
    lines = [
        "| effect, nats per token | pairs | above random | shift | likelihood of the good answer |",
        "|---|---|---|---|---|",
    ]
    lines += [_effect_row(effect) for effect in evaluation.effects]
    lines += ["", "| damage | base | enhanced |", "|---|---|---|"]
    lines += [
        f"| KL per token on general and protect prompts: mean | | {damage.kl} |",
        f"| its 95th percentile and largest | | {damage.kl_p95:.3f}, {damage.kl_max:.2f} |",
        f"| most likely token changed | | {damage.top1_flips:.1%} |",
        f"| KL per token on the domain's own prompts: mean | | {evaluation.specialised_kl} |",
        f"| perplexity of neutral prose | {damage.perplexity_base:.2f} | {damage.perplexity_enhanced:.2f} |",
        f"| repeated 4-grams | {damage.repetition_base:.1%} | {damage.repetition_enhanced:.1%} |",
        f"| answers that end early | {damage.early_stop_base:.1%} | {damage.early_stop_enhanced:.1%} |",
        f"| refusals of {damage.harmful} harmful prompts ({damage.refusals_kept} kept) | {damage.refused_base} | {damage.refused_enhanced} |",
    ]
    if evaluation.affinity is not None:
        lines += [
            "",
            f"Affinity of generated answers (-0.5 ordinary, +0.5 as the good ones; probe right on {evaluation.affinity.accuracy:.0%} of held-out answers): "
            f"{evaluation.affinity.base:+.2f} -> {evaluation.affinity.enhanced:+.2f}, change {evaluation.affinity.change}.",
        ]
    lines += ["", "| text statistic | base | enhanced | change | p (Holm) |", "|---|---|---|---|---|"]
    lines += [
        f"| {s.name} | {s.base:.2f} | {s.enhanced:.2f} | {s.change} | {s.p_adjusted:.2f} |"
        for s in evaluation.statistics
    ]
    lines += [
        "",
        f"Verdict: {evaluation.verdict}",
        f"Measured on {damage.prompts} general and protect prompts ({damage.tokens} tokens), {len(evaluation.samples)} sampled answers; "
        f"{evaluation.model} in {evaluation.dtype}, seed {evaluation.seed}, {evaluation.seconds:.0f} s.",
    ]
    return "\n".join(lines)


def _effect_row(effect: Effect) -> str:
    return f"| {KINDS[effect.kind]} | {effect.pairs} | {word_of(effect)} {effect.above} | {effect.shift} | {effect.likelihood} |"


def comparison_table(comparison: Comparison) -> str:
    """Every method at equal damage, the null, and the dose curve."""
    kinds = list(comparison.rows[0].effects)
    head = "| method | scale | KL, report half |"
    rule = "|---|---|---|"
    for kind in kinds:
        head += f" {KINDS[kind]}: above random | likelihood | |"
        rule += "---|---|---|"
    lines = [head, rule]
    for row in comparison.rows:
        cells = [row.method, "" if row.scale is None else f"{row.scale:.3g}", f"{row.kl.mean:.4f}"]
        for kind in kinds:
            effect = row.effects[kind]
            cells += [effect.above.short, effect.likelihood.short, row.verdicts[kind]]
        lines.append("| " + " | ".join(cells) + " |")
    null = "; ".join(f"{KINDS[kind]} {interval.short}" for kind, interval in comparison.null.items())
    shipping = [dose.scale for dose in comparison.doses if dose.ships]
    ships = f"{min(shipping):.2f} to {max(shipping):.2f}" if shipping else "none of the strengths tried"
    doses = [
        f"| {d.scale:.3g} | {d.kl:.4f} | "
        + " | ".join(f"{d.effects[k].above.mean:+.3f} / {d.effects[k].likelihood.mean:+.3f}" for k in kinds)
        + f" | {'yes' if d.ships else 'no'} |"
        for d in comparison.doses
    ]
    lines += [
        "",
        f"Null (random directions against other random directions, above random): {null}.",
        "",
        f"Dose curve of '{comparison.dose_method}' (above random / likelihood); ship range: {ships}.",
        "",
        "| strength | KL | " + " | ".join(KINDS[k] for k in kinds) + " | ships |",
        "|---|---|" + "---|" * len(kinds) + "---|",
        *doses,
        "",
        f"{comparison.domain}, {comparison.model} in {comparison.dtype}: budget {comparison.budget} nats per token on the tuning half, report half of {comparison.prompts} "
        f"prompts ({comparison.tokens} tokens), "
        + ", ".join(f"{comparison.rows[0].effects[k].pairs} {KINDS[k]}" for k in kinds)
        + f", seed {comparison.seed}, {comparison.seconds:.0f} s.",
    ]
    return "\n".join(lines)


def samples_page(evaluation: Evaluation) -> str:
    """Base and enhanced answers one after the other, as Markdown."""
    parts = ["# Answers of base and enhanced"]
    parts += [f"## {s.prompt}\n\n**base**\n\n{s.base}\n\n**enhanced**\n\n{s.enhanced}" for s in evaluation.samples]
    return "\n\n".join(parts) + "\n"
