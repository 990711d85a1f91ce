"""Quantised bases: what the live form, the adapter and the baked model do on each scheme that runs on a CPU."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers.integrations.bitnet import replace_with_bitnet_linear
from transformers.integrations.finegrained_fp8 import replace_with_fp8_linear

from burnish.anatomy import find_anatomy
from burnish.artifacts.direction import Enhancement
from burnish.errors import ModelError, QuantisedModelError
from burnish.inspecting import verify_folders
from burnish.model.derivatives import derivatives
from burnish.model.model import Model, load
from burnish.model.scoring import Candidate, Item, score
from burnish.model.weights import applied_weight
from burnish.options import ModelOptions, OutputOptions
from burnish.pipeline import apply, open_plan, write_plan
from conftest import random_enhancement
from quantised import GROUP, LLAMA, SCHEMES, by_hand, fp8_blocks, grouped, plain

Folders = Callable[[str], Path]
STATIC = ("compressed-static", "gemma-static")  # inputs are rounded to fixed steps
EDITABLE = ("mxfp4",)  # schemes that leave attention as it is
LINEAR = [name for name in SCHEMES if name not in STATIC + EDITABLE]
WEIGHTS_ONLY = [
    name for name, scheme in SCHEMES.items() if scheme.tolerance == 1e-4 and name not in STATIC
]  # of which inputs are not rounded
FLOAT = ModelOptions(dtype="float32")
TOKENS = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """quantised(scheme): a saved tiny model, made once; skips where the scheme's package is missing."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        for package in SCHEMES[name].packages:
            pytest.importorskip(package, reason=f"{package.split('.')[0]} is not installed")
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "model"
            SCHEMES[name].write(made[name])
        return made[name]

    return folder


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """BitNet's functions are compiled by default, which takes a compiler and seconds."""
    with torch.compiler.set_stance("force_eager"):
        yield


