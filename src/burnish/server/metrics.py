"""What Prometheus may know: counts and times, no text and no person."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from burnish.server.engine import Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """A registry of its own, so that several servers may live in one process."""

    def __init__(self, engine: Engine) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "burnish_requests", "Requests by route and status", ["route", "status"], registry=registry
        )
        self.tokens = Counter(
            "burnish_tokens", "Tokens of prompts read and answers written", ["kind"], registry=registry
        )
        self.first_token = Histogram(
            "burnish_first_token_seconds",
            "Seconds from a request to its first token",
            registry=registry,
            buckets=SECONDS,
        )
        for name, text, value in (
            ("burnish_running", "Requests that are decoded", lambda: engine.running),
            ("burnish_waiting", "Requests that wait for a row", lambda: engine.waiting),
            ("burnish_decoder_restarts", "Unexpected errors that ended running requests", lambda: engine.restarts),
        ):
            Gauge(name, text, registry=registry).set_function(value)

    def text(self) -> bytes:
        return generate_latest(self._registry)
