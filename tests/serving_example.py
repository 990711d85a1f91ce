"""A server of a tiny model on a loopback port, for tests."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import openai
import torch

from burnish.artifacts.direction import Direction, Enhancement
from burnish.maths.statistics import unit
from burnish.model.detokenizer import BROKEN
from burnish.model.model import Model, load
from burnish.options import EvaluateOptions, ModelOptions, ServeOptions
from burnish.personal.enhancing import fitting, plan_of
from burnish.personal.profile import Profile
from burnish.personal.store import Store
from burnish.server.access import Access
from burnish.server.application import make_app
from burnish.server.directions import Directions
from burnish.server.service import Service
from burnish.server.serving import Server, address, listen
from burnish.steps import finish
from conftest import fake_direction, random_enhancement

PROMPT = "Describe the sea"
MESSAGES = [{"role": "user", "content": PROMPT}]
ASKED: dict[str, Any] = {"model": "base", "messages": MESSAGES, "temperature": 0, "max_tokens": 8}
NAMES = ("education", "formal-casual")  # the packaged names that the server knows: a domain and an axis


@dataclass(frozen=True)
class Running:
    """A server, and the same model once more to compare with."""

    url: str
    service: Service
    server: Server
    reference: Model

    def openai(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=30)

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def greedy(self, prompt: str | list[int], tokens: int, enhancement: Enhancement | None = None) -> str:
        """What the reference answers alone."""
        ids = self.reference.tokens(prompt) if isinstance(prompt, str) else prompt
        if enhancement is None:
            answer = self.reference.continuations([ids], tokens)[0]
        else:
            with self.reference.enhanced(enhancement):
                answer = self.reference.continuations([ids], tokens)[0]
        return self.text(answer)

    def text(self, tokens: Sequence[int]) -> str:
        text = self.reference.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).rstrip(BROKEN)

    def until_idle(self, seconds: float = 10) -> None:
        """Waits until nothing runs, waits or is open."""
        until = time.monotonic() + seconds
        while not (self.service.engine.idle and not self.service.open_requests):
            assert time.monotonic() < until, "the server is still busy"
            time.sleep(0.01)


@contextmanager
def running(
    folder: Path,
    data: Path,
    *,
    options: ServeOptions | None = None,
    keys: bool = False,
    names: bool = True,
    loaded: Callable[[Model], dict[str, Enhancement]] = lambda model: {"tuned": random_enhancement(model, 4.0)},
) -> Iterator[Running]:
    model, reference = (load(folder, ModelOptions(dtype="float32")) for _ in range(2))
    model.stop_tokens = reference.stop_tokens = frozenset()  # answers are as long as was asked for
    known = (named_directions(model, "residual", 1), named_directions(model, "attention", 2)) if names else ({}, {})
    directions = Directions(loaded(model), *known)
    service = Service(model, directions, Store(data), options or ServeOptions(tokens_limit=64, time_limit=30, grace=5))
    with listen("127.0.0.1", 0) as sock:
        server = Server(make_app(service, Access("127.0.0.1", keys)), service)
        thread = threading.Thread(target=server.run, args=([sock],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.005)
            yield Running(address(sock), service, server, reference)
        finally:
            server.should_exit = True
            thread.join()


def named_directions(model: Model, site: Any, seed: int, names: Sequence[str] = NAMES) -> dict[str, Direction]:
    """Random directions under known names."""
    generator = torch.Generator().manual_seed(seed)
    vectors = unit(torch.randn(len(names), model.anatomy.layers, model.anatomy.hidden_size, generator=generator))
    return {name: replace(fake_direction(model, v), site=site) for name, v in zip(names, vectors, strict=True)}


def within_budget(model: Model, profile: Profile, directions: Mapping[str, Direction]) -> Enhancement:
    """The profile as an enhancement, apart from any server."""
    plan = plan_of(model, profile, directions)
    return plan.scaled(finish(fitting(model, profile, plan)).scales[model.fingerprint].value)


def small_measurements(monkeypatch: Any) -> None:
    """Two packaged names, and measurements on a few prompts."""
    monkeypatch.setattr("burnish.catalogue.names_in", lambda language: list(NAMES) if language == "en" else [])
    monkeypatch.setattr("burnish.personal.features.EVERYDAY", EvaluateOptions(prompts=10, tokens=8))
    monkeypatch.setattr("burnish.personal.enhancing.MEASURED", EvaluateOptions(prompts=8, tokens=8))
    monkeypatch.setattr("burnish.server.measurements.PROMPTS", 6)
