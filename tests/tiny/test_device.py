"""The device and the number type that are chosen where the user leaves them open."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from burnish.cli.app import run
from burnish.errors import BurnishWarning
from burnish.model import device
from burnish.model.device import accelerator, choose, is_fast, refusal
from burnish.model.model import load
from burnish.options import ModelOptions
from conftest import Folders


@pytest.fixture(autouse=True)
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    accelerator.cache_clear()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    yield
    accelerator.cache_clear()


def able(monkeypatch: pytest.MonkeyPatch, **units: bool) -> None:
    """A processor with these units and no others."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=size))


@pytest.mark.parametrize("unit", ["avx512_bf16", "amx_bf16"])
def test_the_stored_half_type_is_computed_in_only_where_the_processor_has_a_unit_for_it(
    unit: str, tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_folder("llama", torch.bfloat16)
    lines: list[str] = []
    able(monkeypatch, avx2=True)
    slow = load(folder, tell=lines.append)
    able(monkeypatch, **{unit: True})
    fast = load(folder, tell=lines.append)
    assert (slow.network.dtype, fast.network.dtype) == (torch.float32, torch.bfloat16)
    assert lines == [
        "Running on cpu in float32 (stored in bfloat16, which this processor computes slowly).",
        "Running on cpu in bfloat16.",
    ]


def test_what_is_asked_for_is_taken(tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    able(monkeypatch)
    choice = choose(tiny_folder("llama", torch.bfloat16), ModelOptions(dtype="bfloat16", device="cuda:1"))
    assert str(choice) == "Running on cuda:1 in bfloat16."


def test_float32_beyond_the_free_memory_is_not_taken_and_that_is_told(
    tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    able(monkeypatch)
    folder = tiny_folder("llama", torch.bfloat16)
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    free(monkeypatch, int(1.5 * stored))
    assert choose(folder, ModelOptions()).options.dtype == "auto"
    assert "float32 would not fit" in str(choose(folder, ModelOptions()))
    assert choose(folder, ModelOptions(), in_blocks=True).dtype == "float32"


def test_an_accelerator_takes_a_model_that_fits_and_shares_a_larger_one(
    tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_folder("llama")
    monkeypatch.setattr(device, "accelerator", lambda: "xpu")
    for memory, chosen in ((10**9, "xpu"), (10, "spread")):
        monkeypatch.setattr(torch.xpu, "mem_get_info", lambda *_, memory=memory: (memory, memory))
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
        assert choose(folder, ModelOptions()).options.device == chosen


def test_an_accelerator_that_does_not_compute_is_left_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    with pytest.warns(BurnishWarning, match="The meta device of this machine cannot be used: .* runs on the CPU"):
        assert accelerator() is None


def test_float32_is_never_slow_and_float16_is_slow_on_processors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    able(monkeypatch, avx512_bf16=True)
    assert is_fast(torch.float32, "cpu") and is_fast(torch.bfloat16, "cpu") and not is_fast(torch.float16, "cpu")
    assert is_fast(torch.float16, "mps") and is_fast(torch.float16, "cuda")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "--device cpu"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "--dry-run"),
        (MemoryError(), "close other programs"),
        (NotImplementedError("The operator 'aten::x' is not currently implemented for the MPS device"), "--device cpu"),
    ],
)
def test_errors_of_a_device_end_a_command_in_words(
    error: Exception, advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("burnish.cli.app.app", fails)
    assert run(["chat", "MODEL"]) == 3
    assert advice in capsys.readouterr().err
    assert refusal(RuntimeError("anything else")) is None
