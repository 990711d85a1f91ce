"""Fixtures shared by every tier: tiny model folders, made once a run."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from burnish.artifacts.direction import Direction, Enhancement, LayerReport, Provenance
from burnish.maths.statistics import unit
from burnish.model.model import Model, load
from burnish.options import ModelOptions
from families import save

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(2)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

Folders = Callable[..., Path]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """tiny_folder(family, dtype=..., shard=..., template=...): a saved tiny model, made once."""
    made: dict[tuple[object, ...], Path] = {}

    def folder(name: str, dtype: torch.dtype = torch.float32, *, shard: str = "5GB", template: bool = True) -> Path:
        key = (name, dtype, shard, template)
        if key not in made:
            made[key] = save(name, tmp_path_factory.mktemp(name) / "model", dtype, shard=shard, template=template)
        return made[key]

    return folder


@pytest.fixture
def tiny_model(tiny_folder: Folders) -> Callable[..., Model]:
    """tiny_model(family): loaded in float32."""
    return lambda name, **options: load(tiny_folder(name, **options), ModelOptions(dtype="float32"))


@pytest.fixture(autouse=True)
def answers_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cached answers and the user's data go to folders of the test's own; packaged models stay where they are."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BURNISH_DATA", str(folder / "data"))
    monkeypatch.setattr("burnish.artifacts.cache.cache_root", lambda: folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"No browser: none of {', '.join(BROWSERS)} is on the path")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


def random_enhancement(model: Model, gains: float | list[float], *, seed: int = 0, rank: int = 1) -> Enhancement:
    """Random unit directions, one set a layer, for a model; gains: one for all layers, or one a layer."""
    generator = torch.Generator().manual_seed(seed)
    layers, hidden = model.anatomy.layers, model.anatomy.hidden_size
    vectors = unit(torch.randn(layers, rank, hidden, generator=generator))
    table = torch.as_tensor(gains, dtype=torch.float32)
    table = table[:, None].expand(-1, rank) if table.ndim else table.expand(layers, rank)
    return Enhancement(vectors, table.clone(), tuple(fake_direction(model, vectors[:, i]) for i in range(rank)))


def random_adapter(model: Model, folder: Path, *, seed: int = 0, **settings: Any) -> Any:
    """Saves a PEFT LoRA with random factors, made inside the model's network, which is returned as PEFT runs it."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model.network, LoraConfig(**{"r": 3, "lora_alpha": 5, **settings}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(folder)
    return adapted.get_base_model().eval()


def fake_direction(model: Model, vectors: torch.Tensor) -> Direction:
    """A direction with made-up evidence."""
    layers = model.anatomy.layers
    ones = [1.0] * layers
    report = LayerReport(ones, ones, [0.5] * layers, ones, ones, [0.1] * layers, 20)
    provenance = Provenance(
        model=model.name,
        fingerprint=model.fingerprint,
        architecture=type(model.network).__name__,
        layers=layers,
        hidden_size=model.anatomy.hidden_size,
        enhance="made up",
        normal="made up",
        enhance_hash="0",
        normal_hash="1",
        enhance_prompts=8,
        normal_prompts=8,
        position="prompt",
        template=True,
        seed=0,
        protected=False,
    )
    return Direction(vectors, layers // 2, "per-layer", "residual", provenance, report, model.anatomy)
