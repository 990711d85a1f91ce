"""Publishing on the hub, with the real client and a stand-in of the hub's HTTP interface."""

import json
import logging
import os
import shutil
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import burnish
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.files import MARK, PLAN_FILE
from burnish.cli.app import run
from burnish.errors import BurnishError, HubError, InputError, ModelError
from burnish.model.model import load
from burnish.model.source import resolve
from burnish.options import ModelOptions, TrainOptions
from burnish.pipeline import read_enhancement
from burnish.pushing import plan_push
from conftest import contents
from hub_example import BASE, REPO, refusal
from hub_stand_in import TOKEN, HubStandIn

pytestmark = pytest.mark.enable_socket  # the stand-in listens on the loopback

# What is pushed


@pytest.mark.parametrize("form", ["model", "adapter"])
def test_a_pushed_folder_is_the_same_on_the_hub_byte_for_byte(
    form: str, hub: HubStandIn, made: dict[str, Path]
) -> None:
    pushed = burnish.push(made[form], REPO)
    files = hub.repositories[REPO].files()
    assert {n: b for n, b in files.items() if n != ".gitattributes"} == contents(made[form])
    assert b"license: mit" in files["README.md"]
    assert pushed.commit == hub.repositories[REPO].branches["main"]
    assert pushed.url.endswith(pushed.commit)


def test_an_enhancement_file_is_published_with_a_card_that_names_base_licence_and_figures(
    hub: HubStandIn, made: dict[str, Path]
) -> None:
    hub.add(BASE, {"README.md": b"---\nlicense: mit\n---\n"})
    burnish.push(made["enhancement"], REPO)
    files = hub.repositories[REPO].files()
    assert set(files) == {".gitattributes", "README.md", PLAN_FILE}
    assert files[PLAN_FILE] == made["enhancement"].read_bytes()
    card = files["README.md"].decode()
    assert card.startswith(f"---\nbase_model: {BASE}\nlicense: mit\n")
    assert "AUROC 1.000 (shuffled labels: 0.500)" in card
    assert "Not measured." in card
    assert "The licence of the base model (mit) applies" in card


@pytest.mark.parametrize("card", [None, b"# no front matter\n", b"---\nlicense: [unclosed\n---\n"])
def test_a_licence_that_cannot_be_read_is_said_to_be_unknown(
    card: bytes | None, hub: HubStandIn, made: dict[str, Path]
) -> None:
    if card is not None:
        hub.add(BASE, {"README.md": card})
    publication = plan_push(made["enhancement"])
    assert publication.licence is None
    text = publication.files[0].content
    assert isinstance(text, bytes)
    assert b"states no licence that could be read" in text
    assert b"license:" not in text


@pytest.mark.parametrize("form", ["model", "adapter", "enhancement"])
def test_no_path_of_this_machine_is_published(form: str, hub: HubStandIn, made: dict[str, Path]) -> None:
    message = refusal(lambda: burnish.push(made[f"local-{form}"], REPO), InputError)
    assert "--base OWNER/NAME" in message
    assert not hub.asked
    burnish.push(made[f"local-{form}"], REPO, base=BASE)
    files = hub.repositories[REPO].files()
    place = str(made["base"].parent).encode()
    assert files.get("burnish/page.html", b"<p>tiny/base</p>") == b"<p>tiny/base</p>"
    assert [name for name, data in files.items() if place in data] == []
    assert files["README.md"].startswith(b"---\nbase_model: tiny/base\nlicense: mit\n")
    if form == "adapter":
        assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == BASE
    here, there = Enhancement.load(made["local-enhancement"]), burnish.pull(REPO)
    assert torch.equal(here.vectors, there.vectors)
    assert torch.equal(here.gains, there.gains)
    assert there.provenance == replace(here.provenance, model=BASE)


def test_hidden_files_and_pickles_stay_here(hub: HubStandIn, made: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made["adapter"], folder)
    for name in (".env", "training_args.bin", "burnish/.notes"):
        (folder / name).write_text("secret")
    burnish.push(folder, REPO)
    assert set(hub.repositories[REPO].files()) == {".gitattributes", *contents(made["adapter"])}
    assert set(plan_push(folder).left_out) == {".env", "training_args.bin", "burnish/.notes"}


