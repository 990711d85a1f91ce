"""Tuning's answer as Markdown: for the terminal and for files."""

from typing import Any

from burnish.evaluation.effect import word_of
from burnish.evaluation.evaluation_tables import KINDS
from burnish.tuning.tuning import FrontierPoint, Tuned


def tuned_table(tuned: Tuned) -> str:
    """The choice, the null, the report half, the frontier, and for several specialities who disturbs whom."""
    options = tuned.options
    lines = [f"**Left alone**: {tuned.reason}." if tuned.abstained else _chosen_line(tuned)]
    null = ", ".join(f"{effect:+.3f}" for effect in tuned.null)
    lines += [
        "",
        f"Effect on the tuning half above random directions tuned in the same way: {tuned.above_null} (theirs: {null}).",
    ]
    if tuned.reported is not None:
        report = tuned.reported
        lines += [
            "",
            f"On the half not used for choosing: KL {report.kl.mean:.4f} nats per token on general and protect prompts (budget "
            f"{options.budget:g}, {report.overshoot:+.0%}), 95th percentile {report.kl_p95:.3f}; {report.special_kl:.4f} on the "
            f"speciality's own prompts (bound {options.movement:g}).",
            "",
            "| effect, nats per token | pairs | above random | shift | likelihood of the good answer |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {name.rpartition(': ')[0]}: {KINDS[e.kind]} | {e.pairs} | {word_of(e)} {e.above} | {e.shift} | {e.likelihood} |"
            for name, e in report.effects.items()
        ]
        lines += ["", *_frontier(tuned)]
    if tuned.interference is not None:
        lines += [
            "",
            "Likelihood of the good answers under the gains of one speciality alone, and under all together:",
            "",
            *interference_rows(tuned.interference),
        ]
    lines += [
        f"\nDirections {a.first} and {a.second} are alike (cosine {a.cosine:.2f}, effective rank {a.effective_rank:.1f}): "
        "their gains apart mean little. Join them with --merge 0.9."
        for a in tuned.alike
    ]
    aims = "; ".join(
        f"{name}: {KINDS[kind]}, weight {weight:g}, {a} + {b} pairs" for name, kind, weight, a, b in tuned.aims
    )
    ridge = "" if tuned.ridge is None else f", ridge {tuned.ridge:g}"
    lines += [
        "",
        f"Aimed at {aims}. Closed form, {tuned.steps} steps{ridge}; {tuned.model} in {tuned.dtype}, seed {options.seed}.",
    ]
    return "\n".join(lines)


def _chosen_line(tuned: Tuned) -> str:
    gains = tuned.enhancement.gains
    layers = tuned.enhancement.edited_layers()
    text = f"Gains from {float(gains.min()):+.2f} to {float(gains.max()):+.2f} in {len(layers)} layers, {gains.shape[1]} directions a layer"
    if tuned.perplexity_ratio is not None and tuned.repetition is not None:
        base, enhanced = tuned.repetition
        text += f"; perplexity of neutral prose times {tuned.perplexity_ratio:.3f}, repeated 4-grams {base:.1%} -> {enhanced:.1%}"
    return text + "."


def _frontier(tuned: Tuned) -> list[str]:
    names = [f"{name}: {KINDS[kind]}" for name, kind, *_ in tuned.aims]
    ships = tuned.ship_range
    strengths = "none of the strengths" if ships is None else f"{ships[0]:g} to {ships[1]:g} times the chosen gains"
    return [
        f"Frontier (report half); ship range: {strengths}.",
        "",
        "| times the chosen gains | KL | own prompts' KL | "
        + " | ".join(f"{n}: likelihood / shift" for n in names)
        + " | ships |",
        "|---|---|---|" + "---|" * len(names) + "---|",
        *(_frontier_row(point) for point in tuned.frontier),
    ]


def _frontier_row(point: FrontierPoint) -> str:
    cells = [f"{a:+.3f} / {b or 0:+.3f}" for a, b in zip(point.likelihood, point.shift, strict=True)]
    row = " | ".join([f"{point.multiple:g}", f"{point.kl:.4f}", f"{point.special_kl:.4f}", *cells])
    return f"| {row} | {'yes' if point.ships else 'no'} |"


def interference_rows(table: dict[str, dict[str, float]]) -> list[str]:
    """Whose gains (rows) do what to whose good answers (columns)."""
    columns = list(next(iter(table.values())))
    return [
        "| gains of | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
        *(f"| {name} | " + " | ".join(f"{row[c]:+.4f}" for c in columns) + " |" for name, row in table.items()),
    ]


def tuned_summary(tuned: Tuned) -> dict[str, Any]:
    """Everything but the tensors of the directions, for JSON."""
    values = {name: value for name, value in vars(tuned).items() if name not in ("enhancement", "seconds")}
    summary = {name: _plain(value) for name, value in values.items()}
    summary["gains"] = [[round(g, 9) for g in row] for row in tuned.enhancement.gains.tolist()]
    summary["ship_range"] = tuned.ship_range
    return summary


def _plain(value: Any) -> Any:
    from dataclasses import asdict, is_dataclass

    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value
