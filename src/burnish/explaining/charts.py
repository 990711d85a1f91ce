"""Charts of one direction: how well it separates prompts over depth, which parts write it, and what it is like.

Every function takes facts and returns a chart whose data are the rows of its table. A title says what to see.
"""

from json import dumps
from math import ceil, floor
from typing import Any

import altair as alt

from burnish.explaining.chart_parts import (
    DIAMOND,
    LAYER,
    chosen_rule,
    data,
    in_series,
    layer_axis,
    lines,
    signed_map,
    zero_rule,
)
from burnish.explaining.drawing import SERIES, AnyChart, finished, ink
from burnish.explaining.facts import DirectionFacts, Likenesses
from burnish.explaining.formats import label, labels, number

LAYERS_DRAWN = 32  # rows and columns of the cosine map at most; every second or third layer beyond
BINS = 24
RIDGE = 0.85  # height of the highest bar, in distances between the sets' base lines


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


def distance(facts: DirectionFacts) -> AnyChart:
    """d' over depth."""
    name = "distance of the means"
    rows: list[dict[str, Any]] = [{LAYER: q.layer, name: q.d_prime} for q in facts.quality]
    y = alt.Y(f"{name}:Q", title="d′ (standard deviations)", scale=alt.Scale(zero=True))
    base = data(rows).encode(x=layer_axis(), y=y)
    drawn = base.mark_line(color=ink("accent"), strokeWidth=1.6, aria=False) + base.mark_point(
        filled=True, color=ink("accent"), size=26, opacity=1
    )
    best = facts.at_chosen
    return finished(
        drawn + chosen_rule(facts.layer),
        rows,
        "Distance between specialised and everyday prompts, in spreads of either",
        f"d-prime at each of {len(rows)} layers; {number(best.d_prime)} standard deviations at the chosen layer.",
    )


def stability(facts: DirectionFacts) -> AnyChart:
    """Cosine between the directions of two halves of the prompts, and with the chosen layer's direction."""
    halves, chosen = "two halves of the prompts", "with the chosen layer"
    split = [
        q.split_half_cosine for q in facts.quality if q.split_half_cosine is not None
    ]  # none of a learnt direction
    rows: list[dict[str, Any]] = [
        {LAYER: q.layer, **({halves: q.split_half_cosine} if split else {}), chosen: q.cosine_with_chosen}
        for q in facts.quality
    ]
    smallest = min(0.0, *split, *(q.cosine_with_chosen for q in facts.quality))
    y = alt.Y("value:Q", title="cosine", scale=alt.Scale(domain=[floor(smallest * 5) / 5, 1]))
    best = facts.at_chosen
    return finished(
        lines(rows, [halves, chosen] if split else [chosen], y) + chosen_rule(facts.layer),
        rows,
        "Would other prompts find the same direction? Near 1: yes" if split else "How alike the layers' directions are",
        f"Cosines at each of {len(rows)} layers"
        + (
            f"; {number(best.split_half_cosine)} between two halves of the prompts at the chosen layer."
            if best.split_half_cosine is not None
            else "."
        ),
    )


def cosine_map(facts: DirectionFacts) -> AnyChart:
    """Cosine between the directions of every two layers, each pair once."""
    count = len(facts.cosine_map)
    kept = range(0, count, ceil(count / LAYERS_DRAWN))
    rows: list[dict[str, Any]] = [
        {LAYER: i, "other layer": j, "cosine": facts.cosine_map[i][j]} for i in kept for j in kept if j <= i
    ]
    return finished(
        signed_map(rows, layer_axis(), alt.Y("other layer:O"), (LAYER, "other layer", "cosine"), 1.0),
        rows,
        "Which layers share a direction: the stronger the colour, the more alike",
        f"Cosines between the directions of {len(kept)} of {count} layers, each with each.",
        height=400,
        pivot=(LAYER, "other layer", "cosine"),
    )


def writers(facts: DirectionFacts) -> AnyChart:
    """Shares of the separation at the chosen layer by the part of the model that wrote them."""
    rows: list[dict[str, Any]] = [{LAYER: w.layer, "part": w.part, "share": w.share} for w in facts.writers]
    parts = [p for p in ("attention", "feed-forward", "embedding") if any(w.part == p for w in facts.writers)]
    colours = {"attention": "accent", "feed-forward": "second", "embedding": "third"}
    fills = {"attention": ink("accent"), "feed-forward": "transparent", "embedding": "transparent"}
    bars = (
        data(rows)
        .mark_bar(strokeWidth=1)
        .encode(
            x=layer_axis("layer that writes"),
            xOffset=alt.XOffset("part:N", scale=alt.Scale(domain=parts[:2])),
            y=alt.Y("share:Q", title="share of the separation", axis=alt.Axis(format="%")),
            fill=alt.Fill("part:N", scale=alt.Scale(domain=parts, range=[fills[p] for p in parts])),
            stroke=alt.Stroke("part:N", scale=alt.Scale(domain=parts, range=[ink(colours[p]) for p in parts])),
        )
    )
    top = max(facts.writers, key=lambda w: w.share)
    return finished(
        bars + zero_rule(),
        rows,
        "Who writes the separation: filled bars are attention, hollow ones feed-forward",
        f"Shares of the separation at layer {facts.layer} by part and layer. The largest, {top.share:.0%}, comes from {top.part}"
        + (f" in layer {top.layer}." if top.layer >= 0 else "."),
    )


