"""Profiles of simulated people: how fast taste is learned, where the enhancement leads, and what it costs.

python benchmarks/profiles.py [--people 60] [--prompts 36] [--answers 4] [--enhanced 3]

People have coefficients drawn from a standard normal, half of them zero, and choose between the base model's own
sampled answers (cached) by the logistic model on their real features. Two thirds of the prompts are asked about, the
others kept for prediction. "Asked at random" and "proposed" (largest expected information) see the same answers. The
ceiling is what the true coefficients predict: choices are noisy. Enhancements are measured on everyday prompts that
neither the directions nor the scale have seen, and by the person's own taste on answers sampled under them.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import measure
import torch
from torch import Tensor

COUNTS = (4, 8, 16, 32, 64)
TOKENS = 48
BUDGET = 0.01
LEARNED = 32  # choices behind the profile whose enhancement is measured
DRAWN = 3  # answers a prompt, under the profile and without it
STRONG = 4.0  # times the profile's own dose: enough to reach the budget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--prompts", type=int, default=36)
    parser.add_argument("--answers", type=int, default=4)
    parser.add_argument("--enhanced", type=int, default=3, help="people whose enhancement is measured too")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from burnish import ModelOptions, load
    from burnish.catalogue import named_directions, names_in
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
    first_kept = 2 * len(groups) // 3
    cut = sum(len(list(combinations(group, 2))) for group in groups[:first_kept])
    asked, held_out = pairs[:cut], pairs[cut:]
    print(f"{len(rows)} answers read after {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)

    tastes = drawn_tastes(arguments.people, len(names), arguments.seed)
    learned = {way: recovery(features, asked, held_out, tastes, way) for way in ("random", "proposed")}
    held_out_rows = differences(features, held_out)
    ceiling = mean([accuracy(taste, held_out_rows, taste) for taste in tastes])
    untouched = leakage(names, rows, asked, tastes[:2])
    show = Shown(model, reading, units, groups, first_kept, features)
    led = [led_where(show, n, taste, asked) for n, taste in enumerate(tastes[: arguments.enhanced])]
    command = (
        f"python benchmarks/profiles.py --people {arguments.people} --prompts {arguments.prompts} "
        f"--answers {arguments.answers} --enhanced {arguments.enhanced}"
    )
    spread = float(differences(features, pairs).std(0).mean())
    about = (
        f"SmolLM2-135M-Instruct, float32. {arguments.people} simulated people, {len(names)} named directions, {len(rows)} "
        f"sampled answers to {len(groups)} everyday prompts, {TOKENS} tokens each; {len(asked)} pairs to ask about and "
        f"{len(held_out)} pairs on other prompts. Two answers to one prompt differ by {spread:.2f} units (mean standard deviation "
        f"over the features). Predicted from the true coefficients: {ceiling:.3f}; a coin: 0.500, log loss 0.693.\n\n"
        "Another person's profile is byte for byte the same after all choices of the first: "
        f"{'yes' if untouched else 'NO'}."
    )
    facts = {"learned": learned, "ceiling": ceiling, "untouched": untouched, "led": led, "names": names}
    seconds = [measure.Measurement("all", [time.perf_counter() - started], 0.0)]
    measure.write("profiles", command, seconds, facts, f"{about}\n\n{learned_table(learned)}\n\n{led_table(led)}")


def answers(model: Any, prompts: int, count: int) -> list[list[Any]]:
    """Sampled answers of the base model, by prompt; empty ones are left out."""
    from burnish import load_general
    from burnish.evaluation.pairs import Answered, base_answers

    chosen = load_general("en").held_out.spread(prompts)
    drawn = [base_answers(model, chosen, TOKENS, seed=1000 * n) for n in range(count)]
    groups = [
        [Answered(prompt, answer) for answer in sampled if answer]
        for prompt, sampled in zip(chosen.prompts, zip(*drawn, strict=True), strict=True)
    ]
    return [group for group in groups if len(group) > 1]


def within(groups: list[list[Any]]) -> list[tuple[int, int]]:
    """All pairs of answers to the same prompt, as indices into all answers."""
    pairs, start = [], 0
    for group in groups:
        pairs += list(combinations(range(start, start + len(group)), 2))
        start += len(group)
    return pairs


def drawn_tastes(people: int, names: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(people, names, generator=generator, dtype=torch.float64)
    return list(values * (torch.rand(people, names, generator=generator) < 0.5))


def differences(features: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    return torch.stack([features[i] - features[j] for i, j in pairs])


def choices_by(taste: Tensor, rows: Tensor, number: int) -> tuple[Tensor, list[int]]:
    """(what the person prefers of each pair, an order in which they are asked at random)."""
    generator = torch.Generator().manual_seed(1 + number)
    outcomes = (torch.rand(len(rows), generator=generator) < (rows @ taste).sigmoid()).double()
    return outcomes, torch.randperm(len(rows), generator=generator).tolist()


def recovery(
    features: Tensor, asked: list[tuple[int, int]], held_out: list[tuple[int, int]], tastes: list[Tensor], way: str
) -> list[dict[str, float]]:
    """Means over people after each count of choices."""
    from burnish.personal.preference_model import information, predicted
    from burnish.personal.preference_model import learned as believed

    rows, held_out_rows = differences(features, asked), differences(features, held_out)
    measures: list[list[dict[str, float]]] = [[] for _ in COUNTS]
    for number, taste in enumerate(tastes):
        outcomes, order = choices_by(taste, rows, number)
        chance = (held_out_rows @ taste).sigmoid()
        zero, seen = torch.zeros_like(taste), []
        for count in range(1, max(COUNTS) + 1):
            if way == "proposed" and seen:
                told = information(believed(rows[seen], outcomes[seen], zero), rows)
                told[seen] = -1
                seen.append(int(told.argmax()))
            else:
                seen.append(next(i for i in order if i not in seen))
            if count in COUNTS:
                belief = believed(rows[seen], outcomes[seen], zero)
                chances = predicted(belief, held_out_rows)
                measures[COUNTS.index(count)].append(
                    {
                        "correlation": correlation(belief.mean, taste),
                        "error": float((belief.mean - taste).norm() / taste.norm().clamp_min(1e-9)),
                        "covered": float(((belief.mean - taste).abs() < 1.96 * belief.deviation).double().mean()),
                        "accuracy": accuracy(belief.mean, held_out_rows, taste),
                        "loss": -float((chance * chances.log() + (1 - chance) * (1 - chances).log()).mean()),
                    }
                )
    return [{key: mean([row[key] for row in rows]) for key in rows[0]} for rows in measures]


def accuracy(guess: Tensor, rows: Tensor, taste: Tensor) -> float:
    """Expected share of a person's (noisy) choices that a guess of the coefficients predicts; a draw counts half."""
    chance = (rows @ taste).sigmoid()
    side = torch.sign(rows @ guess)
    return float(torch.where(side > 0, chance, torch.where(side < 0, 1 - chance, 0.5)).mean())


