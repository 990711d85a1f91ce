"""Where profiles are kept: one SQLite file, safe under several processes, that forgets for good.

Every query is by person: a name or an id of someone else's finds nothing. A connection lasts for one operation, and
every change is one transaction, so a process that is killed at any moment leaves whole choices or none. Of a key only
its SHA-256 is kept; a slow hash would add nothing, because a key is 32 random bytes and not a word that could be
guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from burnish.errors import InputError, OutputError
from burnish.paths import data_root
from burnish.personal.profile import Choice, Profile

FILE = "profiles.sqlite"
LOCAL = "local"  # the person at this computer, who needs no key
WAIT = 30_000  # ms that a process waits for another's change
MIGRATIONS = (
    (
        "CREATE TABLE people (id TEXT PRIMARY KEY, key_hash TEXT)",
        "CREATE TABLE profiles (id TEXT PRIMARY KEY, person TEXT NOT NULL REFERENCES people ON DELETE CASCADE, "
        "name TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (person, name))",
        "CREATE TABLE events (id INTEGER PRIMARY KEY, profile TEXT NOT NULL REFERENCES profiles ON DELETE CASCADE, "
        "what TEXT NOT NULL, before TEXT NOT NULL)",
        "CREATE TABLE choices (id INTEGER PRIMARY KEY, profile TEXT NOT NULL REFERENCES profiles ON DELETE CASCADE, "
        "event INTEGER NOT NULL REFERENCES events ON DELETE CASCADE, first TEXT NOT NULL, second TEXT NOT NULL, "
        "outcome REAL NOT NULL, fingerprint TEXT NOT NULL, time TEXT NOT NULL, text TEXT)",
        "CREATE INDEX events_of ON events (profile)",
        "CREATE INDEX choices_of ON choices (profile)",
        "CREATE INDEX choices_at ON choices (event)",
    ),
)
Change = Callable[[Profile, list[Choice]], Profile]


class Store:
    """People, their profiles and choices. folder: by default `data_root()`; only its owner may read the file."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = data_root() if folder is None else folder
        self.path = self.folder / FILE

    def new_person(self) -> tuple[str, str]:
        """(person, key). The key is shown here and never again."""
        key = secrets.token_urlsafe(32)
        person, digest = _identity(key)
        with self._change() as database:
            database.execute("INSERT INTO people VALUES (?, ?)", (person, digest))
        return person, key

    def person_of(self, key: str) -> str:
        """The person a key belongs to. Raises InputError for a key that belongs to nobody."""
        person, digest = _identity(key)
        with self._open() as database:
            row = database.execute("SELECT key_hash FROM people WHERE id = ?", (person,)).fetchone()
        if not hmac.compare_digest(digest, row[0] if row and row[0] else ""):
            raise InputError(
                "This key belongs to nobody here: it is mistyped or was forgotten. Check it, or make a new person."
            )
        return person

    def anyone(self) -> bool:
        """Whether there is a person with a key."""
        if not self.path.exists():
            return False
        with self._open() as database:
            return database.execute("SELECT 1 FROM people WHERE key_hash IS NOT NULL").fetchone() is not None

    def local(self) -> str:
        """The person at this computer."""
        with self._change() as database:
            database.execute("INSERT OR IGNORE INTO people VALUES (?, NULL)", (LOCAL,))
        return LOCAL

    def add(self, person: str, profile: Profile) -> None:
        """Raises InputError for a name that the person has used already, or a person who is not known."""
        with self._change() as database:
            if database.execute("SELECT 1 FROM people WHERE id = ?", (person,)).fetchone() is None:
                raise InputError("This person is not known here: the key was forgotten. Make a new person.")
            if profile.name in _names(database, person):
                raise InputError(
                    f"There already is a profile '{profile.name}'. Pass another name, or forget that one first."
                )
            database.execute(
                "INSERT INTO profiles VALUES (?, ?, ?, ?)", (profile.id, person, profile.name, profile.as_json())
            )

    def profiles(self, person: str) -> list[Profile]:
        """A person's profiles, by name."""
        with self._open() as database:
            rows = database.execute("SELECT body FROM profiles WHERE person = ? ORDER BY name", (person,)).fetchall()
        return [Profile.from_json(body) for (body,) in rows]

    def profile(self, person: str, name: str) -> Profile:
        """Raises InputError for a name that the person has not."""
        with self._open() as database:
            return _profile_named(database, person, name)

    def choices(self, person: str, name: str) -> list[Choice]:
        """A profile's choices in the order they were made. Raises InputError for a name that the person has not."""
        with self._open() as database:
            return _choices(database, _profile_named(database, person, name).id)

    def update(
        self,
        person: str,
        name: str,
        what: str,
        change: Change,
        choices: Sequence[Choice] = (),
    ) -> Profile:
        """Adds choices and changes the profile in one step that can be undone; returns the profile.

        change: (profile, all its choices) -> profile, called while nobody else can change it. The choices' text is
        dropped unless the profile keeps text. what: in a word, for `undo` to say. Raises InputError for a name that
        the person has not.
        """
        with self._change() as database:
            before = _profile_named(database, person, name)
            event = database.execute(
                "INSERT INTO events (profile, what, before) VALUES (?, ?, ?)", (before.id, what, before.as_json())
            ).lastrowid
            now = datetime.now(UTC).isoformat(timespec="seconds")
            for choice in choices:
                text = json.dumps(choice.text, ensure_ascii=False) if before.keep_text and choice.text else None
                sides = (json.dumps(choice.first), json.dumps(choice.second))
                database.execute(
                    "INSERT INTO choices (profile, event, first, second, outcome, fingerprint, time, text) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (before.id, event, *sides, choice.outcome, choice.fingerprint, now, text),
                )
            return _save(database, before, change(before, _choices(database, before.id)))

    def remember(self, person: str, profile: Profile) -> None:
        """Keeps what was measured for a profile (units, scales), unless it has learned something else meanwhile."""
        with self._change() as database:
            stored = _profile_named(database, person, profile.name)
            if replace(stored, units=profile.units, scales=profile.scales) == profile:
                _save(database, stored, replace(profile, scales={**stored.scales, **profile.scales}))

    def undo(self, person: str, name: str) -> tuple[str, Profile]:
        """Takes the last step back; returns what it was, and the profile as before. Raises InputError for none."""
        with self._change() as database:
            now = _profile_named(database, person, name)
            row = database.execute(
                "SELECT id, what, before FROM events WHERE profile = ? ORDER BY id DESC LIMIT 1", (now.id,)
            ).fetchone()
            if row is None:
                raise InputError(f"There is nothing to undo: the profile '{name}' is as it was made.")
            event, what, before = row
            database.execute("DELETE FROM events WHERE id = ?", (event,))  # with its choices
            return what, _save(database, now, Profile.from_json(before))

    def forget(self, person: str, name: str | None = None) -> None:
        """Removes every trace of a person, or of one profile, also of what was undone; the bytes are overwritten.

        Raises InputError for a name that the person has not, OutputError while another process still reads the old
        pages.
        """
        with self._change() as database:
            if name is None:
                database.execute("DELETE FROM people WHERE id = ?", (person,))
            else:
                database.execute("DELETE FROM profiles WHERE id = ?", (_profile_named(database, person, name).id,))
        with self._open() as database:
            database.execute("VACUUM")
            (busy, _, _) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise OutputError(
                f"It is forgotten, but another process is reading {self.path}, so old pages are still in its log. They go when "
                "that process (a server, for example) is closed, or with the next profile that is forgotten."
            )

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction; nothing of it stays when an error leaves it."""
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.touch(mode=0o600, exist_ok=True)  # its log files take the same mode
            database = sqlite3.connect(self.path, timeout=WAIT / 1000, isolation_level=None)
            try:
                for setting in ("foreign_keys = ON", "secure_delete = ON", "temp_store = MEMORY", "synchronous = FULL"):
                    database.execute(f"PRAGMA {setting}")
                self._prepare(database)
                yield database
            finally:
                database.close()
        except (sqlite3.Error, OSError) as error:
            raise OutputError(
                f"The profiles in {self.path} cannot be used: {error}. Check the folder's rights and space, or set BURNISH_DATA to another."
            ) from error

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Brings the tables up to date. Raises InputError for a file of a later version."""
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise InputError(
                f"{self.path} was made by a later version (its tables are {version}, this one knows {len(MIGRATIONS)}). Update Burnish."
            )
        if version == len(MIGRATIONS):
            return
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        (version,) = database.execute("PRAGMA user_version").fetchone()  # another process may have been faster
        for number, statements in enumerate(MIGRATIONS[version:], version + 1):
            for statement in statements:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {number}")
        database.execute("COMMIT")


