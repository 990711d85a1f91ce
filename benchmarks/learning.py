"""Learnt directions against the expert's prompt, on prompts that nothing was chosen by: effect, cost, answers, and nulls.

python benchmarks/learning.py [MODEL] [--domain NAME ...] [--steps N] [--seed N] [--ladder] [--null] [--baselines] [--name FILE]

Writes benchmarks/results/FILE.json and .md, one domain at a time, and FILE-answers/DOMAIN.md with every answer. A part that is there (rows,
null, baselines) is not measured again.
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
from learning_baselines import baseline_rows
from torch import Tensor

from burnish.checking import repetition
from burnish.evaluation.pairs import Answered, answered_items, base_answers, greedy_answers
from burnish.learning.learning import Learned, learn
from burnish.learning.report import reference_answers
from burnish.learning.subject import Subject, everyday_sets, subject_of
from burnish.learning.teacher import Expert
from burnish.maths.intervals import interval
from burnish.model.imitation import distances, likelihoods, log_probabilities
from burnish.model.model import Model, load
from burnish.options import EvaluateOptions, LearnOptions, ModelOptions
from burnish.prompts import PromptSet
from burnish.prompts.domains import load_domain, packaged_names

RESULTS = Path(__file__).parent / "results"
PROMPTS, TOKENS = 24, 32  # held-out prompts of each kind of answers that are scored
REFERENCES = 24
READ, READ_TOKENS = 20, 56  # answers that are generated and read
AT = (0.015,)  # nats per token on everyday prompts that the learnt edit is scaled to
LADDER = (0.01, 0.02, 0.03, 0.05)
Change = Callable[[], AbstractContextManager[Any]]


class Material:
    """What every row of a domain is measured on: answers, and what base and teacher predict at their tokens."""

    def __init__(self, model: Model, subject: Subject, seed: int) -> None:
        self.model, self.subject, self.seed = model, subject, seed
        held = subject.held_out.spread(PROMPTS)
        asked = PromptSet(held.name, tuple(subject.teacher.prompt(p) for p in held.prompts))
        everyday = everyday_sets([subject], LearnOptions(measured=48)).reported
        self.answers = {
            "expert": self._rows(held, base_answers(model, asked, TOKENS, seed=seed + 101)),
            "plain": self._rows(held, base_answers(model, held, TOKENS, seed=seed + 102)),
            "references": reference_answers(model, subject, REFERENCES),
            "everyday": greedy_answers(model, everyday, EvaluateOptions(tokens=24), None),
        }
        self.base = self.predicted(nullcontext)
        self.teacher = self.predicted(nullcontext, prompted=True)

    @staticmethod
    def _rows(prompts: PromptSet, answers: list[list[int]]) -> list[Answered]:
        return [Answered(prompt, a) for prompt, a in zip(prompts.prompts, answers, strict=True) if len(a) > 3]

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
        answers = {name: [row.answer for row in rows] for name, rows in self.answers.items()}
        change = {
            name: likelihoods(predicted[name], answers[name]) - likelihoods(self.base[name], answers[name])
            for name in answers
        }
        tokens = distances(self.base["everyday"], predicted["everyday"])
        before, after = (means(self.teacher["expert"], rows["expert"]) for rows in (self.base, predicted))
        shift, plain = interval(change["expert"]), interval(change["plain"])
        return {
            "kl": vars(interval(torch.stack([kl.mean() for kl in tokens]))),
            "kl_p95": float(torch.cat(tokens).quantile(0.95)),
            "kl_rms": float(torch.cat(tokens).square().mean().sqrt()),
            "references": vars(interval(change["references"])),
            "likelihood": vars(shift),
            "shift": shift.mean - plain.mean,
            "removed": vars(interval((before - after) / before.mean())),
        }

    def everyday_damage(self, changed: Change) -> float:
        """Mean KL of everyday answers under a change, nats per token."""
        with changed():
            predicted = log_probabilities(self.model, answered_items(self.model, self.answers["everyday"]))
        return float(means(self.base["everyday"], predicted).mean())

    def turned_down(self, kl: float) -> tuple[float, dict[str, list[Tensor]]]:
        """The prompt mixed with the base model's predictions (in logits) until everyday prompts move by `kl`."""
        low, high = 0.0, 1.0
        for _ in range(12):
            share = (low + high) / 2
            mixed = _mixed(self.base["everyday"], self.teacher["everyday"], share)
            mean = means(self.base["everyday"], mixed).mean()
            low, high = (share, high) if float(mean) < kl else (low, share)
        return low, {name: _mixed(self.base[name], self.teacher[name], low) for name in self.answers}


def means(targets: Sequence[Tensor], predicted: Sequence[Tensor]) -> Tensor:
    """KL(target || predicted) of each answer, [answers]."""
    return torch.stack([kl.mean() for kl in distances(targets, predicted)])


def _mixed(base: Sequence[Tensor], teacher: Sequence[Tensor], share: float) -> list[Tensor]:
    rows = zip(base, teacher, strict=True)
    return [(b.float() + share * (t.float() - b.float())).log_softmax(-1) for b, t in rows]


