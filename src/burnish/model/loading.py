"""Loads models and tokenizers, and the anatomy of a folder without its weights."""

import contextlib
import functools
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from burnish.anatomy import Anatomy, find_anatomy
from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.files import read_table
from burnish.errors import BurnishWarning, ModelError
from burnish.model.processes import keep_in_step, launched
from burnish.options import ModelOptions

# On CPUs, bfloat16 products keep a compiled kernel with its scratch memory for every shape seen, 1,024 of them by default:
# gigabytes where prompts and answers differ in length. Read by the library at its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")

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
    found: set[Any] = set()
    for child in root.__subclasses__():
        found |= {child} | _subclasses(child)
    return found


def load_config(folder: Path, options: ModelOptions) -> Any:
    """The folder's config object. Raises ModelError with the library's reason."""
    stated = read_table(folder / "config.json")
    try:
        config = _config(folder, options)
        layers = getattr(text_config(config), "num_hidden_layers", None)
    except (*REFUSALS, StrictDataclassError) as error:
        raise ModelError(
            f"The config of {folder} was refused: {_reason(error)} "
            "A model with code of its own needs --trust-remote-code (read that code first)."
        ) from error
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise ModelError(
            f"The config of {folder} ('{str(stated.get('model_type'))[:40]}') claims {layers:,} layers, and no model has more than "
            f"{MOST_LAYERS:,}. It is damaged or hostile: pass another copy of the model."
        )
    return config


def _reason(error: Exception) -> str:
    """The last line of what a library says, without its control characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return "".join(c if c.isprintable() else " " for c in lines[-1])[:500]


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
            f"The architecture of {folder} ('{config.model_type}') cannot be built: {_reason(error)} "
            "Check its config.json, or install what the message names."
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


def module_names(network: Any, stored: Iterable[str]) -> dict[str, str]:
    """The stored name of each tensor by the name it has in the loaded model; the library renames those of some
    architectures while loading (OLMo hybrid, DeepSeek V4)."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(network)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    state, prefix = network.state_dict(), network.base_model_prefix
    return {rename_source_key(name, renamings, converters, prefix, state)[0]: name for name in stored}


def auto_class(config: Any) -> Any:
    """The causal language model class, or the multimodal one where the config has no causal mapping."""
    if type(config) in transformers.AutoModelForCausalLM._model_mapping or hasattr(config, "auto_map"):
        return transformers.AutoModelForCausalLM
    if type(config) in transformers.AutoModelForImageTextToText._model_mapping:
        return transformers.AutoModelForImageTextToText
    raise ModelError(
        f"'{config.model_type}' is not a language model that writes text token by token. Pass a decoder model."
    )


def load_model(folder: Path, options: ModelOptions) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer). Only safetensors files are read for weights. Raises ModelError, QuantisedModelError."""
    config = load_config(folder, options)
    kind = auto_class(config)
    _ = Checkpoint(folder).tensors  # what is damaged is named before the library meets it
    arguments: dict[str, Any] = {
        "dtype": options.dtype if options.dtype == "auto" else getattr(torch, options.dtype),
        "trust_remote_code": options.trust_remote_code,
        "config": config,
        "use_safetensors": True,  # other formats can run code when they are read
    }
    arguments |= _placement(folder, options)
    if options.attn_implementation:
        arguments["attn_implementation"] = options.attn_implementation
    quantisation = getattr(config, "quantization_config", None)
    try:
        with quiet():
            model = (
                kind.from_pretrained(folder, **arguments)
                if quantisation is None
                else _load_quantised(kind, folder, quantisation, arguments)
            )
    except (*REFUSALS, RuntimeError) as error:
        if "offload_folder" in str(error):
            raise ModelError(
                f"{folder} does not fit into memory, and its weights cannot be read from the disk as they are stored (experts that the "
                "library joins, or no safetensors). Free some memory, or pass --layer-by-layer to find and enhance without --device auto."
            ) from error
        raise ModelError(
            f"The model in {folder} cannot be loaded: {_reason(error)} Check its files, or install what the message names."
        ) from error
    _tell_offloaded(model)
    if options.tensor_parallel:
        _require_running(model)
    model.requires_grad_(False)
    return model.eval(), load_tokenizer(folder, options)


@torch.no_grad()
def _load_quantised(kind: Any, folder: Path, quantisation: Any, arguments: dict[str, Any]) -> Any:
    """Loads, and runs one token: some schemes unpack their weights in the model's first pass, others find no kernel there."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # gptqmodel logs to standard output, which is for data
            model = kind.from_pretrained(folder, **arguments)
            device = model.get_input_embeddings().weight.device
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
    except (ImportError, NotImplementedError, RuntimeError, ValueError) as error:
        method = quantisation.get("quant_method") if isinstance(quantisation, dict) else quantisation.quant_method
        raise ModelError(
            f"The weights of {folder} are quantised ('{getattr(method, 'value', method)}') and do not run here: "
            f"{(str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')}. Install what this names, leave --dtype at auto, pass "
            "another --device, or pass the original (unquantised) weights."
        ) from error
    return model


