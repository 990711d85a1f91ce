"""Learnt directions against the expert's prompt, on prompts that nothing was chosen by: effect, cost, answers, and nulls.

python benchmarks/learning.py [MODEL] [--domain NAME ...] [--steps N] [--seed N] [--null] [--name FILE]

Writes benchmarks/results/FILE.json and .md, one row at a time, and FILE-answers/DOMAIN.md with every answer. A row that is there is not
measured again.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from burnish.checking import repetition
from burnish.evaluation.material import Answered, answered_items, base_answers, greedy_answers
from burnish.learning.learning import learn
from burnish.learning.subject import Subject, everyday_sets, subject_of
from burnish.learning.teacher import Expert
from burnish.maths.intervals import interval
from burnish.model.imitation import log_probabilities
from burnish.model.model import Model, load
from burnish.options import EvaluateOptions, LearnOptions, ModelOptions
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.domains import load_domain, packaged_names

RESULTS = Path(__file__).parent / "results"
PROMPTS, TOKENS = 24, 32  # held-out prompts of each kind of answers that are scored
REFERENCES, REFERENCE_TOKENS = 24, 48
READ, READ_TOKENS = 20, 56  # answers that are generated and read
STRENGTHS = (0.5, 1.0, 1.5)
Change = Callable[[], AbstractContextManager[Any]]


def bare(prompts: PromptSet) -> PromptSet:
    return PromptSet(prompts.name, tuple(Prompt(p.messages) for p in prompts.prompts))


class Material:
    """What every row of a domain is measured on: answers, and what base and teacher predict at their tokens."""

    def __init__(self, model: Model, subject: Subject, seed: int) -> None:
        self.model, self.subject, self.seed = model, subject, seed
        held = subject.held_out.spread(PROMPTS)
        asked = PromptSet(held.name, tuple(subject.teacher.prompt(p) for p in held.prompts))
        rows = EvaluateOptions(tokens=24)
        everyday = greedy_answers(model, everyday_sets([subject], replace(LearnOptions(), measured=48))[2], rows, None)
        references = subject.references.spread(REFERENCES).prompts
        written = [model.tokenizer(p.answer, add_special_tokens=False)["input_ids"] for p in references]
        self.answers = {
            "expert": self._rows(held, base_answers(model, asked, TOKENS, seed=seed + 101)),
            "plain": self._rows(held, base_answers(model, held, TOKENS, seed=seed + 102)),
            "references": [
                Answered(Prompt(p.messages), t[:REFERENCE_TOKENS]) for p, t in zip(references, written, strict=True)
            ],
            "everyday": everyday,
        }
        self.base = {name: log_probabilities(model, answered_items(model, rows)) for name, rows in self.answers.items()}
        self.teacher = self.predicted(nullcontext, prompted=True)

    @staticmethod
    def _rows(prompts: PromptSet, answers: list[list[int]]) -> list[Answered]:
        return [Answered(Prompt(p.messages), a) for p, a in zip(prompts.prompts, answers, strict=True) if len(a) > 3]

    def predicted(self, changed: Change, *, prompted: bool = False) -> dict[str, list[Tensor]]:
        """prompted: with the expert's prompt in front as well."""
        with changed():
            return {
                name: log_probabilities(self.model, answered_items(self.model, self._asked(rows) if prompted else rows))
                for name, rows in self.answers.items()
            }

    def _asked(self, rows: Sequence[Answered]) -> list[Answered]:
        return [replace(r, prompt=self.subject.teacher.prompt(r.prompt)) for r in rows]

    def row(self, predicted: dict[str, list[Tensor]]) -> dict[str, Any]:
        """Effect and cost of a change, nats per token with intervals over prompts."""
        change = {
            name: _likelihood(predicted[name], rows) - _likelihood(self.base[name], rows)
            for name, rows in self.answers.items()
        }
        tokens = torch.cat([_kl(b, p) for b, p in zip(self.base["everyday"], predicted["everyday"], strict=True)])
        means = torch.stack(
            [_kl(b, p).mean() for b, p in zip(self.base["everyday"], predicted["everyday"], strict=True)]
        )
        before = torch.stack(
            [_kl(t, b).mean() for t, b in zip(self.teacher["expert"], self.base["expert"], strict=True)]
        )
        after = torch.stack(
            [_kl(t, p).mean() for t, p in zip(self.teacher["expert"], predicted["expert"], strict=True)]
        )
        shift = interval(change["expert"])
        plain = interval(change["plain"])
        return {
            "kl": vars(interval(means)),
            "kl_p95": float(tokens.quantile(0.95)),
            "kl_rms": float(tokens.square().mean().sqrt()),
            "references": vars(interval(change["references"])),
            "likelihood": vars(shift),
            "shift": shift.mean - plain.mean,
            "removed": vars(interval((before - after) / before.mean())),
        }

    def turned_down(self, kl: float) -> tuple[float, dict[str, list[Tensor]]]:
        """The prompt mixed with the base model's predictions (in logits) until everyday prompts move by `kl`."""
        low, high = 0.0, 1.0
        for _ in range(12):
            share = (low + high) / 2
            mixed = _mixed(self.base["everyday"], self.teacher["everyday"], share)
            mean = torch.stack([_kl(b, p).mean() for b, p in zip(self.base["everyday"], mixed, strict=True)]).mean()
            low, high = (share, high) if float(mean) < kl else (low, share)
        return low, {name: _mixed(self.base[name], self.teacher[name], low) for name in self.answers}


