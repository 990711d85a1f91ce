"""Axes in a model: the system words reach it whatever its template, and their contrast is a direction."""

import pytest
import torch

from burnish.finding import find_direction
from burnish.options import FindOptions
from burnish.prompts import Prompt
from burnish.prompts.axes import load_axis
from conftest import Models

REFUSING = "{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}[{{ m['content'] }}]"
DROPPING = "{% if m['role'] == 'user' %}[{{ m['content'] }}]{% endif %}"
HELLO = Prompt((("system", "Be brief."), ("user", "Hello")))


@pytest.mark.parametrize("body", [REFUSING, DROPPING])
def test_a_prompts_system_turn_goes_before_the_users_words_where_a_template_has_none(
    body: str, tiny_model: Models
) -> None:
    model = tiny_model("llama")
    model.tokenizer.chat_template = "{% for m in messages %}" + body + "{% endfor %}"
    assert model.render(HELLO) == model.render("Hello", system="Be brief.") == "[Be brief.\n\nHello]"
    assert model.render("Hello") == "[Hello]"
    axis = load_axis("long-short")
    for positive, negative in zip(axis.positive.prompts, axis.negative.prompts, strict=True):
        assert model.tokens(positive) != model.tokens(negative)


def test_a_prompts_system_turn_is_the_same_as_one_passed(tiny_model: Models) -> None:
    model = tiny_model("llama")
    assert model.tokens(HELLO) == model.tokens("Hello", system="Be brief.")
    assert model.render(HELLO, system="Be kind.") == model.render("Hello", system="Be kind.\n\nBe brief.")
    base = tiny_model("llama", template=False)
    assert base.render(HELLO) == "Be brief.\n\nHello"


def test_an_axis_is_the_difference_of_means_at_the_last_prompt_token(tiny_model: Models) -> None:
    model, axis = tiny_model("llama"), load_axis("warm-neutral")
    direction = find_direction(
        model,
        enhance=axis.positive,
        normal=axis.negative,
        held_out=(axis.held_positive, axis.held_negative),
        options=FindOptions(scope="per-layer"),
    )
    with torch.inference_mode():
        means = [
            torch.stack(
                [
                    model.network(torch.tensor([model.tokens(p)]), output_hidden_states=True).hidden_states[1][0, -1]
                    for p in side.prompts
                ]
            ).mean(0)
            for side in (axis.positive, axis.negative)
        ]
    expected = (means[0] - means[1]) / (means[0] - means[1]).norm()
    torch.testing.assert_close(direction.vectors[0], expected, rtol=0, atol=1e-4)
    assert direction.report.held_out == 48
