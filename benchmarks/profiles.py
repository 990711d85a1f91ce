"""Profiles of simulated people: how fast taste is learned, whose profile changes, where the enhancement leads, and what it costs. SmolLM2.

python benchmarks/profiles.py [--people 40] [--prompts 36] [--answers 4] [--enhanced 3]

People have coefficients drawn from a standard normal, half of them zero, and choose between the base model's own sampled answers (cached) by
the logistic model on their real features. Two thirds of the prompts are asked about, the others kept for prediction. "Asked at random" and
"proposed" (largest expected information) see the same answers. The ceiling is what the true coefficients predict: choices are noisy.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import measure
import torch
from torch import Tensor

COUNTS = (4, 8, 16, 32, 64)
TOKENS = 48
BUDGET = 0.01
STRONG = 4.0  # times the profile's own dose: enough to reach the budget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--prompts", type=int, default=36)
    parser.add_argument("--answers", type=int, default=4)
    parser.add_argument("--enhanced", type=int, default=3, help="people whose enhancement is measured too")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from burnish import ModelOptions, load
    from burnish.naming import named_directions, names_in
    from burnish.personal.features import features_of, units_of

    started = time.perf_counter()
    model = load("smollm2-135m", ModelOptions(dtype="float32"))
    names = names_in("en")
    reading = named_directions(model, names)
    units = units_of(model, reading, "en")
    groups = answers(model, arguments.prompts, arguments.answers)
    rows = features_of(model, reading, units, [row for group in groups for row in group])
    features = torch.tensor([[row[name] for name in names] for row in rows], dtype=torch.float64)
    pairs = within(groups)
    cut = sum(len(list(combinations(group, 2))) for group in groups[: 2 * len(groups) // 3])
    asked, kept = pairs[:cut], pairs[cut:]
    print(f"{len(rows)} answers read after {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)

    tastes = drawn_tastes(arguments.people, len(names), arguments.seed)
    learned = {way: recovery(features, asked, kept, tastes, way) for way in ("random", "proposed")}
    ceiling = mean([accuracy(taste, features, kept, taste) for taste in tastes])
    untouched = leakage(names, rows, asked, tastes[:2])
    led = [led_where(model, names, groups, features, kept, taste) for taste in tastes[: arguments.enhanced]]
    command = (
        f"python benchmarks/profiles.py --people {arguments.people} --prompts {arguments.prompts} --answers {arguments.answers} "
        f"--enhanced {arguments.enhanced}"
    )
    spread = float(torch.stack([features[i] - features[j] for i, j in pairs]).std(0).mean())
    about = (
        f"SmolLM2-135M-Instruct, float32. {arguments.people} simulated people, {len(names)} named directions, {len(rows)} sampled answers to "
        f"{len(groups)} everyday prompts, {TOKENS} tokens each; {len(asked)} pairs to ask about and {len(kept)} pairs on other prompts. Two answers "
        f"to one prompt differ by {spread:.2f} units (mean standard deviation over the features). Predicted from the true coefficients: "
        f"{ceiling:.3f}.\n\nAnother person's profile is byte for byte the same after all choices of the first: {'yes' if untouched else 'NO'}."
    )
    facts = {"learned": learned, "ceiling": ceiling, "untouched": untouched, "led": led, "names": names}
    seconds = [measure.Measurement("all", [time.perf_counter() - started], 0.0)]
    measure.write("profiles", command, seconds, facts, f"{about}\n\n{learned_table(learned)}\n\n{led_table(led)}")


def answers(model: Any, prompts: int, count: int) -> list[list[Any]]:
    """Sampled answers of the base model, by prompt; empty ones are left out."""
    from burnish import load_general
    from burnish.evaluation.material import Answered, base_answers

    chosen = load_general("en").held_out.spread(prompts)
    drawn = [base_answers(model, chosen, TOKENS, seed=1000 * n) for n in range(count)]
    groups = [
        [Answered(prompt, answer) for answer in own if answer]
        for prompt, own in zip(chosen.prompts, zip(*drawn, strict=True), strict=True)
    ]
    return [group for group in groups if len(group) > 1]


def within(groups: list[list[Any]]) -> list[tuple[int, int]]:
    """All pairs of answers to the same prompt, as indices into all answers."""
    found, start = [], 0
    for group in groups:
        found += list(combinations(range(start, start + len(group)), 2))
        start += len(group)
    return found


def drawn_tastes(people: int, names: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(people, names, generator=generator, dtype=torch.float64)
    return list(values * (torch.rand(people, names, generator=generator) < 0.5))


def recovery(
    features: Tensor, asked: list[tuple[int, int]], kept: list[tuple[int, int]], tastes: list[Tensor], way: str
) -> list[dict[str, float]]:
    """Means over people after each count of choices."""
    from burnish.personal.learning import information
    from burnish.personal.learning import learned as believed

    differences = torch.stack([features[i] - features[j] for i, j in asked])
    found: list[list[dict[str, float]]] = [[] for _ in COUNTS]
    for number, taste in enumerate(tastes):
        generator = torch.Generator().manual_seed(1 + number)
        outcomes = (torch.rand(len(asked), generator=generator) < (differences @ taste).sigmoid()).double()
        order = torch.randperm(len(asked), generator=generator).tolist()
        zero, seen = torch.zeros_like(taste), []
        for count in range(1, max(COUNTS) + 1):
            if way == "proposed" and seen:
                belief = believed(differences[seen], outcomes[seen], zero)
                told = information(belief, differences)
                told[seen] = -1
                seen.append(int(told.argmax()))
            else:
                seen.append(next(i for i in order if i not in seen))
            if count in COUNTS:
                belief = believed(differences[seen], outcomes[seen], zero)
                found[COUNTS.index(count)].append(
                    {
                        "correlation": correlation(belief.mean, taste),
                        "error": float((belief.mean - taste).norm() / taste.norm().clamp_min(1e-9)),
                        "covered": float(((belief.mean - taste).abs() < 1.96 * belief.deviation).double().mean()),
                        "accuracy": accuracy(belief.mean, features, kept, taste),
                    }
                )
    return [{key: mean([row[key] for row in rows]) for key in rows[0]} for rows in found]


def accuracy(guess: Tensor, features: Tensor, pairs: list[tuple[int, int]], taste: Tensor) -> float:
    """Expected share of a person's (noisy) choices that a guess of the coefficients predicts; a draw counts half."""
    rows = torch.stack([features[i] - features[j] for i, j in pairs])
    chance = (rows @ taste).sigmoid()
    side = torch.sign(rows @ guess)
    return float(torch.where(side > 0, chance, torch.where(side < 0, 1 - chance, 0.5)).mean())


