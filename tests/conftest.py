"""Fixtures shared by every tier: tiny models, made and loaded once a process; one cache of answers; how tests share the processors."""

import copy
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

# Each worker has one processor. Said before torch is imported, and to the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest
import torch
import transformers

from burnish.artifacts.direction import Direction, Enhancement
from burnish.artifacts.direction_file import LayerReport, Provenance
from burnish.maths.statistics import unit
from burnish.model.model import Model, load
from burnish.options import ModelOptions
from families import save

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)
# An example that takes long on a busy machine is no failure. The same examples in every run; new ones with --hypothesis-profile patient.
PATIENT = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("patient", **PATIENT)
hypothesis.settings.register_profile("steady", **PATIENT, derandomize=True)
hypothesis.settings.load_profile("steady")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

Folders = Callable[..., Path]
Models = Callable[..., Model]
Call = Callable[..., tuple[int, Any, str]]  # `call` of the end-to-end tests
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ORDER = ("faults", "page", "real", "e2e", "tiny", "unit")  # what takes longest first, so that all workers end together


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests go to one worker, and in what order.

    Together go those that fork, those of a browser, and those that share what a module makes. The ones that fork come first, and of them
    the kills: a fork of a process in which a library has started threads of its own (vl-convert, servers) waits for them for ever.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None and (group := together(item)):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: (ORDER.index(tier(item)), item.path.stem != "test_kill"))


def pytest_make_parametrize_id(val: object) -> str | None:
    """The start of a text that is too long to be read as a test's name."""
    return f"{val[:40]!r}..." if isinstance(val, str | bytes) and len(val) > 80 else None


def tier(item: pytest.Item) -> str:
    return next((part for part in item.path.parts[::-1] if part in ORDER), ORDER[-1])


def together(item: pytest.Item) -> str | None:
    if tier(item) == "faults":
        return "faults"
    fixtures: dict[str, Any] = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    if shared := {"browser", "made"} & set(fixtures):
        return shared.pop()
    if any(made[-1].scope == "module" for made in fixtures.values()):
        return f"{tier(item)}-{item.path.stem}"
    return None


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


@pytest.fixture(scope="session")
def loaded() -> dict[tuple[object, ...], Model]:
    """The tiny models that `tiny_model` has loaded and no test has changed."""
    return {}


@pytest.fixture
def tiny_model(
    loaded: dict[tuple[object, ...], Model],
    tiny_folder: Folders,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Model]]:
    """tiny_model(family): in float32, loaded once for all tests until one of them changes it.

    own=True: a copy. What the test then caches, under the name of the unchanged model, is its own as well.
    """
    given: dict[tuple[object, ...], Any] = {}

    def model(name: str, *, own: bool = False, **options: Any) -> Model:
        key = (name, *sorted(options.items(), key=str))
        if key not in loaded:
            loaded[key] = load(tiny_folder(name, **options), ModelOptions(dtype="float32"))
        shared = loaded[key]
        if own:
            own_folder(tmp_path_factory, monkeypatch)
            network = copy.deepcopy(shared.network)
            for module in network.modules():  # those of a server that is just stopping would stay for ever in the copy
                module._forward_hooks.clear()
                module._forward_pre_hooks.clear()
            return replace(shared, network=network, tokenizer=copy.deepcopy(shared.tokenizer))
        given.setdefault(key, state(shared))
        return replace(shared)

    yield model
    for key, before in given.items():
        if state(loaded[key]) != before:
            del loaded[key]


def state(model: Model) -> Any:
    """What a test may change in a model: every weight, module, hook and setting."""
    network, tokenizer = model.network, model.tokenizer
    return (
        [(name, id(p), p._version, p.requires_grad) for name, p in network.named_parameters()],
        [
            (name, id(m), m.training, hooks(m._forward_hooks), hooks(m._forward_pre_hooks), "forward" in vars(m))
            for name, m in network.named_modules()
        ],
        (id(network.generation_config), network.generation_config.to_dict()),
        (id(tokenizer), tokenizer.chat_template, tokenizer.special_tokens_map, len(tokenizer)),
    )


def hooks(of_a_module: dict[int, Any]) -> int:
    """Without those that the library leaves behind when it is first asked for hidden states."""
    return sum(not getattr(hook, "__module__", "").startswith("transformers.") for hook in of_a_module.values())


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Answers and directions are named by all that they depend on: every test may find what another one made, in another worker too.

    Packaged models stay where they are.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("burnish.artifacts.cache.cache_root", lambda: folder)
        patch.setenv("BURNISH_DATA", str(base / "data"))
        yield


@pytest.fixture(autouse=True)
def own_data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's data (profiles, domains) are the test's own."""
    monkeypatch.setenv("BURNISH_DATA", str(tmp_path_factory.mktemp("data") / "data"))


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look into the cache, and for models that answer otherwise than their files say."""
    own_folder(tmp_path_factory, monkeypatch)


def own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("burnish.artifacts.cache.cache_root", lambda: folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"No browser: none of {', '.join(BROWSERS)} is on the path")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
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


def contents(path: Path) -> dict[str, bytes]:
    """Every file's bytes by name; of a single file under the name ''."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


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
    return Direction(layers // 2, "per-layer", "residual", provenance, report, model.anatomy, vectors)
