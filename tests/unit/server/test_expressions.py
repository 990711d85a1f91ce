"""Model expressions: their grammar, and what names stand for. No model is needed."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from burnish.errors import RefusedError
from burnish.mix import Mix
from burnish.personal.profile import Profile
from burnish.server.directions import Directions
from burnish.server.expressions import LONGEST, domain_of, expression_of, mix_of, parts_of

LOADED: Any = SimpleNamespace(gains=torch.tensor([[0.5], [-0.4]]))
KNOWN: Any = Directions(
    {"tuned": LOADED}, {}, {"education": LOADED, "formal-casual": LOADED, "creative-writing": LOADED}
)
MINE = {name: Profile("1", name) for name in ("mine", "tuned", "education")}


@pytest.mark.parametrize("text", ["base", " base ", "base\n"])
def test_base_alone_is_the_model_itself(text: str) -> None:
    assert mix_of(text) is None
    assert expression_of(None) == "base"


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("base+mine", {"mine": 1.0}),
        ("base + mine", {"mine": 1.0}),
        ("base+0.6 creative-writing", {"creative-writing": 0.6}),
        ("base+0.6 creative-writing - 0.3 formal-casual", {"creative-writing": 0.6, "formal-casual": -0.3}),
        ("base - 0.3 formal-casual", {"formal-casual": -0.3}),
        ('base+0.5 "3d files" + mine', {"3d files": 0.5, "mine": 1.0}),
    ],
)
def test_a_mix_stands_behind_base_and_is_read_back(text: str, weights: dict[str, float]) -> None:
    mix = mix_of(text)
    assert mix is not None
    assert mix.as_dict() == weights
    assert mix_of(expression_of(mix)) == mix


@pytest.mark.parametrize(
    "text", ["", "gpt-4o", "based+mine", "base-mine", "base mine", "mine", "BASE", "base+x" * LONGEST]
)
def test_other_models_are_not_found(text: str) -> None:
    with pytest.raises(RefusedError) as refused:
        mix_of(text)
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    "text", ["base+", "base+0.6", "base+a+a", "base+0 a", "base+a b", 'base+"a', "base - ", "base++a"]
)
def test_a_mix_that_cannot_be_read_is_a_bad_request(text: str) -> None:
    with pytest.raises(RefusedError) as refused:
        mix_of(text)
    assert (refused.value.http_status, refused.value.code) == (400, "invalid_expression")


def kinds(text: str) -> list[str]:
    mix = mix_of(text)
    assert mix is not None
    return [part.kind for part in parts_of(mix, KNOWN, MINE)]


def test_a_name_is_a_loaded_enhancement_before_a_profile_before_a_packaged_name() -> None:
    assert kinds("base+tuned + mine + education + formal-casual") == ["loaded", "profile", "profile", "packaged"]


def test_an_unknown_name_is_not_found_and_the_known_ones_are_named() -> None:
    with pytest.raises(RefusedError, match=r"tuned, mine, .*formal-casual") as refused:
        kinds("base+nobody")
    assert (refused.value.http_status, refused.value.code) == (404, "model_not_found")


@pytest.mark.parametrize("text", ["base+1.1 mine", "base - 0.5 mine", "base+3 mine"])
def test_a_profile_cannot_exceed_its_budget(text: str) -> None:
    with pytest.raises(RefusedError, match="budget") as refused:
        kinds(text)
    assert refused.value.http_status == 400


def test_a_gain_cannot_turn_a_component_around() -> None:
    """What turns down stops at -1 where it is scaled; what strengthens is not turned."""
    assert kinds("base+2.5 tuned") == kinds("base+2.6 tuned") == kinds("base - 2 tuned") == ["loaded"]
    with pytest.raises(RefusedError, match="around"):
        kinds("base - 2.1 tuned")


def test_the_domain_of_a_mix_is_its_heaviest() -> None:
    mix = Mix.parse("0.2 creative-writing - 3 formal-casual")
    assert domain_of(parts_of(mix, KNOWN, {})) == "creative-writing"
    assert domain_of(parts_of(Mix.parse("0.2 creative-writing - 0.3 education"), KNOWN, {})) == "education"
    assert domain_of(parts_of(Mix.parse("formal-casual"), KNOWN, {})) is None
    assert domain_of(()) is None