def correlation(one: Tensor, other: Tensor) -> float:
    if float(one.std()) == 0 or float(other.std()) == 0:
        return 0.0
    return float(torch.corrcoef(torch.stack([one, other]))[0, 1])


def leakage(names: list[str], rows: list[dict[str, float]], asked: list[tuple[int, int]], tastes: list[Tensor]) -> bool:
    """Whether one person's profile and choices keep every byte while another one chooses."""
    from burnish.personal.choosing import relearned
    from burnish.personal.profile import Choice
    from burnish.personal.store import Store, new_profile

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        people = [store.new_person()[0] for _ in tastes]
        for person in people:
            store.add(person, new_profile("mine"))

        def choose(person: str, taste: Tensor, pairs: list[tuple[int, int]]) -> None:
            for i, j in pairs:
                likes = sum(float(t) * (rows[i][n] - rows[j][n]) for n, t in zip(names, taste, strict=True))
                store.update(person, "mine", "1 choice", relearned, [Choice(rows[i], rows[j], float(likes > 0), "f")])

        choose(people[1], tastes[1], asked[:8])
        before = store.profile(people[1], "mine").as_json(), store.choices(people[1], "mine")
        choose(people[0], tastes[0], asked[:32])
        return (store.profile(people[1], "mine").as_json(), store.choices(people[1], "mine")) == before


