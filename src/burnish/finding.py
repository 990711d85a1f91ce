"""From two sets of prompts to a direction, with the evidence that it is one."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import torch
from torch import Tensor

from burnish.artifacts.direction import Direction
from burnish.artifacts.direction_file import LayerReport, Provenance
from burnish.errors import InputError, ModelError, NoDirectionError
from burnish.layers import layer_index
from burnish.maths.protection import leading_components, without
from burnish.maths.statistics import auroc, d_prime, largest_share, unit
from burnish.model.capture import Tokens, answer_sequences, capture, prompt_sequences
from burnish.model.forecast import Work, lengths
from burnish.model.layerwise import LayeredModel, Wanted, layered_capture
from burnish.model.model import Model
from burnish.model.processes import ALONE, Processes, current
from burnish.options import SHUFFLES, FindOptions
from burnish.prompts import PromptSet, PromptSource, as_prompts
from burnish.prompts.contrast import Contrast
from burnish.steps import Advance, Progress, advancing

PROTECTED_COMPONENTS = 3  # leading components of the protected writes taken out besides their mean
ANSWER_TOKENS = 96  # longest part of an answer that is averaged
FEWEST, FEWEST_HELD_OUT = 8, 4  # different prompts


@dataclass(frozen=True)
class Split:
    """The prompts that make the direction, and those it is measured on."""

    tune: PromptSet
    held_out: PromptSet
    measured: tuple[bool, ...]  # per tuning prompt: whether it is in the direction that is measured


def split(prompts: PromptSet, options: FindOptions, held_out: PromptSet | None = None) -> Split:
    """`instructions` prompts make the direction, the others (or the set given) are held out.

    With nothing left over all prompts make the direction, and its separation is that of a direction from three quarters
    of them, measured on the fourth.
    """
    tune, remaining = prompts.split(options.instructions, options.seed)
    remaining = remaining.without(tune)
    if held_out is not None or len(remaining) >= FEWEST_HELD_OUT:
        return Split(tune, remaining if held_out is None else held_out, (True,) * len(tune))
    fourth = set(prompts.split(max(1, len(prompts) // 4), options.seed)[0].prompts)
    inside = tuple(p not in fourth for p in prompts.prompts)
    return Split(prompts, PromptSet(prompts.name, tuple(p for p in prompts.prompts if p in fourth)), inside)


@dataclass(frozen=True)
class _Sums:
    """Weighted sums of states: row g of `weights` [groups, prompts] gives `totals` [groups, layers, hidden], float64."""

    weights: Tensor
    totals: Tensor

    @staticmethod
    def over(weights: Tensor, layers: int, hidden: int) -> "_Sums":
        return _Sums(weights.double(), torch.zeros(weights.shape[0], layers, hidden, dtype=torch.float64))

    def add(self, rows: list[int], states: Tensor) -> None:
        """Raises ModelError for states that are no numbers."""
        if not bool(states.isfinite().all()):
            raise ModelError(
                "The model's hidden states are not finite: its number type overflows, or its weights are damaged. Pass --dtype float32 or "
                "bfloat16, or download the model again."
            )
        flat = states.double().flatten(1)
        self.totals.view(self.totals.shape[0], -1).addmm_(self.weights[:, rows], flat)


def find_direction(
    model: Model,
    *,
    enhance: PromptSource,
    normal: PromptSource,
    options: FindOptions | None = None,
    held_out: tuple[PromptSet | None, PromptSet | None] = (None, None),
    protect: PromptSet | None = None,
    progress: Progress | None = None,
) -> Direction:
    """Finds `mean(enhance) - mean(normal)` at every layer in one pass, then measures it on held-out prompts.

    Source: "Directional Enhancement" (2025), the mean difference of hidden states. Inside `burnish.joined` every process reads a
    share of the prompts and returns the same direction, up to rounding that of one.

    Args:
        model: the base model; its weights are not changed.
        enhance: prompts of the speciality: a file, texts, or a set already read.
        normal: everyday prompts, as above.
        options: layer, scope, site, position and the seed.
        held_out: (enhance, normal) prompts for the measurement; without them part of a set is held out.
        protect: with `options.protect`, prompts whose writes are taken out, besides the normal ones'.
        progress: told of every part that takes long.

    Returns:
        Unit vectors [layers, hidden] with their held-out quality.

    Raises:
        PromptFileError: a file cannot be read as prompts.
        InputError: sets are too small, or the same.
        LayerError: the layer does not exist.
        ProcessError: another process failed.
    """
    contrast = Contrast(as_prompts(enhance, "enhance"), as_prompts(normal, "normal"), held_out, protect)
    return found_direction(model, contrast, options or FindOptions(), progress)


def found_direction(
    model: Model, contrast: Contrast, options: FindOptions, progress: Progress | None = None
) -> Direction:
    """The same for sets that are read."""
    layer = layer_index(options.layer_idx, model.anatomy.layers)
    crew = ALONE if model.tensor_parallel else current()  # processes that hold one model together all read every prompt
    material = _material(model, contrast, options, crew, progress)
    tune, held, wanted = material.tune, material.held_out, material.wanted(options)
    provenance = provenance_of(model, tune, options)
    crew.require_same((provenance, options, *(prompts.hash for prompts in held), len(material.spared)))
    read = _reader(model, wanted, crew, progress)
    report = advancing(progress, "reading prompts", sum(len(_share(crew, part)) for part in wanted[:2]))

    labels = torch.tensor([True] * len(tune[0]) + [False] * len(tune[1]))
    measured = torch.tensor(material.measured)
    sums = _Sums.over(_weights(labels, measured, options.seed), model.anatomy.layers, model.anatomy.hidden_size)
    read(wanted[0], sums.add, progress=report)
    # Differences of means, [layers, hidden] each.
    difference, fitted, first_half, second_half, *shuffled = crew.summed(sums.totals)
    if options.protect:
        spared = wanted[2]
        writes = torch.zeros(len(spared.sequences), model.anatomy.layers, model.anatomy.hidden_size)

        def keep(rows: list[int], states: Tensor) -> None:
            writes[rows] = states

        read(spared, keep, progress=advancing(progress, "reading protected", len(_share(crew, spared))))
        components = leading_components(crew.summed(writes).transpose(0, 1), PROTECTED_COMPONENTS)
        difference, fitted = without(unit(difference), components), without(unit(fitted), components)
    if (difference == 0).all(-1).any() or (fitted == 0).all(-1).any():
        raise NoDirectionError(
            "The two sets leave the same states at a layer of the model, so that there is nothing between them. Pass sets that differ, or "
            "check that the model's weights are not zero there."
        )
    vectors = unit(difference)

    rulers = torch.stack([unit(fitted), *shuffled])  # [1 + shuffles, layers, hidden]
    projected = torch.zeros(len(held[0]) + len(held[1]), len(rulers), model.anatomy.layers, dtype=torch.float64)

    def project(rows: list[int], states: Tensor) -> None:
        projected[rows] = torch.einsum("blh,glh->bgl", states.double(), rulers)

    read(wanted[1], project, progress=report)
    crew.summed(projected)
    positive, negative = projected[: len(held[0]), 0].T, projected[len(held[0]) :, 0].T  # [layers, prompts]
    return Direction(
        vectors=vectors.float(),
        layer=layer,
        scope=options.scope,
        site=options.site,
        provenance=provenance,
        report=LayerReport(
            auroc=auroc(positive, negative).tolist(),
            d_prime=d_prime(positive, negative).tolist(),
            null_auroc=_null_aurocs(projected[:, 1:], len(held[0]), options.seed).tolist(),
            split_half_cosine=(unit(first_half) * unit(second_half)).sum(-1).tolist(),
            cosine_with_chosen=(vectors @ vectors[layer]).tolist(),
            largest_share=largest_share(vectors).tolist(),
            held_out=len(projected),
        ),
        anatomy=model.anatomy,
    )


@dataclass(frozen=True)
class _Material:
    """What is read: (enhance, normal) sets, the sequences of the two tuning and the two held-out sets, and protected ones."""

    tune: list[PromptSet]
    held_out: list[PromptSet]
    measured: tuple[bool, ...]
    sequences: list[list[Tokens]]
    spared: list[Tokens]

    def wanted(self, options: FindOptions) -> list[Wanted]:
        """The states of the tuning, the held-out and the protected prompts."""
        tune, held = self.sequences[0] + self.sequences[1], self.sequences[2] + self.sequences[3]
        return [Wanted(tune, options.site), Wanted(held, options.site), Wanted(self.spared, "attention")]


def _material(
    model: Model, contrast: Contrast, options: FindOptions, crew: Processes, progress: Progress | None
) -> _Material:
    check_sets(contrast.enhance, contrast.normal)
    parts = _split_sets(contrast, options)
    tune, held = [part.tune for part in parts], [part.held_out for part in parts]
    sequences = [sequences_of(model, prompts, options, progress, crew=crew) for prompts in (*tune, *held)]
    spared = prompt_sequences(model, _spared(contrast.protect, tune[1], options).prompts) if options.protect else []
    return _Material(tune, held, parts[0].measured + parts[1].measured, sequences, spared)


def _split_sets(contrast: Contrast, options: FindOptions) -> list[Split]:
    """The parts of the enhance and of the normal prompts."""
    both = zip((contrast.enhance, contrast.normal), contrast.held_out, strict=True)
    return [split(prompts, options, held) for prompts, held in both]


def states_wanted(model: Model, contrast: Contrast, options: FindOptions) -> list[Wanted]:
    """The states that `found_direction` would read, for what they cost (`burnish.model.estimating`)."""
    return _material(model, contrast, options, ALONE, None).wanted(options)


def finding_work(model: Model, contrast: Contrast, options: FindOptions) -> Work:
    """What `found_direction` would do with these arguments, in tokens. model: its outline."""
    parts = _split_sets(contrast, options)
    sets = [prompts for part in parts for prompts in (part.tune, part.held_out)]
    sets += [_spared(contrast.protect, parts[1].tune, options)] if options.protect else []
    work = Work()
    for prompts in sets:
        count, length = lengths(model, prompts)
        answer = ANSWER_TOKENS if options.position == "answer" else 0
        written = sum(prompt.answer is None for prompt in prompts.prompts) * answer
        work += Work(count * (length + answer), written)
    return work


def check_sets(enhance: PromptSet, normal: PromptSet) -> None:
    """Raises InputError for sets that cannot be contrasted. Needs no model."""
    for prompts in (enhance, normal):
        if prompts.different < FEWEST:
            count = prompts.different
            repeated = f" ({len(prompts)} rows, many of them the same)" if count < len(prompts) else ""
            raise InputError(
                f"'{prompts.name}' holds {count} prompt{'s' * (count != 1)}{repeated}: too few for a mean and a held-out check. "
                f"Write at least {FEWEST} different ones (95 is the default)."
            )
    if set(enhance.prompts) == set(normal.prompts):
        raise InputError(
            "The enhance and the normal prompts are the same: there is nothing to contrast. Pass two different files."
        )


def sequences_of(
    model: Model,
    prompts: PromptSet,
    options: FindOptions,
    progress: Progress | None = None,
    *,
    crew: Processes = ALONE,
) -> list[Tokens]:
    """Each prompt's tokens and the positions that are read; missing answers are the model's own greedy ones.

    crew: the processes that write those answers together.
    """
    rows = prompts.prompts
    if options.position == "prompt":
        return prompt_sequences(model, rows)
    answers = [None if p.answer is None else model.encode(p.answer)[:ANSWER_TOKENS] for p in rows]
    missing = [i for i, answer in enumerate(answers) if answer is None]
    asked = [model.tokens(rows[i]) for i in missing]
    shared = crew.share([len(tokens) for tokens in asked])
    advance = advancing(progress, f"answering {prompts.name}", len(shared))
    written = model.continuations([asked[n] for n in shared], ANSWER_TOKENS, advance=advance)
    for i, answer in crew.merged({missing[n]: answer for n, answer in zip(shared, written, strict=True)}).items():
        answers[i] = answer
    return answer_sequences(model, rows, [a or [] for a in answers])


def _spared(protect: PromptSet | None, normal: PromptSet, options: FindOptions) -> PromptSet:
    """The prompts to leave where they are. With answers, the normal side holds the speciality's own prompts: not spared."""
    if options.position == "prompt":
        return normal if protect is None else protect.joined(normal)
    if protect is None:
        raise InputError(
            "Protecting with --position answer needs protect prompts: pass some, general ones for example."
        )
    return protect


