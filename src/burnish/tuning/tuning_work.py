"""What tuning will take, in tokens."""

from collections.abc import Sequence
from dataclasses import replace

from burnish.evaluation.evaluation_work import ANSWERED, pairs_work
from burnish.evaluation.pairs import damage_prompts, halves
from burnish.finding import finding_work
from burnish.model.forecast import Work, answering, comparing, together
from burnish.model.model import Model
from burnish.options import FindOptions, TuneOptions
from burnish.prompts.contrast import domain_contrast
from burnish.prompts.domains import load_general
from burnish.tuning.aims import EVERYDAY, Speciality
from burnish.tuning.tuning import FRONTIER

TRIED = 4  # candidates a step at which gains are measured, for each plan and each null
DERIVED = 6  # passes over the tuning half that one step's derivatives and sketches cost
DIRECTIONS = {"both": 2, "prompt": 1, "answer": 1, "residual": 1}


def tuning_work(model: Model, specialities: Sequence[Speciality], options: TuneOptions) -> Work:
    """Of `tune`. model: its outline."""
    how = options.measuring
    general = load_general(specialities[0].domain.language)
    everyday = damage_prompts(general, replace(how, prompts=EVERYDAY))
    short, null = ANSWERED * options.tokens, options.random_directions
    parts = [answering(model, half, options.tokens) for half in everyday]
    parts += [comparing(model, everyday[1], short, len(FRONTIER)), comparing(model, everyday[0], short, 2)]
    sample = everyday[0].spread(options.prompts)
    parts += [
        comparing(model, sample, short, TRIED * (1 + null)) * options.steps,
        answering(model, sample, options.tokens),
    ]
    parts += [comparing(model, sample, short, DERIVED * (1 + null)) * options.steps]
    for speciality in specialities:
        domain = speciality.domain
        finding = finding_work(model, domain_contrast(domain), FindOptions(site="attention", protect=True))
        candidates = len(FRONTIER) + null
        aimed = halves(domain.held_out)[0].spread(options.prompts)
        parts += [finding * DIRECTIONS[options.basis], pairs_work(model, domain, speciality.pairs, how, candidates)]
        parts += [answering(model, half.spread(options.prompts), options.tokens) for half in halves(domain.held_out)]
        parts += [comparing(model, aimed, short, (TRIED + DERIVED) * (1 + null)) * (4 * options.steps)]
    return together(parts)
