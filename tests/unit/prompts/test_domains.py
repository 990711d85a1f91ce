"""The packaged sets differ in their speciality and in nothing else."""

import re
from collections import Counter

import pytest

from burnish.errors import InputError
from burnish.prompts import PromptSet
from burnish.prompts.axes import load_axis
from burnish.prompts.domains import domain_names, load_domain, load_general, load_protect, packaged_names
from burnish.prompts.lint import lint, mean_length, question_share

NAMES = (
    "business-communication",
    "creative-writing",
    "creative-writing-ko",
    "education",
    "medical-scientific",
    "technical-documentation",
)
WORD = re.compile(r"[\w']+")
HANGUL = re.compile(r"[가-힣]")
EACH = pytest.mark.parametrize("name", NAMES)


def every_set() -> dict[str, PromptSet]:
    sets = {"protect": load_protect()}
    for language in ("en", "ko"):
        general = load_general(language)
        sets |= {general.name: general.prompts, f"{general.name} held-out": general.held_out}
    for name in NAMES:
        domain = load_domain(name)
        sets |= {name: domain.enhance, f"{name} held-out": domain.held_out}
    axis = load_axis("formal-casual")  # the user's words are the same in all
    return sets | {"axes": axis.positive, "axes held-out": axis.held_positive}


def test_these_domains_are_packaged() -> None:
    assert domain_names() == list(NAMES)


@EACH
def test_a_domain_has_what_it_promises(name: str) -> None:
    domain = load_domain(name)
    assert len(domain.enhance) == 95
    assert len(domain.held_out) == 40
    assert len(domain.references_tune) == 32
    assert len(domain.references_report) == 16
    assert set(domain.references_tune.texts) <= set(domain.enhance.texts)
    assert set(domain.references_report.texts) <= set(domain.held_out.texts)
    assert domain.expert_system_prompt
    assert domain.measures


@EACH
def test_reference_answers_are_short_and_complete(name: str) -> None:
    domain = load_domain(name)
    shortest = 50 if domain.language == "ko" else 60  # a Korean word carries its particles
    for row in (*domain.references_tune.prompts, *domain.references_report.prompts):
        assert row.answer is not None
        assert shortest <= len(row.answer.split()) <= 150, row.text
        assert bool(HANGUL.search(row.answer)) == (domain.language == "ko"), row.text


@EACH
def test_form_length_and_language_match_the_general_set(name: str) -> None:
    domain = load_domain(name)
    general = load_general(domain.language)
    for special, everyday in ((domain.enhance, general.prompts), (domain.held_out, general.held_out)):
        assert lint(special, everyday) == []
        assert question_share(special) == pytest.approx(question_share(everyday), abs=0.01)
        assert mean_length(special) == pytest.approx(mean_length(everyday), rel=0.12)


def test_general_and_protect_sets_have_their_sizes() -> None:
    for language in ("en", "ko"):
        general = load_general(language)
        assert (len(general.prompts), len(general.held_out)) == (95, 60)
    assert len(load_protect()) == 128
    sizes = {"facts": 16, "arithmetic": 16, "code": 26, "harmful": 22, "json": 12, "tools": 8, "korean": 12}
    assert {name: len(load_protect(category=name)) for name in sizes} == sizes


def test_prompts_as_people_ask_are_for_learning_or_for_reporting_never_for_both() -> None:
    for name in packaged_names():
        domain = load_domain(name)
        assert (len(domain.asked), len(domain.asked_held_out)) == (64, 40)
        learnt = {p.messages for p in (*domain.asked.prompts, *domain.enhance.prompts)}
        assert not learnt & {p.messages for p in (*domain.asked_held_out.prompts, *domain.held_out.prompts)}
    assert all(p.answer is None for p in load_protect(category="harmful").prompts)


def test_no_prompt_is_near_another_in_any_set() -> None:
    texts = [text for prompts in every_set().values() for text in prompts.texts]
    bags = [frozenset(WORD.findall(text.casefold())) for text in texts]
    near = [
        (texts[i], texts[j])
        for i in range(len(texts))
        for j in range(i)
        if 2 * len(bags[i] & bags[j]) >= len(bags[i] | bags[j])
    ]
    assert near == []


def test_no_set_is_a_template_with_swapped_nouns() -> None:
    for name, prompts in every_set().items():
        openings = Counter(" ".join(text.casefold().split()[:3]) for text in prompts.texts)
        assert openings.most_common(1)[0][1] <= max(3, 0.05 * len(prompts)), (name, openings.most_common(3))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="creative-writing"):
        load_domain("poetry")
    with pytest.raises(InputError, match="--normal"):
        load_general("fr")
