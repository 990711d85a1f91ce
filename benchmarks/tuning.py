"""Tuned gains against the published setting at the same damage, on every packaged domain and on mixes: SmolLM2.

python benchmarks/tuning.py [--model smollm2-135m] [--dtype float32] [--prompts 12] [--budget 0.01]

Everything is chosen on the tuning half; the table shows the other half. "Published" is one direction from the prompts with one
factor in all layers, scaled on the tuning half to the damage that the tuned gains have there.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

RESULTS = Path(__file__).with_name("results")
MIXES = (
    "0.6 creative-writing + 0.4 education",
    "0.5 technical-documentation + 0.5 business-communication",
    "0.6 education + 0.4 medical-scientific",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--answer-tokens", type=int, default=48)
    parser.add_argument("--budget", type=float, default=0.01)
    arguments = parser.parse_args()
    import torch

    from burnish import (
        FindOptions,
        Mix,
        ModelOptions,
        TuneOptions,
        find_direction,
        load,
        load_domain,
        load_general,
        tune,
    )
    from burnish.evaluation.effect import effect_from
    from burnish.model.scoring import Candidate
    from burnish.prompts.domains import domain_names
    from burnish.tuning.closed_form import at_budget
    from burnish.tuning.material import Speciality, gather, random_template
    from burnish.tuning.objective import measure
    from burnish.tuning.tables import tuned_summary, tuned_table

    model = load(arguments.model, ModelOptions(dtype=arguments.dtype))
    options = TuneOptions(
        budget=arguments.budget, prompts=arguments.prompts, answer_tokens=arguments.answer_tokens, random_directions=4
    )
    command = (
        f"python benchmarks/tuning.py --dtype {arguments.dtype} --prompts {options.prompts} --answer-tokens "
        f"{options.answer_tokens} --budget {options.budget:g}"
    )
    rows = [
        "| speciality | KL tuned, published | aim | tuned: above random | likelihood | published: above random | likelihood |",
        "|---|---|---|---|---|---|---|",
    ]
    pages, stored = [], {"command": command, "tuned": {}}
    for text in (*domain_names(), *MIXES):
        started = time.perf_counter()
        mix = Mix.parse(text)
        found = tune(model, domain=mix, options=options)
        specialities = [Speciality(load_domain(term.name), term.weight) for term in mix.terms]
        material = gather(model, specialities, options)
        plan = None
        for s in specialities:
            direction = find_direction(
                model,
                enhance=s.domain.enhance,
                normal=load_general(s.domain.language).prompts,
                options=FindOptions(),
            )
            own = direction.enhancement(s.weight)
            plan = own if plan is None else plan.combined(own)
        load_used = 1.0 if found.chosen is None else max(0.05, found.chosen.kl / options.budget)
        same = replace(options, budget=options.budget * load_used, movement=1e9)
        flat = [replace(random_template(plan, i), gains=torch.ones_like(plan.gains)) for i in range(4)]
        scaled = at_budget(model, [plan, *flat], material, same)
        points = measure(model, material, [Candidate("c", p) for p in (found.enhancement, *scaled)], report=True)
        tuned, published, randoms = points[0], points[1], points[2:]
        for number, aim in enumerate(material.aims):
            drifts = torch.stack([torch.sub(*r.changes[number]) for r in randoms])
            ours, theirs = (
                effect_from(p.changes[number], aim.kind, p.tokens[number], drifts) for p in (tuned, published)
            )
            left = " (left alone)" if found.abstained else ""
            rows.append(
                f"| {text}{left} | {tuned.kl:.4f}, {published.kl:.4f} | {aim.name}: {aim.kind} | {short(ours.above)} | "
                f"{short(ours.likelihood)} | {short(theirs.above)} | {short(theirs.likelihood)} |"
            )
            stored["tuned"].setdefault(text, {})[f"{aim.name}: {aim.kind}"] = {
                "tuned": asdict(ours),
                "published": asdict(theirs),
                "kl": [tuned.kl, published.kl],
            }
        stored["tuned"][text]["tuning"] = tuned_summary(found)
        pages.append(f"## {text}\n\n{tuned_table(found)}")
        print(f"{text}: {time.perf_counter() - started:.0f} s\n{pages[-1]}", file=sys.stderr, flush=True)
        write(command, rows, pages, stored)
    print("\n".join(rows))


def short(interval) -> str:
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def write(command: str, rows: list[str], pages: list[str], stored: dict) -> None:
    """After every speciality, so that an interrupted run leaves what it measured."""
    RESULTS.mkdir(exist_ok=True)
    intro = (
        f"Made by `{command}`. Report half: prompts and answers that were not used for choosing; nats per token with 95 % intervals.\n"
        "Both methods are measured above the same random directions at the published row's damage."
    )
    (RESULTS / "tuning.md").write_text("\n\n".join([intro, "\n".join(rows), *pages]) + "\n", encoding="utf-8")
    (RESULTS / "tuning.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
