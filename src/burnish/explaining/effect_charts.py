"""Charts of the edit: its gains, where the effect comes from, and what it costs."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from burnish.evaluation.effect import Effect
from burnish.evaluation.evaluating import Evaluation
from burnish.explaining.chart_parts import DIAMOND, LAYER, data, in_series, layer_axis, zero_rule
from burnish.explaining.drawing import HEIGHT, AnyChart, finished, ink
from burnish.explaining.facts import Attribution, DoseCurve, Explanation
from burnish.explaining.formats import label, labels, number

SIGNIFICANT = 0.05


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


def effects(named_effects: Sequence[tuple[str, Effect]]) -> AnyChart:
    """Effect with intervals for every kind of pairs. found: (name, effect)."""
    names = labels([name for name, _ in named_effects], 40)
    measures = ("above random", "shift", "likelihood")
    rows: list[dict[str, Any]] = [
        {"pairs": name, "series": measure, "mean": i.mean, "low": i.low, "high": i.high, "count": i.n}
        for name, (_, e) in zip(names, named_effects, strict=True)
        for measure, i in zip(measures, (e.above, e.shift, e.likelihood), strict=True)
    ]
    look = in_series(list(measures))
    base = data(rows).encode(
        y=alt.Y("pairs:N", sort=None, title=None, axis=alt.Axis(labelLimit=230)),
        yOffset=alt.YOffset("series:N", sort=list(measures)),
        color=look["color"],
    )
    whiskers = base.mark_rule(strokeWidth=1.6, aria=False).encode(x=alt.X("low:Q"), x2="high:Q")
    points = base.mark_point(filled=True, size=52, opacity=1).encode(
        x=alt.X("mean:Q", title="nats per token, with 95 % interval"), shape=look["shape"]
    )
    return finished(
        zero_rule(horizontal=False) + whiskers + points,
        rows,
        "Did good answers gain? Intervals that stay right of zero: yes",
        "Effects with 95 % intervals: "
        + "; ".join(
            f"{n} {number(e.above.mean, signed=True)} above random"
            for n, (_, e) in zip(names, named_effects, strict=True)
        )
        + " nats per token.",
        height=90 + 62 * len(named_effects),
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


def statistics(evaluation: Evaluation) -> AnyChart:
    """Changes of text statistics with intervals; each row has a scale of its own."""
    rows: list[dict[str, Any]] = []
    for s in evaluation.statistics:
        change = s.change
        rows.append(
            {
                "statistic": label(s.name),
                "base": float(s.base),
                "enhanced": float(s.enhanced),
                "change": change.mean,
                "low": change.low,
                "high": change.high,
                "p adjusted": s.p_adjusted,
            }
        )
    y = alt.Y("statistic:N", sort=None, title=None)
    scaled = data(rows).transform_calculate(
        span="max(abs(datum.low), abs(datum.high), 1e-12)",
        a="datum.low / datum.span",
        b="datum.high / datum.span",
        m="datum.change / datum.span",
        certain=f"datum['p adjusted'] < {SIGNIFICANT} ? 'p below {SIGNIFICANT}' : 'may be chance'",
        words="format(datum.base, '.3~r') + ' → ' + format(datum.enhanced, '.3~r')",
    )
    states = [f"p below {SIGNIFICANT}", "may be chance"]
    x = alt.X("m:Q", title="change (each row has its own scale)", scale=alt.Scale(domain=[-1.05, 1.9]))
    x = x.axis(values=[0], labelExpr="'no change'", grid=True)
    colour = alt.Color("certain:N", scale=alt.Scale(domain=states, range=[ink("accent"), ink("muted")]))
    whiskers = scaled.mark_rule(strokeWidth=1.6, aria=False).encode(x=alt.X("a:Q"), x2="b:Q", y=y, color=colour)
    points = scaled.mark_point(size=50, opacity=1, strokeWidth=1.6).encode(
        x=x, y=y, color=colour, shape=alt.Shape("certain:N", scale=alt.Scale(domain=states, range=["circle", "cross"]))
    )
    words = scaled.mark_text(align="left", aria=False).encode(x=alt.datum(1.15), y=y, text="words:N")
    changed = sum(s.p_adjusted < SIGNIFICANT for s in evaluation.statistics)
    return finished(
        zero_rule(horizontal=False) + whiskers + points + words,
        rows,
        "How generated answers changed: circles are beyond chance, crosses may not be",
        f"Changes of {len(rows)} text statistics with 95 % intervals; {changed} beyond chance.",
        height=80 + 24 * len(rows),
    )