def new_profile(name: str, **settings: object) -> Profile:
    """A profile with an id of its own. settings: fields of `Profile`."""
    return replace(Profile(uuid.uuid4().hex, name), **settings)  # type: ignore[arg-type]


def _identity(key: str) -> tuple[str, str]:
    """(person, hash): a person's id begins the hash, so that a key finds its row without a search by secret."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return digest[:16], digest


def _names(database: sqlite3.Connection, person: str) -> list[str]:
    rows = database.execute("SELECT name FROM profiles WHERE person = ? ORDER BY name", (person,))
    return [name for (name,) in rows]


def _profile_named(database: sqlite3.Connection, person: str, name: str) -> Profile:
    row = database.execute("SELECT body FROM profiles WHERE person = ? AND name = ?", (person, name)).fetchone()
    if row is None:
        names = ", ".join(_names(database, person)) or "none yet"
        raise InputError(
            f"There is no profile '{name}' (there are: {names}). Check the name, or make it: `burnish profile new`."
        )
    return Profile.from_json(row[0])


def _choices(database: sqlite3.Connection, profile: str) -> list[Choice]:
    rows = database.execute(
        "SELECT first, second, outcome, fingerprint, text, time FROM choices WHERE profile = ? ORDER BY id", (profile,)
    )
    return [
        Choice(
            json.loads(first), json.loads(second), outcome, fingerprint, tuple(json.loads(text)) if text else None, time
        )
        for first, second, outcome, fingerprint, text, time in rows
    ]


def _save(database: sqlite3.Connection, before: Profile, after: Profile) -> Profile:
    """Raises ValueError for a change of what makes a profile itself."""
    if (after.id, after.name) != (before.id, before.name):
        raise ValueError("a change must keep the profile's id and name")
    database.execute("UPDATE profiles SET body = ? WHERE id = ?", (after.as_json(), before.id))
    return after
