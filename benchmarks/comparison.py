"""Every packaged domain on SmolLM2: methods at equal damage with intervals, the null, dose curves, and interference.

python benchmarks/comparison.py [--model smollm2-135m] [--dtype float32]
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
INTERFERING = "a direction a layer, upper half"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--answer-tokens", type=int, default=48)
    parser.add_argument("--random-directions", type=int, default=12)
    arguments = parser.parse_args()
    from burnish import (
        EvaluateOptions,
        FindOptions,
        ModelOptions,
        compare,
        find_direction,
        load,
        load_domain,
        load_general,
    )
    from burnish.evaluation.evaluation_tables import comparison_table
    from burnish.evaluation.pairs import reference_pairs
    from burnish.model.scoring import Candidate
    from burnish.prompts.domains import packaged_names

    model = load(arguments.model, ModelOptions(dtype=arguments.dtype))
    options = EvaluateOptions(
        prompts=arguments.prompts, answer_tokens=arguments.answer_tokens, random_directions=arguments.random_directions
    )
    command = f"python benchmarks/comparison.py --dtype {arguments.dtype} --random-directions {options.random_directions} --prompts {options.prompts} --answer-tokens {options.answer_tokens}"
    pages, stored = [f"Made by `{command}`."], {"command": command, "domains": {}}
    candidates, pairs = {}, {}
    for name in packaged_names():
        domain = load_domain(name)
        comparison = compare(model, domain, options)
        pages.append(f"## {name}\n\n{comparison_table(comparison)}")
        stored["domains"][name] = asdict(comparison)
        scale = next(r.scale for r in comparison.rows if r.method == INTERFERING)
        direction = find_direction(
            model,
            enhance=domain.enhance,
            normal=load_general(domain.language).prompts,
            options=FindOptions(scope="per-layer"),
            held_out=(domain.held_out, load_general(domain.language).held_out),
        )
        candidates[name] = Candidate(name, direction.enhancement(scale, layers="50%.."))
        pairs[name] = reference_pairs(model, domain, options, None)
        print(pages[-1], file=sys.stderr, flush=True)
    pages.insert(1, null_summary(stored))
    table = interference(model, candidates, pairs, options)
    stored["interference"] = {a: {b: asdict(e) for b, e in row.items()} for a, row in table.items()}
    pages.append(
        f"## Interference\n\nChange of the log likelihood per token of each domain's reference answers under each domain's enhancement "
        f"('{INTERFERING}', each at its budget).\n\n{interference_table(table)}"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "comparison.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "comparison.md").write_text("\n\n".join(pages) + "\n", encoding="utf-8")
    print("\n\n".join(pages))


def interference(
    model: Any, candidates: dict[str, Any], pairs: dict[str, Any], options: Any
) -> dict[str, dict[str, Any]]:
    """Effect of each domain's candidate (outer key) on each domain's pairs (inner key)."""
    import torch

    from burnish.evaluation.effect import effect_of
    from burnish.evaluation.pairs import pair_items
    from burnish.model.scoring import score

    table: dict[str, dict[str, Any]] = {name: {} for name in candidates}
    for other, measured_on in pairs.items():
        scores = score(model, pair_items(model, measured_on.report), list(candidates.values()))
        none = torch.zeros(1, len(measured_on.report), dtype=torch.float64)
        for name, row in zip(candidates, scores.candidates, strict=True):
            table[name][other] = effect_of(scores.base, row, measured_on.kind, none, seed=options.seed)
    return table


def interference_table(table: dict[str, dict[str, Any]]) -> str:
    """Likelihood of each domain's reference answers (columns) under each domain's enhancement (rows)."""
    names = list(table)
    lines = ["| enhancement \\ measured on | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for name in names:
        cells = [f"{table[name][other].likelihood.mean:+.4f}" for other in names]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def null_summary(stored: dict) -> str:
    """What the random directions' own intervals say over all domains and kinds of pairs."""
    from burnish.maths.intervals import holm

    intervals = [(f"{name}, {kind}", i) for name, d in stored["domains"].items() for kind, i in d["null"].items()]
    apart = [name for name, i in intervals if i["low"] > 0 or i["high"] < 0]
    adjusted = min(holm([i["p"] for _, i in intervals]))
    return (
        f"Random directions against other random directions: {len(intervals) - len(apart)} of {len(intervals)} intervals contain zero (the others: "
        f"{'; '.join(apart) or 'none'}); adjusted for looking at {len(intervals)} of them (Holm), the smallest p is {adjusted:.2f}."
    )


if __name__ == "__main__":
    main()