def test_what_cannot_be_published_is_refused_before_anybody_is_asked(
    hub: HubStandIn, made: dict[str, Path], tmp_path: Path
) -> None:
    no_card, linked, cut = (tmp_path / name for name in ("no-card", "linked", "cut"))
    for folder in (no_card, linked, cut):
        shutil.copytree(made["adapter"], folder)
    (no_card / "README.md").unlink()
    (linked / "notes.txt").symlink_to(made["base"] / "config.json")
    (cut / MARK).write_text("{")
    for path, words in (
        (made["base"], "not written by Burnish"),
        (made["direction"], "burnish apply"),
        (no_card, "has no card"),
        (linked, "notes.txt"),
        (made["base"] / "config.json", "no enhancement file"),
        (tmp_path / "nothing", "does not exist"),
    ):
        assert words in refusal(lambda path=path: burnish.push(path, REPO), InputError)
    for name in ("justaname", "../x", "a/b/c", "a/b--c", "-a/b"):
        assert "OWNER/NAME" in refusal(lambda name=name: burnish.push(made["adapter"], name), InputError)
    assert "cannot be read as JSON" in refusal(lambda: burnish.push(cut, REPO), ModelError)
    assert "not from other/base" in refusal(lambda: burnish.push(made["adapter"], REPO, base="other/base"), InputError)
    assert hub.asked == []


def test_a_training_is_pushed_whole_and_made_again_at_another_strength_from_the_hub(
    hub: HubStandIn, made: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("trl")
    base = load(made["base"], ModelOptions(dtype="float32"))
    rows = [{"prompt": f"What is {w}?", "completion": f"{w * 3} it is."} for w in "abcdefgh"]
    options = TrainOptions(steps=1, batch=2, rank=2, barrier_prompts=2, barrier_tokens=2, held_out=0.0)
    enhancement = Enhancement.load(made["enhancement"])
    trained = burnish.train(base, rows, enhancement=enhancement, combine="keep", options=options, check_prompts=0)
    trained.export(tmp_path / "trained", form="adapter", model=made["base"])
    burnish.push(tmp_path / "trained", REPO, base=BASE)
    files = hub.repositories[REPO].files()
    assert set(contents(tmp_path / "trained")) == set(files) - {".gitattributes"}
    assert [name for name, data in files.items() if str(made["base"].parent).encode() in data] == []
    outs = tmp_path / "from-here", tmp_path / "from-the-hub"
    for source, out in zip((tmp_path / "trained", REPO), outs, strict=True):
        arguments = ["apply", made["base"], source, "--enhancement-factor", 2, "--form", "adapter", "-o", out]
        assert run([str(a) for a in arguments]) == 0
    weights = [(out / "adapter_model.safetensors").read_bytes() for out in outs]
    assert weights[0] == weights[1]
    assert "trained LoRA" in refusal(lambda: read_enhancement(Path(REPO), None, "all"), InputError)


# Visibility


def test_a_new_repository_is_private_unless_asked(hub: HubStandIn, made: dict[str, Path]) -> None:
    assert not burnish.push(made["adapter"], REPO).public
    burnish.push(made["adapter"], "someone/open", public=True)
    assert [body["visibility"] for body in hub.created] == ["private", "public"]
    assert hub.repositories[REPO].private
    assert not hub.repositories["someone/open"].private


@pytest.mark.parametrize(("private", "public"), [(False, False), (True, True)])
def test_an_existing_repository_of_another_visibility_is_refused_before_a_byte_is_sent(
    private: bool, public: bool, hub: HubStandIn, made: dict[str, Path]
) -> None:
    there = hub.add(REPO, {"README.md": b"mine"}, private=private)
    message = refusal(lambda: burnish.push(made["model"], REPO, public=public))
    assert ("is private" if private else "is public") in message
    assert "--public" in message
    assert hub.requests("POST") == hub.requests("PUT") == []
    assert there.private is private


def test_an_existing_repository_gets_another_commit(hub: HubStandIn, made: dict[str, Path]) -> None:
    there = hub.add(REPO, {"notes.txt": b"mine", "README.md": b"old"}, private=True)
    assert not burnish.push(made["adapter"], REPO, message="Second try").created
    assert there.messages == ["initial commit", "Second try"]
    assert there.files()["notes.txt"] == b"mine"
    assert there.files()["README.md"] == (made["adapter"] / "README.md").read_bytes()


def test_a_branch_is_made_and_main_left_alone(hub: HubStandIn, made: dict[str, Path]) -> None:
    for _ in range(2):
        pushed = burnish.push(made["adapter"], REPO, revision="strong")
    assert pushed.revision == "strong"
    assert set(hub.repositories[REPO].files()) == {".gitattributes"}
    assert PLAN_FILE in hub.repositories[REPO].files("strong")


# What goes wrong


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [
        ("GET /api/models/someone/enhanced", 401, "does not accept the token"),
        ("GET /api/models/someone/enhanced", 500, "answered 500"),
        ("POST /api/repos/create", 403, "write permission"),
        ("POST /api/repos/create", 409, "answered 409: as the test asks"),
        ("/preupload/main", 403, "write permission"),
        ("objects/batch", 404, "no such repository"),
        ("/commit/main", 500, "answered 500"),
        ("/commit/main", 429, "answered 429"),
        ("validate-yaml", 400, "Invalid metadata in README.md"),
    ],
)
def test_a_refusal_of_the_hub_says_what_why_and_what_to_do(
    end: str, status: int, words: str, hub: HubStandIn, made: dict[str, Path]
) -> None:
    hub.faults[end] = status
    message = refusal(lambda: burnish.push(made["model"], REPO), BurnishError)
    assert message.startswith(f"Nothing could be pushed to '{REPO}': ")
    assert words in message
    assert "ommit" in message  # how things stand now
    assert REPO not in hub.repositories or hub.repositories[REPO].messages == ["initial commit"]


