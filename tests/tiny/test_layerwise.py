"""Layer by layer from disk, a model's states are those of the loaded model."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import burnish.model.layerwise as layering
import families
from burnish.artifacts.checkpoint import Checkpoint
from burnish.errors import ModelError, QuantisedModelError
from burnish.finding import find_direction
from burnish.model.block_weights import DiskWeights
from burnish.model.capture import Tokens, answer_sequences, capture, prompt_sequences
from burnish.model.layerwise import Wanted, layered_capture, load_layered
from burnish.model.model import Model, load
from burnish.options import FindOptions, ModelOptions, Site
from burnish.prompts import Prompt, PromptSet
from conftest import Folders
from families import FAMILIES, MOST, case, small

PROMPTS = ["Describe a lighthouse.", "Why?"]
ANSWERS = [[50], [60, 61, 62, 63, 64]]
EXACT = ModelOptions(dtype="float32")
# Later layers that attend to the keys and values of earlier ones, and an output matrix that is the table of tokens.
SHARING = {
    "gemma3n-shared": small("gemma3n_text", 4, 4, **{**FAMILIES["gemma3n"].sizes, "num_kv_shared_layers": 2}),
    "gemma4-shared": small("gemma4_text", 4, 4, **{**FAMILIES["gemma4-two-shapes"].sizes, "num_kv_shared_layers": 2}),
    "llama-tied": small("llama", tie_word_embeddings=True),
}


@pytest.fixture(scope="module", autouse=True)
def more_families() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, family in SHARING.items():
            patch.setitem(families.FAMILIES, name, family)
        yield


def sequences_of(model: Model) -> list[Tokens]:
    """Both positions in one pass: the last token of prompts, and the mean over answers."""
    return prompt_sequences(model, PROMPTS) + answer_sequences(model, PROMPTS, ANSWERS)


def read(reader: Callable[..., None], model: Model, sequences: Sequence[Tokens], site: Site) -> torch.Tensor:
    states = torch.full((len(sequences), model.anatomy.layers, model.anatomy.hidden_size), torch.nan)

    def keep(rows: list[int], batch: torch.Tensor) -> None:
        states[rows] = batch

    reader(sequences, keep, site=site)
    return states


def plain(folder: Path, options: ModelOptions = EXACT) -> dict[Site, torch.Tensor]:
    model = load(folder, options)
    sequences = sequences_of(model)
    return {
        site: read(lambda *a, **k: capture(model, *a, **k), model, sequences, site)
        for site in ("residual", "attention")
    }


def layered(folder: Path, options: ModelOptions = EXACT, **how: Any) -> dict[Site, torch.Tensor]:
    model = load_layered(folder, options, **how)
    sequences = sequences_of(model)
    reader = layered_capture(model, [Wanted(sequences, "residual"), Wanted(sequences, "attention")])
    return {site: read(reader, model, sequences, site) for site in ("residual", "attention")}


def assert_same(one: dict[Site, torch.Tensor], other: dict[Site, torch.Tensor]) -> None:
    for site, states in one.items():
        scale = float(other[site].abs().max())
        assert scale > 0
        torch.testing.assert_close(states, other[site], rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("family", [*MOST.args[1], *map(case, SHARING)])
def test_states_equal_the_loaded_models_at_both_sites_and_positions(
    family: str, tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layering, "CPU_TOKENS", 64)  # several batches
    folder = tiny_folder(family)
    assert_same(layered(folder), plain(folder))


@pytest.mark.parametrize("family", ["llama", "deepseek_v3", "mixtral", "gemma3n"])
def test_states_equal_in_shards_and_in_bfloat16(family: str, tiny_folder: Folders) -> None:
    folder = tiny_folder(family, torch.bfloat16, shard="40KB")
    assert len(Checkpoint(folder).files) > 1
    assert_same(layered(folder, ModelOptions()), plain(folder, ModelOptions()))
    assert_same(layered(folder), plain(folder))


@pytest.mark.parametrize("family", ["llama", "gemma3n"])
def test_states_in_files_equal_states_in_memory(family: str, tiny_folder: Folders, tmp_path: Path) -> None:
    made: list[Path] = []
    ordinary = torch.from_file

    def noting(file: str, **how: Any) -> torch.Tensor:
        made.append(Path(file))
        return ordinary(file, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "from_file", noting)
        patch.setattr("tempfile.tempdir", str(tmp_path))
        in_files = layered(tiny_folder(family), states_bytes=0)
    assert made
    assert not list(tmp_path.iterdir())
    for site, states in layered(tiny_folder(family)).items():
        assert torch.equal(in_files[site], states)


def filled(network: Any) -> dict[str, int]:
    """Numbers held by the parameters of the network, by block ('' outside of all)."""
    sizes: dict[str, int] = {}
    for name, parameter in network.named_parameters():
        if not parameter.is_meta:
            block = name.split(".")[2] if ".layers." in name else ""
            sizes[block] = sizes.get(block, 0) + parameter.numel()
    return sizes


def test_one_block_is_in_the_network_at_a_time(tiny_folder: Folders) -> None:
    model = load_layered(tiny_folder("llama"), EXACT)
    blocks = model.network.model.layers
    runs: list[tuple[str, dict[str, int]]] = []  # a block, and what the blocks hold while it runs
    for index, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, name=str(index): runs.append((name, filled(model.network))))
    layered_capture(model, [Wanted(sequences_of(model), "residual")])
    size = sum(p.numel() for p in blocks[0].parameters())
    insides = [(name, {block: numbers for block, numbers in held.items() if block}) for name, held in runs]
    assert all(len(inside) == 1 and set(inside.values()) == {size} for _, inside in insides)
    for name in "012":  # beside the passes around the blocks, which have the first one
        assert (name, {name: size}) in insides
    assert filled(model.network) == {}


def test_the_next_block_is_read_in_another_thread_before_this_one_is_done(
    tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_layered(tiny_folder("llama"), EXACT)
    begun = {f"model.layers.{index}": threading.Event() for index in (1, 2)}
    after = {"model.layers.0": "model.layers.1", "model.layers.1": "model.layers.2"}
    readers: list[threading.Thread] = []
    read, free = DiskWeights.read, DiskWeights.free

    def reading(weights: DiskWeights, part: str) -> Any:
        if part in begun:
            readers.append(threading.current_thread())
            begun[part].set()
        return read(weights, part)

    def freeing(weights: DiskWeights, part: str) -> None:
        if (
            part in after
        ):  # which of the two threads is faster is nobody's law: this one waits until the other has begun
            assert begun[after[part]].wait(60), f"{part} is done and nobody reads the next one"
        free(weights, part)

    monkeypatch.setattr(DiskWeights, "read", reading)
    monkeypatch.setattr(DiskWeights, "free", freeing)
    layered_capture(model, [Wanted(sequences_of(model), "residual")])
    assert len(readers) == 2
    assert threading.main_thread() not in readers


def test_every_block_is_read_once_and_the_table_of_tokens_never(
    tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_layered(tiny_folder("llama"), EXACT)
    read_names: list[str] = []
    ordinary = Checkpoint.read
    monkeypatch.setattr(Checkpoint, "read", lambda self, name: read_names.append(name) or ordinary(self, name))
    sequences = sequences_of(model)
    layered_capture(model, [Wanted(sequences, "residual"), Wanted(sequences, "attention")])
    stored = [name for name in model.weights.checkpoint.tensors if ".layers." in name]
    assert sorted(name for name in read_names if ".layers." in name) == stored
    assert not [name for name in read_names if "embed_tokens" in name or "lm_head" in name]


def test_a_model_can_be_read_twice(tiny_folder: Folders) -> None:
    model = load_layered(tiny_folder("gpt2"), EXACT)
    sequences = sequences_of(model)
    passes = [
        read(layered_capture(model, [Wanted(sequences, "residual")]), model, sequences, "residual") for _ in range(2)
    ]
    assert torch.equal(*passes)


def letters(name: str, end: str) -> PromptSet:
    return PromptSet(name, tuple(Prompt.of(f"{chr(97 + i % 26) * (1 + i % 5)}{i}{end}") for i in range(24)))


@pytest.mark.parametrize("options", [FindOptions(instructions=16), FindOptions(8, site="attention", protect=True)])
def test_a_direction_equals_the_loaded_models(options: FindOptions, tiny_folder: Folders) -> None:
    folder = tiny_folder("qwen2")
    sets = {"enhance": letters("one", " ?!"), "normal": letters("other", " ..."), "protect": letters("third", " #")}
    expected = find_direction(load(folder, EXACT), options=options, **sets)
    steps: list[tuple[str, int, int]] = []
    direction = find_direction(
        load_layered(folder, EXACT), options=options, **sets, progress=lambda *s: steps.append(s)
    )
    torch.testing.assert_close(direction.vectors, expected.vectors, rtol=1e-4, atol=1e-5)
    assert direction.report.auroc == expected.report.auroc
    assert direction.provenance == expected.provenance
    assert ("running layers", 3, 3) in steps


def test_a_direction_from_answers_equals_the_loaded_models(tiny_folder: Folders) -> None:
    folder = tiny_folder("llama")
    sets = {
        name: PromptSet(name, tuple(replace(p, answer=f"{name} {i}") for i, p in enumerate(letters(name, "?").prompts)))
        for name in ("enhance", "normal")
    }
    options = FindOptions(instructions=16, position="answer")
    expected = find_direction(load(folder, EXACT), options=options, **sets)
    direction = find_direction(load_layered(folder, EXACT), options=options, **sets)
    torch.testing.assert_close(direction.vectors, expected.vectors, rtol=1e-4, atol=1e-5)


def test_own_answers_are_refused_before_anything_is_read(tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiskWeights, "fill", lambda *_: pytest.fail("weights were read"))
    model = load_layered(tiny_folder("llama"), EXACT)
    with pytest.raises(ModelError, match="cannot write answers"):
        find_direction(
            model, enhance=letters("one", "?"), normal=letters("two", "!"), options=FindOptions(position="answer")
        )


def test_quantised_weights_are_refused(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = families.save("llama", tmp_path / "packed")
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace("{", '{"quantization_config": {"quant_method": "fp8"},', 1), encoding="utf-8"
    )
    with pytest.raises(QuantisedModelError, match="quantised"):
        load_layered(folder, EXACT)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.uint8, None])
def test_a_tensor_of_fewer_bits_and_one_that_is_missing_are_refused_by_name(
    kind: torch.dtype | None, tmp_path: Path
) -> None:
    folder = families.save("llama", tmp_path / "damaged")
    tensors = load_file(folder / "model.safetensors")
    stored = tensors.pop("model.layers.1.mlp.up_proj.weight")
    changed = {} if kind is None else {"model.layers.1.mlp.up_proj.weight": stored.to(kind)}
    save_file(tensors | changed, folder / "model.safetensors", {"format": "pt"})
    model = load_layered(folder, EXACT)
    with pytest.raises(ModelError if kind is None else QuantisedModelError, match=r"layers\.1\.mlp\.up_proj"):
        layered_capture(model, [Wanted(sequences_of(model), "residual")])


@pytest.mark.parametrize("rows", [0, 100, None])
def test_a_table_that_is_not_stored_as_the_model_has_it_is_refused(rows: int | None, tmp_path: Path) -> None:
    """Its rows are read one by one: those of a shorter table would be the bytes of what lies behind it."""
    folder = families.save("llama", tmp_path / "damaged")
    tensors = load_file(folder / "model.safetensors")
    table = tensors.pop("model.embed_tokens.weight")
    changed = {} if rows is None else {"model.embed_tokens.weight": table[:rows].clone()}
    save_file(tensors | changed, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"'model\.embed_tokens\.weight' of"):
        load_layered(folder, EXACT)


def test_several_devices_are_refused(tiny_folder: Folders) -> None:
    with pytest.raises(ModelError, match="one device"):
        load_layered(tiny_folder("llama"), ModelOptions(device="spread"))
