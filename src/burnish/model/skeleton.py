"""A folder's config, its architecture on the meta device and its anatomy: nothing of its weights is read."""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from burnish.anatomy import Anatomy, find_anatomy
from burnish.artifacts.files import read_table
from burnish.errors import ModelError
from burnish.options import ModelOptions

MOST_LAYERS = 4096  # building the outline of a model costs time and memory for every layer that its config claims
# What the libraries raise for files that are damaged, hostile or of another version.
REFUSALS = (ValueError, OSError, LookupError, TypeError, AttributeError, ImportError, RecursionError, ArithmeticError)
HEADS_MESSAGE = "is not a multiple of the number of attention"


def relax_head_check() -> None:
    """Lets configs through whose hidden size is no multiple of the heads but that say their `head_dim`.

    transformers 5.4 to 5.23 refuse them (transformers issue 46082) although the attention's shapes come from `head_dim`;
    kakaocorp/kanana-nano-2.1b-instruct (1792 wide, 24 heads of 128) is one. Saving and generating check the config again,
    so this one check stays relaxed for the rest of the process; every other check stays as it is.
    """
    for config_class in {transformers.LlamaConfig, *_subclasses(transformers.PretrainedConfig)}:
        validators = getattr(config_class, "__class_validators__", [])
        if any(v.__name__ == "validate_architecture" for v in validators):
            config_class.__class_validators__ = [_relaxed(v) for v in validators]


def _relaxed(validator: Any) -> Any:
    if validator.__name__ != "validate_architecture" or hasattr(validator, "__wrapped__"):
        return validator

    @functools.wraps(validator)
    def check(config: Any) -> None:
        try:
            validator(config)
        except ValueError as error:
            if HEADS_MESSAGE not in str(error) or not getattr(config, "head_dim", None):
                raise

    return check


def _subclasses(root: Any) -> set[Any]:
    classes: set[Any] = set()
    for child in root.__subclasses__():
        classes |= {child} | _subclasses(child)
    return classes


def load_config(folder: Path, options: ModelOptions) -> Any:
    """The folder's config object. Raises ModelError with the library's reason."""
    stated = read_table(folder / "config.json")
    try:
        config = _config(folder, options)
        layers = getattr(text_config(config), "num_hidden_layers", None)
    except (*REFUSALS, StrictDataclassError) as error:
        raise ModelError(f"The config of {folder} was refused: {reason(error)} {advice(folder, error)}") from error
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise ModelError(
            f"The config of {folder} ('{str(stated.get('model_type'))[:40]}') claims {layers:,} layers, and no model has more than "
            f"{MOST_LAYERS:,}. It is damaged or hostile: pass another copy of the model."
        )
    return config


def reason(error: Exception) -> str:
    """The last line of what a library says, without its control characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return "".join(c if c.isprintable() else " " for c in lines[-1])[:500]


def advice(folder: Path, error: Exception) -> str:
    """What to do about a model that the library refuses, by what its config says and what the library does."""
    stated, text = read_table(folder / "config.json"), str(error)
    if "auto_map" in stated:
        return "A model with code of its own needs --trust-remote-code (read that code first)."
    if isinstance(error, ImportError):
        return "Install what the message names."
    if not isinstance(stated.get("model_type"), str) or stated["model_type"] not in transformers.CONFIG_MAPPING:
        return f"transformers {transformers.__version__} does not know this 'model_type' of its config.json: upgrade it, or correct the key."
    words = [word for word in re.findall(r"['\"`]([^'\"`]+)['\"`]", text) if len(word) > 1]
    keys = [key for key in stated if key in text] or [
        key for key, value in stated.items() if any(f'"{word}"' in json.dumps(value) for word in words)
    ]
    if not keys and "rope" in text:
        keys = [key for key in stated if key.startswith("rope_")]
    if keys:
        return f"Correct {' and '.join(repr(key) for key in keys[:3])} in its config.json, or use a version of transformers that takes it."
    return "Check its files against those that it was published with, and download it again."


def _config(folder: Path, options: ModelOptions) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=options.trust_remote_code)
    except (ValueError, StrictDataclassError) as error:
        if HEADS_MESSAGE not in str(error):
            raise
        relax_head_check()
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=options.trust_remote_code)


def text_config(config: Any) -> Any:
    """The language model's part of a config that may describe several towers."""
    return config.get_text_config(decoder=True)


def skeleton(folder: Path, options: ModelOptions, **how: Any) -> tuple[nn.Module, Any]:
    """The model on the meta device (no weights) and its config. how: further arguments of the library's `from_config`."""
    config = load_config(folder, options)
    if getattr(config, "quantization_config", None) is not None:
        del config.quantization_config
    try:
        with torch.device("meta"):
            return auto_class(config).from_config(config, trust_remote_code=options.trust_remote_code, **how), config
    except (*REFUSALS, RuntimeError) as error:
        raise ModelError(
            f"The architecture of {folder} ('{config.model_type}') cannot be built: {reason(error)} {advice(folder, error)}"
        ) from error


def anatomy_of(model: nn.Module, config: Any) -> Anatomy:
    """Where the model's attention writes. Raises ModelError, NoProjectionError."""
    text = text_config(config)
    hidden_size = getattr(text, "hidden_size", None)
    if not isinstance(hidden_size, int):
        raise ModelError(
            f"'{config.model_type}' states no hidden size for its language model. Pass a decoder-only language model."
        )
    return find_anatomy(model, hidden_size, getattr(text, "num_hidden_layers", None))


def module_names(network: Any, stored_names: Iterable[str]) -> dict[str, str]:
    """The stored name of each tensor by the name it has in the loaded model; the library renames those of some
    architectures while loading (OLMo hybrid, DeepSeek V4)."""
    return {renamed: name for name, renamed, _ in renamed_tensors(network, stored_names)}


def renamed_tensors(network: Any, stored: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    """(stored name, its name in the loaded model, whether others are joined with it) of each tensor."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(network)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    state, prefix = network.state_dict(), network.base_model_prefix
    for name in stored:
        renamed, pattern = rename_source_key(name, renamings, converters, prefix, state)
        yield name, renamed, pattern is not None


def require_once(folder: Path, network: Any, stored: Iterable[str]) -> None:
    """Raises ModelError where two stored tensors have one name in the loaded model: the library would take one of them, and an edit might
    be written into the other. Those that it joins into one are many on purpose."""
    first: dict[str, str] = {}
    for name, renamed, joined in renamed_tensors(network, stored):
        if not joined and first.setdefault(renamed, name) != name:
            raise ModelError(
                f"{folder} stores {renamed!r} twice, as {first[renamed]!r} and as {name!r}, and one of them is not what is loaded. Remove "
                "the one that does not belong to the model."
            )


def auto_class(config: Any) -> Any:
    """The causal language model class, or the multimodal one where the config has no causal mapping."""
    if type(config) in transformers.AutoModelForCausalLM._model_mapping or hasattr(config, "auto_map"):
        return transformers.AutoModelForCausalLM
    if type(config) in transformers.AutoModelForImageTextToText._model_mapping:
        return transformers.AutoModelForImageTextToText
    raise ModelError(
        f"'{config.model_type}' is not a language model that writes text token by token. Pass a decoder model."
    )