def generated(model: Model, prompts: PromptSet, changed: Change, seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Greedy answers, and samples at temperature 0.7."""
    rendered = [model.tokens(p) for p in prompts.prompts]
    with changed():
        return (
            model.continuations(rendered, READ_TOKENS),
            model.samples(rendered, READ_TOKENS, seed=seed, temperature=0.7),
        )


def learnt_rows(
    material: Material, name: str, learned: Learned, options: LearnOptions, ladder: Sequence[float]
) -> tuple[dict[str, Any], str]:
    """The rows of prompt and learnt directions, and every answer as Markdown."""
    model, subject, enhancement = material.model, material.subject, learned.enhancement
    rows: dict[str, Any] = {"expert prompt": material.row(material.teacher)}
    rows["learnt"] = material.row(material.predicted(lambda: model.enhanced(enhancement)))
    kl = rows["learnt"]["kl"]["mean"]
    for target in ladder if kl else ():
        at = enhancement.scaled((target / kl) ** 0.5)  # damage grows with the square of a small strength
        rows[f"learnt, scaled to about {target:g} nats"] = material.row(
            material.predicted(lambda at=at: model.enhanced(at))  # type: ignore[misc]
        )
    rows["learnt, and the expert prompt on top"] = material.row(
        material.predicted(lambda: model.enhanced(enhancement), prompted=True)
    )
    share, mixed = material.turned_down(kl)
    rows[f"expert prompt turned down to the same KL ({share:.2f} of its logits)"] = material.row(mixed)
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
        "seconds": learned.seconds,
        "scale": learned.scale,
        "abstained": learned.abstained,
        "refusals": vars(learned.refusals),
    }
    return summary, "\n".join(text) + "\n"


def null_row(material: Material, name: str, options: LearnOptions) -> dict[str, Any]:
    """What the expert of another domain teaches on the same questions."""
    model, subject = material.model, material.subject
    others = [n for n in packaged_names() if load_domain(n).language == subject.language and n != name]
    wrong = load_domain(others[0] if others else "education")
    other = replace(subject, name=f"{name}, wrong", teacher=Expert(wrong.expert_system_prompt))
    taught = learn(model, [other], options)
    label = f"null: taught by the expert of {wrong.name}"
    if taught.abstained:
        return {label: {"abstained": taught.reason}}
    return {label: material.row(material.predicted(lambda: model.enhanced(taught.enhancement)))}


def table(results: dict[str, Any], about: str) -> str:
    lines = [
        about,
        "",
        "| domain | method | KL everyday (p95, rms) | reference answers | teacher's answers: shift | likelihood | distance removed | "
        "repeated 4-grams: greedy | at 0.7 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        for label, row in {**result["rows"], **result.get("null", {}), **result.get("baselines", {})}.items():
            if "abstained" in row:
                lines.append(f"| {name} | {label} | left alone: {row['abstained']} | | | | | | |")
                continue
            repeated = result["repetition"].get(label, ["", ""])
            shown = [f"{r:.2f}" if r != "" else "" for r in repeated]
            lines.append(
                f"| {name} | {label} | {row['kl']['mean']:.4f} [{row['kl']['low']:.4f}, {row['kl']['high']:.4f}] ({row['kl_p95']:.3f}, "
                f"{row['kl_rms']:.3f}) | {_short(row['references'])} | {row['shift']:+.3f} | {_short(row['likelihood'])} | "
                f"{_short(row['removed'], 2)} | {shown[0]} | {shown[1]} |"
            )
        base = result["repetition"]["base"]
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
    for part in ("ladder", "null", "baselines"):
        parser.add_argument(f"--{part}", action="store_true")
    parser.add_argument("--name", default="learning")
    given = parser.parse_args()
    path = RESULTS / f"{given.name}.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    model = load(given.model, ModelOptions(dtype="float32"))
    options = LearnOptions(steps=given.steps, budget=given.budget, seed=given.seed)
    about = (
        f"Learnt directions on {model.name} in float32: {options.steps} steps, {options.directions} directions a layer, budget "
        f"{options.budget:g}, seed {options.seed}. Held-out prompts, half of them in the ways people really ask; nats per token, 95 % "
        "intervals over prompts."
    )
    for name in given.domain:
        started, result = time.perf_counter(), results.setdefault(name, {})
        missing = [
            part
            for part in ("rows", "null", "baselines")
            if (part == "rows" or vars(given)[part]) and part not in result
        ]
        if not missing:
            continue
        subject = subject_of(load_domain(name))
        learned = learn(model, [subject], options) if "rows" in missing else None
        material = Material(model, subject, options.seed)
        if learned is not None:
            summary, answers = learnt_rows(material, name, learned, options, LADDER if given.ladder else AT)
            result |= summary
            folder = RESULTS / f"{given.name}-answers"
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.md").write_text(answers, encoding="utf-8")
        if "null" in missing:
            result["null"] = null_row(material, name, options)
        if "baselines" in missing:
            result["baselines"] = baseline_rows(material, name, options, result["rows"]["learnt"]["kl"]["mean"])
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (RESULTS / f"{given.name}.md").write_text(table(results, about), encoding="utf-8")
        print(f"{name}: {', '.join(missing)}, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
