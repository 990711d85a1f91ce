"""Tiny quantised models on disk, in the layouts of each scheme.

Where a scheme's package quantises while it loads, it does so here. The others are packed by hand from integers and
scales, so that what the stored numbers mean is known apart from the package that reads them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from burnish.model.loading import quiet
from burnish.model.skeleton import auto_class
from families import MOE, SMALL, Family, build_tokenizer

GROUP = 32  # inputs that share a scale
BLOCK = 32  # rows and columns that share one in FP8
LLAMA = Family("llama", {**SMALL, "hidden_size": 64, "intermediate_size": 64, "attention_bias": False})
GPT_OSS = Family("gpt_oss", {**SMALL, **MOE, "hidden_size": 64, "intermediate_size": 64, "head_dim": 16})
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the place of each of eight columns in a packed number


@dataclass(frozen=True)
class Scheme:
    """How one scheme's folder is made, and what reads it."""

    write: Callable[[Path], None]
    packages: tuple[str, ...] = ()  # beside the library itself; to be imported
    tolerance: float = 1e-4  # of the adapter against the live form, relative to what the projection writes: inputs that a scheme rounds


class Packed(nn.Module):
    """A linear map whose weight is stored as bytes, as quantised ones are."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale = float(linear.weight.abs().max() / 127)
        self.qweight = nn.Parameter((linear.weight / self.scale).round().to(torch.int8), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.qweight.float() * self.scale, self.bias)


def plain(family: Family = LLAMA, dtype: torch.dtype = torch.float32) -> Any:
    """A random model with weights large enough that attention matters."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family.model_type, **family.sizes)
    network = auto_class(config).from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def on_the_fly(make: Callable[[], Any], dtype: torch.dtype = torch.float32) -> Callable[[Path], None]:
    """A folder that the library quantises while loading and saves. make: the library's quantisation config."""

    def write(folder: Path) -> None:
        original = folder.parent / "original"
        with quiet():
            plain(dtype=dtype).save_pretrained(original)
            network = transformers.AutoModelForCausalLM.from_pretrained(original, quantization_config=make())
            network.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)

    return write


def by_hand(
    pack: Callable[[Tensor], dict[str, Tensor]], about: dict[str, Any], *, unchanged: tuple[str, ...] = ()
) -> Callable[[Path], None]:
    """A folder whose linear maps are packed here. pack: tensors by suffix from a weight [outputs, inputs].

    kept: words in the names of maps that stay as they are.
    """

    def write(folder: Path) -> None:
        with quiet():
            plain().save_pretrained(folder)
        tensors: dict[str, Tensor] = {}
        for name, tensor in load_file(folder / "model.safetensors").items():
            if name.endswith("_proj.weight") and not any(word in name for word in unchanged):
                stem = name.removesuffix(".weight")
                tensors |= {f"{stem}.{suffix}": part.contiguous() for suffix, part in pack(tensor).items()}
            else:
                tensors[name] = tensor
        finish(folder, tensors, about)

    return write


def finish(folder: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Writes the tensors, the tokenizer, and the scheme into the config."""
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": about}), encoding="utf-8")
    build_tokenizer().save_pretrained(folder)


def _eight_in_one(values: Tensor) -> Tensor:
    """Numbers of 4 bits [..., 8 n] as int32 [..., n], the first in the lowest bits."""
    parts = values.long().unflatten(-1, (-1, 8)) << torch.arange(0, 32, 4)
    packed = parts.sum(-1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()


def grouped(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers 0 to 15 [outputs, inputs] around the zero 8, and scales [outputs, groups]."""
    groups = weight.unflatten(1, (-1, GROUP))
    scales = groups.abs().amax(-1) / 7
    return (groups / scales[..., None]).round().add(8).clamp(0, 15).flatten(1), scales


def gptq(weight: Tensor) -> dict[str, Tensor]:
    values, scales = grouped(weight)
    zeros = torch.full_like(scales.T, 7)  # stored minus one
    return {
        "qweight": _eight_in_one(values).T,
        "qzeros": _eight_in_one(zeros),
        "scales": scales.T.half(),
        "g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // GROUP,
    }


def awq(weight: Tensor) -> dict[str, Tensor]:
    values, scales = grouped(weight)

    def packed(table: Tensor) -> Tensor:
        return _eight_in_one(table.unflatten(-1, (-1, 8))[..., list(AWQ_ORDER)].flatten(-2))

    return {
        "qweight": packed(values.T.contiguous()),
        "qzeros": packed(torch.full_like(scales.T, 8)),
        "scales": scales.T.half(),
    }


def fp8_blocks(weight: Tensor) -> dict[str, Tensor]:
    blocks = weight.unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK))  # [rows, BLOCK, columns, BLOCK]
    scales = blocks.abs().amax((1, 3)) / 448
    scaled = blocks / scales[:, None, :, None]
    return {"weight": scaled.view_as(weight).to(torch.float8_e4m3fn), "weight_scale_inv": scales}


def fp8_rows(weight: Tensor) -> dict[str, Tensor]:
    scales = weight.abs().amax(1, keepdim=True) / 448
    return {"weight": (weight / scales).to(torch.float8_e4m3fn), "weight_scale": scales}