def projections(facts: DirectionFacts) -> AnyChart:
    """A histogram for each held-out set, one above the other on the same scale."""
    sets = [s for s in facts.projected if s.values]
    values = [v for s in sets for v in s.values]
    low, high = min(values), max(values)
    step = (high - low) / BINS or 1.0
    names = labels([s.name for s in sets])[::-1]  # the first set on top
    drawn: list[dict[str, Any]] = []
    for place, found in enumerate(reversed(sets)):
        counts = [0] * BINS
        for value in found.values:
            counts[min(BINS - 1, floor((value - low) / step))] += 1
        drawn += [
            {
                "set": names[place],
                "from": low + i * step,
                "to": low + (i + 1) * step,
                "prompts": n,
                "base": place,
                "top": place + RIDGE * n / max(counts),
            }
            for i, n in enumerate(counts)
            if n
        ]
    lookup = "".join(f"datum.value == {i} ? {dumps(name)} : " for i, name in enumerate(names)) + "''"
    y = alt.Y(
        "base:Q",
        title=None,
        scale=alt.Scale(domain=[0, len(names)], nice=False),
        axis=alt.Axis(values=list(range(len(names))), labelExpr=lookup, labelLimit=170, labelBaseline="bottom"),
    )
    words = "datum.set + ': ' + datum.prompts + ' from ' + format(datum.from, '.2f') + ' to ' + format(datum.to, '.2f')"
    bars = data(drawn).transform_calculate(words=words).mark_bar(binSpacing=1).encode(
        description=alt.Description("words:N"),
        x=alt.X("from:Q", bin="binned", title="projection (0: mean of normal prompts, 1: their spread)"),
        x2="to:Q",
        y=y,
        y2="top:Q",
        color=alt.Color("set:N", scale=alt.Scale(domain=names[::-1], range=[ink(s) for s in SERIES]), legend=None),
    )  # fmt: skip
    means = "; ".join(
        f"{name} {number(sum(s.values) / len(s.values), signed=True)}"
        for name, s in zip(names[::-1], sets, strict=True)
    )
    return finished(
        bars,
        [{key: row[key] for key in ("set", "from", "to", "prompts")} for row in drawn],
        "Held-out prompts on the direction: the less the sets overlap, the better",
        f"Histograms of the projections of held-out prompts. Means: {means}.",
        height=70 + 60 * len(names),
    )


def scatter(facts: DirectionFacts) -> AnyChart:
    """Held-out prompts on two principal components."""
    names = labels([s.name for s in facts.projected])
    first, second = "first component", "second component"
    rows: list[dict[str, Any]] = [
        {"series": name, first: x, second: y}
        for name, s in zip(names, facts.projected, strict=True)
        for x, y in s.points
    ]
    look = in_series(names)
    points = data(rows).mark_point(size=34, strokeWidth=1.4).encode(
        x=alt.X(f"{first}:Q", title="first principal component", scale=alt.Scale(zero=False)),
        y=alt.Y(f"{second}:Q", title="second principal component", scale=alt.Scale(zero=False)),
        color=look["color"],
        shape=look["shape"],
    )  # fmt: skip
    return finished(
        points,
        rows,
        "The same prompts without the direction's help: do the sets form groups?",
        f"Scatter plot of {len(rows)} held-out prompts of {len(names)} sets on two principal components.",
        height=300,
    )


def likenesses(facts: Likenesses) -> AnyChart:
    """Cosines with other named directions, the band of chance, and the joint decomposition."""
    ordered = sorted(facts.named, key=lambda n: -abs(n.cosine))
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "kind": n.kind,
            "positive means": label(n.poles[0]) if n.poles else None,
            "cosine": n.cosine,
            "coefficient": n.coefficient,
        }
        for name, n in zip(labels([n.name for n in ordered]), ordered, strict=True)
    ]
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=170))
    kinds = ["domain", "axis"]
    band = data([{"low": -facts.chance, "high": facts.chance}]).mark_rect(color=ink("muted"), opacity=0.16, aria=False)
    x = alt.X("cosine:Q", title="cosine; diamonds: coefficient in the joint decomposition")
    bars = data(rows).mark_bar(strokeWidth=1.2, height={"band": 0.62}).encode(
        x=x,
        y=y,
        fill=alt.Fill("kind:N", scale=alt.Scale(domain=kinds, range=[ink("accent"), "transparent"])),
        stroke=alt.Stroke("kind:N", scale=alt.Scale(domain=kinds, range=[ink("accent"), ink("third")])),
    )  # fmt: skip
    joint = data(rows).mark_point(**DIAMOND)
    joint = joint.encode(x=alt.X("coefficient:Q"), y=y)
    return finished(
        band.encode(x=alt.X("low:Q"), x2="high:Q") + bars + joint + zero_rule(horizontal=False),
        rows,
        "What the direction is like: inside the grey band a likeness is chance",
        f"Cosines with {len(rows)} named directions; 95 % of random directions stay below {number(facts.chance)}. The most alike: "
        f"{rows[0]['name']}, {number(rows[0]['cosine'], signed=True)}.",
        height=90 + 24 * len(rows),
    )
