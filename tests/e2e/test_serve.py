"""`burnish serve`: what it checks before it starts, keys, and a server that is started and interrupted."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from burnish.personal.store import Store
from burnish.server.access import Access
from burnish.server.serving import Server
from conftest import Call, Folders

pytestmark = pytest.mark.enable_socket


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BURNISH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def accesses(monkeypatch: pytest.MonkeyPatch) -> list[Access]:
    """How each server would have been open; none is run."""
    accesses: list[Access] = []
    make = Server.__init__

    def keep(self: Server, app: Any, service: Any) -> None:
        accesses.append(app.user_middleware[0].kwargs["access"])
        make(self, app, service)

    monkeypatch.setattr(Server, "__init__", keep)
    monkeypatch.setattr(Server, "run", lambda self, sockets: None)
    return accesses


def key_in(talk: str) -> str:
    (key,) = re.findall(r"never again:\n(\S{40,})\n", talk)
    return str(key)


def test_this_computer_needs_no_key(call: Call, accesses: list[Access], tiny_folder: Folders) -> None:
    code, out, err = call("serve", tiny_folder("llama"), "--no-profiles", "--port", 0)
    assert code == 0
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\n", out)
    assert accesses == [Access("127.0.0.1", keys=False)]
    assert "key" not in err


def test_other_hosts_need_a_key_which_is_shown_once(
    call: Call, accesses: list[Access], data: Path, tiny_folder: Folders
) -> None:
    asked = ("serve", tiny_folder("llama"), "--no-profiles", "--port", 0, "--host", "0.0.0.0")
    code, out, err = call(*asked)
    assert code == 0
    key = key_in(err)
    assert key not in out
    assert Store(data).person_of(key) in err
    assert key.encode() not in (data / "profiles.sqlite").read_bytes()
    _, _, again = call(*asked)
    assert "never again" not in again
    _, _, third = call(*asked, "--new-person")
    assert key_in(third) != key
    assert accesses == [Access("0.0.0.0", keys=True)] * 3


def test_a_key_file_is_made_once_and_must_belong_to_someone(
    call: Call, accesses: list[Access], data: Path, tmp_path: Path, tiny_folder: Folders
) -> None:
    file = tmp_path / "key"
    asked = ("serve", tiny_folder("llama"), "--no-profiles", "--port", 0, "--api-key-file", file)
    assert call(*asked)[0] == 0
    key = file.read_text(encoding="utf-8").strip()
    assert Store(data).person_of(key)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert call(*asked)[0] == 0
    assert file.read_text(encoding="utf-8").strip() == key
    assert accesses == [Access("127.0.0.1", keys=True)] * 2
    file.write_text("of nobody", encoding="utf-8")
    code, _, err = call(*asked)
    assert code == 2
    assert "belongs to nobody" in err


def test_what_is_wrong_is_said_before_a_model_is_loaded(call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, message in (
            (("--port", port), "cannot listen"),
            (("--with", tmp_path / "bad.safetensors"), "cannot be read"),
            (("--host", "no such host", "--port", 0), "cannot listen"),
            (("--port", 99999), "cannot listen on 127.0.0.1, port 99999: bind(): port must be 0-65535"),
            (("--rows", 0), "Pass 1 or more"),
        ):
            code, _, err = call("serve", "no-such-model", *arguments)
            assert code == 2
            assert message in err


@pytest.mark.usefixtures("interruptible")
def test_a_server_is_started_asked_and_interrupted(tiny_folder: Folders, data: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from burnish.cli import main; main()",
        "serve",
        str(tiny_folder("llama")),
        "--no-profiles",
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BURNISH_DATA": str(data)},
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    asked = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    with httpx.Client(base_url=url, timeout=30) as http:
        assert http.get("/readyz").status_code == 200
        assert http.post("/v1/chat/completions", json=asked).status_code == 200
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err.rstrip().endswith("Stopped.")
