"""The rows of `hybrid.py`: every way to better answers, on one speciality of one model."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from facts import knowledge_rows, load_facts

from burnish import (
    FindOptions,
    LearnOptions,
    ModelOptions,
    TrainOptions,
    find_direction,
    learn,
    load_domain,
    load_general,
    load_protect,
    train,
)
from burnish.artifacts.lora import LoraAdapter
from burnish.evaluation.effect import fit_probe
from burnish.evaluation.methods import Method, at_equal_damage
from burnish.evaluation.pairs import (
    Answered,
    answered_items,
    base_answers,
    greedy_answers,
    halves,
    made_pairs,
    pair_rows,
    reference_pairs,
)
from burnish.hybrid.barrier import everyday_answers
from burnish.hybrid.training import prepare
from burnish.learning.subject import subject_of
from burnish.model.folder_plan import FolderPlan
from burnish.model.live import live_edit, live_layers
from burnish.model.model import Model
from burnish.model.row_edits import RowEdits
from burnish.model.scoring import Candidate, Item, TokenScores, score
from burnish.options import EvaluateOptions
from burnish.prompts import Prompt, PromptSet

FACT_SHARE = 0.75  # of the rows seen
SHOWN_ROWS = 2  # of each kind in a few-shot prompt
BUDGET, LEARNT_BUDGET = 0.05, 0.03  # nats per token
WIDER = 0.075  # the budget of a training that is given more steps
# Steps, rates, rows and budgets were chosen with other facts (of the kinds animal, food, material and number) and by other everyday
# prompts (CHOSEN_BY of each kind): what is reported here had no part in it.
REPORTED_KINDS = ("person", "place", "ship", "year")
CHOSEN_BY = 12
SLOWER = {"rate": 0.75, "longer": 2.5}  # times the learning rate and the steps of the others
FULL_RATE = 5e-5  # learning rate of the full fine-tune; a LoRA takes the larger one of --learning-rate


@dataclass(frozen=True)
class Sizes:
    """How much is trained and measured."""

    steps: int
    batch: int
    rows: int
    learning_rate: float
    pairs: int
    prompts: int
    tokens: int
    kinds: int  # of the reported facts, four each
    learning: int  # steps that directions are learnt in; 0: the published direction within the budget instead
    questions: int = 2  # of each fact

    @property
    def measuring(self) -> EvaluateOptions:
        return EvaluateOptions(prompts=self.prompts, tokens=self.tokens, answer_tokens=self.tokens)


@dataclass
class Variant:
    """A way to get better answers: what the model computes, or what it reads."""

    candidate: Candidate | None = None  # scored beside the base model in one pass
    changed: Callable[[], AbstractContextManager[Any]] = nullcontext  # the same for everything else
    system: str | None = None
    before: tuple[tuple[str, str], ...] = ()
    bytes: int = 0
    tokens: int = 0  # of training data seen
    notes: dict[str, Any] = field(default_factory=dict)
    shared: str | None = None  # the direction that it is made of: what finding that took counts for it as well

    def asked(self, prompt: Prompt | str) -> Prompt:
        prompt = Prompt.of(prompt) if isinstance(prompt, str) else prompt
        return Prompt((*self.before, *prompt.messages))

    def items(self, model: Model, rows: Sequence[Answered]) -> list[Item]:
        """Answers behind what is read with this way."""
        return [Item(model.tokens(self.asked(row.prompt), self.system), row.answer) for row in rows]


@dataclass
class Bench:
    """One speciality on one model, and what all its rows share."""

    model: Any
    name: str
    sizes: Sizes
    seconds: dict[str, float] = field(default_factory=dict)  # that finding a direction took

    @cached_property
    def domain(self) -> Any:
        return load_domain(self.name)

    @cached_property
    def pairs(self) -> dict[str, Any]:
        options = self.sizes.measuring
        return {
            "references": reference_pairs(self.model, self.domain, options, None),
            "made": made_pairs(self.model, self.domain, options, None),
        }

    @cached_property
    def pair_rows(self) -> dict[str, list[Answered]]:
        """The chosen answers of the report halves, then the rejected ones."""
        return {kind: pair_rows(both.report[: self.sizes.pairs]) for kind, both in self.pairs.items()}

    @cached_property
    def base_scores(self) -> dict[str, tuple[TokenScores, ...]]:
        return {k: score(self.model, answered_items(self.model, rows), []).base for k, rows in self.pair_rows.items()}

    @cached_property
    def everyday(self) -> dict[str, list[Answered]]:
        """General and protect prompts of the report half that nothing was chosen by, with the base model's own answers."""
        protect = load_protect()
        report = halves(load_general(self.domain.language).held_out.joined(protect))[1]
        known = set(protect.prompts)
        kinds = {
            "general": PromptSet("general", tuple(p for p in report.prompts if p not in known)),
            "protect": PromptSet("protect", tuple(p for p in report.prompts if p in known)),
        }
        answers = {}
        for kind, prompts in kinds.items():
            seen = set(prompts.spread(CHOSEN_BY).prompts)
            others = PromptSet(kind, tuple(p for p in prompts.prompts if p not in seen))
            answers[kind] = greedy_answers(self.model, others.spread(self.sizes.prompts), self.sizes.measuring, None)
        return answers

    @cached_property
    def probe(self) -> Any:
        return fit_probe(self.model, self.pairs["references"].tune, self.pairs["references"].report)

    def style(self, count: int) -> list[dict[str, str]]:
        """Good answers: the packaged ones that are for choosing, then the model's own under the expert system prompt."""
        rows = [(p.text, p.answer) for p in self.domain.references_tune.spread(count).prompts]
        prompts = self.domain.enhance.spread(max(0, count - len(rows)))
        if len(prompts) and count > len(rows):
            expert = self.domain.expert_system_prompt
            answers = base_answers(self.model, prompts, self.sizes.tokens, system=expert, seed=0)
            decoded = [self.model.tokenizer.decode(a, skip_special_tokens=True).strip() for a in answers]
            rows += [(p.text, text) for p, text in zip(prompts.prompts, decoded, strict=True) if text]
        return [{"prompt": p, "completion": (a or "")[: 4 * self.sizes.tokens]} for p, a in rows]

    @cached_property
    def facts(self) -> list[Any]:
        """Facts of as many kinds as are wanted, the four of a kind together."""
        kinds = REPORTED_KINDS[: self.sizes.kinds]
        return [f for f in load_facts() if f.kind in kinds]

    def data(self, rows: int) -> dict[str, Any]:
        """Half of the rows are facts; they are seen more often (FACT_SHARE)."""
        return {"rows": self.style(rows - rows // 2), "knowledge": knowledge_rows(rows // 2, self.facts)}

    @property
    def options(self) -> TrainOptions:
        s = self.sizes
        return TrainOptions(
            steps=s.steps,
            batch=s.batch,
            rows_at_once=s.batch,
            learning_rate=s.learning_rate,
            knowledge_share=FACT_SHARE,
            held_out=0.0,
            barrier_prompts=max(4, 3 * s.prompts),
            barrier_tokens=s.tokens,
        )

    @cached_property
    def published(self) -> Any:
        started = time.perf_counter()
        direction = find_direction(
            self.model,
            enhance=self.domain.enhance,
            normal=load_general(self.domain.language).prompts,
            options=FindOptions(instructions=max(8, 6 * self.sizes.learning), force=True),
        )
        self.seconds["published"] = time.perf_counter() - started
        return direction.enhancement(1.5)

    @cached_property
    def learnt(self) -> Any:
        """Learnt directions; where learning abstains, the published direction at the same budget, so that the combinations have one."""
        steps, started = self.sizes.learning, time.perf_counter()
        options = LearnOptions(budget=LEARNT_BUDGET, steps=max(1, steps))
        result = learn(self.model, [subject_of(self.domain)], options) if steps else None
        self.seconds["learnt"] = time.perf_counter() - started
        if result is not None and not result.abstained:
            return result.enhancement
        base = self.published
        method = Method("published", lambda scale: Candidate("published", base.scaled(scale)), 0.3)
        rows = everyday_answers(self.model, self.options).measured
        return base.scaled(at_equal_damage(self.model, rows, [method], LEARNT_BUDGET)[0].scale)


def prompted(bench: Bench, *, expert: bool) -> Variant:
    if expert:
        text = bench.domain.expert_system_prompt
        return Variant(system=text, bytes=len(text.encode()))
    facts = [(p.text, p.answer) for p in knowledge_rows(SHOWN_ROWS, bench.facts).prompts]
    shown = [(r["prompt"], r["completion"]) for r in bench.style(SHOWN_ROWS)] + facts
    turns = tuple(turn for question, answer in shown for turn in (("user", question), ("assistant", answer or "")))
    return Variant(before=turns, bytes=sum(len(text.encode()) for _, text in turns))


def directed(bench: Bench, shared: str) -> Variant:
    model, enhancement = bench.model, getattr(bench, shared)
    size = 4 * (enhancement.vectors.numel() + enhancement.gains.numel())
    return Variant(
        Candidate("direction", enhancement),
        lambda: live_edit(model.network, model.anatomy, enhancement),
        bytes=size,
        shared=shared,
    )


def steered(bench: Bench) -> Variant:
    """A control vector at one layer, at the learnt directions' budget."""
    direction = bench.published.directions[0]
    vectors = torch.zeros_like(direction.vectors)
    vectors[direction.layer] = direction.vectors[direction.layer]
    method = Method("steering", lambda scale: Candidate("steering", steering=vectors * scale), 5.0)
    candidate = at_equal_damage(
        bench.model, everyday_answers(bench.model, bench.options).measured, [method], LEARNT_BUDGET
    )[0].candidate
    one = torch.zeros(1, dtype=torch.long)
    return Variant(candidate, lambda: RowEdits(bench.model, [candidate]).rows(one, 1), bytes=4 * vectors.shape[1])


def trained(
    bench: Bench,
    combine: Any,
    shared: str | None = None,
    *,
    rows: int | None = None,
    budget: float | None = None,
    rate: float = 1.0,
    longer: float = 1.0,
) -> Variant:
    """rows: all that there are by default; rate, longer: as in SLOWER."""
    options = replace(
        bench.options,
        budget=budget,
        learning_rate=rate * bench.sizes.learning_rate,
        steps=round(longer * bench.sizes.steps),
    )
    enhancement = None if shared is None else getattr(bench, shared)
    result = train(
        bench.model,
        **bench.data(rows or bench.sizes.rows),
        enhancement=enhancement,
        combine=combine,
        options=options,
        check_prompts=0,
    )
    layers = result.layers(FolderPlan(bench.model.folder, ModelOptions()))
    adapter = LoraAdapter(combine, {layer.projection.path: (layer.a, layer.b) for layer in layers})
    return Variant(
        Candidate(combine, adapter=adapter),
        lambda: live_layers(bench.model.network, layers),
        bytes=sum(4 * (layer.a.numel() + layer.b.numel()) for layer in layers),
        tokens=result.record["tokens"],
        notes={key: result.record[key] for key in ("everyday_kl", "scale", "steps")},
        shared=shared,
    )


def fully_trained(bench: Bench) -> Variant:
    """Every weight, by the same rows and steps."""
    network, options = bench.model.network, bench.options
    prepared = prepare(bench.model, **bench.data(bench.sizes.rows), options=options)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    network.requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=FULL_RATE, weight_decay=0.0)
    items = prepared.items
    for step in range(prepared.steps):
        part = items[step * options.batch : (step + 1) * options.batch]
        width = max(i.length for i in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, item in enumerate(part):
            ids[row, : item.length] = torch.tensor(item.prompt + item.answer)
            labels[row, len(item.prompt) : item.length] = torch.tensor(item.answer)
        network(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = FULL_RATE * (1 - step / prepared.steps)
        optimiser.step()
        optimiser.zero_grad()
    network.requires_grad_(False)
    after = {name: p.detach().clone() for name, p in network.named_parameters()}
    _put(network, before)

    @contextlib.contextmanager
    def changed() -> Iterator[None]:
        _put(network, after)
        try:
            yield
        finally:
            _put(network, before)

    plan = FolderPlan(bench.model.folder, ModelOptions())
    return Variant(
        changed=changed,
        bytes=plan.checkpoint.bytes,
        tokens=sum(i.length for i in items),
    )


def _put(network: Any, values: dict[str, torch.Tensor]) -> None:
    for name, parameter in network.named_parameters():
        parameter.data = values[name]


# In the order of the table. What trains takes all rows.
METHODS: dict[str, Callable[[Bench], Variant]] = {
    "base": lambda bench: Variant(Candidate("base")),
    "expert system prompt": partial(prompted, expert=True),
    "few-shot prompt": partial(prompted, expert=False),
    "direction, published": partial(directed, shared="published"),
    "directions, learnt": partial(directed, shared="learnt"),
    "additive steering": steered,
    "LoRA": partial(trained, combine="plain"),
    "LoRA, slower": partial(trained, combine="plain", **SLOWER),
    "full fine-tune": fully_trained,
    "keep": partial(trained, combine="keep", shared="learnt"),
    "protect": partial(trained, combine="protect", shared="learnt", budget=BUDGET),
    "protect, slower": partial(trained, combine="protect", shared="learnt", budget=WIDER, **SLOWER),
}
