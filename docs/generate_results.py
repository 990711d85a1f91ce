"""Writes docs/results.md from what benchmarks/ measured.

python docs/generate_results.py [--check]
"""

import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("results.md")
RESULTS = PAGE.parents[1] / "benchmarks" / "results"
INTRODUCTION = """# Results

What learnt directions do and cost, on held-out prompts, half of them in the ways people really ask. Each table is made by the command below it; the full ones,
with intervals and every answer, are in [benchmarks/results](../benchmarks/results/). Nats per token:

- **KL**: how far everyday answers moved, mean over prompts.
- **references**: how much more likely good answers became that the model did not write.
- **shift**, **likelihood**: the same for the prompted model's own answers, above the base model's own answers, and alone.
- **removed**: the share of the distance to the prompted model that is gone.
- **repeated**: share of 4-grams that an answer had already, greedily and at temperature 0.7.
"""


def effect(results: dict[str, Any]) -> list[str]:
    """Rows of every domain: the prompt, learnt directions, the prompt turned down, nulls."""
    lines = [
        "| domain | | KL | references | shift | likelihood | removed | repeated |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for domain, result in results.items():
        base = "{:.2f}, {:.2f}".format(*result["repetition"]["base"])
        lines.append(f"| {domain} | base | | | | | | {base} |")
        for label, row in {**result["rows"], **result.get("null", {}), **result.get("baselines", {})}.items():
            if "abstained" in row:
                lines.append(f"| {domain} | {label} | left alone | | | | | |")
                continue
            repeated = "{:.2f}, {:.2f}".format(*result["repetition"][label]) if label in result["repetition"] else ""
            shown = f"**{label}**" if label == "learnt" else label
            lines.append(
                f"| {domain} | {shown} | {row['kl']['mean']:.3f} | {row['references']['mean']:+.3f} | {row['shift']:+.3f} | "
                f"{row['likelihood']['mean']:+.3f} | {row['removed']['mean']:.0%} | {repeated} |"
            )
    return lines


def page() -> str:
    parts = [INTRODUCTION]
    for file in sorted(RESULTS.glob("learning*.json")):
        stored = json.loads(file.read_text(encoding="utf-8"))
        if file.stem in ("learning-first", "learning-cost"):
            continue
        about = file.with_suffix(".md").read_text(encoding="utf-8").splitlines()[0]
        parts += [
            f"## {file.stem}\n",
            about,
            "",
            *effect(stored),
            "",
            f"[With intervals](../benchmarks/results/{file.stem}.md).",
            "",
        ]
    cost = RESULTS / "learning-cost.md"
    if cost.is_file():
        parts += ["## Time and memory\n", cost.read_text(encoding="utf-8").strip(), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    if "--check" in sys.argv:
        if PAGE.read_text(encoding="utf-8") != page():
            sys.exit("docs/results.md is out of date: run `make fix`.")
    else:
        PAGE.write_text(page(), encoding="utf-8")
