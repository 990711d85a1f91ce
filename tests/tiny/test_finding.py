"""Directions: found where there is one, refused where there is none, and kept with what they were made from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from burnish.artifacts.direction import Direction, Enhancement
from burnish.errors import InputError, ModelError, NoDirectionError, PromptFileError, WrongModelError
from burnish.finding import find_direction, split
from burnish.model.model import Model
from burnish.options import FindOptions, Scope
from burnish.prompts import Prompt, PromptSet
from conftest import Models, random_enhancement

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def texts(count: int, start: int, end: str) -> list[str]:
    """Varied short texts with a common ending."""
    letters = [LETTERS[(start + 7 * i + i // 26) % 26] for i in range(count + 8)]
    return ["".join(letters[i : i + 3 + i % 5]) + end for i in range(count)]


def direction_of(model: Model, **options: object) -> Direction:
    return find_direction(
        model,
        enhance=texts(30, 0, " ?!"),
        normal=texts(30, 3, " ..."),
        options=FindOptions(instructions=20, **options),  # type: ignore[arg-type]
    )


def test_a_planted_difference_is_found(tiny_model: Models) -> None:
    direction = direction_of(tiny_model("llama"))
    assert direction.found
    assert min(direction.report.auroc) > 0.95
    assert direction.report.held_out == 20
    torch.testing.assert_close(direction.vectors.norm(dim=1), torch.ones(3))
    assert direction.report.cosine_with_chosen[direction.layer] == pytest.approx(1)


def test_states_that_are_no_numbers_or_all_the_same_are_refused_in_words(tiny_model: Models) -> None:
    model = tiny_model("llama", own=True)
    write = model.network.model.layers[1].self_attn.o_proj.weight
    write.zero_()
    with pytest.raises(NoDirectionError, match="the same states at a layer"):
        direction_of(model, site="attention")
    write.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        direction_of(model)


@pytest.mark.parametrize("position", ["prompt", "answer"])
@pytest.mark.parametrize("site", ["residual", "attention"])
def test_the_same_inputs_give_the_same_bytes(site: str, position: str, tiny_model: Models, tmp_path: Path) -> None:
    model = tiny_model("llama")
    rows = [
        PromptSet("e", tuple(Prompt.of(t, t[::-1] + end) for t in texts(20, s, end))) for s, end in ((0, "!"), (9, "#"))
    ]
    options = FindOptions(instructions=12, site=site, position=position, protect=site == "attention")  # type: ignore[arg-type]
    spared = PromptSet("spared", tuple(Prompt.of(t) for t in texts(9, 4, ".")))
    for name in ("one", "two"):
        find_direction(model, enhance=rows[0], normal=rows[1], options=options, protect=spared).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_direction_is_the_mean_difference(tiny_model: Models) -> None:
    model = tiny_model("llama")
    sets = [texts(10, 0, "!"), texts(10, 5, "#")]
    direction = find_direction(model, enhance=sets[0], normal=sets[1], options=FindOptions(instructions=10))
    means = []
    for group in sets:
        with torch.inference_mode():
            states = [
                model.network(torch.tensor([model.tokens(t)]), output_hidden_states=True).hidden_states for t in group
            ]
        means.append(torch.stack([s[2][0, -1] for s in states]).mean(0))  # hidden_states[2] is the output of block 1
    expected = torch.nn.functional.normalize(means[0] - means[1], dim=0)
    torch.testing.assert_close(direction.vectors[1], expected, rtol=1e-3, atol=1e-4)


def test_answers_are_contrasted_with_the_models_own(tiny_model: Models) -> None:
    model = tiny_model("llama")
    rows = tuple(Prompt.of(t, "A much better answer.") for t in texts(12, 0, "?"))
    direction = find_direction(
        model,
        enhance=PromptSet("references", rows),
        normal=PromptSet("own", tuple(Prompt(r.messages) for r in rows)),
        options=FindOptions(position="answer"),
    )
    assert direction.provenance.position == "answer"
    assert direction.report.auroc[1] > 0.9


def test_protecting_takes_the_general_mean_out(tiny_model: Models) -> None:
    model = tiny_model("llama")
    plain, spared = direction_of(model, site="attention"), direction_of(model, site="attention", protect=True)
    assert spared.provenance.protected
    assert abs(float(plain.vectors[1] @ spared.vectors[1])) < 0.999


def test_protecting_answers_needs_prompts_to_protect(tiny_model: Models) -> None:
    rows = PromptSet("e", tuple(Prompt.of(t, "Yes.") for t in texts(12, 0, "?")))
    with pytest.raises(InputError, match="needs protect prompts"):
        find_direction(
            tiny_model("llama"),
            enhance=rows,
            normal=texts(12, 3, "."),
            options=FindOptions(position="answer", protect=True),
        )


def test_all_prompts_make_the_direction_when_there_are_no_more_than_asked() -> None:
    prompts = PromptSet("p", tuple(Prompt.of(t) for t in texts(16, 0, "?")))
    part = split(prompts, FindOptions(instructions=95))
    assert part.tune == prompts
    assert len(part.held_out) == 4
    measured = {p for p, inside in zip(part.tune.prompts, part.measured, strict=True) if inside}
    assert measured.isdisjoint(part.held_out.prompts)
    assert len(measured) == 12
    more = split(prompts, FindOptions(instructions=10))
    assert (len(more.tune), len(more.held_out), all(more.measured)) == (10, 6, True)


def test_sets_that_cannot_be_contrasted_are_refused(tiny_model: Models, tmp_path: Path) -> None:
    model = tiny_model("llama")
    with pytest.raises(InputError, match="1 prompt: too few"):
        find_direction(model, enhance=["one"], normal=texts(9, 0, "."))
    with pytest.raises(InputError, match="are the same"):
        find_direction(model, enhance=texts(9, 0, "."), normal=texts(9, 0, ".")[::-1])
    with pytest.raises(PromptFileError, match="does not exist"):
        find_direction(model, enhance=tmp_path / "none.txt", normal=texts(9, 0, "."))


@pytest.mark.parametrize("scope", ["single", "per-layer"])
def test_files_round_trip(scope: Scope, tiny_model: Models, tmp_path: Path) -> None:
    direction = direction_of(tiny_model("kanana"), scope=scope)
    again = Direction.load(direction.save(tmp_path / "d.safetensors"))
    assert torch.equal(again.vectors, direction.vectors)
    assert replace(again, vectors=direction.vectors) == direction
    enhancement = direction.enhancement(0.7, layers="1..")
    stored = Enhancement.load(enhancement.save(tmp_path / "e.safetensors"))
    assert torch.equal(stored.vectors, enhancement.vectors)
    assert torch.equal(stored.gains, enhancement.gains)
    assert stored.edited_layers() == [1, 2]
    assert (tmp_path / "e.safetensors").stat().st_size < 60_000


def test_a_direction_of_another_model_is_refused_with_the_reason(tiny_model: Models) -> None:
    enhancement = direction_of(tiny_model("llama")).enhancement(0.5)
    with pytest.raises(WrongModelError, match="another checkpoint"), tiny_model("llama-biased").enhanced(enhancement):
        pass
    with pytest.raises(WrongModelError, match=r"3 layers, 32 wide.*3 layers, 56 wide"):
        tiny_model("kanana").enhanced(enhancement).__enter__()


def test_other_files_are_refused(tiny_model: Models, tmp_path: Path) -> None:
    path = direction_of(tiny_model("llama")).save(tmp_path / "d.safetensors")
    with pytest.raises(InputError, match="holds a direction"):
        Enhancement.load(path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="cannot be read"):
        Direction.load(tmp_path / "text")


def test_combining_needs_one_model_and_keeps_each_gain(tiny_model: Models) -> None:
    model = tiny_model("llama")
    one, two = random_enhancement(model, 0.5, seed=1), random_enhancement(model, -0.2, seed=2)
    both = one.combined(two)
    assert both.rank == 2
    assert both.gram(0).shape == (2, 2)
    assert 1 < both.effective_rank(0) <= 2
    with pytest.raises(WrongModelError):
        one.combined(random_enhancement(tiny_model("llama-biased"), 0.5))
