"""llama.cpp runs what Burnish writes: its log probabilities against those of transformers with the live form, on SmolLM2."""

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from gguf import GGMLQuantizationType

from burnish import load_domain, load_general
from burnish.artifacts.gguf_file import padded, read_gguf
from burnish.model import packaged
from burnish.model.gguf_plan import GgufPlan
from burnish.model.loading import quiet
from burnish.model.model import Model, load
from burnish.options import FindOptions, ModelOptions
from burnish.pipeline import export
from llama_cpp import Predict, furthest, predictions

pytest.importorskip("xllamacpp", reason="xllamacpp (llama.cpp as a Python package) is not installed")
pytestmark = [pytest.mark.real, pytest.mark.full]  # in every run: `tests/tiny/test_llama_cpp.py`, on tiny models
NAME = "smollm2-135m"
QUESTIONS = ("Describe a lighthouse at dusk.", "What is photosynthesis?", "Write a line about the sea.")
FACTOR, LAYERS = 0.5, "50%.."


@dataclass(frozen=True)
class Expected:
    """Log probabilities of the next token after each question, by transformers in float32."""

    prompts: list[list[int]]
    base: list[torch.Tensor]
    half: list[torch.Tensor]
    live: list[torch.Tensor]


@pytest.fixture(scope="module")
def gguf() -> Path:
    """The packaged model's own file (Q4_1)."""
    path = packaged.gguf_of(NAME)
    if not path.exists():
        pytest.skip(f"{path} is not there: run `burnish models pull {NAME} --gguf`")
    return path


@pytest.fixture(scope="module")
def float_file(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with every tensor as float32, so that llama.cpp computes as exactly as it can."""
    source, out = read_gguf(gguf), tmp_path_factory.mktemp("float32") / "model.gguf"
    header = bytearray(gguf.read_bytes()[: source.entries_end])
    offset = 0
    for tensor in source.tensors.values():
        struct.pack_into("<IQ", header, tensor.entry, int(GGMLQuantizationType.F32), offset)
        offset = padded(offset + 4 * torch.Size(tensor.shape).numel(), source.alignment)
    with out.open("wb") as file:
        file.write(header + bytes(padded(len(header), source.alignment) - len(header)))
        for name in source.tensors:
            data = source.read(name).float().numpy().tobytes()
            file.write(data + bytes(padded(len(data), source.alignment) - len(data)))
    return out


@pytest.fixture(scope="module")
def model_and_enhancement() -> tuple[Model, Any]:
    from burnish import find_direction

    model = load(NAME, ModelOptions(dtype="float32"))
    direction = find_direction(
        model,
        enhance=load_domain("creative-writing").enhance,
        normal=load_general("en").prompts,
        options=FindOptions(scope="per-layer", instructions=24),
    )
    return model, direction.enhancement(FACTOR, layers=LAYERS)


@pytest.fixture(scope="module")
def expected(model_and_enhancement: tuple[Model, Any], gguf: Path) -> Expected:
    """Of the very weights of the file, which the packaged folder holds rounded to bfloat16."""
    model, enhancement = model_and_enhancement
    with quiet():
        exact = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        ).eval()
    model.network.load_state_dict(exact.state_dict())
    del exact
    prompts = [model.tokens(question) for question in QUESTIONS]

    @torch.inference_mode()
    def predict() -> list[torch.Tensor]:
        return [model.network(input_ids=torch.tensor([p])).logits[0, -1].log_softmax(-1) for p in prompts]

    base = predict()
    with model.enhanced(enhancement.scaled(0.5)):
        half = predict()
    with model.enhanced(enhancement):
        live = predict()
    return Expected(prompts, base, half, live)


@pytest.fixture
def predict(expected: Expected) -> Callable[..., Predict]:
    return functools.partial(predictions, prompts=expected.prompts, vocabulary=len(expected.base[0]))


def divergence(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return sum(float((a.exp() * (a - b)).sum()) for a, b in zip(one, other, strict=True)) / len(one)


def test_in_float32_the_file_and_the_lora_are_the_live_form(
    float_file: Path,
    model_and_enhancement: tuple[Model, Any],
    expected: Expected,
    predict: Callable[..., Predict],
    tmp_path: Path,
) -> None:
    enhancement = model_and_enhancement[1]
    export(enhancement, tmp_path / "edited.gguf", model=float_file)
    export(enhancement, tmp_path / "lora.gguf", model=float_file, form="gguf-lora")
    assert furthest(expected.base, expected.live) > 0.3  # what there is to see, in nats
    adapted = predict(float_file, lora=tmp_path / "lora.gguf")
    base = predict(float_file)()
    floor = max(furthest(expected.base, base), 2e-4)  # two programs differ by this much on the base model already
    assert floor < 2e-3
    assert furthest(expected.live, predict(tmp_path / "edited.gguf")()) < 3 * floor
    assert furthest(expected.live, adapted(1.0)) < 3 * floor
    assert furthest(expected.half, adapted(0.5)) < 3 * floor
    assert furthest(base, adapted(0.0)) < 1e-6
    assert furthest(adapted(1.0), adapted()) < 1e-6  # 1 is what a request gets that names no scale


def test_in_four_bits_they_are_as_close_as_the_base_models_are(
    gguf: Path,
    model_and_enhancement: tuple[Model, Any],
    expected: Expected,
    predict: Callable[..., Predict],
    tmp_path: Path,
) -> None:
    enhancement = model_and_enhancement[1]
    assert GgufPlan.open(gguf, enhancement).notes == ()  # found on the conversion of this very file
    edited = export(enhancement, tmp_path / "edited.gguf", model=gguf)
    export(enhancement, tmp_path / "lora.gguf", model=gguf, form="gguf-lora")
    assert {gain.stored for gain in edited.gains} == {"F16"}  # type: ignore[attr-defined]
    assert all(g.realised[0] == pytest.approx(g.asked[0], rel=1e-3) for g in edited.gains)
    moved = divergence(expected.base, expected.live)
    # llama.cpp rounds activations to 8 bits before it multiplies them with 4-bit weights: the base models differ as well.
    base = divergence(expected.base, predict(gguf, exact=False)())
    assert base < 0.15 * moved
    adapted = predict(gguf, lora=tmp_path / "lora.gguf", exact=False)
    for found_there, wanted in (
        (predict(tmp_path / "edited.gguf", exact=False)(), expected.live),
        (adapted(1.0), expected.live),
        (adapted(0.5), expected.half),
    ):
        assert divergence(wanted, found_there) < 3 * base
    assert divergence(expected.live, adapted(0.0)) > 5 * base
    assert furthest(predict(gguf, exact=False)(), adapted(0.0)) < 1e-6
