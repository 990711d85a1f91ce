"""What is learnt: a speciality, its questions, who teaches it, and what should stay as it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from burnish.evaluation.pairs import halves
from burnish.languages import language_of
from burnish.learning.teacher import Examples, Expert, Teacher
from burnish.options import LearnOptions
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.domains import NONE, Domain, load_domain, load_general, load_protect, packaged_names
from burnish.prompts.domains.own import EXPERT, split


@dataclass(frozen=True)
class Subject:
    """One speciality.

    Attributes:
        name: of the speciality.
        teacher: who answers the questions: the model under an expert's prompt, or reference answers.
        questions: to learn with.
        held_out: to report on.
        references: good answers to report on.
        weight: how much it counts beside others; negative: toned down.
        language: `en` or `ko`.
        everywhere: everyday prompts are among the questions, and only protect prompts stay as they are.
        normal: the user's everyday prompts, in the place of the packaged ones.
    """

    name: str
    teacher: Teacher
    questions: PromptSet
    held_out: PromptSet
    references: PromptSet = NONE
    weight: float = 1.0
    language: str = "en"
    everywhere: bool = False
    normal: PromptSet | None = None


def subject_of(
    domain: Domain,
    weight: float = 1.0,
    *,
    expert: str | None = None,
    examples: bool = False,
    normal: PromptSet | None = None,
) -> Subject:
    """The subject of a domain.

    Args:
        domain: packaged, or made of the user's files.
        weight: how much it counts beside others.
        expert: a system prompt in the place of the domain's own.
        examples: whether the domain's reference answers teach, three at a time, in the place of a system prompt.
        normal: everyday prompts that stay as they are, in the place of the packaged ones.

    Returns:
        What `learn` takes.
    """
    teacher = Examples(domain.references_tune) if examples else Expert(expert or domain.expert_system_prompt)
    return Subject(
        name=domain.name,
        teacher=teacher,
        questions=alternating(domain.enhance, domain.asked),
        held_out=alternating(halves(domain.held_out)[1], domain.asked_held_out),
        references=domain.references_report,
        weight=weight,
        language=domain.language,
        normal=normal,
    )


def domain_of_files(
    enhance: PromptSet, *, references: PromptSet | None = None, expert: str | None = None, seed: int = 0
) -> Domain:
    """A domain made of the user's files.

    Args:
        enhance: prompts of the speciality; a quarter of them, at least 8, is held out.
        references: prompts with good answers, every other one of which is for reporting.
        expert: the system prompt that shows the speciality; by default one that asks for the best in any field.
        seed: of the choice of the held-out prompts.

    Returns:
        What `subject_of` takes.

    Raises:
        InputError: too few of either.
    """
    held, learnt = split(enhance, references, seed)
    good = (NONE, NONE) if references is None else halves(references)
    return Domain(
        name=enhance.name,
        title=enhance.name,
        language=language_of(enhance.texts),
        summary="",
        expert_system_prompt=expert or EXPERT,
        measures=(),
        enhance=learnt,
        held_out=held,
        references_tune=good[0],
        references_report=good[1],
    )


def expert_subject(name: str, expert: str, language: str | None = None) -> Subject:
    """An expert's prompt for every kind of question: everyday ones, and those of all packaged domains of its language.

    Args:
        name: of the speciality.
        expert: the system prompt.
        language: a packaged one; by default that of the prompt, as far as its script tells.

    Returns:
        What `learn` takes.

    Raises:
        InputError: there are no packaged prompts in the language.
    """
    language = language or language_of([expert])
    domains = [domain for domain in map(load_domain, packaged_names()) if domain.language == language]
    general = load_general(language)
    return Subject(
        name=name,
        teacher=Expert(expert),
        questions=alternating(general.prompts, *(domain.asked for domain in domains)),
        held_out=alternating(general.held_out, *(domain.asked_held_out for domain in domains)),
        language=language,
        everywhere=True,
    )


def alternating(*sets: PromptSet) -> PromptSet:
    """The prompts of several sets in turn, without their answers, as many of each as the shortest has; empty ones are left out."""
    filled = [prompts for prompts in sets if prompts.prompts] or [sets[0]]
    count = min(map(len, filled))
    columns = [prompts.without_answers().spread(count).prompts for prompts in filled]
    return PromptSet(sets[0].name, tuple(prompt for row in zip(*columns, strict=True) for prompt in row))


def asked_questions(subjects: Sequence[Subject], options: LearnOptions) -> list[PromptSet]:
    """Each subject's share of the questions, by weight, spread over its own; the longest quarter costs too much and is left out."""
    total = sum(abs(subject.weight) for subject in subjects)
    return [
        without_longest(subject.questions).spread(max(4, round(options.prompts * abs(subject.weight) / total)))
        for subject in subjects
    ]


def without_longest(prompts: PromptSet) -> PromptSet:
    """The prompts without the longest quarter, counted in letters."""
    sizes = sorted(map(letters, prompts.prompts))
    longest = sizes[3 * len(sizes) // 4]
    return PromptSet(prompts.name, tuple(prompt for prompt in prompts.prompts if letters(prompt) <= longest))


def letters(prompt: Prompt) -> int:
    """Of all turns together."""
    return sum(len(text) for _, text in prompt.messages)


@dataclass(frozen=True)
class EverydaySets:
    """Prompts whose answers should stay as they are. No prompt is in two of them."""

    held: PromptSet  # while learning
    measured: PromptSet  # to choose the strength
    reported: PromptSet


def everyday_sets(subjects: Sequence[Subject], options: LearnOptions) -> EverydaySets:
    """General prompts (packaged, or the user's) and protect prompts; protect prompts alone where everyday ones are questions."""
    general, protect = load_general(subjects[0].language), load_protect()
    normal = next((subject.normal for subject in subjects if subject.normal is not None), None)
    if any(subject.everywhere for subject in subjects):
        ordinary = protect
    elif normal is not None:
        ordinary = alternating(normal, protect)
    else:
        ordinary = general.held_out.joined(protect)
    chosen, reported = halves(ordinary.without_answers())
    held, measured = halves(chosen)
    if ordinary is not protect and normal is None:
        held = alternating(general.prompts, held)
    return EverydaySets(
        held.spread(options.everyday), measured.spread(options.measured), reported.spread(options.measured)
    )
