"""`explain`: everything that can be said of an enhancement, gathered as facts."""

from collections.abc import Sequence
from importlib.metadata import version

from burnish.artifacts.bake import LayerGain
from burnish.artifacts.direction import Enhancement
from burnish.checking import Check
from burnish.evaluation.evaluating import Evaluation
from burnish.evaluation.pairs import Answered, PairKind, answer_tokens, base_answers, both_answers, halves, samples_of
from burnish.explaining.acting import PROMPTS, acting
from burnish.explaining.attribution import AIMS, attribute
from burnish.explaining.direction_facts import direction_facts, title_of
from burnish.explaining.dose import dose_curve
from burnish.explaining.facts import AppliedGain, Explanation
from burnish.learning.report import Learning
from burnish.model.model import Model
from burnish.options import ExplainOptions
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.domains import Domain, domain_names, load_domain, load_general
from burnish.steps import Progress


def explain(
    model: Model,
    enhancement: Enhancement,
    *,
    domains: Sequence[Domain] | None = None,
    realised: Sequence[LayerGain] = (),
    check: Check | None = None,
    evaluation: Evaluation | None = None,
    learning: Learning | None = None,
    options: ExplainOptions | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Gathers the facts of an enhancement of `model`.

    Args:
        model: the base model; its weights are not changed.
        enhancement: made on this model.
        domains: whose prompts its directions were found on; by default the packaged domains they name.
        realised: gains that the stored weights of an output have.
        check: measured before.
        evaluation: measured before.
        learning: measured before.
        options: sizes and the seed.
        progress: told of every part that takes long.

    Returns:
        Numbers alone; `render_page` draws them.

    Raises:
        WrongModelError: the enhancement is of another model.
    """
    options = options or ExplainOptions()
    enhancement.require(model.fingerprint, model.anatomy.layers, model.anatomy.hidden_size)
    if domains is None:
        domains = packaged_domains(enhancement)
    language = domains[0].language if domains else "en"
    directions = tuple(
        direction_facts(
            model, direction, name_language=None if options.skip_likenesses else language, progress=progress
        )
        for direction in enhancement.directions
    )
    edits = bool(enhancement.edited_layers())
    kind, good = _good_answers(model, domains, options, progress) if edits and domains else ("references", [])
    attribution = attribute(model, enhancement, good, kind, progress=progress) if good else None
    dose = (
        dose_curve(model, enhancement, language, good, AIMS[kind], options.measuring, progress=progress)
        if edits and options.doses
        else None
    )
    shown = _shown(domains, language, options.answers)
    special = [p for d in domains for p in d.held_out.spread(max(4, PROMPTS // len(domains))).prompts]
    return Explanation(
        model=model.name,
        dtype=str(model.network.dtype).removeprefix("torch."),
        title=" and ".join(dict.fromkeys(title_of(d.provenance.enhance) for d in enhancement.directions)),
        directions=directions,
        gains=applied_gains(enhancement, realised),
        attribution=attribution,
        dose=dose,
        acting=acting(model, enhancement, special, language),
        answers=samples_of(model, shown, both_answers(model, enhancement, shown, options.tokens, progress=progress)),
        check=check,
        evaluation=evaluation,
        learning=learning,
        seed=options.seed,
        versions={name: version(name) for name in ("burnish", "torch", "transformers")},
    )


def applied_gains(enhancement: Enhancement, realised: Sequence[LayerGain] = ()) -> tuple[AppliedGain, ...]:
    """Every gain other than zero, with what the stored weights make of it where that is known."""
    known = {(gain.layer, k): value for gain in realised for k, value in enumerate(gain.realised)}
    places = enhancement.gains.nonzero().tolist()
    return tuple(
        AppliedGain(layer, k, float(enhancement.gains[layer, k]), known.get((layer, k))) for layer, k in places
    )


def _good_answers(
    model: Model, domains: Sequence[Domain], options: ExplainOptions, progress: Progress | None
) -> tuple[PairKind, list[Answered]]:
    """Reference answers of the report half, or self-made good answers where there are none."""
    domain, how = domains[0], options.measuring
    kind: PairKind
    if domain.references_report.prompts:
        kind, prompts = "references", domain.references_report
        answers = [answer_tokens(model, p.answer, how) for p in prompts.prompts]
    else:
        kind, prompts = "made", halves(domain.held_out)[1]
        system = domain.expert_system_prompt
        answers = base_answers(model, prompts, how.tokens, system=system, seed=how.seed, progress=progress)
    rows = [Answered(Prompt(p.messages), a) for p, a in zip(prompts.prompts, answers, strict=True) if a]
    return kind, rows[: options.answers_scored]


def packaged_domains(enhancement: Enhancement) -> list[Domain]:
    """The packaged domains that an enhancement's directions name."""
    names = [d.provenance.enhance.removesuffix(" references") for d in enhancement.directions]
    return [load_domain(name) for name in dict.fromkeys(names) if name in domain_names()]


def _shown(domains: Sequence[Domain], language: str, count: int) -> PromptSet:
    """Held-out prompts of the speciality, and a general one last."""
    general = load_general(language).held_out.prompts
    special = domains[0].held_out.spread(max(1, count - 1)).prompts if domains else ()
    return PromptSet("shown", (*special, *general)[:count])