def correlation(one: Tensor, other: Tensor) -> float:
    if float(one.std()) == 0 or float(other.std()) == 0:
        return 0.0
    return float(torch.corrcoef(torch.stack([one, other]))[0, 1])


def leakage(names: list[str], rows: list[dict[str, float]], asked: list[tuple[int, int]], tastes: list[Tensor]) -> bool:
    """Whether one person's profile and choices keep every byte while another one chooses."""
    from burnish.personal.choice_update import relearned
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


@dataclass(frozen=True)
class Shown:
    """The answers that people see, and how they are read."""

    model: Any
    reading: dict[str, Any]
    units: Any
    groups: list[list[Any]]  # answers by prompt; the kept prompts are the last
    first_kept: int
    features: Tensor  # [answers, names]


def led_where(show: Shown, number: int, taste: Tensor, asked: list[tuple[int, int]]) -> dict[str, Any]:
    """Where a person's enhancement leads on prompts not asked about, and at what cost.

    Shift: mean change of log p(preferred) - log p(other) per token, nats, one mean a prompt, every plan scaled to the
    same budget: from what was learned, from the true coefficients, those with equal gains in all layers (the sign of
    the coefficient, published method), and random directions. Utility: the person's own, of answers sampled under the
    learned profile as it is exported, less that of the base model's answers, in standard deviations of the latter's.
    """
    from burnish.evaluation.pairs import answered_items
    from burnish.maths.intervals import interval
    from burnish.model.divergence import prompt_kl
    from burnish.model.scoring import Candidate, score
    from burnish.personal.enhancing import editing_directions, everyday_writes, plan_of, scaling
    from burnish.personal.preference_model import learned
    from burnish.personal.profile import Coefficient, Profile
    from burnish.steps import finish

    started, model, names = time.perf_counter(), show.model, list(show.reading)
    rows = differences(show.features, asked)
    outcomes, order = choices_by(taste, rows, number)
    belief = learned(rows[order[:LEARNED]], outcomes[order[:LEARNED]], torch.zeros_like(taste))
    directions, writes = editing_directions(model, names), everyday_writes(model, "en")

    def plan(values: Tensor) -> Any:
        coefficients = {n: Coefficient(float(v), 0.0, "choices") for n, v in zip(names, values, strict=True)}
        profile = Profile("simulated", "simulated", coefficients=coefficients, budget=BUDGET)
        return plan_of(model, profile, directions, writes=writes)

    mine, true = plan(belief.mean), plan(taste)
    equal = taste[taste != 0].float().expand_as(true.gains)
    strong = {"learned": mine, "true": true, "equal gains": replace(true, gains=equal)}
    strong |= {f"random {n}": replace(true, vectors=drawn(true.vectors, n)) for n in range(2)}
    plans = [mine, *(replace(p, gains=(STRONG * p.gains).clamp_min(-1)) for p in strong.values())]
    scales = finish(scaling(model, plans, BUDGET, "en"))
    profile, *full = [p.scaled(s) for p, s in zip(plans, scales, strict=True)]
    shifts = dict(zip(strong, shifted(show, full, taste), strict=True))
    candidates = [Candidate("damage", each) for each in (profile, full[0])]
    scores = score(model, answered_items(model, unseen(model)), candidates).candidates
    kl = [prompt_kl(each) for each in scores]
    gained = utility_gained(show, profile, taste)
    print(f"person {number}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return {
        "scale": scales[0],
        "utility": str(gained),
        "kl": str(interval(kl[0])),
        "kl at the budget": str(interval(kl[1])),
        **{name: str(shifts[name]) for name in ("learned", "true", "equal gains")},
        "random": mean([v.mean for k, v in shifts.items() if k.startswith("random")]),
    }


