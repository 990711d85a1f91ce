"""Ways to choose the strength, in one run: closed form, 200 trials of Optuna, the published factor, a grid. SmolLM2, creative writing.

python benchmarks/search.py [--trials 200] [--prompts 8]

Each way chooses on the tuning half within the budget; then all are scaled to the same measured damage there, and the table shows the
half not used for choosing. Forward tokens: tokens through all blocks, so that what is reused from below an edit is not counted; a
backward pass, which computes no weight gradients here, counts as another forward pass. The directions are given to all ways alike
and not counted.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import measure
import torch

BUDGET = 0.01
GRID = tuple(round(0.1 * 1.35**i, 3) for i in range(12))


class Counter:
    """Block-tokens of forward passes, and of backward passes through the same blocks."""

    def __init__(self, model: Any) -> None:
        self.blocks = list(model.network.get_submodule(model.anatomy.stack))
        self.tokens = self.last = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        def count(module: Any, arguments: Any, keywords: Any) -> None:
            hidden = arguments[0] if arguments else keywords["hidden_states"]
            if module.forward.__name__ != "pass_on":  # a block that hands on what lies below the first edit
                self.tokens += hidden.shape[0] * hidden.shape[1]
                self.last = hidden.shape[0] * hidden.shape[1] * len(self.blocks)

        def backward(*arguments: Any, **keywords: Any) -> Any:
            self.tokens += self.last
            return original(*arguments, **keywords)

        original = torch.autograd.grad
        handles = [block.register_forward_pre_hook(count, with_kwargs=True) for block in self.blocks]
        torch.autograd.grad = backward  # type: ignore[assignment]
        started = time.perf_counter()
        self.tokens = 0
        try:
            yield
        finally:
            torch.autograd.grad = original
            self.seconds = time.perf_counter() - started
            for handle in handles:
                handle.remove()

    @property
    def forward_tokens(self) -> int:
        return round(self.tokens / len(self.blocks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--answer-tokens", type=int, default=32)
    arguments = parser.parse_args()
    from burnish import FindOptions, ModelOptions, TuneOptions, find_direction, load, load_domain, load_general
    from burnish.maths.intervals import interval
    from burnish.model.scoring import Candidate
    from burnish.tuning.closed_form import at_budget, closed_form
    from burnish.tuning.material import Speciality, directions_of, gather, template
    from burnish.tuning.objective import measure as measured
    from burnish.tuning.search import SearchSpace, enhancement_of, evaluator, search

    model = load("smollm2-135m", ModelOptions(dtype="float32"))
    options = TuneOptions(prompts=arguments.prompts, answer_tokens=arguments.answer_tokens, budget=BUDGET, steps=2)
    speciality = Speciality(load_domain("creative-writing"))
    plan = template(directions_of(model, speciality, options))
    found = find_direction(
        model, enhance=speciality.domain.enhance, normal=load_general("en").prompts, options=FindOptions()
    )
    material = gather(model, [speciality], options)
    ones = torch.ones(plan.gains.shape)
    choices = {"two directions a layer": replace(plan, gains=ones)}
    for share in (40, 50, 60, 70, 80):
        one = replace(found, layer=share * model.anatomy.layers // 100).enhancement(1.0)
        choices[f"one direction, from {share} %"] = one
    counter, chosen, rows = Counter(model), {}, []

    def keep(name: str, enhancement: Any) -> None:
        chosen[name] = (enhancement, counter.forward_tokens, counter.seconds)
        print(f"{name}: {counter.forward_tokens} tokens, {counter.seconds:.0f} s", file=sys.stderr, flush=True)

    with counter.counting():
        result = closed_form(model, plan, [], material, options)
    assert result.best is not None
    keep("closed form", result.best.enhancement)
    published = choices["one direction, from 60 %"]
    with counter.counting():
        scaled = at_budget(model, [published], material, options)[0]
    keep("published factor, scaled to the budget", scaled)
    with counter.counting():
        points = measured(model, material, [Candidate("grid", published.scaled(f)) for f in GRID])
    inside = [(p.effect, f) for p, f in zip(points, GRID, strict=True) if p.within(options)]
    keep("published factor, best of 12 on a grid", published.scaled(max(inside)[1] if inside else 0.0))
    space = SearchSpace(choices)
    with counter.counting():
        searched = search(
            space, evaluator(model, material, options), trials=arguments.trials, seed=0, identity="benchmark"
        )
    best = None if searched.chosen is None else enhancement_of(searched.chosen.parameters, space)
    keep(f"Optuna, {arguments.trials} trials ({searched.pruned} pruned early)", best or published.scaled(0.0))

    equal = at_budget(model, [plan_ for plan_, _, _ in chosen.values()], material, replace(options, movement=1e9))
    reports = measured(model, material, [Candidate("c", e) for e in equal], report=True)
    base_tokens = chosen["closed form"][1]
    for (name, (_, tokens, seconds)), point in zip(chosen.items(), reports, strict=True):
        rows.append(
            f"| {name} | {interval(point.rows)} | {point.likelihood[0]:+.3f} | {point.likelihood[1]:+.3f} | {point.kl:.4f} | "
            f"{tokens:,} | {tokens / base_tokens:.2f} | {seconds:.0f} |"
        )
    head = (
        "| way | effect, report half | references: likelihood | self-made: likelihood | KL, report half | forward tokens | times closed "
        "form | s |\n|---|---|---|---|---|---|---|---|"
    )
    about = (
        f"SmolLM2-135M-Instruct, float32, creative-writing, budget {BUDGET} nats per token, {options.prompts} general, {options.prompts} own "
        f"prompts and at most {options.prompts} pairs of each kind to choose on. All scaled to the same damage on the tuning half."
    )
    stored = [measure.Measurement(name, [seconds], 0.0) for name, (_, _, seconds) in chosen.items()]
    facts = {name: {"forward_tokens": tokens} for name, (_, tokens, _) in chosen.items()}
    command = f"python benchmarks/search.py --trials {arguments.trials} --prompts {options.prompts} --answer-tokens {options.answer_tokens}"
    measure.write("search", command, stored, facts, about + "\n\n" + head + "\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
