"""Choosing tokens from logits."""

import math

import pytest
import torch

from burnish.errors import InputError
from burnish.model import sampling
from burnish.model.sampling import Sampling, choose


def rows(*settings: Sampling) -> list[tuple[Sampling, torch.Generator]]:
    return [(s, torch.Generator().manual_seed(s.seed)) for s in settings]


def shares(logits: torch.Tensor, settings: Sampling, draws: int = 4000) -> torch.Tensor:
    """How often each token is drawn."""
    row = rows(settings)
    drawn = [choose(logits[None], row).tokens[0] for _ in range(draws)]
    return torch.bincount(torch.tensor(drawn), minlength=len(logits)) / draws


def test_temperature_zero_takes_the_most_likely_token() -> None:
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    assert choose(logits, rows(*[Sampling()] * 5)).tokens == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_their_probability(temperature: float) -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -math.inf])
    drawn = shares(logits, Sampling(temperature=temperature, seed=3))
    torch.testing.assert_close(drawn, (logits / temperature).softmax(-1), rtol=0, atol=0.03)
    assert drawn[4] == 0


@pytest.mark.parametrize("nucleus", [1, 2, 256])
def test_top_p_keeps_the_smallest_set_that_holds_its_mass(nucleus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "NUCLEUS", nucleus)
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    drawn = shares(logits, Sampling(temperature=1.0, top_p=0.65, seed=1))
    torch.testing.assert_close(drawn, torch.tensor([0.0, 4 / 7, 0.0, 3 / 7]), rtol=0, atol=0.03)
    assert shares(logits, Sampling(temperature=1.0, top_p=1e-9), 50)[1] == 1


def test_a_row_draws_the_same_tokens_whatever_the_other_rows_are() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    settings = [Sampling(1.0, seed=1), Sampling(), Sampling(2.0, 0.9, seed=2)]
    together = choose(logits, rows(*settings)).tokens
    assert together == [choose(logits[i : i + 1], rows(s)).tokens[0] for i, s in enumerate(settings)]


def test_log_probabilities_are_at_temperature_one_and_uncut() -> None:
    logits = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    choice = choose(logits, rows(Sampling(3.0, 0.2), Sampling()), log_probabilities=True)
    reference = logits.log_softmax(-1)[[0, 1], choice.tokens]
    torch.testing.assert_close(torch.tensor(choice.log_probabilities), reference)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_without_numbers_is_told_apart_and_draws_nothing(bad: float) -> None:
    logits = torch.zeros(2, 8)
    logits[0, 3] = bad
    choice = choose(logits, rows(Sampling(1.0), Sampling(1.0)))
    assert choice.finite == [False, True]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], name: str) -> None:
    with pytest.raises(InputError, match=f"The {name} of a request"):
        Sampling(**settings)  # type: ignore[arg-type]
