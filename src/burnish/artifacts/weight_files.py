"""Which files of a model folder are its weights: those that the library loads, and no other. Needs no torch."""

from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath

from burnish.artifacts.files import read_table
from burnish.errors import ModelError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"  # says how the tensors are spread over files
NAMED = "transformers_weights"  # key of a config that names other weights, which the library then loads
LONGEST_NAME = 255  # characters of a file's name
# The same model once more, for other programs: an edit does not reach it.
OTHER_FORMS = (
    "pytorch_model*",
    "consolidated*",
    "model*.safetensors",
    "tf_model*",
    "flax_model*",
    "rust_model.ot",
    "*.gguf",
    "*.onnx",
    "*.onnx_data",
    "*.llamafile",
    "*.mlmodel",
    *(f"{folder}/*" for folder in ("original", "onnx", "openvino", "metal", "coreml")),
)


def weight_files(folder: Path) -> tuple[str, ...]:
    """The safetensors files that the library loads: the one that the config names, the single one, or those of the index.

    Raises ModelError where there is none, and where single and sharded weights lie side by side: the library would load the single
    file, and other programs the shards.
    """
    config = folder / "config.json"
    named = read_table(config).get(NAMED) if config.is_file() else None
    if named is not None:
        if not isinstance(named, str) or not _inside(named) or not (folder / named).is_file():
            raise ModelError(
                f"{config} names {str(named)[:80]!r} as {NAMED}, which is no file of the folder. Mend that key."
            )
        return _of_index(folder / named) if named.endswith(".json") else (named,)
    single, index = folder / SINGLE, folder / INDEX
    if index.exists():
        files = _of_index(index)
        if single.exists() and files != (SINGLE,):
            raise ModelError(
                f"{folder} holds its weights twice, as {SINGLE} and in the files of {INDEX} ({files[0]} and so on): programs differ in which "
                f"they load. Remove {SINGLE}, or the index with its files."
            )
        return files
    if single.exists():
        return (SINGLE,)
    others = sorted(p.name for p in folder.glob("*.safetensors"))
    if others:
        raise ModelError(
            f"{folder} has neither {SINGLE} nor {INDEX}, and nothing loads {', '.join(others[:3])} without. Download the model again, or "
            f"rename a single file to {SINGLE}."
        )
    raise ModelError(
        f"{folder} has no .safetensors files. Convert the checkpoint to safetensors (load it with transformers and "
        "call save_pretrained) and pass that folder."
    )


def is_other_form(name: str, weights: tuple[str, ...]) -> bool:
    """Whether a file (its path inside the folder, with /) holds the model's weights a second time, for other programs."""
    return name not in weights and any(
        fnmatchcase(name.casefold(), form) and ("/" in form or "/" not in name) for form in OTHER_FORMS
    )


def _of_index(index: Path) -> tuple[str, ...]:
    """The files that an index names, sorted. Raises ModelError for what is no index, or leads out of the folder.

    Only safetensors files are taken: other formats can run code when they are read.
    """
    table = read_table(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ModelError(f"{index} names no files. Download the model again.")
    for name in table.values():
        if not isinstance(name, str) or not name.endswith(".safetensors") or not _inside(name):
            raise ModelError(
                f"{index} names {str(name)[:80]!r}, and only .safetensors files in the model's own folder are read. Do not use this "
                "model, or pass a copy of it that you trust."
            )
    return tuple(sorted(set(table.values())))


def _inside(name: str) -> bool:
    """Whether a name can be a file's and stays in its folder, as it is read here and on Windows."""
    return (
        len(name) <= LONGEST_NAME
        and name.isprintable()
        and not any(
            kind(name).is_absolute() or kind(name).drive or ".." in kind(name).parts
            for kind in (PurePosixPath, PureWindowsPath)
        )
    )