def drawn(like: Tensor, seed: int) -> Tensor:
    """Random unit vectors of the same shape."""
    generator = torch.Generator().manual_seed(2_000_003 + seed)
    return torch.nn.functional.normalize(torch.randn(like.shape, generator=generator), dim=-1)


def shifted(show: Shown, plans: list[Any], taste: Tensor) -> list[Any]:
    """The shift under each plan, an interval over the kept prompts."""
    from burnish.evaluation.pairs import answered_items
    from burnish.maths.intervals import interval
    from burnish.model.scoring import Candidate, score

    groups = show.groups[show.first_kept :]
    flat = [row for group in groups for row in group]
    utility = (show.features @ taste)[-len(flat) :]
    scores = score(show.model, answered_items(show.model, flat), [Candidate("c", p) for p in plans])
    base = torch.stack([s.log_probability.mean() for s in scores.base])
    intervals = []
    for rows in scores.candidates:
        change = torch.stack([s.log_probability.mean() for s in rows]) - base
        shifts, start = [], 0
        for group in groups:
            pairs = combinations(range(start, start + len(group)), 2)
            signed = [torch.sign(utility[i] - utility[j]) * (change[i] - change[j]) for i, j in pairs]
            shifts.append(torch.stack(signed).mean())
            start += len(group)
        intervals.append(interval(torch.stack(shifts)))
    return intervals


