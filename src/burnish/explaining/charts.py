"""The charts of a page: how well a direction separates prompts over depth, what an edit's gains are, where its effect comes from, and
what other strengths would do.

Every function takes facts and returns a chart whose data are the rows of its table. A title says what to see.
"""

from math import floor
from typing import Any

import altair as alt

from burnish.explaining.chart_parts import DIAMOND, LAYER, chosen_rule, data, in_series, layer_axis, lines, zero_rule
from burnish.explaining.drawing import HEIGHT, AnyChart, finished, ink
from burnish.explaining.facts import Attribution, DirectionFacts, DoseCurve, Explanation
from burnish.explaining.formats import label, number


def separation(facts: DirectionFacts) -> AnyChart:
    """AUROC on held-out prompts over depth, with what shuffled labels reach."""
    mine, null = "held-out prompts", "shuffled labels (95th percentile)"
    rows: list[dict[str, Any]] = [{LAYER: q.layer, mine: q.auroc, null: q.null_auroc} for q in facts.quality]
    lowest = min(min(q.auroc, 0.5) for q in facts.quality)
    scale = alt.Scale(domain=[floor(lowest * 10) / 10, 1])
    y = alt.Y("value:Q", title="AUROC (0.5: chance, 1: perfect)", scale=scale)
    band = data(rows).mark_area(color=ink("second"), opacity=0.13, aria=False)
    band = band.encode(x=layer_axis(), y=alt.Y(f"{null}:Q", scale=scale), y2=alt.datum(0.5))
    best = facts.at_chosen
    return finished(
        band + lines(rows, [mine, null], y) + chosen_rule(facts.layer),
        rows,
        "Separation of held-out prompts: above the band it is more than chance",
        f"AUROC on held-out prompts at each of {len(rows)} layers; {number(best.auroc)} at the chosen layer {facts.layer}, "
        f"where shuffled labels reach {number(best.null_auroc)}.",
    )


def gains(facts: Explanation) -> AnyChart:
    """Gains by layer and direction, as asked and as the stored weights realise them."""
    names = [f"{i + 1}. {label(d.name)}" for i, d in enumerate(facts.directions)]
    rows: list[dict[str, Any]] = [
        {LAYER: g.layer, "series": names[g.direction], "asked": g.asked, "realised": g.realised} for g in facts.gains
    ]
    look, x = in_series(names), layer_axis("layer edited", len(facts.directions[0].quality))
    y = alt.Y("asked:Q", title="gain (1: the component doubles)")
    base = data(rows).encode(x=x, y=y, color=look["color"])
    asked = base.mark_line(aria=False, strokeWidth=1.2).encode(strokeDash=look["strokeDash"]) + base.mark_point(
        filled=True, size=40, opacity=1
    ).encode(shape=look["shape"])
    realised = data(rows).transform_filter("isValid(datum.realised)").mark_tick(
        thickness=1.5, color=ink("ink"), orient="horizontal", width=11
    ).encode(x=x, y=alt.Y("realised:Q"))  # fmt: skip
    stored = any(g.realised is not None for g in facts.gains)
    ticks = " (ticks: what the stored weights do)" if stored else ""
    largest = max(facts.gains, key=lambda g: abs(g.asked))
    return finished(
        zero_rule() + asked + realised,
        rows,
        f"How much each layer strengthens {'the direction' if len(names) == 1 else 'each direction'}{ticks}",
        f"Gains of {len(names)} direction(s); the largest, {number(largest.asked, signed=True)}, in layer {largest.layer}.",
        height=HEIGHT + 14 * len(names),
    )


def layer_parts(facts: Attribution) -> AnyChart:
    """What each layer's edit does to the likelihood: first order as bars, measured as points."""
    rows: list[dict[str, Any]] = [
        {LAYER: p.layer, "first order": p.first_order, "measured": p.measured} for p in facts.layers
    ]
    bars = data(rows).mark_bar(color=ink("accent"), opacity=0.55).encode(
        x=layer_axis("layer edited"), y=alt.Y("first order:Q", title="log likelihood (nats per token)")
    )  # fmt: skip
    measured = data(rows).transform_filter("isValid(datum.measured)").mark_point(
        **DIAMOND
    ).encode(x=layer_axis("layer edited"), y=alt.Y("measured:Q"))  # fmt: skip
    top = max(facts.layers, key=lambda p: abs(p.first_order))
    return finished(
        bars + measured + zero_rule(),
        rows,
        "Which layers carry the effect: bars by first order, diamonds measured with that layer alone",
        f"Parts of {len(rows)} layers in the effect; the largest, {number(top.first_order, signed=True)} nats per token, in "
        f"layer {top.layer}.",
    )


def dose_curve(facts: DoseCurve) -> AnyChart:
    """Damage, and the likelihood of good answers, against the strength, each with its 95 % interval."""
    parts = [("damage (KL) on everyday prompts", [d.damage for d in facts.doses])]
    likely = [d.likelihood for d in facts.doses if d.likelihood is not None]
    if likely:
        parts.append((f"change of the {facts.aim.replace(' per token', '')}", likely))
    names = [name for name, _ in parts]
    rows: list[dict[str, Any]] = [
        {"strength": d.multiple, "series": name, "value": i.mean, "low": i.low, "high": i.high}
        for name, intervals in parts
        for d, i in zip(facts.doses, intervals, strict=True)
    ]
    look = in_series(names)
    x = alt.X("strength:Q", title="multiple of the gains", scale=alt.Scale(nice=False), axis=alt.Axis(format="~g"))
    base = data(rows).encode(x=x, color=look["color"])
    curves = base.mark_line(strokeWidth=1.6, aria=False).encode(
        y=alt.Y("value:Q", title="nats per token"), strokeDash=look["strokeDash"]
    )
    points = base.mark_point(filled=True, size=46, opacity=1).encode(y=alt.Y("value:Q"), shape=look["shape"])
    spans = base.mark_rule(strokeWidth=1.2, aria=False).encode(y=alt.Y("low:Q"), y2=alt.Y2("high:Q"))
    at_one = facts.at_one
    gained = "" if at_one.likelihood is None else f"; good answers {number(at_one.likelihood.mean, signed=True)}"
    return finished(
        zero_rule() + spans + curves + points,
        rows,
        "The same edit at other strengths: stop where damage grows and the likelihood no longer does",
        f"At the strength written, damage {number(at_one.damage.mean)}{gained} nats per token.",
        height=230 + 16 * len(names),
    )
