"""Loads models and tokenizers, and makes folders of GGUF files."""

import contextlib
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.files import read_table
from burnish.errors import BurnishWarning, ModelError
from burnish.model.device import choose
from burnish.model.placement import placement, require_running, tell_offloaded
from burnish.model.skeleton import REFUSALS, advice, auto_class, load_config, reason, require_once
from burnish.options import ModelOptions

# On CPUs, bfloat16 products keep a compiled kernel with its scratch memory for every shape seen, 1,024 of them by default:
# gigabytes where prompts and answers differ in length. Read by the library at its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


def load_model(folder: Path, options: ModelOptions, tell: Callable[[str], object] | None = None) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer). Only safetensors files are read for weights; tell is called with what `choose` chose.

    Raises ModelError, QuantisedModelError.
    """
    config = load_config(folder, options)
    kind = auto_class(config)
    choice = choose(folder, options)  # which reads the headers: what is damaged is named before the library meets it
    if tell is not None:
        tell(str(choice))
    options = choice.options
    arguments: dict[str, Any] = {
        "dtype": options.dtype if options.dtype == "auto" else getattr(torch, options.dtype),
        "trust_remote_code": options.trust_remote_code,
        "config": config,
        "use_safetensors": True,  # other formats can run code when they are read
        "ignore_mismatched_sizes": True,  # they are reported, and refused by name
    }
    arguments |= placement(folder, options)
    if options.attn_implementation:
        arguments["attn_implementation"] = options.attn_implementation
    quantisation = getattr(config, "quantization_config", None)
    try:
        with quiet():
            model, report = (
                kind.from_pretrained(folder, output_loading_info=True, **arguments)
                if quantisation is None
                else _load_quantised(kind, folder, quantisation, arguments)
            )
    except (*REFUSALS, RuntimeError, SafetensorError) as error:
        if "offload_folder" in str(error):
            raise ModelError(
                f"{folder} does not fit into memory, and its weights cannot be read from the disk as they are stored (experts that the "
                "library joins, or no safetensors). Free some memory, or pass --layer-by-layer to find and enhance without --device spread."
            ) from error
        raise ModelError(f"The model in {folder} cannot be loaded: {reason(error)} {advice(folder, error)}") from error
    _require_loaded(folder, report)
    require_once(folder, model, Checkpoint(folder).tensors)
    tell_offloaded(model)
    if options.tensor_parallel:
        require_running(model)
    model.requires_grad_(False)
    return model.eval(), load_tokenizer(folder, options)


@torch.no_grad()
def _load_quantised(kind: Any, folder: Path, quantisation: Any, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """Loads (model and report), and runs one token: some schemes unpack their weights in the model's first pass, others find no kernel there."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # gptqmodel logs to standard output, which is for data
            model, report = kind.from_pretrained(folder, output_loading_info=True, **arguments)
            device = model.get_input_embeddings().weight.device
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
    except (ImportError, NotImplementedError, RuntimeError, ValueError) as error:
        method = quantisation.get("quant_method") if isinstance(quantisation, dict) else quantisation.quant_method
        raise ModelError(
            f"The weights of {folder} are quantised ('{getattr(method, 'value', method)}') and do not run here: "
            f"{(str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')}. Install what this names, leave --dtype at auto, pass "
            "another --device, or pass the original (unquantised) weights."
        ) from error
    return model, report


def _require_loaded(folder: Path, report: dict[str, Any]) -> None:
    """Raises ModelError where the library's report says that weights of the model are not the checkpoint's, which it makes up."""
    missing = sorted(report["missing_keys"])
    wrong = sorted(name for name, *_ in report["mismatched_keys"])
    unexpected = sorted(report["unexpected_keys"])
    if missing or wrong:
        beside = f" ({len(unexpected)} others fit nothing, such as {unexpected[0][:80]!r})" if unexpected else ""
        beside = f" ({len(wrong)} of them are there in another shape, such as {wrong[0]!r})" if wrong else beside
        raise ModelError(
            f"{folder} lacks {len(missing + wrong)} of the model's tensors, such as {', '.join(map(repr, (missing + wrong)[:3]))}{beside}; "
            "the library would fill them with random numbers. Download the model again, or save it under the names that its config asks for."
        )
    if unexpected:
        warnings.warn(
            f"{len(unexpected)} tensors of {folder} fit nothing in the model that its config describes, such as {unexpected[0][:80]!r}: they "
            "are copied, and never run.",
            BurnishWarning,
            stacklevel=3,
        )


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
            f"The tokenizer of {folder} was refused: {reason(error)} Download it again; code of its own needs --trust-remote-code "
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
            f"{gguf} cannot be converted: {reason(error)} Download it again, or pass the original model."
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
