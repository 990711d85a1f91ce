"""Small GGUF files, written with the `gguf` package, and enhancements for them: no model needed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants
from safetensors.torch import save_file

from burnish.anatomy import Anatomy, Projection
from burnish.artifacts.direction import Enhancement
from burnish.maths.statistics import unit
from conftest import fake_direction

LAYERS, HIDDEN, INPUTS = 2, 64, 256
Kind = GGMLQuantizationType
SCALES = {Kind.Q5_K: (0, 2), Kind.Q6_K: (208,)}  # where the float16 scales lie in a block that the package cannot write


def anatomy(*, bias: bool = False, layers: int = LAYERS) -> Anatomy:
    """A decoder of the ordinary names, whose projections are not square."""
    projections = tuple(
        Projection(
            layer,
            f"model.layers.{layer}.self_attn.o_proj",
            "attention",
            "out_in",
            HIDDEN,
            INPUTS,
            bias,
        )
        for layer in range(layers)
    )
    return Anatomy("model.layers", layers, HIDDEN, projections, ())


def enhancement(
    gains: float = 0.5, *, shape: Anatomy | None = None, rank: int = 1, fingerprint: str = "0" * 64
) -> Enhancement:
    """Random directions for such a decoder."""
    shape = shape or anatomy()
    vectors = unit(torch.randn(shape.layers, rank, shape.hidden_size, generator=torch.Generator().manual_seed(3)))
    stand_in: Any = SimpleNamespace(name="made up", fingerprint=fingerprint, network=object(), anatomy=shape)
    directions = tuple(fake_direction(stand_in, vectors[:, i]) for i in range(rank))
    return Enhancement(vectors, torch.full((shape.layers, rank), gains), directions)


def write_control_vector(path: Path, vectors: torch.Tensor, *, hint: str = "llama") -> Path:
    """A control vector as repeng writes it, of [layers, hidden]: layers that are zero are left out, and layer 0."""
    writer = GGUFWriter(path, "controlvector")
    layers = {n: vector for n, vector in enumerate(vectors) if n and bool(vector.any())}
    writer.add_string("controlvector.model_hint", hint)
    writer.add_uint32("controlvector.layer_count", len(layers))
    for layer, vector in layers.items():
        writer.add_tensor(f"direction.{layer}", vector.numpy())
    _close(writer)
    return path


def write_steering_vector(path: Path, vectors: torch.Tensor) -> Path:
    """The layer tensors of steering-vectors, of [layers, hidden]."""
    tensors = {f"layer_activations.{n}": vector.clone() for n, vector in enumerate(vectors)}
    save_file(tensors, path, metadata={"layer_type": "decoder_block"})
    return path


def write_model(
    path: Path,
    kind: Kind = Kind.F32,
    *,
    architecture: str = "llama",
    alignment: int | None = None,
    scale: float = 1.0,
    bias: bool = False,
    blocks: int = LAYERS,
    keys: dict[str, int] | None = None,
    leave_out: str = "",
) -> Path:
    """A file with keys of many types, tensors before, between and after the projections, which are of `kind`."""
    generator = np.random.default_rng(0)
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(blocks)
    writer.add_embedding_length(HIDDEN)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    writer.add_token_list(["<s>", "a", "한", "long " * 40])
    writer.add_token_scores([0.5, -1.0, 2.0, 0.0])
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ messages }} é")
    for key, value in (keys or {}).items():
        writer.add_uint32(key, value)

    def add(name: str, *shape: int, of: Kind = Kind.F32) -> None:
        if not leave_out or leave_out not in name:
            data = (scale * generator.standard_normal(shape)).astype(np.float32)
            writer.add_tensor(name, packed(data, of), raw_dtype=of)

    add("token_embd.weight", 4, HIDDEN, of=Kind.Q8_0)
    for layer in range(LAYERS):
        add(f"blk.{layer}.attn_norm.weight", HIDDEN)
        add(f"blk.{layer}.attn_q.weight", INPUTS, HIDDEN, of=Kind.F16)
        add(f"blk.{layer}.attn_output.weight", HIDDEN, INPUTS, of=kind)
        if bias:
            add(f"blk.{layer}.attn_output.bias", HIDDEN)
        add(f"blk.{layer}.post_attention_norm.weight", HIDDEN)
    add("output_norm.weight", HIDDEN)
    _close(writer)
    return path


def _close(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def packed(data: "np.ndarray[Any, Any]", kind: Kind) -> "np.ndarray[Any, Any]":
    """Values in a type; random blocks with small scales where the package only reads it."""
    if kind not in SCALES:
        with np.errstate(over="ignore"):
            return quants.quantize(data, kind)
    block, size = quants.GGML_QUANT_SIZES[kind]
    rows = np.random.default_rng(1).integers(0, 256, (data.size // block, size), dtype=np.uint8)
    for place in SCALES[kind]:
        rows[:, place : place + 2] = np.full((len(rows), 1), 1e-3, np.float16).view(np.uint8)
    return rows.reshape(data.shape[0], -1)


def values(path: Path, name: str) -> torch.Tensor:
    """A tensor's values, read by the package's own reader."""
    tensor = next(t for t in GGUFReader(path).tensors if t.name == name)
    return torch.from_numpy(np.array(quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
