"""What is learnt: a speciality, its questions, and who teaches it."""

from collections.abc import Sequence
from dataclasses import dataclass

from burnish.evaluation.material import halves
from burnish.learning.teacher import Examples, Expert, Teacher
from burnish.options import LearnOptions
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.domains import NONE, Domain, load_domain, load_general, load_protect, packaged_names


@dataclass(frozen=True)
class Subject:
    """One speciality."""

    name: str
    teacher: Teacher
    questions: PromptSet  # to learn with
    held_out: PromptSet  # to report on
    references: PromptSet = NONE  # good answers to report on
    weight: float = 1.0  # negative: toned down
    language: str = "en"
    everywhere: bool = False  # everyday prompts are among the questions, and only protect prompts stay as they are


def subject_of(domain: Domain, weight: float = 1.0, *, expert: str | None = None, examples: bool = False) -> Subject:
    """The subject of a domain.

    Args:
        domain: packaged, or made of the user's files.
        weight: how much it counts beside others.
        expert: a system prompt in the place of the domain's own.
        examples: whether the domain's reference answers teach, three at a time, in the place of a system prompt.
    """
    teacher = Examples(domain.references_tune) if examples else Expert(expert or domain.expert_system_prompt)
    questions = alternating(domain.enhance, domain.asked)
    held_out = alternating(halves(domain.held_out)[1], domain.asked_held_out)
    return Subject(domain.name, teacher, questions, held_out, domain.references_report, weight, domain.language)


def expert_subject(name: str, expert: str, language: str = "en") -> Subject:
    """An expert's prompt for every kind of question: those of all packaged domains, and everyday ones."""
    domains = [d for d in map(load_domain, packaged_names()) if d.language == language]
    general = load_general(language)
    questions, held_out = general.prompts, general.held_out
    for domain in domains:
        questions = alternating(questions, domain.asked)
        held_out = alternating(held_out, domain.asked_held_out)
    return Subject(name, Expert(expert), questions, held_out, language=language, everywhere=True)


def alternating(one: PromptSet, other: PromptSet) -> PromptSet:
    """The prompts of two sets in turn, without their answers, as many of each as the shorter one has; one alone where the other is
    empty."""
    if not one.prompts or not other.prompts:
        rows = one.prompts or other.prompts
    else:
        count = min(len(one), len(other))
        pairs = zip(one.spread(count).prompts, other.spread(count).prompts, strict=True)
        rows = tuple(p for pair in pairs for p in pair)
    return PromptSet(one.name, tuple(Prompt(p.messages) for p in rows))


def everyday_sets(subjects: Sequence[Subject], options: LearnOptions) -> tuple[PromptSet, PromptSet, PromptSet]:
    """Prompts whose answers should stay as they are: (held while learning, for choosing the strength, for reporting).

    No prompt is in two of them. The first has the packaged general prompts too.
    """
    general, protect = load_general(subjects[0].language), load_protect()
    everywhere = any(s.everywhere for s in subjects)
    kept = protect if everywhere else general.held_out.joined(protect)
    chosen, reported = halves(kept)
    held, measured = halves(chosen)
    if not everywhere:
        held = alternating(general.prompts, held)
    bare = (PromptSet(s.name, tuple(Prompt(p.messages) for p in s.prompts)) for s in (held, measured, reported))
    sets = zip(bare, (options.everyday, options.measured, options.measured), strict=True)
    first, second, third = (prompts.spread(count) for prompts, count in sets)
    return first, second, third