def led_where(
    model: Any, names: list[str], groups: list[list[Any]], features: Tensor, kept: list[tuple[int, int]], taste: Tensor
) -> dict[str, Any]:
    """A person's enhancement (true coefficients) on prompts not asked about: does what they prefer become likelier, and at what cost?

    Shift: mean change of log p(preferred) - log p(other) per token, nats; beside it the same directions with equal gains in all layers
    (the sign of the coefficient, published method), and random directions, all scaled to the same budget.
    """
    from burnish import load_general
    from burnish.artifacts.direction import Enhancement
    from burnish.evaluation.material import answered_items, damage_prompts, greedy_answers
    from burnish.maths.intervals import interval
    from burnish.model.scoring import Candidate, score
    from burnish.personal.enhancing import MEASURED, editing_directions, plan_of, scales_within
    from burnish.personal.profile import Coefficient, Profile
    from burnish.tuning.material import random_template
    from burnish.tuning.objective import damage_on

    started = time.perf_counter()
    own = {n: Coefficient(float(t), 0.0, "choices") for n, t in zip(names, taste, strict=True)}
    profile = Profile("simulated", "simulated", coefficients=own, budget=BUDGET)
    directions = editing_directions(model, profile.active)
    plan = plan_of(model, profile, directions)
    equal = torch.tensor([own[n].mean for n in directions]).expand_as(plan.gains).contiguous()
    plans: dict[str, Enhancement] = {"dosed": plan, "equal gains": replace(plan, gains=equal.clamp_min(-1))}
    for number in range(3):
        plans[f"random {number}"] = replace(random_template(plan, number), gains=plan.gains)
    strong = [replace(p, gains=(STRONG * p.gains).clamp_min(-1)) for p in plans.values()]
    scales = scales_within(model, strong, BUDGET, "en")
    scaled = [p.scaled(s) for p, s in zip(strong, scales, strict=True)]
    flat = [row for group in groups for row in group]
    used = sorted({i for pair in kept for i in pair})
    scores = score(model, answered_items(model, [flat[i] for i in used]), [Candidate("c", p) for p in scaled])
    base = torch.stack([s.log_probability.mean() for s in scores.base])
    utility = features @ taste
    better = [(i, j) if float(utility[i]) > float(utility[j]) else (j, i) for i, j in kept]
    place = {answer: n for n, answer in enumerate(used)}
    shifts = {}
    for name, rows in zip(plans, scores.candidates, strict=True):
        change = torch.stack([s.log_probability.mean() for s in rows]) - base
        shifts[name] = interval(torch.stack([change[place[i]] - change[place[j]] for i, j in better]))
    report = greedy_answers(model, damage_prompts(load_general("en"), MEASURED)[1], MEASURED, None)
    kl = interval(damage_on(model, report, scaled[0]))
    fitted = interval(damage_on(model, report, plan.scaled(scales_within(model, [plan], BUDGET, "en")[0])))
    print(
        f"enhancement: {time.perf_counter() - started:.0f} s, {json.dumps({k: str(v) for k, v in shifts.items()})}",
        file=sys.stderr,
        flush=True,
    )
    drift = mean([v.mean for k, v in shifts.items() if k.startswith("random")])
    return {
        "directions": len(directions),
        "dosed": str(shifts["dosed"]),
        "equal": str(shifts["equal gains"]),
        "random": drift,
        "kl at the budget, report half": str(kl),
        "kl of the profile, report half": str(fitted),
    }


def mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))


def learned_table(learned: dict[str, list[dict[str, float]]]) -> str:
    head = (
        "| choices | way | correlation with the true coefficients | relative error | inside the 95 % interval | held-out choices predicted |\n"
        "|---|---|---|---|---|---|"
    )
    lines = [
        f"| {count} | {way} | {row['correlation']:.2f} | {row['error']:.2f} | {row['covered']:.0%} | {row['accuracy']:.3f} |"
        for number, count in enumerate(COUNTS)
        for way, row in ((way, rows[number]) for way, rows in learned.items())
    ]
    return "\n".join([head, *lines])


def led_table(led: list[dict[str, Any]]) -> str:
    head = (
        f"Enhancements from true coefficients, all scaled to {BUDGET} nats per token on the tuning half of everyday prompts; shift of log p(preferred) - "
        "log p(other) per token on answers to prompts not asked about.\n\n"
        "| person | directions | dosed | equal gains | random directions | KL at the budget, report half | KL of the profile itself, report half |\n"
        "|---|---|---|---|---|---|---|"
    )
    lines = [
        f"| {n} | {row['directions']} | {row['dosed']} | {row['equal']} | {row['random']:+.4f} | {row['kl at the budget, report half']} | "
        f"{row['kl of the profile, report half']} |"
        for n, row in enumerate(led, 1)
    ]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    main()