def _reader(model: Model, wanted: Sequence[Wanted], crew: Processes, progress: Progress | None) -> Callable[..., None]:
    """`read(part, consume, progress=)` for the parts of `wanted`: hands over the states of this process's share, by row of the part.

    A model that is run layer by layer is run here, once, for all that is wanted.
    """
    shares = [Wanted([part.sequences[i] for i in _share(crew, part)], part.site) for part in wanted]
    running: Callable[..., None]
    if isinstance(model, LayeredModel):
        running = layered_capture(model, shares, progress=advancing(progress, "running layers", model.anatomy.layers))
    else:
        running = partial(capture, model)

    def read(part: Wanted, consume: Callable[[list[int], Tensor], None], *, progress: Advance | None) -> None:
        rows = _share(crew, part)

        def place(indices: list[int], states: Tensor) -> None:
            consume([rows[i] for i in indices], states)

        running([part.sequences[i] for i in rows], place, site=part.site, progress=progress)

    return read


def _share(crew: Processes, part: Wanted) -> list[int]:
    """The rows of a part that this process reads."""
    return crew.share([len(sequence.tokens) for sequence in part.sequences])


def _weights(labels: Tensor, measured: Tensor, seed: int) -> Tensor:
    """Each row, times the states, is a difference of means: of all prompts; of the measured ones; of two halves; and of the
    measured ones under shuffled labels. labels, measured: [prompts] of bool; returns [4 + shuffles, prompts]."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.zeros_like(labels)
    for side in (labels, ~labels):
        members = side.nonzero().flatten()
        half[members[torch.randperm(len(members), generator=generator)[: len(members) // 2]]] = True
    everything = torch.ones_like(labels)
    rows = [_difference(labels, among) for among in (everything, measured, half, ~half)]
    members = measured.nonzero().flatten()
    for _ in range(SHUFFLES):
        mixed = labels.clone()
        mixed[members] = labels[members[torch.randperm(len(members), generator=generator)]]
        rows.append(_difference(mixed, measured))
    return torch.stack(rows)


def _difference(labels: Tensor, among: Tensor) -> Tensor:
    """Weights of `mean(labelled) - mean(not labelled)` among some prompts."""
    positive, negative = labels & among, ~labels & among
    return positive.double() / positive.sum() - negative.double() / negative.sum()


def _null_aurocs(projected: Tensor, positives: int, seed: int) -> Tensor:
    """95th percentile per layer of the AUROC when labels are shuffled in both the tuning and the held-out prompts.

    projected: [held-out prompts, shuffles, layers]; returns [layers].
    """
    generator = torch.Generator().manual_seed(seed + 1)
    aurocs = []
    for index in range(projected.shape[1]):
        mixed = projected[torch.randperm(len(projected), generator=generator), index].T
        aurocs.append(auroc(mixed[:, :positives], mixed[:, positives:]))
    return torch.stack(aurocs).quantile(0.95, dim=0)


def provenance_of(model: Model, tune: list[PromptSet], options: FindOptions) -> Provenance:
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
