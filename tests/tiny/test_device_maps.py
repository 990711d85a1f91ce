"""A model spread by a device map, part of it offloaded to disk, computes what it computes on one device."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from burnish.checking import check
from burnish.errors import BurnishWarning, ModelError
from burnish.finding import find_direction
from burnish.model.decoding import DecodeRequest, decode
from burnish.model.derivatives import derivatives
from burnish.model.folder_plan import FolderPlan
from burnish.model.logit_lens import vocabulary_weights
from burnish.model.model import Model, load
from burnish.model.scoring import Candidate, Item, score
from burnish.model.weights import network_layers
from burnish.options import FindOptions, ModelOptions
from burnish.prompts import Prompt, PromptSet
from conftest import Folders, random_enhancement

FLOAT = ModelOptions(dtype="float32")
SPREAD = ModelOptions(dtype="float32", device="spread")
FAMILIES = ["llama", "gemma2", "gpt2"]  # plain; norms after the projections; tied embeddings, maps of another layout
TEXTS = ["Hello", "Describe a lighthouse at dusk, and the sea around it.", "Why?", "Tell me more"]


@pytest.fixture
def little_memory(tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """little_memory(family, share): a folder, and memory for a share of its weights."""

    def folder(family: str, share: float = 0.7) -> Path:
        tiny = tiny_folder(family)
        free = int(share * sum(file.stat().st_size for file in tiny.glob("*.safetensors")))
        monkeypatch.setattr("transformers.integrations.accelerate.get_max_memory", lambda *_: {"cpu": free})
        return tiny

    return folder


def spread(folder: Path) -> Model:
    """Loaded with --device spread, which says that it is too large."""
    with pytest.warns(BurnishWarning, match="do not fit into memory"):
        return load(folder, SPREAD)


def computed(model: Model) -> Iterator[tuple[str, object]]:
    """Everything that runs a model, by name."""
    enhancement = random_enhancement(model, 2.0, rank=2)
    prompts = PromptSet("prompts", tuple(map(Prompt.of, TEXTS)))
    tokens = [model.tokens(text) for text in TEXTS]
    items = [Item(prompt, prompt[::-1][:5]) for prompt in tokens]
    options = FindOptions(instructions=9, site="attention", protect=True)
    sets = [["".join(chr(97 + (7 * i + k) % 26) for k in range(2 + i % 5)) + end for i in range(13)] for end in "?."]
    yield "find", find_direction(model, enhance=sets[0], normal=sets[1], options=options).vectors
    with model.enhanced(enhancement):
        yield "live", torch.tensor([token for row in model.continuations(tokens, 6) for token in row])
    yield "check", torch.tensor(check(model, enhancement, prompts, tokens=6).kl_mean)
    upper = replace(enhancement, gains=enhancement.gains * torch.tensor([[0.0], [0.0], [1.0]]))
    candidates = [Candidate("upper", upper), Candidate("twice", upper.scaled(2.0))]
    yield "score", torch.cat([s.kl for c in score(model, items, candidates).candidates for s in c])
    yield (
        "score again",
        torch.cat([s.kl for c in score(model, items, [Candidate("all", enhancement)]).candidates for s in c]),
    )
    requests = [DecodeRequest(row, Candidate("all", enhancement), 6) for row in tokens]
    yield "decode", torch.tensor([token for row in decode(model, requests) for token in row])
    yield "derivatives", derivatives(model, items, enhancement.vectors, enhancement.gains)
    yield "vocabulary", vocabulary_weights(model, enhancement.vectors[0])
    edits = FolderPlan(model.folder, FLOAT).edits(enhancement)
    yield "adapter", torch.stack([layer.a for layer in network_layers(model.network, edits)])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spread_model_computes_what_a_whole_one_does(family: str, little_memory: Folders) -> None:
    folder = little_memory(family)
    undivided, parts = load(folder, FLOAT), spread(folder)
    assert set(map(str, parts.network.hf_device_map.values())) == {"cpu", "disk"}
    for (name, expected), (_, actual) in zip(computed(undivided), computed(parts), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_a_model_that_lies_on_disk_as_a_whole_answers_on_the_cpu(little_memory: Folders) -> None:
    model = spread(little_memory("llama", 0.0))
    assert model.device.type == "cpu"
    assert model.chat("Hello", tokens=4) == load(model.folder, FLOAT).chat("Hello", tokens=4)


def test_experts_that_cannot_be_offloaded_are_refused_with_the_way_out(little_memory: Folders) -> None:
    with pytest.raises(ModelError, match="--layer-by-layer"):
        load(little_memory("mixtral"), SPREAD)
