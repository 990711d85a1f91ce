"""Tuned gains against the published setting at the same damage, on every packaged domain and on mixes: SmolLM2.

python benchmarks/tuning.py [--model smollm2-135m] [--dtype float32] [--prompts 10] [--budget 0.01] [--only NAME ...]

Everything is chosen on the tuning half; the table shows the other half. "Published" is one direction from the prompts with one
factor in all layers, scaled on the tuning half to the damage that the tuned gains have there.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
RANDOMS = 4
MIXES = (
    "0.6 creative-writing + 0.4 education",
    "0.5 technical-documentation + 0.5 business-communication",
    "0.6 education + 0.4 medical-scientific",
)
HEAD = (
    "| speciality | KL tuned, published | aim | tuned: above random | likelihood | published: above random | likelihood | beats the null |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--answer-tokens", type=int, default=32)
    parser.add_argument("--budget", type=float, default=0.01)
    parser.add_argument("--only", nargs="*", help="these specialities or mixes")
    arguments = parser.parse_args()
    from burnish import ModelOptions, TuneOptions, load
    from burnish.prompts.domains import packaged_names

    model = load(arguments.model, ModelOptions(dtype=arguments.dtype))
    options = TuneOptions(budget=arguments.budget, prompts=arguments.prompts, answer_tokens=arguments.answer_tokens)
    command = (
        f"python benchmarks/tuning.py --dtype {arguments.dtype} --prompts {options.prompts} --answer-tokens "
        f"{options.answer_tokens} --budget {options.budget:g}"
    )
    known = measured(command)
    for text in arguments.only or (*packaged_names(), *MIXES):
        started = time.perf_counter()
        known[text] = one(model, text, options)
        print(f"{text}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        write(command, {name: known[name] for name in (*packaged_names(), *MIXES) if name in known})
    print((RESULTS / "tuning.md").read_text(encoding="utf-8"))


def measured(command: str) -> dict[str, Any]:
    """What an earlier run with the same settings has measured: `--only` adds to it and replaces its own rows."""
    if not (RESULTS / "tuning.json").exists():
        return {}
    stored = json.loads((RESULTS / "tuning.json").read_text(encoding="utf-8"))
    return stored["tuned"] if stored["command"] == command else {}


def one(model: Any, text: str, options: Any) -> dict[str, Any]:
    """The numbers of one speciality or mix."""
    import torch

    from burnish import Mix, load_domain
    from burnish.artifacts.direction import Enhancement
    from burnish.evaluation.effect import effect_from
    from burnish.maths.intervals import interval_above
    from burnish.model.scoring import Candidate
    from burnish.tuning.aims import Speciality, directions_of, gather, random_template
    from burnish.tuning.closed_form import at_budget, closed_form
    from burnish.tuning.mixing import interference
    from burnish.tuning.objective import measure

    specialities = [Speciality(load_domain(term.name), term.weight) for term in Mix.parse(text).terms]
    owned = [(s, d) for s in specialities for d in directions_of(model, s, options)]
    plan = Enhancement.of([d for _, d in owned])
    material = gather(model, specialities, options)
    randoms = [random_template(plan, i) for i in range(RANDOMS)]
    result = closed_form(model, plan, randoms, material, options)
    tuned = plan if result.best is None else result.best.enhancement
    used = options.budget if result.best is None else max(1e-4, result.best.point.kl)
    assert result.first is not None
    above = interval_above(result.first.point.rows[None], torch.stack([p.rows for p in result.null]))
    flat = [replace(r, gains=torch.ones_like(r.gains)) for r in randoms]
    same = replace(options, budget=used, movement=1e9)
    scaled = at_budget(model, [published(model, specialities), *flat], material, same)
    points = measure(model, material, [Candidate("c", p) for p in (tuned, *scaled)], report=True)
    numbers: dict[str, Any] = {
        "beats_null": above.low > 0 and result.best is not None,
        "above_null_on_tuning_half": asdict(above),
        "ridge": result.ridge,
        "gains": tuned.gains.tolist(),
        "kl": {"tuned": points[0].kl, "published": points[1].kl},
        "aims": {},
    }
    for number, aim in enumerate(material.aims):
        drifts = torch.stack([torch.sub(*p.changes[number]) for p in points[2:]])
        ours, theirs = (effect_from(p.changes[number], aim.kind, p.tokens[number], drifts) for p in points[:2])
        numbers["aims"][f"{aim.name}: {aim.kind}"] = {"tuned": asdict(ours), "published": asdict(theirs)}
    if len(specialities) > 1:
        numbers["interference"] = interference(model, tuned, [s.domain.name for s, _ in owned], material)
    return numbers


def published(model: Any, specialities: list[Any]) -> Any:
    """One direction, one factor in all layers, for each speciality."""
    from burnish import FindOptions, find_direction, load_general

    plan = None
    for s in specialities:
        normal = load_general(s.domain.language).prompts
        direction = find_direction(model, enhance=s.domain.enhance, normal=normal, options=FindOptions())
        enhancement = direction.enhancement(s.weight)
        plan = enhancement if plan is None else plan.combined(enhancement)
    return plan


def write(command: str, known: dict[str, Any]) -> None:
    """After every speciality, so that an interrupted run leaves what it measured."""
    from burnish.tuning.tuned_tables import interference_rows

    RESULTS.mkdir(exist_ok=True)
    intro = (
        f"Made by `{command}`. Report half: answers that were not used for choosing; nats per token with 95 % intervals. Both methods "
        "are measured above the same random directions at the same damage on the tuning half."
    )
    rows = "\n".join([HEAD, *(row for text, numbers in known.items() for row in table_rows(text, numbers))])
    tables = []
    for text, numbers in known.items():
        if "interference" in numbers:
            title = f"Likelihood of good answers under the gains of one speciality alone and of all together, {text}:"
            tables += [title, "\n".join(interference_rows(numbers["interference"]))]
    (RESULTS / "tuning.md").write_text("\n\n".join([intro, rows, *tables]) + "\n", encoding="utf-8")
    stored = {"command": command, "tuned": known}
    (RESULTS / "tuning.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def table_rows(text: str, numbers: dict[str, Any]) -> list[str]:
    from burnish.maths.intervals import Interval

    damage = f"{numbers['kl']['tuned']:.4f}, {numbers['kl']['published']:.4f}"
    beats = "yes" if numbers["beats_null"] else "no: left alone"
    return [
        f"| {text} | {damage} | {aim} | "
        + " | ".join(
            Interval(**both[method][figure]).short
            for method in ("tuned", "published")
            for figure in ("above", "likelihood")
        )
        + f" | {beats} |"
        for aim, both in numbers["aims"].items()
    ]


if __name__ == "__main__":
    main()