def _mixed(base: Sequence[Tensor], teacher: Sequence[Tensor], share: float) -> list[Tensor]:
    rows = zip(base, teacher, strict=True)
    return [(b.float() + share * (t.float() - b.float())).log_softmax(-1) for b, t in rows]


def _kl(target: Tensor, predicted: Tensor) -> Tensor:
    exact = target.float()
    return (exact.exp() * (exact - predicted.float())).sum(-1).double()


def _likelihood(predicted: Sequence[Tensor], rows: Sequence[Answered]) -> Tensor:
    pairs = zip(predicted, rows, strict=True)
    return torch.stack([p.float().gather(1, torch.tensor(r.answer)[:, None]).mean() for p, r in pairs]).double()


def generated(model: Model, prompts: PromptSet, changed: Change, seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Greedy answers, and samples at temperature 0.7."""
    rendered = [model.tokens(p) for p in prompts.prompts]
    with changed():
        return (
            model.continuations(rendered, READ_TOKENS),
            model.samples(rendered, READ_TOKENS, seed=seed, temperature=0.7),
        )


def measured(model: Model, name: str, options: LearnOptions, null: bool) -> tuple[dict[str, Any], str]:
    """Every row of a domain, and its answers as Markdown."""
    subject = subject_of(load_domain(name))
    found = learn(model, [subject], options)
    material = Material(model, subject, options.seed)
    rows: dict[str, Any] = {"expert prompt": material.row(material.teacher)}
    enhancement = found.enhancement
    for strength in STRENGTHS:
        label = "learnt" if strength == 1 else f"learnt, {strength:g} times as strong"
        at = enhancement.scaled(strength)
        rows[label] = material.row(material.predicted(lambda at=at: model.enhanced(at)))  # type: ignore[misc]
    rows["learnt, and the expert prompt on top"] = material.row(
        material.predicted(lambda: model.enhanced(enhancement), prompted=True)
    )
    share, mixed = material.turned_down(rows["learnt"]["kl"]["mean"])
    rows[f"expert prompt turned down to the same KL ({share:.2f} of its logits)"] = material.row(mixed)
    if null:
        others = [n for n in packaged_names() if load_domain(n).language == subject.language and n != name]
        wrong = load_domain(others[0]) if others else load_domain("education")
        taught = learn(
            model, [replace(subject, name=f"{name}, wrong", teacher=Expert(wrong.expert_system_prompt))], options
        )
        other = taught.enhancement
        if taught.abstained:
            rows[f"null: taught by the expert of {wrong.name}"] = {"abstained": taught.reason}
        else:
            rows[f"null: taught by the expert of {wrong.name}"] = material.row(
                material.predicted(lambda: model.enhanced(other))
            )
    read = subject.held_out.spread(READ)
    asked = PromptSet(read.name, tuple(subject.teacher.prompt(p) for p in read.prompts))
    sets = {
        "base": generated(model, read, nullcontext, options.seed),
        "expert prompt": generated(model, asked, nullcontext, options.seed),
        "learnt": generated(model, read, lambda: model.enhanced(enhancement), options.seed),
    }
    repeated = {who: [repetition(answers) for answers in both] for who, both in sets.items()}
    text = [f"# {name}: {READ} greedy answers and as many samples at temperature 0.7, none picked", ""]
    for kind, label in enumerate(("greedy", "sampled")):
        text += [f"## {label}", ""]
        for number, prompt in enumerate(read.prompts):
            text += [f"**{' '.join(prompt.text.split())}**", ""]
            for who, both in sets.items():
                answer = model.tokenizer.decode(both[kind][number], skip_special_tokens=True)
                text += [f"- *{who}*: {' '.join(answer.split())}"]
            text.append("")
    summary = {
        "rows": rows,
        "repetition": repeated,
        "seconds": found.seconds,
        "scale": found.scale,
        "abstained": found.abstained,
        "refusals": vars(found.refusals),
    }
    return summary, "\n".join(text) + "\n"


def table(results: dict[str, Any], about: str) -> str:
    lines = [
        about,
        "",
        "| domain | method | KL everyday (p95, rms) | reference answers | teacher's answers: shift | likelihood | distance removed | "
        "repeated 4-grams: greedy | at 0.7 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        for label, row in found["rows"].items():
            if "abstained" in row:
                lines.append(f"| {name} | {label} | left alone: {row['abstained']} | | | | | | |")
                continue
            repeated = found["repetition"].get(label, ["", ""])
            shown = [f"{r:.2f}" if r != "" else "" for r in repeated]
            lines.append(
                f"| {name} | {label} | {row['kl']['mean']:.4f} [{row['kl']['low']:.4f}, {row['kl']['high']:.4f}] ({row['kl_p95']:.3f}, "
                f"{row['kl_rms']:.3f}) | {_short(row['references'])} | {row['shift']:+.3f} | {_short(row['likelihood'])} | "
                f"{_short(row['removed'], 2)} | {shown[0]} | {shown[1]} |"
            )
        base = found["repetition"]["base"]
        lines.append(f"| {name} | base | | | | | | {base[0]:.2f} | {base[1]:.2f} |")
    return "\n".join(lines) + "\n"


def _short(value: dict[str, float], digits: int = 3) -> str:
    return f"{value['mean']:+.{digits}f} [{value['low']:+.{digits}f}, {value['high']:+.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--domain", nargs="*", default=packaged_names())
    parser.add_argument("--steps", type=int, default=LearnOptions.steps)
    parser.add_argument("--budget", type=float, default=LearnOptions.budget)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--null", action="store_true")
    parser.add_argument("--name", default="learning")
    given = parser.parse_args()
    path = RESULTS / f"{given.name}.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    model = load(given.model, ModelOptions(dtype="float32"))
    options = LearnOptions(steps=given.steps, budget=given.budget, seed=given.seed)
    for name in given.domain:
        if name in results:
            continue
        started = time.perf_counter()
        results[name], answers = measured(model, name, options, given.null)
        folder = RESULTS / f"{given.name}-answers"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.md").write_text(answers, encoding="utf-8")
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        about = (
            f"Learnt directions on {model.name} in float32: {options.steps} steps, {options.directions} directions a layer, budget "
            f"{options.budget:g}, seed {options.seed}. Held-out prompts, half of them in the ways people really ask; nats per token, 95 % "
            "intervals over prompts."
        )
        (RESULTS / f"{given.name}.md").write_text(table(results, about), encoding="utf-8")
        print(f"{name}: {time.perf_counter() - started:.0f} s, learning {results[name]['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
