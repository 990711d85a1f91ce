"""The fast pass sees exactly what a plain forward pass sees."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import burnish.model.capture as capturing
from burnish.model.capture import Tokens, answer_sequences, batches, capture, prompt_sequences
from burnish.model.model import Model
from burnish.options import Site
from conftest import Models
from families import MOST

PROMPTS = ["Hello", "Describe a lighthouse at dusk.", "Why?", "Count to nine and then stop, please.", "Tea or coffee"]


def captured(model: Model, sequences: Sequence[Tokens], *, site: Site = "residual", **options: int) -> torch.Tensor:
    layers = options.get("last_layer", model.anatomy.layers - 1) + 1
    states = torch.zeros(len(sequences), layers, model.anatomy.hidden_size)

    def keep(rows: list[int], batch: torch.Tensor) -> None:
        states[rows] = batch

    capture(model, sequences, keep, site=site, **options)
    return states


@torch.inference_mode()
def plain(model: Model, sequence: Tokens, site: Site) -> torch.Tensor:
    """One sequence, unbatched, every block's output recorded by an ordinary hook: [layers, hidden]."""
    outputs: dict[int, torch.Tensor] = {}
    handles = []

    def record(layer: int) -> Callable[..., None]:
        def hook(module: object, arguments: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if hidden.ndim == 4 and site == "residual":  # parallel streams: Gemma 3n's first, the mean of DeepSeek V4's
                hidden = hidden[0] if "altup_num_inputs" in model.network.config.to_dict() else hidden.mean(2)
            outputs[layer] = hidden.reshape(-1, hidden.shape[-1])

        return hook

    for layer, block in enumerate(model.network.get_submodule(model.anatomy.stack)):
        if site == "residual":
            handles.append(block.register_forward_hook(record(layer)))
    if site == "attention":
        for projection in model.anatomy.attention():
            module = model.network.get_submodule(projection.post_norm or projection.path)
            handles.append(module.register_forward_hook(record(projection.layer)))
    model.network(input_ids=torch.tensor([sequence.tokens]), use_cache=False)
    for handle in handles:
        handle.remove()
    zeros = torch.zeros(1, model.anatomy.hidden_size)
    rows = range(sequence.first, sequence.last + 1)
    return torch.stack(
        [outputs[i][list(rows)].mean(0) if i in outputs else zeros[0] for i in range(model.anatomy.layers)]
    )


@pytest.mark.parametrize("site", ["residual", "attention"])
@MOST
def test_last_prompt_tokens_equal_a_plain_pass(family: str, site: Site, tiny_model: Models) -> None:
    model = tiny_model(family)
    sequences = prompt_sequences(model, PROMPTS)
    expected = torch.stack([plain(model, s, site) for s in sequences])
    torch.testing.assert_close(captured(model, sequences, site=site, tokens=64), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_answer_means_equal_a_plain_pass(family: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    sequences = answer_sequences(model, PROMPTS[:3], [[40, 41, 42], [50], [60, 61, 62, 63, 64]])
    expected = torch.stack([plain(model, s, "residual") for s in sequences])
    torch.testing.assert_close(captured(model, sequences), expected, rtol=1e-3, atol=1e-4)


def test_neither_the_first_token_nor_the_template_is_in_an_answer(tiny_model: Models) -> None:
    model = tiny_model("llama")
    (sequence,) = answer_sequences(model, ["Hello"], [[40, 41]])
    assert sequence.tokens[: sequence.first] == model.tokens("Hello")
    assert sequence.tokens[sequence.first : sequence.last + 1] == [40, 41]


@pytest.mark.parametrize("site", ["residual", "attention"])
def test_stopping_early_changes_nothing_below(site: Site, tiny_model: Models) -> None:
    model = tiny_model("llama")
    sequences = prompt_sequences(model, PROMPTS)
    states = captured(model, sequences, site=site)
    torch.testing.assert_close(captured(model, sequences, site=site, last_layer=1), states[:, :2], rtol=0, atol=0)


def test_the_shared_prefix_is_run_once(tiny_model: Models) -> None:
    model = tiny_model("llama")
    widths: list[int] = []
    handle = model.network.model.layers[0].register_forward_hook(
        lambda module, arguments, output: widths.append(arguments[0].shape[1])
    )
    sequences = prompt_sequences(model, PROMPTS)
    prefix = capturing.shared_prefix([s.tokens for s in sequences])
    captured(model, sequences)
    handle.remove()
    assert prefix >= len("<|user|>")
    assert widths[0] == prefix
    assert widths[-1] == max(len(s.tokens) for s in sequences) - prefix


def test_an_out_of_memory_batch_is_halved_and_run_again(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    sequences = prompt_sequences(model, PROMPTS)
    states = captured(model, sequences)
    run = capturing._run
    sizes: list[int] = []

    def small_machine(model: Model, batch: list[Tokens], *arguments: object) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return run(model, batch, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(capturing, "_run", small_machine)
    torch.testing.assert_close(captured(model, sequences, tokens=10_000), states, rtol=1e-4, atol=1e-5)
    assert sizes[0] > 2
    monkeypatch.setattr(capturing, "_run", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError))
    with pytest.raises(torch.OutOfMemoryError):
        captured(model, sequences)


@given(st.lists(st.integers(1, 60), max_size=40).map(sorted), st.integers(1, 200))
def test_batches_cover_everything_and_fit(lengths: list[int], tokens: int) -> None:
    sizes = batches(lengths, tokens)
    assert sum(sizes) == len(lengths)
    start = 0
    for size in sizes:
        assert size >= 1
        assert size == 1 or size * lengths[start + size - 1] <= tokens
        start += size
