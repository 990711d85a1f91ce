"""Data sets of the hub as rows, through the `datasets` library (the `train` extra): hf://datasets/OWNER/NAME[/CONFIG]:SPLIT."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from burnish.errors import PromptFileError
from burnish.extras import require

FORM = "hf://datasets/OWNER/NAME:SPLIT"
# What libraries raise for sets that are not there, damaged, made by code, or of things that need other libraries (pictures, sounds).
REFUSALS = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError, ArithmeticError)


def hub_rows(path: Path) -> Iterable[dict[str, Any]]:
    """The rows of a split. Raises PromptFileError for a name of another form or a set that cannot be read, MissingExtraError without the library."""
    name, _, split = path.as_posix().removeprefix("hf:/datasets/").partition(":")
    parts = name.split("/")
    if len(parts) not in (2, 3) or not all(parts) or not split:
        raise PromptFileError(f"'{path}' names no split of a data set. Write {FORM}, for example with the split train.")
    require("train", f"Reading '{path}', a data set of the hub,")
    import datasets
    import pyarrow
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP client

    try:
        data_set = datasets.load_dataset("/".join(parts[:2]), *parts[2:], split=split)
        rows: Iterable[dict[str, Any]] = data_set.to_list()
    except (datasets.exceptions.DatasetsError, pyarrow.ArrowException, HTTPError, *REFUSALS) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise PromptFileError(
            f"The data set {name}, split {split} could not be read from the hub: {reason} Check the name, the split, the network, and that "
            "you may read it (`hf auth login`)."
        ) from error
    return rows