def _tell_offloaded(model: Any) -> None:
    """A model that does not fit runs all the same, slowly: that is said."""
    places = list(getattr(model, "hf_device_map", {}).values())
    if "disk" in places:
        warnings.warn(
            f"{places.count('disk')} of the model's {len(places)} parts do not fit into memory: every pass reads them from the disk again. "
            "Close other programs, or use --layer-by-layer, which reads each layer once for all prompts.",
            BurnishWarning,
            stacklevel=4,
        )


@torch.inference_mode()
def _require_running(model: Any) -> None:
    """Runs one token through a model that was split: plans of the library that do not work fail here, in words. Raises ModelError."""
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    except RuntimeError as error:
        raise ModelError(
            f"The library's plan for splitting '{model.config.model_type}' does not work: {str(error).splitlines()[0]} "
            "Leave out --tensor-parallel, so that each process reads a share of the prompts."
        ) from error


def _placement(folder: Path, options: ModelOptions) -> dict[str, Any]:
    """Where the weights go, as arguments of the library. Raises ModelError for what does not go together."""
    if options.tensor_parallel:
        return _split_over(launched().count, folder, options)
    if options.device == "auto" and launched().count > 1:
        raise ModelError(
            "With --device auto every process would spread the model over all devices. Start one process, or pass --device cuda, "
            "which gives each process a device of its own."
        )
    return {} if options.device == "cpu" else {"device_map": options.device}


def _split_over(processes: int, folder: Path, options: ModelOptions) -> dict[str, Any]:
    """The same for a model of which every process holds a part; the library takes the machine's accelerators, or its CPUs."""
    if processes == 1:
        raise ModelError(
            "Tensor parallelism splits a model over processes, and this one is alone. Start it with "
            "`torchrun --nproc-per-node 2 -m burnish ...`, or use --device auto for several devices in one process."
        )
    if options.device not in ("cpu", "cuda"):
        raise ModelError(
            f"--device {options.device} says where whole layers go, and --tensor-parallel gives every process a part of them on a device of its "
            "own. Pass one of them."
        )
    network: Any
    network, config = skeleton(folder, options)
    if not network.supports_tp_plan:
        raise ModelError(
            f"The library has no plan for splitting the layers of '{config.model_type}' over processes: each would hold all of it. "
            "Leave out --tensor-parallel, so that each process reads a share of the prompts."
        )
    text = text_config(config)
    heads = [getattr(text, name, None) for name in ("num_attention_heads", "num_key_value_heads")]
    if any(count and count % processes for count in heads):
        raise ModelError(
            f"{' and '.join(str(count) for count in heads if count)} attention heads cannot be dealt out to {processes} processes evenly. Start "
            "as many processes as divide them, or leave out --tensor-parallel."
        )
    from transformers.distributed import DistributedConfig

    keep_in_step()
    return {"distributed_config": DistributedConfig(tp_plan="auto")}


def load_tokenizer(folder: Path, options: ModelOptions) -> Any:
    """The folder's tokenizer. Raises ModelError with the library's reason."""
    for path in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
        if path.exists():
            read_table(path)
    try:
        with quiet():
            return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=options.trust_remote_code)
    except Exception as error:
        # The tokenizers library, which is written in Rust, raises plain `Exception`.
        if type(error) is not Exception and not isinstance(error, REFUSALS):
            raise
        raise ModelError(
            f"The tokenizer of {folder} was refused: {_reason(error)} Download it again; code of its own needs --trust-remote-code "
            "(read that code first)."
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars or advice from the library while it loads."""
    logging_level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(logging_level)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantises a GGUF file into a Hugging Face folder (bfloat16) with no trace of GGUF in its config. Raises ModelError."""
    try:
        _convert(gguf, folder)
    except (*REFUSALS, NotImplementedError) as error:
        raise ModelError(
            f"{gguf} cannot be converted: {_reason(error)} Download it again, or pass the original model."
        ) from error
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in [k for k in config if "gguf" in k.lower() or k == "quantization_config"]:
        del config[key]
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _convert(gguf: Path, folder: Path) -> None:
    # The library's bars for single tensors know no off switch; they go to standard error.
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=transformers.GgufConfig(dequantize=True),
        )
        if getattr(model.config, "quantization_config", None) is not None:
            del model.config.quantization_config
        model.hf_quantizer = None
        if hasattr(model, "is_quantized"):
            model.is_quantized = False
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
