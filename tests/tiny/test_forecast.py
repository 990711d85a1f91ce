"""What a command will take is known before any weight is loaded."""

from dataclasses import replace

import pytest

from burnish.evaluation.evaluation_work import evaluation_work
from burnish.finding import find_direction, finding_work
from burnish.model.forecast import Work, answering, comparing, forecast, lengths, parameters
from burnish.model.model import outline
from burnish.options import EvaluateOptions, FindOptions, ModelOptions
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.contrast import Contrast
from burnish.prompts.domains import load_domain
from conftest import Folders, Models

SETS = [PromptSet(end, tuple(Prompt.of(f"word{'s' * (i % 5)} {i}{end}") for i in range(24))) for end in "?!"]


def test_the_tokens_of_finding_are_those_that_the_model_reads(
    tiny_model: Models, tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, options = tiny_model("llama"), FindOptions(instructions=16)
    work = finding_work(outline(tiny_folder("llama")), Contrast(SETS[0], SETS[1]), options)
    read: list[int] = []
    hook = model.network.get_input_embeddings().register_forward_hook(
        lambda _, given, __: read.append(given[0].numel())
    )
    try:
        find_direction(model, enhance=SETS[0], normal=SETS[1], options=options)
    finally:
        hook.remove()
    assert work.written == 0
    assert work.read == pytest.approx(sum(read), rel=0.2)


def test_work_grows_with_what_is_asked_for(tiny_folder: Folders) -> None:
    drawn, domain = outline(tiny_folder("llama")), load_domain("education")
    small = EvaluateOptions(prompts=4, tokens=8, samples=2, sample_tokens=8)
    base = evaluation_work(drawn, domain, None, small)
    for name in ("prompts", "tokens", "answer_tokens", "samples", "sample_tokens", "random_directions"):
        more = evaluation_work(drawn, domain, None, replace(small, **{name: 3 * getattr(small, name)}))
        assert more.tokens > base.tokens, name


def test_answers_are_counted_by_prompt_and_scores_by_candidate(tiny_folder: Folders) -> None:
    drawn = outline(tiny_folder("llama"))
    count, length = lengths(drawn, SETS[0])
    assert count == 24
    assert answering(drawn, SETS[0], 10) == Work(24 * length, 240)
    assert comparing(drawn, SETS[0], 10, 3).scored == pytest.approx(4 * 24 * (length + 10))


def test_memory_holds_the_weights_and_more_where_more_is_held_at_once(tiny_folder: Folders) -> None:
    folder = tiny_folder("llama")
    drawn, options = outline(folder), ModelOptions(dtype="float32", device="cpu")
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    plain, wide, served = (
        forecast(drawn, w, options) for w in (Work(1e6), Work(1e6, logits=512), Work(1e6, cached=4096))
    )
    assert plain.bytes > stored and wide.bytes > plain.bytes and served.bytes > plain.bytes
    assert plain.seconds > 0 and plain.tokens == 1_000_000
    blocks, total = parameters(drawn)
    assert 0 < blocks < total <= sum(p.numel() for p in drawn.network.parameters())
