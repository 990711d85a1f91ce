"""Charts of one direction: how well it separates prompts over depth, and what it is like.

Every function takes facts and returns a chart whose data are the rows of its table. A title says what to see.
"""

from math import floor
from typing import Any

import altair as alt

from burnish.explaining.chart_parts import DIAMOND, LAYER, chosen_rule, data, layer_axis, lines, zero_rule
from burnish.explaining.drawing import AnyChart, finished, ink
from burnish.explaining.facts import DirectionFacts, Likenesses
from burnish.explaining.formats import label, labels, number


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
