"""Where Burnish keeps things of its user: what can be made again, and what cannot."""

import os
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """The cache folder: `$BURNISH_CACHE`, else the platform's own."""
    return Path(os.environ.get("BURNISH_CACHE") or platformdirs.user_cache_dir("burnish"))


def data_root() -> Path:
    """`$BURNISH_DATA`, else the platform's folder for a user's data."""
    return Path(os.environ.get("BURNISH_DATA") or platformdirs.user_data_dir("burnish"))
