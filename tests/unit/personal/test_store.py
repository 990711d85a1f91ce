"""The store: whole after a kill, safe in company, closed to others, and forgetting for good."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from burnish.errors import InputError, OutputError
from burnish.paths import data_root
from burnish.personal.profile import Choice, Profile, Scale
from burnish.personal.store import FILE, LOCAL, MIGRATIONS, Store, new_profile

MARKER = "zq-unmistakable-9137"
WRITER = """
import sys
from pathlib import Path
from dataclasses import replace
from burnish.paths import data_root
from burnish.personal.profile import Choice
from burnish.personal.store import Store
store, count = Store(Path(sys.argv[1])), int(sys.argv[2])
choice = Choice({"a": 1.0}, {"a": 0.0}, 1.0, "f")
print("ready", flush=True)
for _ in range(count):
    store.update("local", "mine", "1 choice", lambda p, c: replace(p, choices=len(c)), [choice])
"""


def choice(value: float = 1.0, text: str | None = None) -> Choice:
    return Choice({"a": value}, {"a": 0.0}, 1.0, "f", None if text is None else (text, "one", "two"))


def counted(profile: Profile, choices: list[Choice]) -> Profile:
    return replace(profile, choices=len(choices))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@pytest.fixture
def mine(store: Store) -> Store:
    """A store in which the local person has the profile 'mine'."""
    store.add(store.local(), new_profile("mine"))
    return store


def every_byte(store: Store) -> bytes:
    return b"".join(f.read_bytes() for f in store.folder.iterdir())


def rows_of(store: Store, query: str) -> list[Any]:
    with closing(sqlite3.connect(store.path)) as database:
        return database.execute(query).fetchall()


def test_what_is_kept_comes_back(store: Store) -> None:
    person = store.local()
    made = new_profile("mine", budget=0.02, sliders={"formal-casual": -0.3})
    store.add(person, made)
    assert store.profile(person, "mine") == made
    assert store.profiles(person) == [made]
    changed = store.update(person, "mine", "2 choices", counted, [choice(1.5), choice(-2.0)])
    assert changed == replace(made, choices=2) == Store(store.folder).profile(person, "mine")
    first, second = store.choices(person, "mine")
    assert (first.first, second.first) == ({"a": 1.5}, {"a": -2.0})
    assert first.time.endswith("+00:00")


@pytest.mark.parametrize("keep", [False, True])
def test_text_is_kept_only_where_it_was_asked_for(keep: bool, store: Store) -> None:
    person = store.local()
    store.add(person, new_profile("mine", keep_text=keep))
    store.update(person, "mine", "1 choice", counted, [choice(text=MARKER)])
    assert (MARKER.encode() in every_byte(store)) == keep
    assert store.choices(person, "mine")[0].text == ((MARKER, "one", "two") if keep else None)


def test_undo_takes_back_one_step_at_a_time(mine: Store) -> None:
    steps = [mine.profile(LOCAL, "mine")]
    steps.append(mine.update(LOCAL, "mine", "sliders", lambda p, c: replace(p, sliders={"education": 1.0})))
    steps.append(mine.update(LOCAL, "mine", "1 choice", counted, [choice()]))
    mine.update(LOCAL, "mine", "2 choices", counted, [choice(), choice()])
    for what, before, left in (("2 choices", steps[2], 1), ("1 choice", steps[1], 0), ("sliders", steps[0], 0)):
        assert mine.undo(LOCAL, "mine") == (what, before)
        assert mine.profile(LOCAL, "mine") == before
        assert len(mine.choices(LOCAL, "mine")) == left
    with pytest.raises(InputError, match="nothing to undo"):
        mine.undo(LOCAL, "mine")


def test_a_change_that_fails_leaves_nothing(mine: Store) -> None:
    before = mine.profile(LOCAL, "mine")

    def failing(profile: Profile, choices: list[Choice]) -> Profile:
        assert len(choices) == 1  # it sees the new choice
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        mine.update(LOCAL, "mine", "1 choice", failing, [choice()])
    with pytest.raises(ValueError, match="id and name"):
        mine.update(LOCAL, "mine", "x", lambda p, c: replace(p, name="other"), [choice()])
    assert mine.profile(LOCAL, "mine") == before
    assert mine.choices(LOCAL, "mine") == []
    with pytest.raises(InputError, match="nothing to undo"):
        mine.undo(LOCAL, "mine")


def test_measurements_are_kept_unless_the_profile_has_changed_meanwhile(mine: Store) -> None:
    measured = replace(mine.profile(LOCAL, "mine"), scales={"f": Scale(0.5, "plan")})
    mine.remember(LOCAL, measured)
    assert mine.profile(LOCAL, "mine") == measured
    mine.remember(LOCAL, replace(measured, scales={"g": Scale(0.2, "plan")}))  # another process, another model
    assert set(mine.profile(LOCAL, "mine").scales) == {"f", "g"}
    mine.update(LOCAL, "mine", "sliders", lambda p, c: replace(p, sliders={"education": 1.0}, scales={}))
    mine.remember(LOCAL, measured)
    assert mine.profile(LOCAL, "mine").scales == {}


def test_one_persons_profile_is_out_of_anothers_reach(store: Store) -> None:
    (one, one_key), (two, two_key) = store.new_person(), store.new_person()
    assert (store.person_of(one_key), store.person_of(two_key)) == (one, two)
    store.add(one, new_profile("mine", keep_text=True))
    store.update(one, "mine", "1 choice", counted, [choice(text=MARKER)])
    profile = store.profile(one, "mine")
    assert store.profiles(two) == []
    reaches = (
        lambda: store.profile(two, "mine"),
        lambda: store.choices(two, "mine"),
        lambda: store.update(two, "mine", "x", counted, [choice()]),
        lambda: store.remember(two, profile),
        lambda: store.undo(two, "mine"),
        lambda: store.forget(two, "mine"),
        lambda: store.profile(two, profile.id),
        lambda: store.profile("' OR 1=1 --", "mine"),
    )
    for reach in reaches:
        with pytest.raises(InputError, match=r"There is no profile .* \(there are: none yet\)"):
            reach()
    store.add(two, new_profile("mine"))  # names are each person's own
    store.update(two, "mine", "3 choices", counted, [choice()] * 3)
    store.undo(two, "mine")
    store.forget(two)
    assert store.profile(one, "mine") == profile
    assert len(store.choices(one, "mine")) == 1


def test_a_wrong_key_opens_nothing_and_no_key_is_kept(store: Store) -> None:
    person, key = store.new_person()
    store.local()
    for wrong in ("", key[:-1], key + "x", key.swapcase(), person, LOCAL, "\ud800", "ключ"):
        with pytest.raises(InputError, match="belongs to nobody"):
            store.person_of(wrong)
    assert key.encode() not in every_byte(store)
    store.forget(person)
    with pytest.raises(InputError, match="belongs to nobody"):
        store.person_of(key)
    with pytest.raises(InputError, match="not known"):
        store.add(person, new_profile("mine"))


@pytest.mark.parametrize("name", ["mine", None])
def test_forgetting_leaves_no_byte(name: str | None, store: Store) -> None:
    person, other = store.local(), store.new_person()[0]
    for who in (person, other):
        store.add(who, new_profile("mine", keep_text=True))
    store.add(person, new_profile("second"))
    store.update(other, "mine", "1 choice", counted, [choice(text="something else")])
    for _ in range(40):  # many pages, some of them freed again by undoing
        store.update(person, "mine", f"x {MARKER}", counted, [choice(text=MARKER * 50)])
    for _ in range(15):
        store.undo(person, "mine")
    profile = store.profile(person, "mine")
    store.update(person, "mine", "more", counted, [choice(text=MARKER)])
    assert MARKER.encode() in every_byte(store)
    store.forget(person, name)
    assert MARKER.encode() not in every_byte(store)
    assert profile.id.encode() not in every_byte(store)
    assert {f.name for f in store.folder.iterdir()} == {FILE}
    assert [p.name for p in store.profiles(person)] == (["second"] if name else [])
    assert len(store.choices(other, "mine")) == 1


def test_forgetting_says_so_when_another_reader_holds_old_pages(mine: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnish.personal.store.WAIT", 50)
    mine.update(LOCAL, "mine", "1 choice", counted, [choice()])
    reader = sqlite3.connect(mine.path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM choices").fetchall()
    with pytest.raises(OutputError, match="another process"):
        mine.forget(LOCAL, "mine")
    reader.close()
    mine.forget(LOCAL)


def test_only_the_owner_may_read_the_files(mine: Store) -> None:
    assert stat.S_IMODE(mine.folder.stat().st_mode) == 0o700
    keep = sqlite3.connect(mine.path)  # so that the log stays
    keep.execute("SELECT * FROM people").fetchall()
    mine.update(LOCAL, "mine", "1 choice", counted, [choice()])
    files = list(mine.folder.iterdir())
    assert {f.name for f in files} >= {FILE, f"{FILE}-wal"}
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    keep.close()


def test_a_killed_writer_leaves_whole_choices(mine: Store) -> None:
    written = 0
    for more in (1, 20):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(mine.folder), "100000"], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        until = time.monotonic() + 60
        while len(mine.choices(LOCAL, "mine")) < written + more:
            assert time.monotonic() < until, "nothing is written"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        done = mine.choices(LOCAL, "mine")
        assert mine.profile(LOCAL, "mine").choices == len(done)
        assert all(c.first == {"a": 1.0} for c in done)
        assert rows_of(mine, "PRAGMA integrity_check") == [("ok",)]
        assert rows_of(mine, "SELECT count(*) FROM events") == [(len(done),)]
        assert len(done) >= written + more
        written = len(done)
    mine.update(LOCAL, "mine", "1 choice", counted, [choice()])


def test_several_processes_and_threads_lose_nothing(mine: Store) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(mine.folder), "15"]) for _ in range(2)]

    def write(_: int) -> None:
        for _ in range(15):
            mine.update(LOCAL, "mine", "1 choice", counted, [choice()])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    assert [w.wait() for w in writers] == [0, 0]
    assert mine.profile(LOCAL, "mine").choices == len(mine.choices(LOCAL, "mine")) == 75


def test_a_store_may_be_made_by_several_at_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def make(_: int) -> None:
        barrier.wait()
        Store(tmp_path / "data").new_person()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))  # raises what any of them raises
    store = Store(tmp_path / "data")
    assert rows_of(store, "SELECT count(*) FROM people") == [(8,)]
    assert rows_of(store, "PRAGMA journal_mode") == [("wal",)]


def test_an_older_file_is_migrated_and_a_newer_one_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(store.local(), new_profile("mine"))
    later = (*MIGRATIONS, ("ALTER TABLE people ADD COLUMN nickname TEXT",))
    monkeypatch.setattr("burnish.personal.store.MIGRATIONS", later)
    assert [p.name for p in store.profiles(LOCAL)] == ["mine"]
    assert rows_of(store, "SELECT nickname FROM people") == [(None,)]
    monkeypatch.setattr("burnish.personal.store.MIGRATIONS", MIGRATIONS)
    with pytest.raises(InputError, match="later version"):
        store.profiles(LOCAL)


def test_a_migration_that_fails_leaves_the_file_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(store.local(), new_profile("mine"))
    broken = (*MIGRATIONS, ("ALTER TABLE people ADD COLUMN nickname TEXT", "NONSENSE"))
    monkeypatch.setattr("burnish.personal.store.MIGRATIONS", broken)
    with pytest.raises(OutputError, match="cannot be used"):
        store.profiles(LOCAL)
    monkeypatch.setattr("burnish.personal.store.MIGRATIONS", MIGRATIONS)
    assert [p.name for p in store.profiles(LOCAL)] == ["mine"]


def test_wrong_files_and_names_are_refused(mine: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already is a profile 'mine'"):
        mine.add(LOCAL, new_profile("mine"))
    with pytest.raises(InputError, match=r"no profile 'yours' \(there are: mine\)"):
        mine.profile(LOCAL, "yours")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / FILE).write_text("this is no database at all, but text that is long enough to be one")
    with pytest.raises(OutputError, match="cannot be used"):
        Store(tmp_path / "text").local()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be used"):
        Store(tmp_path / "file").local()


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_DATA", str(tmp_path / "elsewhere"))
    assert data_root() == Store().folder == tmp_path / "elsewhere"
    monkeypatch.delenv("BURNISH_DATA")
    assert data_root().name == "burnish"
    assert os.path.isabs(data_root())