def unseen(model: Any) -> list[Any]:
    """The base model's answers to everyday prompts that neither the directions nor the scale are from."""
    from burnish import load_general
    from burnish.evaluation.pairs import damage_prompts, greedy_answers
    from burnish.personal.enhancing import MEASURED
    from burnish.prompts import PromptSet

    general = load_general("en")
    known = {text for half in damage_prompts(general, MEASURED) for text in half.texts}
    others = tuple(p for p in general.held_out.prompts if p.text not in known)
    return greedy_answers(model, PromptSet("unseen", others), MEASURED, None)


def utility_gained(show: Shown, plan: Any, taste: Tensor) -> Any:
    """Differences of utility, one an answer: sampled under the plan less the base model's with the same seed."""
    from burnish.evaluation.pairs import Answered
    from burnish.maths.intervals import interval
    from burnish.personal.features import features_of

    groups = show.groups[show.first_kept :]
    prompts = [group[0].prompt for group in groups]
    rows = []
    for _ in range(DRAWN):
        with show.model.enhanced(plan):
            drawn = show.model.samples([show.model.tokens(p) for p in prompts], TOKENS, seed=7 + len(rows))
        plain = show.model.samples([show.model.tokens(p) for p in prompts], TOKENS, seed=7 + len(rows))
        rows += [(Answered(p, a), Answered(p, b)) for p, a, b in zip(prompts, drawn, plain, strict=True) if a and b]
    read = features_of(show.model, show.reading, show.units, [row for pair in rows for row in pair])
    values = torch.tensor([list(row.values()) for row in read], dtype=torch.float64) @ taste
    return interval((values[::2] - values[1::2]) / values[1::2].std())


def mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))


def learned_table(learned: dict[str, list[dict[str, float]]]) -> str:
    head = (
        "| choices | way | correlation with the true coefficients | relative error | inside the 95 % interval | "
        "held-out choices predicted | log loss |\n|---|---|---|---|---|---|---|"
    )
    lines = [
        f"| {count} | {way} | {row['correlation']:.2f} | {row['error']:.2f} | {row['covered']:.0%} | {row['accuracy']:.3f} | "
        f"{row['loss']:.3f} |"
        for number, count in enumerate(COUNTS)
        for way, row in ((way, rows[number]) for way, rows in learned.items())
    ]
    return "\n".join([head, *lines])


def led_table(led: list[dict[str, Any]]) -> str:
    head = (
        f"Profiles learned from {LEARNED} choices at random, as they are exported: the scale that keeps {BUDGET} nats per "
        "token on both halves of the everyday prompts, KL on other everyday prompts, and the person's own utility of answers "
        "sampled under it, less that of the base model's answers (standard deviations; 95 % intervals).\n\n"
        "| person | scale | KL, prompts not seen | utility gained |\n|---|---|---|---|"
    )
    full = (
        "The same and other plans, all scaled up to the budget: shift of log p(preferred) - log p(other) per token on the base "
        "model's answers to prompts not asked about, and KL of the learned one on prompts not seen.\n\n"
        "| person | learned | true coefficients | equal gains | random directions | KL, prompts not seen |\n"
        "|---|---|---|---|---|---|"
    )
    first = [f"| {n} | {row['scale']:.2f} | {row['kl']} | {row['utility']} |" for n, row in enumerate(led, 1)]
    second = [
        f"| {n} | {row['learned']} | {row['true']} | {row['equal gains']} | {row['random']:+.4f} | {row['kl at the budget']} |"
        for n, row in enumerate(led, 1)
    ]
    return "\n".join([head, *first, "", full, *second])


if __name__ == "__main__":
    main()
