"""Whether anyone has a key yet."""

import sqlite3
from contextlib import closing

from burnish.personal.store import Store


def anyone(store: Store) -> bool:
    """Whether the store knows a person with a key."""
    if not store.path.exists():
        return False
    store.local()  # brings the tables up to date
    with closing(sqlite3.connect(f"{store.path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        return database.execute("SELECT 1 FROM people WHERE key_hash IS NOT NULL").fetchone() is not None
