"""Many candidates in one pass score exactly as each would alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from burnish.artifacts.lora import LoraAdapter, read_lora
from burnish.errors import InputError, ModelError, WrongModelError
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, TokenScores, score
from conftest import Models, random_adapter, random_enhancement
from families import MOST

PROMPTS = ["Hello", "Describe a lighthouse at dusk.", "Why?"]
ANSWERS = [[40, 41, 42], [50], [60, 61, 62, 63, 64]]


def items(model: Model) -> list[Item]:
    return [Item(model.tokens(p), a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]


@torch.inference_mode()
def plain(model: Model, item: Item) -> torch.Tensor:
    """Log probabilities [answer tokens, vocabulary] of one item by an ordinary forward pass."""
    logits = model.network(input_ids=torch.tensor([item.prompt + item.answer]), use_cache=False).logits[0]
    return logits[len(item.prompt) - 1 : -1].double().log_softmax(-1)


def late(model: Model, factor: float, seed: int = 0) -> list[float]:
    """Gains in the last edited layer only."""
    gains = [0.0] * model.anatomy.layers
    gains[model.anatomy.attention()[-1].layer] = factor
    return gains


@pytest.mark.parametrize("window", ["all", "late"])
@MOST
def test_batched_candidates_equal_separate_plain_passes(family: str, window: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    gains = [late(model, f) if window == "late" else f for f in (0.5, 2.0, -0.7)]
    enhancements = [random_enhancement(model, g, seed=i, rank=1 + i % 2) for i, g in enumerate(gains)]
    rows = items(model)
    result = score(model, rows, [Candidate(str(i), e) for i, e in enumerate(enhancements)], tokens=120)
    base = [plain(model, item) for item in rows]
    for enhancement, scores in zip(enhancements, result.candidates, strict=True):
        with model.enhanced(enhancement):
            for item, p, row, reference in zip(rows, base, scores, result.base, strict=True):
                q = plain(model, item)
                answer = torch.tensor(item.answer)[:, None]
                torch.testing.assert_close(row.log_probability, q.gather(1, answer)[:, 0], rtol=1e-3, atol=2e-4)
                torch.testing.assert_close(reference.log_probability, p.gather(1, answer)[:, 0], rtol=1e-3, atol=2e-4)
                torch.testing.assert_close(row.kl, (p.exp() * (p - q)).sum(-1), rtol=1e-2, atol=1e-4)


def test_a_candidate_that_does_nothing_has_no_divergence(tiny_model: Models) -> None:
    model = tiny_model("llama")
    result = score(model, items(model), [Candidate("nothing"), Candidate("zero", random_enhancement(model, 0.0))])
    for scores in result.candidates:
        for row, reference in zip(scores, result.base, strict=True):
            assert row.kl.max() < 1e-6  # rows of one batch may differ in the last bit
            assert not row.flipped.any()
            torch.testing.assert_close(row.log_probability, reference.log_probability, rtol=1e-5, atol=1e-5)


def test_steering_adds_its_vector_to_every_block(tiny_model: Models) -> None:
    model = tiny_model("llama")
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.0, 1.0, 0.5])[:, None]
    result = score(model, items(model), [Candidate("steered", steering=vectors)])
    handles = [
        block.register_forward_hook(lambda module, arguments, output, v=vectors[layer]: output + v)
        for layer, block in enumerate(model.network.model.layers)
    ]
    for item, row in zip(items(model), result.candidates[0], strict=True):
        expected = plain(model, item).gather(1, torch.tensor(item.answer)[:, None])[:, 0]
        torch.testing.assert_close(row.log_probability, expected, rtol=1e-3, atol=2e-4)
    for handle in handles:
        handle.remove()


def test_the_batch_size_does_not_matter_and_the_model_is_left_as_it_was(tiny_model: Models) -> None:
    model = tiny_model("llama")
    candidates = [Candidate(str(i), random_enhancement(model, late(model, 0.3 * i), seed=i)) for i in range(5)]
    before = plain(model, items(model)[0])
    result = [score(model, items(model), candidates, tokens=tokens) for tokens in (1, 150, 100_000)]
    for other in result[1:]:
        for one, two in zip(result[0].candidates, other.candidates, strict=True):
            for a, b in zip(one, two, strict=True):
                torch.testing.assert_close(a.kl, b.kl, rtol=1e-3, atol=1e-6)
    assert torch.equal(plain(model, items(model)[0]), before)


def test_bad_items_and_other_models_are_refused(tiny_model: Models) -> None:
    model = tiny_model("llama")
    assert score(model, [], [Candidate("x")]).candidates == ((),)
    with pytest.raises(ValueError, match="at least one token"):
        score(model, [Item([1, 2], [])], [])
    other = random_enhancement(tiny_model("kanana"), 0.5)
    with pytest.raises(WrongModelError):
        score(model, items(model), [Candidate("other", other)])


LINEAR = ["q_proj", "v_proj", "o_proj", "down_proj"]
ADAPTED = [
    ("llama", {}),
    ("llama", {"use_rslora": True}),
    ("llama", {"layers_to_transform": [2]}),
    ("llama", {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {r"layers\.[01]\.self_attn\..*": 11, "down_proj": 1}}),
    ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),  # stores [in, out]
    ("falcon", {"target_modules": ["query_key_value", "dense"]}),
    ("phi3", {"target_modules": ["qkv_proj", "o_proj"]}),
    ("qwen2_moe", {"target_modules": ["q_proj", "shared_expert_gate"]}),  # gets the tokens of all rows as one list
    ("minicpm3", {"target_modules": ["kv_b_proj"]}),  # reads the cache's tokens as well
    ("gemma3-vision", {"target_modules": r".*language_model.*(q_proj|down_proj)"}),
]


def answer_log_probabilities(model: Model, item: Item) -> torch.Tensor:
    return plain(model, item).gather(1, torch.tensor(item.answer)[:, None])[:, 0]


def assert_scores_are_those_of(model: Model, scores: tuple[TokenScores, ...]) -> None:
    for item, row in zip(items(model), scores, strict=True):
        expected = answer_log_probabilities(model, item)
        torch.testing.assert_close(row.log_probability, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "settings"), ADAPTED)
def test_an_adapter_scores_as_peft_runs_it(
    family: str, settings: dict[str, object], tiny_model: Models, tmp_path: Path
) -> None:
    model, adapted = tiny_model(family), tiny_model(family, own=True)
    network = random_adapter(adapted, tmp_path / "adapter", **{"target_modules": LINEAR, **settings})
    adapter = read_lora(tmp_path / "adapter")
    result = score(
        model,
        items(model),
        [Candidate("none", adapter=adapter, adapter_scale=0.0), Candidate("adapter", adapter=adapter)],
    )
    assert_scores_are_those_of(replace(adapted, network=network), result.candidates[1])
    assert_scores_are_those_of(model, result.base)
    assert max(float(s.kl.max()) for s in result.candidates[1]) > 1e-3
    for row, reference in zip(result.candidates[0], result.base, strict=True):
        torch.testing.assert_close(row.log_probability, reference.log_probability, rtol=1e-5, atol=1e-5)


def test_the_scale_multiplies_the_adapter(tiny_model: Models, tmp_path: Path) -> None:
    model = tiny_model("llama")
    for name, alpha in (("one", 4), ("three", 12)):
        random_adapter(tiny_model("llama", own=True), tmp_path / name, target_modules=LINEAR, lora_alpha=alpha)
    one, three = (read_lora(tmp_path / name) for name in ("one", "three"))
    assert (one.name, three.name) == ("one", "three")
    result = score(model, items(model), [Candidate("a", adapter=one, adapter_scale=3.0), Candidate("b", adapter=three)])
    for a, b in zip(*result.candidates, strict=True):
        torch.testing.assert_close(a.log_probability, b.log_probability, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 100_000])
def test_a_batch_of_adapters_and_enhancements_keeps_its_rows_apart(
    tokens: int, tiny_model: Models, tmp_path: Path
) -> None:
    model, adapted = tiny_model("llama"), tiny_model("llama", own=True)
    network = random_adapter(adapted, tmp_path / "one", target_modules=LINEAR)
    random_adapter(tiny_model("llama", own=True), tmp_path / "two", target_modules=["q_proj"], seed=1)
    one, two = read_lora(tmp_path / "one"), read_lora(tmp_path / "two")
    enhancement = random_enhancement(model, 0.8)
    candidates = [
        Candidate("half", adapter=one, adapter_scale=0.5),
        Candidate("enhanced", enhancement),
        Candidate("adapter", adapter=one),
        Candidate("other", adapter=two),
        Candidate("both", enhancement, adapter=one),
    ]
    result = score(model, items(model), candidates, tokens=tokens)
    for candidate, scores in zip(candidates, result.candidates, strict=True):
        for batched, alone in zip(scores, score(model, items(model), [candidate]).candidates[0], strict=True):
            torch.testing.assert_close(batched.log_probability, alone.log_probability, rtol=1e-5, atol=1e-5)
    assert_scores_are_those_of(model, result.base)
    with model.enhanced(enhancement):
        assert_scores_are_those_of(model, result.candidates[1])
    peft = replace(adapted, network=network)
    assert_scores_are_those_of(peft, result.candidates[2])
    with peft.enhanced(enhancement):  # the adapter goes first: what it writes is strengthened too
        assert_scores_are_those_of(peft, result.candidates[4])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "olora"}, "path_initial_model_for_weight_conversion"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
    ],
)
def test_adapters_that_are_more_than_plain_lora_are_refused(
    settings: dict[str, object], message: str, tiny_model: Models, tmp_path: Path
) -> None:
    random_adapter(tiny_model("llama", own=True), tmp_path / "adapter", **{"target_modules": ["q_proj"], **settings})
    with pytest.raises(InputError, match=message):
        read_lora(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("path", "inputs", "outputs", "error", "message"),
    [
        (
            "model.layers.0.self_attn.q_proj",
            56,
            96,
            WrongModelError,
            "56 inputs and 96 outputs, where this model has 32 and 32",
        ),
        ("transformer.h.0.attn.c_attn", 32, 96, WrongModelError, "which this model does not have"),
        ("model.layers.0.input_layernorm", 32, 32, WrongModelError, "no linear map but a LlamaRMSNorm"),
        ("lm_head", 32, 300, ModelError, "outside the decoder's blocks"),
    ],
)
def test_an_adapter_of_another_model_or_outside_the_blocks_is_refused(
    path: str, inputs: int, outputs: int, error: type[Exception], message: str, tiny_model: Models
) -> None:
    model = tiny_model("llama")
    adapter = LoraAdapter("foreign", {path: (torch.zeros(2, inputs), torch.zeros(outputs, 2))})
    with pytest.raises(error, match=message) as raised:
        score(model, items(model), [Candidate("adapter", adapter=adapter)])
    assert path in str(raised.value)


def test_a_module_in_which_rows_cannot_be_told_apart_is_refused(tiny_model: Models) -> None:
    model = tiny_model("deepseek_v4")
    path = (
        "model.layers.0.self_attn.o_a_proj"  # maps groups of a token's features, each with its own part of the weight
    )
    module = model.network.get_submodule(path)
    factors = torch.ones(1, module.in_features), torch.ones(module.out_features, 1)
    with pytest.raises(ModelError, match="cannot be told apart"):
        score(model, items(model), [Candidate("adapter", adapter=LoraAdapter("grouped", {path: factors}))])
