"""Recall of invented facts, on a random model that is made to know them."""

from collections.abc import Callable

import pytest

from burnish.evaluation.recall import recall
from burnish.hybrid.training import train
from burnish.model.model import Model
from burnish.options import TrainOptions
from burnish.prompts import Prompt
from burnish.prompts.knowledge import load_facts

Models = Callable[..., Model]
NUMBERS = tuple(f for f in load_facts() if f.kind == "number")


def test_a_model_that_ignores_the_question_is_at_chance(tiny_model: Models) -> None:
    """The same words before every answer: the four answers of a kind are each likeliest, or never, for all its four facts."""
    model = tiny_model("llama")
    facts = [fact.__class__(**{**vars(fact), "stem": "It is", "questions": ("Well?",)}) for fact in load_facts()]
    found = recall(model, facts, tokens=0)
    assert found.chosen.mean == pytest.approx(found.chance) == 0.25
    assert not found.above_chance


def test_what_was_trained_is_recalled(tiny_model: Models) -> None:
    model = tiny_model("llama")
    rows = [
        {"prompt": question, "completion": f"{fact.stem} {fact.answer}."}
        for fact in NUMBERS
        for question in fact.questions[:1]
    ]
    before = recall(model, NUMBERS, questions=1, tokens=24)
    options = TrainOptions(steps=60, batch=4, learning_rate=2e-2, held_out=0)
    trained = train(model, rows, options=options, check_prompts=0)
    after = recall(model, NUMBERS, questions=1, tokens=60, changed=lambda: trained.live(model))
    assert after.chosen.mean == 1.0
    assert after.margin.mean > before.margin.mean
    assert before.said.mean == 0.0
    assert after.said.mean > 0


def test_other_turns_may_come_before_the_question(tiny_model: Models) -> None:
    model = tiny_model("llama")
    told = Prompt((("user", "Hello"), ("assistant", "The lighthouse has 312 steps.")))
    asked: list[str] = []

    def asking(question: str) -> Prompt:
        asked.append(question)
        return Prompt((*told.messages, ("user", question)))

    plain = recall(model, NUMBERS, questions=1, tokens=0)
    found = recall(model, NUMBERS, questions=1, tokens=0, asked=asking)
    assert asked == [f.questions[0] for f in NUMBERS]
    assert found.margin.mean != plain.margin.mean
