"""What an evaluation will take, in tokens."""

from burnish.evaluation.comparison import DOSES
from burnish.evaluation.damage import PROSE_TOKENS
from burnish.evaluation.pairs import damage_prompts, halves
from burnish.finding import finding_work
from burnish.model.forecast import Work, answering, comparing, together
from burnish.model.model import Model
from burnish.options import EvaluateOptions, FindOptions
from burnish.prompts import PromptSet
from burnish.prompts.contrast import domain_contrast
from burnish.prompts.domains import Domain, load_general, load_protect

ROUNDS = 3  # of the search for a damage, in which all methods take part
ANSWERED = 0.7  # of the length allowed that an answer has on average
METHODS = 8  # that a comparison makes itself, besides random directions


def evaluation_work(model: Model, domain: Domain | None, pairs: PromptSet | None, options: EvaluateOptions) -> Work:
    """Of `evaluate`. model: its outline."""
    tune, report = damage_prompts(load_general(domain.language if domain else "en"), options)
    special = (domain.held_out if domain else halves(pairs or tune)[1]).spread(options.samples)
    random, short = options.random_directions, ANSWERED * options.tokens
    harmful = load_protect(category="harmful").without_answers()
    prose = Work(scored=2 * options.prompts * PROSE_TOKENS)
    listed = [
        pairs_work(model, domain, pairs, options, 1 + random),
        answering(model, tune, options.tokens),
        comparing(model, tune, short, 1),
        comparing(model, tune, short, random) * ROUNDS,
        answering(model, special, options.sample_tokens) * 2,
        Work(6 * len(special) * options.sample_tokens),  # the probe's readings
        answering(model, report, options.tokens) * 2,
        comparing(model, report, short, 1),
        prose,
        answering(model, harmful, options.tokens) * 2,
        answering(model, special, options.tokens),
        comparing(model, special, short, 1),
    ]
    return together(listed)


def comparison_work(model: Model, domain: Domain, given: int, options: EvaluateOptions) -> Work:
    """Of `compare`. given: enhancements and adapters of the user's."""
    general = load_general(domain.language)
    tune, report = damage_prompts(general, options)
    random, short = options.random_directions, ANSWERED * options.tokens
    count = METHODS + given + random
    doses = len(DOSES) * (1 + random // 2)
    work = finding_work(model, domain_contrast(domain), FindOptions(protect=True, site="attention"))
    return together(
        [
            work * 3,
            answering(model, tune, options.tokens),
            answering(model, report, options.tokens),
            comparing(model, tune, short, count) * ROUNDS,
            comparing(model, report, short, count + len(DOSES)),
            pairs_work(model, domain, None, options, count + doses),
        ]
    )


def pairs_work(
    model: Model, domain: Domain | None, pairs: PromptSet | None, options: EvaluateOptions, candidates: int
) -> Work:
    """Making the pairs of every kind, and scoring those to report on under some candidates."""
    work = Work()
    if pairs is not None:
        work += comparing(model, halves(pairs)[1], options.answer_tokens, candidates) * 2
    if domain is None:
        return work
    if domain.references_report.prompts:
        for prompts in (domain.references_tune, domain.references_report):
            work += answering(model, prompts.without_answers(), options.answer_tokens)
        work += comparing(model, domain.references_report.without_answers(), options.answer_tokens, candidates) * 2
    work += answering(model, domain.held_out, options.tokens)
    work += answering(model, domain.held_out, options.tokens, domain.expert_system_prompt)
    length = ANSWERED * options.tokens
    return work + comparing(model, halves(domain.held_out)[1], length, candidates) * 2
