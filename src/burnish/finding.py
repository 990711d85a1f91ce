"""From two sets of prompts to a direction, with the evidence that it is one."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor

from burnish.artifacts.direction import Direction, LayerReport, Provenance
from burnish.errors import InputError
from burnish.maths.direction import leading_components, mean_difference, without
from burnish.maths.statistics import auroc, d_prime, largest_share
from burnish.model.capture import Tokens, answer_sequences, capture, prompt_sequences
from burnish.model.model import Model
from burnish.options import SHUFFLES, FindOptions, layer_index
from burnish.prompts import PromptSet

PROTECTED_COMPONENTS = 3  # leading components of the protected writes taken out besides their mean
ANSWER_TOKENS = 96  # longest part of an answer that is averaged
Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class Halves:
    """The tuning prompts and the held-out ones."""

    tune: PromptSet
    held_out: PromptSet


def halve(prompts: PromptSet, options: FindOptions) -> Halves:
    """`instructions` prompts to tune on, the rest held out; with nothing left over, a quarter is held out."""
    tune, rest = prompts.split(options.instructions, options.seed)
    if len(rest) < 4:
        tune, rest = prompts.split(len(prompts) - max(1, len(prompts) // 4), options.seed)
    return Halves(tune, rest)


@dataclass(frozen=True)
class _Sums:
    """Weighted sums of states: row g of `weights` [groups, prompts] gives `totals` [groups, layers, hidden], float64."""

    weights: Tensor
    totals: Tensor

    @staticmethod
    def over(weights: Tensor, layers: int, hidden: int) -> "_Sums":
        return _Sums(weights.double(), torch.zeros(weights.shape[0], layers, hidden, dtype=torch.float64))

    def add(self, rows: list[int], states: Tensor) -> None:
        flat = states.double().flatten(1)
        self.totals.view(self.totals.shape[0], -1).addmm_(self.weights[:, rows], flat)


def find_direction(
    model: Model,
    enhance: PromptSet,
    normal: PromptSet,
    options: FindOptions | None = None,
    *,
    held_out: tuple[PromptSet, PromptSet] | None = None,
    protect: PromptSet | None = None,
    progress: Progress | None = None,
) -> Direction:
    """Finds `mean(enhance) - mean(normal)` at every layer in one pass, then measures it on held-out prompts.

    held_out: (enhance, normal) prompts kept for the measurement; without them part of the two sets is held out.
    Raises InputError for sets that are too small or the same, LayerError for a layer that does not exist.
    """
    options = options or FindOptions()
    layer = layer_index(options.layer_idx, model.anatomy.layers)
    check_sets(enhance, normal)
    if held_out is None:
        parts = halve(enhance, options), halve(normal, options)
    else:
        parts = (
            Halves(enhance.split(options.instructions, options.seed)[0], held_out[0]),
            Halves(normal.split(options.instructions, options.seed)[0], held_out[1]),
        )
    tune = [parts[0].tune, parts[1].tune]
    held = [parts[0].held_out, parts[1].held_out]
    sequences = [_sequences(model, s, options) for s in (*tune, *held)]
    n, m, held_n, held_m = map(len, sequences)
    total = n + m + held_n + held_m
    report = _reporter(progress, "reading prompts", total)

    weights = _group_weights(n, m, options.seed)
    sums = _Sums.over(weights, model.anatomy.layers, model.anatomy.hidden_size)
    capture(model, sequences[0] + sequences[1], sums.add, site=options.site, progress=report)
    groups = sums.totals
    vectors = mean_difference(groups[0], groups[1])
    halves = torch.stack([mean_difference(groups[2], groups[3]), mean_difference(groups[4], groups[5])])
    if options.protect:
        protected = protect.joined(tune[1]) if protect is not None else tune[1]
        kept = _states(model, prompt_sequences(model, protected.prompts), "attention", progress)
        vectors = without(vectors, leading_components(kept.transpose(0, 1), PROTECTED_COMPONENTS))
    shuffled = groups[6:]  # [shuffles, layers, hidden]: differences of means under shuffled labels

    projected = torch.zeros(held_n + held_m, 1 + len(shuffled), model.anatomy.layers, dtype=torch.float64)
    rulers = torch.cat([vectors[None], shuffled])

    def project(rows: list[int], states: Tensor) -> None:
        projected[rows] = torch.einsum("blh,glh->bgl", states.double(), rulers)

    capture(model, sequences[2] + sequences[3], project, site=options.site, progress=report)
    own = projected[:, 0].T  # [layers, held-out prompts]
    null = _null_aurocs(projected[:, 1:], held_n, options.seed)
    chosen = vectors[layer]
    return Direction(
        vectors=vectors.float(),
        layer=layer,
        scope=options.scope,
        site=options.site,
        provenance=_provenance(model, tune, options),
        report=LayerReport(
            auroc=auroc(own[:, :held_n], own[:, held_n:]).tolist(),
            d_prime=d_prime(own[:, :held_n], own[:, held_n:]).tolist(),
            null_auroc=null.tolist(),
            split_half_cosine=(halves[0] * halves[1]).sum(-1).tolist(),
            cosine_with_chosen=(vectors @ chosen).tolist(),
            largest_share=largest_share(vectors).tolist(),
            held_out=held_n + held_m,
        ),
    )


def check_sets(enhance: PromptSet, normal: PromptSet) -> None:
    """Raises InputError for sets that cannot be contrasted. Needs no model."""
    for prompts in (enhance, normal):
        if len(prompts) < 8:
            raise InputError(
                f"'{prompts.name}' holds {len(prompts)} prompt{'s' * (len(prompts) != 1)}: too few for a mean and a held-out check. "
                "Write at least 8 (95 is the default)."
            )
    if enhance.hash == normal.hash:
        raise InputError(
            "The enhance and the normal prompts are the same: there is nothing to contrast. Pass two different files."
        )


def _sequences(model: Model, prompts: PromptSet, options: FindOptions) -> list[Tokens]:
    if options.position == "prompt":
        return prompt_sequences(model, prompts.prompts)
    rows = prompts.prompts
    answers = [
        model.tokenizer(p.answer, add_special_tokens=False)["input_ids"][:ANSWER_TOKENS]
        for p in rows
        if p.answer is not None
    ]
    if not answers:
        answers = []
        for start in range(0, len(rows), 8):
            batch = [model.tokens(p) for p in rows[start : start + 8]]
            answers += model.continuations(batch, ANSWER_TOKENS)
    return answer_sequences(model, rows, answers)


def _states(model: Model, sequences: Sequence[Tokens], site: str, progress: Progress | None) -> Tensor:
    states = torch.zeros(len(sequences), model.anatomy.layers, model.anatomy.hidden_size)

    def keep(rows: list[int], batch: Tensor) -> None:
        states[rows] = batch

    capture(model, sequences, keep, site="attention", progress=_reporter(progress, "reading protected", len(sequences)))
    return states


def _group_weights(n: int, m: int, seed: int) -> Tensor:
    """Rows: mean of enhance, of normal, of two halves of each (enhance 1, normal 1, enhance 2, normal 2), then differences of
    means under shuffled labels. Columns: the enhance prompts, then the normal ones."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.ones(n), torch.zeros(m)]).bool()
    half = torch.zeros(n + m, dtype=torch.bool)
    half[torch.randperm(n, generator=generator)[: n // 2]] = True
    half[n + torch.randperm(m, generator=generator)[: m // 2]] = True
    masks = [labels, ~labels, labels & half, ~labels & half, labels & ~half, ~labels & ~half]
    rows = [mask / mask.sum() for mask in masks]
    for _ in range(SHUFFLES):
        mixed = labels[torch.randperm(n + m, generator=generator)]
        rows.append(mixed / mixed.sum() - ~mixed / (~mixed).sum())
    return torch.stack(rows)


def _null_aurocs(projected: Tensor, positives: int, seed: int) -> Tensor:
    """95th percentile per layer of the AUROC when labels are shuffled in both the tuning and the held-out prompts.

    projected: [held-out prompts, shuffles, layers]; returns [layers].
    """
    generator = torch.Generator().manual_seed(seed + 1)
    found = []
    for index in range(projected.shape[1]):
        mixed = projected[torch.randperm(len(projected), generator=generator), index].T
        found.append(auroc(mixed[:, :positives], mixed[:, positives:]))
    return torch.stack(found).quantile(0.95, dim=0)


def _reporter(progress: Progress | None, what: str, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        progress(what, done, total)

    return report


def _provenance(model: Model, tune: list[PromptSet], options: FindOptions) -> Provenance:
    return Provenance(
        model=model.name,
        fingerprint=model.fingerprint,
        architecture=type(model.network).__name__,
        layers=model.anatomy.layers,
        hidden_size=model.anatomy.hidden_size,
        enhance=tune[0].name,
        normal=tune[1].name,
        enhance_hash=tune[0].hash,
        normal_hash=tune[1].hash,
        enhance_prompts=len(tune[0]),
        normal_prompts=len(tune[1]),
        position=options.position,
        template=model.chat_template,
        seed=options.seed,
        protected=options.protect,
        versions={
            "burnish": version("burnish"),
            "torch": version("torch"),
            "transformers": version("transformers"),
            "python": platform.python_version(),
        },
    )
