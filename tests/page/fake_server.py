"""A server that keeps to the HTTP interface of `burnish serve` with made-up answers: `python tests/page/fake_server.py`."""

import json
import re
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

from burnish.mix import Mix
from burnish.personal.accuracy import accuracy
from burnish.personal.choice_update import relearned
from burnish.personal.profile import Coefficient, Profile
from burnish.personal.store import new_profile
from burnish.server.access import HEADERS
from burnish.server.application import PAGE
from burnish.server.directions import Directions
from burnish.server.page_routes import listed
from burnish.server.profile_routes import shown

FOLDER = Path(__file__).parents[2] / "src" / "burnish" / "server" / "page"
BASE = (
    "The sea at night is dark and calm. Waves come to the shore, and the moon is reflected in the water. It is quiet."
)
LESS = (
    "The sea at night: dark water, a steady swell, poor visibility. Use lights and keep a proper lookout at all times."
)
ENHANCED = (
    "At night the sea forgets its colour and keeps only its breath. Somewhere past the last lamp of the harbour a wave "
    "unrolls its thin silver thread, thinks better of it, and takes the thread back."
)


NAMES = (
    "creative-writing",
    "education",
    "medical-scientific",
    "creative-writing-ko",
    "formal-casual",
    "long-short",
    "warm-neutral",
)
FILE: Any = SimpleNamespace(rank=1, edited_layers=lambda: [0, 1])
DIRECTIONS = [*listed(Directions({}, {}, dict.fromkeys(NAMES))), *listed(Directions({"3d files": FILE}))]  # type: ignore[arg-type]
LEARNED = {
    "creative-writing": Coefficient(0.62, 0.15, "choices"),
    "formal-casual": Coefficient(-0.41, 0.17, "choices"),
    "long-short": Coefficient(0.12, 0.3, "choices"),
}


@dataclass
class State:
    """What a test may set, and what it may look at."""

    delay: float = 0.0  # seconds a token
    key: str | None = None
    directions: list[dict[str, Any]] = field(default_factory=lambda: [dict(one) for one in DIRECTIONS])
    profiles: dict[str, Profile] = field(default_factory=dict)
    history: dict[str, list[Profile]] = field(default_factory=dict)
    refusals: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)  # path, status, headers: one each
    answer: str | None = None  # what every model says
    requests: list[tuple[str, str, Any]] = field(default_factory=list)

    def bodies(self, path: str) -> list[Any]:
        return [body for _, asked, body in self.requests if asked == path]