def test_an_upload_that_is_cut_off_leaves_no_commit_and_says_so(hub: HubStandIn, made: dict[str, Path]) -> None:
    hub.cut_uploads = True
    message = refusal(lambda: burnish.push(made["model"], REPO))
    assert "the connection failed" in message
    assert "Nothing was committed. The new repository is empty." in message
    assert hub.repositories[REPO].messages == ["initial commit"]
    hub.cut_uploads = False
    burnish.push(made["model"], REPO)
    assert hub.repositories[REPO].files()["model.safetensors"] == (made["model"] / "model.safetensors").read_bytes()


def test_without_a_token_nobody_is_asked(
    hub: HubStandIn, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in refusal(lambda: burnish.push(made["adapter"], REPO))
    assert hub.asked == []


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [("HF_HUB_OFFLINE", True, "HF_HUB_OFFLINE"), ("ENDPOINT", "http://127.0.0.1:9", "the connection failed")],
)
def test_a_client_that_is_offline_and_a_hub_that_is_not_there_say_so(
    setting: str, value: object, words: str, hub: HubStandIn, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, setting, value)
    for act in (lambda: burnish.push(made["adapter"], REPO), lambda: burnish.pull(REPO), lambda: resolve(REPO)):
        assert words in refusal(act)
    assert hub.asked == []


# The token


def test_the_token_is_in_no_output_log_card_or_file(
    hub: HubStandIn,
    made: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where the hub itself quotes it, and with every logger at its most talkative."""
    for name in (None, "huggingface_hub", "burnish", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, name)
    assert run(["push", str(made["model"]), REPO, "--json"]) == 0
    assert run(["pull", REPO, "-o", str(tmp_path / "pulled.safetensors")]) == 0
    hub.quote_token = True
    caplog.set_level(logging.INFO, "httpcore2")  # below that it shows what it received, as it came
    told = []
    for end, status in (("/commit/main", 403), ("/commit/main", 418), ("GET /api/models/" + REPO, 401)):
        hub.faults = {end: status}
        with pytest.raises(HubError) as caught:
            burnish.push(made["local-adapter"], REPO, base=BASE)
        told.append("".join(traceback.format_exception(caught.value)))
        assert run(["push", str(made["adapter"]), REPO]) == 9
    out, err = capfd.readouterr()
    assert "<token>" in told[1]  # the hub did quote it
    assert "Error: Nothing could be pushed" in err
    for text in (out, err, *told, *(record.getMessage() for record in caplog.records if record.name != "asyncio")):
        assert TOKEN not in text
    for files in (contents(tmp_path), hub.repositories[REPO].files()):
        assert all(TOKEN.encode() not in data for data in files.values())


def test_the_command_by_itself_at_the_clients_debug_level_shows_no_token(
    hub: HubStandIn, made: dict[str, Path], tmp_path: Path
) -> None:
    """The client reads its settings when it is imported: here it reads them as a user sets them."""
    settings = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
        "HF_DEBUG": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [str(Path(sys.executable).with_name("burnish")), "push", str(made["adapter"]), REPO]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "curl -X POST" in done.stderr  # the client did say what it sends
    assert TOKEN not in done.stdout + done.stderr
    assert hub.repositories[REPO].private
    assert all(TOKEN.encode() not in data for data in contents(tmp_path).values())


# The command


def test_a_dry_run_lists_files_target_and_visibility_and_contacts_nobody(
    hub: HubStandIn, made: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["push", str(made["adapter"]), REPO, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {f["name"]: f["bytes"] for f in plan["files"]} == {n: len(b) for n, b in contents(made["adapter"]).items()}
    assert (plan["repo"], plan["revision"], plan["public"], plan["licence"]) == (REPO, "main", False, "mit")
    assert run(["push", str(made["enhancement"]), REPO, "--dry-run", "--public"]) == 0
    out = capsys.readouterr().out
    assert "Licence: unknown" in out
    assert "public" in out
    assert hub.asked == []


def test_push_prints_the_commit_and_the_next_command(
    hub: HubStandIn, made: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["push", str(made["adapter"]), REPO]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == f"{hub.endpoint}/{REPO}/commit/{hub.repositories[REPO].branches['main']}"
    assert f"Next: burnish chat {BASE} --with {REPO}" in err
    assert "Licence: mit" in err
