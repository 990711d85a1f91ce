"""The prompts behind a direction: given by the user or packaged, recognised by their hash."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from burnish.artifacts.direction import Direction, Enhancement
from burnish.finding import Progress, split
from burnish.model.model import Model
from burnish.options import FindOptions, TuneOptions
from burnish.prompts import PromptSet
from burnish.prompts.domains import domain_names, load_domain, load_general, load_protect
from burnish.tuning.aims import Speciality, own_answers


@dataclass(frozen=True)
class Sets:
    """What one direction was made from, and what it is shown on."""

    speciality: Speciality
    tune: tuple[PromptSet, PromptSet]  # enhance, normal
    held_out: tuple[PromptSet, PromptSet]
    protect: PromptSet | None
    same: bool  # the very prompts the direction was found on


def packaged_specialities(enhancement: Enhancement) -> list[Speciality]:
    """The packaged domains that an enhancement's directions name."""
    names = [d.provenance.enhance.removesuffix(" references") for d in enhancement.directions]
    return [Speciality(load_domain(name)) for name in dict.fromkeys(names) if name in domain_names()]


def find_options(direction: Direction) -> FindOptions:
    """How a direction was found, as far as its file says."""
    p = direction.provenance
    return FindOptions(
        instructions=max(2, p.enhance_prompts),
        scope=direction.scope,
        site=direction.site,
        position="answer" if p.position == "answer" else "prompt",
        protect=p.protected,
        seed=p.seed,
    )


def sets_of(
    model: Model, direction: Direction, specialities: Sequence[Speciality], progress: Progress | None = None
) -> Sets | None:
    """The sets of the speciality whose prompts a direction was found on; with one speciality only, that one's in any case."""
    found = [_sets(model, direction, s, progress) for s in specialities if _may_be(direction, s)]
    fitting = [s for s in found if s is not None and s.same]
    if fitting:
        return fitting[0]
    if len(specialities) > 1:
        return None
    return next((s for s in found if s is not None), None)


def _may_be(direction: Direction, speciality: Speciality) -> bool:
    return direction.provenance.position != "answer" or len(speciality.domain.references_tune) > 0


def _sets(model: Model, direction: Direction, speciality: Speciality, progress: Progress | None) -> Sets | None:
    domain, options = speciality.domain, find_options(direction)
    general = load_general(domain.language)
    if options.position == "answer":
        good, rest = domain.references_tune, domain.references_report
        if good.hash != direction.provenance.enhance_hash:
            return None
        plain, held = (own_answers(model, p, TuneOptions(seed=options.seed), progress) for p in (good, rest))
        return Sets(speciality, (good, plain), (rest, held), None, True)
    enhance = split(domain.enhance, options, domain.held_out)
    normal = (
        split(general.prompts, replace(options, instructions=direction.provenance.normal_prompts), general.held_out)
        if speciality.normal is None
        else split(speciality.normal, options)
    )
    same = enhance.tune.hash == direction.provenance.enhance_hash
    return Sets(speciality, (enhance.tune, normal.tune), (enhance.held_out, normal.held_out), load_protect(), same)