def inputs(model: Model) -> Tensor:
    return torch.randn(7, model.anatomy.attention()[0].inputs, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def outputs(model: Model, enhancement: Enhancement | None = None) -> Tensor:
    """What the first projection makes of random inputs."""
    module = model.network.get_submodule(model.anatomy.attention()[0].path)
    if enhancement is None:
        return module(inputs(model)).float()
    with model.enhanced(enhancement):
        return module(inputs(model)).float()


@pytest.mark.parametrize("name", SCHEMES)
def test_live_gain_is_one_plus_factor_and_the_complement_is_untouched(name: str, quantised: Folders) -> None:
    model = load(quantised(name), FLOAT)
    assert len(model.anatomy.attention()) == 3
    enhancement = random_enhancement(model, 1.5)
    base, live = outputs(model), outputs(model, enhancement)
    v = enhancement.vectors[0, 0]
    torch.testing.assert_close(live @ v, 2.5 * (base @ v), rtol=1e-4, atol=1e-5)
    complement = torch.eye(len(v)) - torch.outer(v, v)
    torch.testing.assert_close(live @ complement, base @ complement, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LINEAR)
def test_the_adapter_does_what_the_live_form_does(name: str, quantised: Folders, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = quantised(name)
    model = load(folder, FLOAT)
    enhancement = random_enhancement(model, 1.5, rank=2)
    output = OutputOptions(out=tmp_path / "adapter", form="adapter")
    apply(open_plan(folder, FLOAT), enhancement, output, name=str(folder))
    base, live = outputs(model), outputs(model, enhancement)
    adapted = PeftModel.from_pretrained(load(folder, FLOAT).network, output.out).eval()
    with torch.inference_mode():
        changed = adapted.get_base_model().get_submodule(model.anatomy.attention()[0].path)(inputs(model)).float()
    assert (changed - live).abs().max() < SCHEMES[name].tolerance * live.abs().max()
    assert (live - base).abs().max() > 0.1 * live.abs().max()


@pytest.mark.parametrize("name", [*LINEAR, *STATIC])
def test_form_model_is_refused_with_both_ways_out(name: str, quantised: Folders, tmp_path: Path) -> None:
    plan = open_plan(quantised(name), FLOAT)
    with pytest.raises(QuantisedModelError, match=r"o_proj.*--form adapter.*original"):
        write_plan(plan, OutputOptions(out=tmp_path / "out"), [0, 1, 2])


@pytest.mark.parametrize("name", STATIC)
def test_inputs_rounded_to_fixed_steps_have_no_adapter(name: str, quantised: Folders, tmp_path: Path) -> None:
    folder = quantised(name)
    model = load(folder, FLOAT)
    plan = open_plan(folder, FLOAT)
    with pytest.raises(QuantisedModelError, match="not a linear map"):
        apply(plan, random_enhancement(model, 1.5), OutputOptions(out=tmp_path / "a", form="adapter"), name="tiny")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", WEIGHTS_ONLY)
def test_derivatives_go_through_the_quantised_maps(name: str, quantised: Folders) -> None:
    model = load(quantised(name), FLOAT)
    items = [Item([1, 40, 41, 42], [50, 51, 52]), Item([1, 60, 61], [70, 71])]
    enhancement, step = random_enhancement(model, 0.15), 0.03

    def likelihood(gains: Tensor) -> float:
        scores = score(model, items, [Candidate("moved", replace(enhancement, gains=gains))]).candidates[0]
        return sum(float(s.log_probability.mean()) for s in scores) / len(items)

    slope = derivatives(model, items, enhancement.vectors, enhancement.gains).mean(0)
    for layer in range(3):
        one = torch.zeros_like(enhancement.gains)
        one[layer] = step
        there, back = (likelihood(enhancement.gains + sign * one) for sign in (1, -1))
        assert float(slope[layer].sum()) == pytest.approx((there - back) / (2 * step), rel=0.02, abs=1e-4)


@pytest.mark.parametrize("name", ["gptq", "awq", "compressed-int4"])
def test_the_applied_weight_is_what_the_stored_integers_mean(name: str, quantised: Folders) -> None:
    model = load(quantised(name), FLOAT)
    for projection in model.anatomy.attention():
        values, scales = grouped(plain().get_submodule(projection.path).weight.detach())
        if name != "compressed-int4":
            scales = scales.half().float()
        expected = (values - 8) * scales.repeat_interleave(GROUP, 1)
        torch.testing.assert_close(
            applied_weight(model.network, projection.path, 64), expected, rtol=1e-3, atol=1e-6
        )  # kernels work in float16


@torch.inference_mode()
def logits(model: Model) -> Tensor:
    return model.network(input_ids=TOKENS, use_cache=False).logits.float()


def test_packed_experts_are_copied_byte_for_byte_and_attention_is_baked(quantised: Folders, tmp_path: Path) -> None:
    folder = quantised("mxfp4")
    model = load(folder, FLOAT)
    enhancement = random_enhancement(model, 1.5)
    done = apply(open_plan(folder, FLOAT), enhancement, OutputOptions(out=tmp_path / "out"), name="tiny")
    assert [gain.realised for gain in done.gains] == [pytest.approx([1.5], rel=0.02)] * 3
    before, after = load_file(folder / "model.safetensors"), load_file(done.out / "model.safetensors")
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {f"model.layers.{i}.self_attn.o_proj.{suffix}" for i in range(3) for suffix in ("weight", "bias")}
    assert sum(name.endswith(("_blocks", "_scales")) for name in before) == 12
    assert verify_folders(folder, done.out, FLOAT).clean
    base = logits(model)
    with model.enhanced(enhancement):
        live = logits(model)
    moved = (live - base).abs().max()
    assert (logits(load(done.out, FLOAT)) - live).abs().max() < 0.05 * moved


def test_projections_that_a_scheme_leaves_alone_are_baked(tmp_path: Path) -> None:
    about = {"quant_method": "fp8", "weight_block_size": [32, 32], "modules_to_not_convert": ["o_proj", "lm_head"]}
    by_hand(fp8_blocks, about, unchanged=("o_proj",))(tmp_path / "model")
    model = load(tmp_path / "model", FLOAT)
    enhancement = random_enhancement(model, 1.5)
    out = apply(open_plan(tmp_path / "model", FLOAT), enhancement, OutputOptions(out=tmp_path / "out"), name="tiny").out
    with model.enhanced(enhancement):
        live = logits(model)
    torch.testing.assert_close(logits(load(out, FLOAT)), live, rtol=1e-3, atol=2e-4)


def test_a_scheme_that_does_not_run_here_is_an_error_in_words(tmp_path: Path) -> None:
    by_hand(fp8_blocks, {"quant_method": "aqlm"})(tmp_path / "model")
    with pytest.raises(ModelError, match=r"quantised \('aqlm'\) and do not run here.*original"):
        load(tmp_path / "model")


def test_nothing_is_written_to_standard_output_while_loading(
    quantised: Folders, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = quantised("gptq")
    capfd.readouterr()
    load(folder, FLOAT)
    assert capfd.readouterr().out == ""


def _fp8(network: Any) -> Any:
    how = transformers.FineGrainedFP8Config(weight_block_size=(32, 32))
    return replace_with_fp8_linear(network, ["lm_head"], quantization_config=how, pre_quantized=True)


def _ternary(network: Any) -> Any:
    return replace_with_bitnet_linear(network, ["lm_head"], quantization_config=transformers.BitNetQuantConfig())


@pytest.mark.parametrize("replace", [_fp8, _ternary])
def test_maps_of_a_gpu_are_found_where_the_plain_ones_are(replace: Callable[[Any], Any]) -> None:
    config = transformers.AutoConfig.for_model(LLAMA.model_type, **LLAMA.sizes)
    with torch.device("meta"):
        network, reference = (transformers.AutoModelForCausalLM.from_config(config) for _ in range(2))
    anatomy = find_anatomy(replace(network), 64, 3)
    assert anatomy == find_anatomy(reference, 64, 3)