class Handler(BaseHTTPRequestHandler):
    state: State

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def respond(self, value: Any, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        usual = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(content))}
        for name, text in {**usual, **HEADERS, "Cache-Control": "no-cache", **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, message: str, status: int, **headers: str) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        self.respond({"error": error}, status, **headers)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.state.requests.append((self.command, self.path, body))
        if self.path in PAGE:
            name, kind = PAGE[self.path]
            return self.respond((FOLDER / name).read_bytes(), kind=kind)
        if self.path == "/healthz":
            return self.respond({"status": "ok"})
        if self.state.key and self.headers.get("Authorization") != f"Bearer {self.state.key}":
            return self.refuse("The key is missing or unknown.", 401)
        for at, (path, status, headers) in enumerate(self.state.refusals):
            if path == self.path:
                del self.state.refusals[at]
                return self.refuse(f"Refused with {status}, as asked.", status, **headers)
        if body and "model" in body:
            base = re.match(r"base(?=$|\+| - )", body["model"])
            if base is None:
                return self.refuse(f"There is no model '{body['model']}'.", 404)
            Mix.parse(body["model"][base.end() :] or "any")  # raises for an expression that no server reads
        if self.path == "/v1/chat/completions":
            return self.chat(body)
        reply = self.profile(body) if self.path.startswith("/api/profiles") else self.answer(body)
        status = reply.pop("status", 200)
        return self.refuse(reply["refused"], status) if "refused" in reply else self.respond(reply, status)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 (names of the standard library)

    def chat(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        model = body["model"]
        text = self.state.answer or (BASE if model == "base" else LESS if model.startswith("base -") else ENHANCED)
        pieces = re.findall(r"\s*\S+|\s+$", text)
        try:
            for piece in pieces[: body["max_tokens"]]:
                time.sleep(self.state.delay)
                self.event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
            reason = "length" if len(pieces) > body["max_tokens"] else "stop"
            self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def event(self, value: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def answer(self, body: Any) -> dict[str, Any]:
        weight = sum(
            float(number) ** 2 for number in re.findall(r"\d+\.\d+|(?<=[+ ])\d+(?= )", (body or {}).get("model", ""))
        )
        kl = 0.0105 * weight + 0.0008
        if self.path == "/api/status":
            known = {"model": "SmolLM2-135M-Instruct", "person": "maria" if self.state.key else "local"}
            return {**known, "languages": ["en", "ko"], "budget": 0.01, "limits": {"tokens": 512, "context": 4096}}
        if self.path == "/api/directions":
            return {"directions": self.state.directions}
        if self.path == "/api/damage":
            return {"model": body["model"], "kl": kl, "low": 0.7 * kl, "high": 1.3 * kl, "budget": 0.01, "prompts": 48}
        if self.path == "/api/dose":
            scales = [0, 0.5, 1, 1.5, 2]
            change = {"name": "creative-writing", "change": [0.0, 0.021, 0.036, 0.041, 0.029]}
            return {"scales": scales, "kl": [kl * s * s for s in scales], "budget": 0.01, "likelihood": change}
        return {"refused": f"There is no {self.path}.", "status": 404}

    def profile(self, body: Any) -> dict[str, Any]:
        profiles = self.state.profiles
        _, _, _, *rest = self.path.split("/")
        if not rest and self.command == "GET":
            return {"profiles": [shown(profile) for profile in profiles.values()]}
        if not rest:
            if body["name"] in profiles:
                return {"refused": f"There is a profile '{body['name']}' already. Choose another name.", "status": 409}
            profiles[body["name"]] = new_profile(**body)
            return {**shown(profiles[body["name"]]), "status": 201}
        name, action = unquote(rest[0]), (rest[1] if len(rest) > 1 else None)
        if name not in profiles:
            return {"refused": f"There is no profile '{name}'.", "status": 404}
        if action == "pair":
            return {"first": "base+0.4 creative-writing", "second": "base - 0.4 creative-writing", "seed": 7}
        if action is None:
            return {"forgotten": profiles.pop(name).name}
        past = self.state.history.setdefault(name, [])
        if action == "undo":
            if not past:
                return {"refused": "There is nothing to take back in this profile.", "status": 400}
            profiles[name] = past.pop()
            return {"undone": "1 choice", "profile": shown(profiles[name])}
        past.append(profiles[name])
        profiles[name] = learned(profiles[name], body)
        return shown(profiles[name])


def learned(profile: Profile, body: dict[str, Any]) -> Profile:
    """The profile after a choice, or after sliders were set. Once there are choices, they are the source of all."""
    sliders = {k: v for k, v in {**profile.sliders, **body.get("values", {})}.items() if v}
    choices = profile.choices + ("outcome" in body)
    moved = relearned(replace(profile, sliders=sliders), [])
    return moved.with_coefficients(LEARNED, choices, accuracy(7, 10) if choices >= 2 else None) if choices else moved


def serve(port: int = 0) -> tuple[ThreadingHTTPServer, State]:
    """A server on the loopback, answering in a thread of its own."""
    state = State()
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (Handler,), {"state": state}))
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server, state


if __name__ == "__main__":
    running, made = serve(8711)
    made.delay = 0.04
    input("http://127.0.0.1:8711 until Enter is pressed\n")
    running.shutdown()
