"""What an explanation will take, in tokens."""

from collections.abc import Sequence

from burnish.artifacts.direction import Enhancement
from burnish.catalogue import names_in, naming_work
from burnish.evaluation.comparison import DOSES
from burnish.evaluation.pairs import damage_prompts
from burnish.explaining.attribution import MEASURED
from burnish.model.forecast import Work, answering, comparing, together
from burnish.model.model import Model
from burnish.options import ExplainOptions
from burnish.prompts.domains import Domain, load_general

DERIVED = 2  # passes that the derivatives cost


def explanation_work(
    model: Model,
    enhancement: Enhancement,
    domains: Sequence[Domain],
    options: ExplainOptions,
) -> Work:
    """Of `explain`. model: its outline; domains: whose prompts the directions were found on."""
    language = domains[0].language if domains else "en"
    general = load_general(language)
    parts = []
    if not options.skip_likenesses:
        parts.append(naming_work(model, len(names_in(language))) * len(enhancement.directions))
    for domain in domains:
        good = domain.held_out.spread(options.answers_scored)
        tested = min(MEASURED, len(enhancement.edited_layers()))
        parts.append(comparing(model, good, options.answer_tokens, tested + DERIVED + len(DOSES)))
    if options.doses:
        everyday = damage_prompts(general, options.measuring)[1]
        parts += [
            answering(model, everyday, options.answer_tokens),
            comparing(model, everyday, options.answer_tokens, len(DOSES)),
        ]
    shown = general.held_out.spread(max(1, options.answers))
    parts.append(
        (answering(model, shown, options.tokens) + comparing(model, shown, options.tokens, 1))
        * (2 if options.answers else 0)
    )
    return together(parts)
