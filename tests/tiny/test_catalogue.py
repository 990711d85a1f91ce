"""Named directions: found once, kept by everything they depend on."""

import pytest
import torch

from burnish.artifacts import cache
from burnish.catalogue import named_directions, names_in
from burnish.errors import InputError
from burnish.finding import find_direction
from burnish.options import FindOptions
from burnish.prompts.axes import load_axis
from conftest import Models

pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_named_direction_is_what_finding_gives_and_is_kept(
    tiny_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, axis = tiny_model("llama"), load_axis("formal-casual")
    named = named_directions(model, ["formal-casual"], site="attention")["formal-casual"]
    options = FindOptions(instructions=48, scope="per-layer", site="attention")
    direct = find_direction(model, enhance=axis.positive, normal=axis.negative, options=options)
    assert torch.allclose(named.vectors, direct.vectors, atol=1e-6)
    (path,) = (cache.cache_root() / "directions").iterdir()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("found again")

    with monkeypatch.context() as patch:
        patch.setattr("burnish.catalogue.found_direction", never)
        again = named_directions(model, ["formal-casual"], site="attention")["formal-casual"]
        assert torch.equal(again.vectors, named.vectors)
        with pytest.raises(AssertionError, match="found again"):
            named_directions(model, ["formal-casual"], site="residual")
    path.write_bytes(b"damaged")
    again = named_directions(model, ["formal-casual"], site="attention")["formal-casual"]
    assert torch.allclose(again.vectors, named.vectors)


def test_a_protected_direction_is_kept_apart_from_the_plain_one(tiny_model: Models) -> None:
    model = tiny_model("llama")
    plain, protected = (
        named_directions(model, ["formal-casual"], site="attention", protect=p)["formal-casual"] for p in (False, True)
    )
    assert (plain.provenance.protected, protected.provenance.protected) == (False, True)
    assert not torch.allclose(plain.vectors, protected.vectors)
    again = named_directions(model, ["formal-casual"], site="attention", protect=True)["formal-casual"]
    assert torch.equal(again.vectors, protected.vectors)


def test_an_unknown_name_is_refused_with_those_that_exist(tiny_model: Models) -> None:
    with pytest.raises(InputError, match=r"creative-writing.*formal-casual"):
        named_directions(tiny_model("llama"), ["poetry"])


def test_names_of_a_language_are_its_domains_and_axes() -> None:
    assert "creative-writing-ko" in names_in("ko") and "formal-casual" not in names_in("ko")
    assert {"creative-writing", "formal-casual"} <= set(names_in("en"))
