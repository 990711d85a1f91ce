"""Profiles and measurements over HTTP."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from burnish.errors import InputError, WrongModelError
from burnish.model.model import load
from burnish.options import FindOptions, ModelOptions
from burnish.personal.profile import Coefficient
from burnish.personal.store import Store, new_profile
from burnish.server.directions import prepare, read_enhancements
from burnish.server.expressions import mix_of
from conftest import Folders, random_enhancement
from serving_example import MESSAGES, NAMES, PROMPT, Running, running, small_measurements, within_budget

# Its models never stop, otherwise than their files say: what they answer is not for the cache of all.
pytestmark = [pytest.mark.enable_socket, pytest.mark.usefixtures("own_cache")]


@pytest.fixture
def http(served: Running) -> Iterator[httpx.Client]:
    """A client of a person without profiles."""
    with served.client() as client:
        yield client
        for profile in client.get("/api/profiles").json()["profiles"]:
            client.delete(f"/api/profiles/{profile['name']}")


def answer(http: httpx.Client, model: str) -> str:
    asked = {"model": model, "messages": MESSAGES, "temperature": 0, "max_tokens": 12}
    reply = http.post("/v1/chat/completions", json=asked)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


def test_a_profile_is_made_changed_used_undone_and_forgotten(served: Running, http: httpx.Client) -> None:
    made = http.post("/api/profiles", json={"name": "mine", "budget": 0.05})
    assert made.status_code == 201
    assert made.json() == {
        "name": "mine",
        "language": "en",
        "budget": 0.05,
        "says": "nothing learned yet for sure",
        "choices": 0,
        "keep_text": False,
        "accuracy": None,
        "sliders": {},
        "coefficients": [],
        "model": "base+mine",
    }
    assert answer(http, "base+mine") == served.greedy(PROMPT, 12)  # it says nothing yet
    moved = http.put("/api/profiles/mine/sliders", json={"values": {"education": 1.5, "formal-casual": -0.5}}).json()
    assert moved["sliders"] == {"education": 1.5, "formal-casual": -0.5}
    assert [(c["name"], c["mean"], c["sure"], c["source"]) for c in moved["coefficients"]] == [
        ("education", 1.5, True, "sliders"),
        ("formal-casual", -0.5, True, "sliders"),
    ]
    text = answer(http, "base+mine")
    service = served.service
    profile = service.store.profile(service.local, "mine")
    assert profile.scales.keys() == {service.model.fingerprint}  # measured once, and kept
    edit = within_budget(served.reference, profile, service.directions.editing)
    assert text == served.greedy(PROMPT, 12, edit)
    assert answer(http, "base+0.5 mine") == served.greedy(PROMPT, 12, edit.scaled(0.5))
    back = http.put("/api/profiles/mine/sliders", json={"values": {"education": 0}}).json()
    assert back["sliders"] == {"formal-casual": -0.5}
    undone = http.post("/api/profiles/mine/undo").json()
    assert (undone["undone"], undone["profile"]["sliders"]) == ("sliders", moved["sliders"])
    assert answer(http, "base+mine") == text
    assert http.get("/api/profiles").json() == {"profiles": [undone["profile"]]}
    assert http.delete("/api/profiles/mine").json() == {"forgotten": "mine"}
    assert http.get("/api/profiles").json() == {"profiles": []}
    unknown = http.post("/v1/chat/completions", json={"model": "base+mine", "messages": MESSAGES})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


def test_pairs_are_opposite_mixes_that_can_be_streamed_and_chosen_from(served: Running, http: httpx.Client) -> None:
    http.post("/api/profiles", json={"name": "mine", "budget": 0.05, "keep_text": True})
    pair = http.post("/api/profiles/mine/pair", json={"messages": MESSAGES}).json()
    mixes = [mix_of(pair[side]) for side in ("first", "second")]
    doses = [mix.as_dict() if mix else {} for mix in mixes]
    assert set(doses[0]) == set(doses[1]) <= set(NAMES)
    assert all(doses[0][name] * doses[1][name] < 0 for name in doses[0])
    texts = [answer(http, pair[side]) + side for side in ("first", "second")]
    asked = {"messages": MESSAGES, "first": texts[0], "second": texts[1]}
    profile = http.post("/api/profiles/mine/choices", json={**asked, "outcome": 1}).json()
    assert profile["choices"] == 1
    assert profile["accuracy"].keys() == {"share", "low", "high"}
    assert {c["name"] for c in profile["coefficients"]} == set(NAMES)
    again = http.post("/api/profiles/mine/choices", json={**asked, "outcome": 0.5}).json()
    assert again["choices"] == 2
    stored = served.service.store.choices(served.service.local, "mine")
    assert [choice.outcome for choice in stored] == [1.0, 0.5]
    assert stored[0].text == (PROMPT, *texts)
    assert http.post("/api/profiles/mine/pair", json={"messages": MESSAGES}).json()["seed"] == 2
    assert http.post("/api/profiles/mine/undo").json()["undone"] == "1 choice"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/api/profiles", {"name": "taken"}, 409, "name_taken"),
        ("POST", "/api/profiles", {"name": "education"}, 409, "name_taken"),
        ("POST", "/api/profiles", {"name": "tuned"}, 409, "name_taken"),
        ("POST", "/api/profiles", {"name": 'a"b'}, 400, None),
        ("POST", "/api/profiles", {"name": " x"}, 400, None),
        ("POST", "/api/profiles", {"name": "a/b"}, 400, "invalid_value"),
        ("POST", "/api/profiles", {"name": ".."}, 400, "invalid_value"),
        ("GET", "/api/profiles/none", None, 404, "profile_not_found"),
        ("POST", "/api/profiles/none/undo", None, 404, "profile_not_found"),
        ("POST", "/api/profiles/none/pair", {"messages": MESSAGES}, 404, "profile_not_found"),
        ("POST", "/api/profiles/taken/undo", None, 400, None),
        ("PUT", "/api/profiles/taken/sliders", {"values": {"nothing": 1}}, 400, None),
        (
            "POST",
            "/api/profiles/taken/choices",
            {"messages": MESSAGES, "first": "", "second": "x", "outcome": 1},
            400,
            None,
        ),
        ("PATCH", "/api/profiles/taken", {}, 405, "method_not_allowed"),
    ],
)
def test_what_cannot_be_done_with_profiles_is_refused(
    method: str, path: str, body: Any, status: int, code: str | None, http: httpx.Client
) -> None:
    http.post("/api/profiles", json={"name": "taken"})
    reply = http.request(method, path, json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), reply.text


def test_damage_is_measured_once_for_an_expression(
    served: Running, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    strong = http.post("/api/damage", json={"model": "base+tuned"}).json()
    weak = http.post("/api/damage", json={"model": "base+0.1 tuned"}).json()
    assert strong["low"] <= strong["kl"] <= strong["high"]
    assert 0 < weak["kl"] < strong["kl"]
    assert (strong["budget"], strong["prompts"], strong["model"]) == (0.01, 6, "base+tuned")
    assert http.post("/api/damage", json={"model": "base"}).json()["kl"] == 0
    monkeypatch.setattr("burnish.explaining.dose.score", None)
    assert http.post("/api/damage", json={"model": "base + tuned"}).json()["kl"] == strong["kl"]


def test_a_dose_curve_grows_from_nothing(http: httpx.Client) -> None:
    curve = http.post("/api/dose", json={"model": "base+education - 0.2 formal-casual"}).json()
    assert curve["scales"] == [0, 0.5, 1, 1.5, 2]
    assert curve["kl"][0] == 0
    assert curve["kl"] == sorted(curve["kl"])
    assert curve["likelihood"]["name"] == "education"
    assert curve["likelihood"]["change"][0] == 0
    assert all(curve["likelihood"]["change"][1:])
    assert http.post("/api/dose", json={"model": "base+tuned"}).json()["likelihood"] is None


def test_status_and_directions_say_what_the_page_may_offer(http: httpx.Client) -> None:
    status = http.get("/api/status").json()
    assert status["person"] == "local"
    assert status["limits"] == {"tokens": 64, "context": 256}
    assert (status["ready"], status["languages"], status["budget"]) == (True, ["en", "ko"], 0.01)
    rows = {row["name"]: row for row in http.get("/api/directions").json()["directions"]}
    assert list(rows) == ["tuned", *NAMES]
    assert [(rows[n]["kind"], rows[n]["low"], rows[n]["high"]) for n in rows] == [
        ("enhancement", 0, 2),
        ("domain", -1, 2),
        ("axis", -2, 2),
    ]
    assert rows["formal-casual"]["poles"] == ["formal", "casual"]
    assert rows["education"]["poles"] is None
    assert (rows["education"]["language"], rows["tuned"]["language"]) == ("en", None)


def test_a_server_without_profiles_says_so(tiny_folder: Folders, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(store.local(), new_profile("mine"))
    values = {"education": Coefficient(1.0, 0.0, "sliders")}
    store.update("local", "mine", "sliders", lambda now, choices: replace(now, coefficients=values))
    with running(tiny_folder("llama"), tmp_path, names=False) as served, served.client() as http:
        assert [row["kind"] for row in http.get("/api/directions").json()["directions"]] == ["enhancement"]
        asked = {"model": "base+mine", "messages": MESSAGES}
        for path, body in (
            ("/v1/chat/completions", asked),
            ("/api/profiles", {"name": "another"}),
            ("/api/profiles/mine/pair", {"messages": MESSAGES}),
        ):
            reply = http.post(path, json=body)
            assert reply.status_code == 400
            assert "--no-profiles" in reply.json()["error"]["message"]
        assert answer(http, "base+tuned") != answer(http, "base")


def test_named_directions_of_both_sites_are_found_at_the_start(
    tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_measurements(monkeypatch)
    monkeypatch.setattr("burnish.catalogue.names_in", lambda language: ["formal-casual"] if language == "en" else [])
    monkeypatch.setattr(
        "burnish.catalogue.FindOptions", lambda **options: FindOptions(**{**options, "instructions": 4})
    )
    model = load(tiny_folder("llama"), ModelOptions(dtype="float32"))
    directions = prepare(model, {})
    assert directions.reading["formal-casual"].site == "residual"
    assert directions.editing["formal-casual"].site == "attention"
    assert prepare(model, {}, profiles=False).names == []


def test_enhancements_are_read_by_name_and_must_be_of_the_model(tiny_folder: Folders, tmp_path: Path) -> None:
    model, other = (load(tiny_folder(name), ModelOptions(dtype="float32")) for name in ("llama", "gpt2"))
    path = random_enhancement(model, 0.5).save(tmp_path / "warm.safetensors")
    education = random_enhancement(other, 0.5).save(tmp_path / "education.safetensors")
    assert list(read_enhancements([str(path), f"second={path}"])) == ["warm", "second"]
    for entries in ([str(path), str(path)], [str(education)]):
        with pytest.raises(InputError, match="is taken"):
            read_enhancements(entries)
    foreign = read_enhancements([f"teach={education}"])
    with pytest.raises(WrongModelError):
        prepare(model, foreign, profiles=False)
