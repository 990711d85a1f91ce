"""Outputs to publish, a client that is led to the stand-in of the hub, and what tests of both directions ask."""

import html
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from burnish.errors import BurnishError, HubError
from burnish.model.model import load
from burnish.options import FormName, ModelOptions, OutputOptions
from burnish.pipeline import apply, open_plan
from conftest import fake_direction, random_enhancement
from hub_stand_in import TOKEN, HubStandIn, hub_stand_in

BASE = "tiny/base"
REPO = "someone/enhanced"


@contextmanager
def led_to_a_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """A stand-in that the client is led to, with a cache and a login of the test's own."""
    with hub_stand_in() as state:
        monkeypatch.setattr(constants, "ENDPOINT", state.endpoint)
        template = state.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
        monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        close_session()
        yield state
        close_session()


def outputs(source: Path, place: Path) -> dict[str, Path]:
    """The same enhancement in each form, of a base model with a hub id (and of one in a local folder: local-FORM)."""
    folder = place / "base é & co"
    shutil.copytree(source, folder)
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n# Base\n")
    model = load(folder, ModelOptions(dtype="float32"))
    enhancement = random_enhancement(model, 0.5)
    paths = {"base": folder}
    for prefix, name in (("", BASE), ("local-", str(folder))):
        plan = enhancement.renamed(name)
        forms: tuple[FormName, ...] = ("model", "adapter", "enhancement")
        for form in forms:
            out = place / f"{prefix}{form}{'.safetensors' * (form == 'enhancement')}"
            apply(open_plan(folder, ModelOptions()), plan, OutputOptions(out=out, form=form), name=name)
            if out.is_dir():  # as `burnish explain --publish` leaves it
                (out / "burnish" / "page.html").write_text(f"<p>{html.escape(name)}</p>", encoding="utf-8")
                (out / "burnish" / "gains.png").write_bytes(b"\x89PNG")
            paths[f"{prefix}{form}"] = out
    fake_direction(model, enhancement.vectors[:, 0]).save(place / "direction.safetensors")
    return {**paths, "direction": place / "direction.safetensors"}


def refusal(act: Callable[[], Any], kind: type[BurnishError] = HubError) -> str:
    with pytest.raises(kind) as caught:
        act()
    return str(caught.value)