def fp8_rows_static(weight: Tensor) -> dict[str, Tensor]:
    return {**fp8_rows(weight), "input_scale": torch.tensor([0.001])}  # the inputs' range ends at 0.448


def int4_groups(weight: Tensor) -> dict[str, Tensor]:
    values, scales = grouped(weight)
    return {
        "weight_packed": _eight_in_one(values),
        "weight_scale": scales,
        "weight_shape": torch.tensor(weight.shape),
    }


def gemma_rows(weight: Tensor, *, step: float = 0.0) -> dict[str, Tensor]:
    """step: that inputs are rounded to; 0 leaves them alone."""
    scales = weight.abs().amax(1, keepdim=True) / 7
    low, high = (weight / scales).round().add(8).to(torch.uint8).unflatten(1, (-1, 2)).unbind(-1)
    return {
        "weight": low | high << 4,
        "weight_scale": scales,
        "input_activation_scale": torch.tensor(step),
        "output_activation_scale": torch.tensor(0.0),
    }


def rounded_later(weight: Tensor) -> dict[str, Tensor]:
    scales = weight.abs().amax(1, keepdim=True) / 7
    return {"weight": weight, "weight_scale": scales, "weight_zero_point": torch.zeros_like(scales, dtype=torch.int8)}


def compressed(format: str, weights: dict[str, Any], inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    """The compressed-tensors config of one group that holds every linear map."""
    group = {"targets": ["Linear"], "weights": {"symmetric": True, **weights}, "input_activations": inputs}
    return {
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


def write_bitnet(folder: Path) -> None:
    """Full weights that the library rounds to three values whenever they are used."""
    with quiet():
        plain().save_pretrained(folder)
    about = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
    finish(folder, load_file(folder / "model.safetensors"), about)


def write_mxfp4(folder: Path) -> None:
    """gpt-oss as it is published: experts in blocks of 4-bit numbers with a shared exponent, attention in bfloat16."""
    with quiet():
        plain(GPT_OSS, torch.bfloat16).save_pretrained(folder)
    generator = torch.Generator().manual_seed(1)
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name.endswith(("gate_up_proj", "down_proj")):  # [experts, inputs, outputs]
            experts, inputs, outputs = tensor.shape
            shape = (experts, outputs, inputs // 32)
            tensors[f"{name}_blocks"] = torch.randint(0, 256, (*shape, 16), generator=generator, dtype=torch.uint8)
            tensors[f"{name}_scales"] = torch.full(shape, 124, dtype=torch.uint8)  # two to the power of -3
        else:
            tensors[name] = tensor
    unchanged = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    finish(folder, tensors, {"quant_method": "mxfp4", "modules_to_not_convert": unchanged})


def _bitsandbytes(bits: int) -> Any:
    return transformers.BitsAndBytesConfig(
        load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_compute_dtype=torch.float32, bnb_4bit_quant_type="nf4"
    )


def _torchao(kind: str) -> Any:
    return transformers.TorchAoConfig(getattr(import_module("torchao.quantization"), kind)())


FP8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
FROZEN = compressed("dense", {"num_bits": 4, "type": "int", "strategy": "channel"})
FROZEN["quantization_status"] = "frozen"
SCHEMES = {
    "bitsandbytes-4bit": Scheme(on_the_fly(lambda: _bitsandbytes(4)), ("bitsandbytes",), tolerance=0.002),
    "bitsandbytes-8bit": Scheme(on_the_fly(lambda: _bitsandbytes(8)), ("bitsandbytes",), tolerance=0.005),
    "torchao-int8": Scheme(on_the_fly(lambda: _torchao("Int8WeightOnlyConfig")), ("torchao",)),
    "torchao-float8": Scheme(on_the_fly(lambda: _torchao("Float8WeightOnlyConfig")), ("torchao",)),
    "gptq": Scheme(
        by_hand(gptq, {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}),
        ("optimum.gptq", "gptqmodel"),
    ),
    "awq": Scheme(
        by_hand(awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}),
        ("gptqmodel",),
    ),
    "compressed-int4": Scheme(
        by_hand(
            int4_groups,
            compressed("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP}),
        ),
        ("compressed_tensors",),
    ),
    "compressed-fp8": Scheme(
        by_hand(
            fp8_rows,
            compressed("float-quantized", FP8, {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}),
        ),
        ("compressed_tensors",),
        tolerance=0.02,
    ),
    "compressed-frozen": Scheme(by_hand(rounded_later, FROZEN), ("compressed_tensors",)),
    "compressed-static": Scheme(
        by_hand(
            fp8_rows_static,
            compressed(
                "float-quantized", FP8, {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}
            ),
        ),
        ("compressed_tensors",),
    ),
    "gemma": Scheme(by_hand(gemma_rows, {"quant_method": "gemma", "num_bits": 4})),
    "gemma-static": Scheme(by_hand(lambda w: gemma_rows(w, step=0.004), {"quant_method": "gemma", "num_bits": 4})),
    "bitnet": Scheme(write_bitnet, tolerance=0.01),
    "mxfp4": Scheme(write_mxfp4),
    "fp8": Scheme(
        by_hand(
            fp8_blocks,
            {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic", "fmt": "e4m3"},
        ),
    ),
}
