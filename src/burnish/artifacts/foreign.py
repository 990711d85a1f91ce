"""Vectors of other tools: repeng's control vectors (GGUF) and steering-vectors' layer tensors.

Both tools *add* a vector to the hidden state after a layer, whatever is there already; an enhancement *multiplies* what
attention writes along it. Read here, their vectors give directions only (their lengths are left out, a factor takes their
place). Both count layers as Burnish does: number l is the output of decoder block l, from 0.

repeng (Vogel, `ControlVector.export_gguf`) and llama.cpp (`common_control_vector_load_one`): architecture "controlvector", the
keys `controlvector.model_hint` and `controlvector.layer_count`, one float32 tensor `direction.N` a layer.
steering-vectors (`SteeringVector`): `layer_activations`, a dict from layer to vector, and `layer_type`. The package has no file
format. Read here are safetensors with tensors `layer_activations.N`, and what `torch.save` makes of that dict; a pickled
`SteeringVector` is refused, because unpickling runs code. The class is built from our file by

    tensors = safetensors.torch.load_file("vector.safetensors")
    vector = SteeringVector({int(name.split(".")[1]): tensor for name, tensor in tensors.items()})
"""

import hashlib
import pickle
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from burnish.anatomy import Anatomy
from burnish.artifacts.direction import Direction
from burnish.artifacts.direction_file import HEADER, LayerReport, Provenance, open_tensors
from burnish.artifacts.gguf_file import read_gguf
from burnish.errors import InputError, WrongModelError
from burnish.layers import layer_index
from burnish.maths.statistics import unit
from burnish.options import Site

CONTROL = "controlvector"
REPENG = re.compile(r"direction\.(\d{1,5})")
STEERING = re.compile(r"layer_activations\.(\d{1,5})")
# What torch's reader of tensors and plain containers raises for other things, and for damaged ones.
UNREADABLE = (
    pickle.UnpicklingError, struct.error, RuntimeError, EOFError, ValueError, LookupError, OSError, TypeError, AttributeError, AssertionError,
    ArithmeticError, ImportError, MemoryError,
)  # fmt: skip
SITES: dict[str, Site] = {"decoder_block": "residual", "self_attn": "attention"}


@dataclass(frozen=True)
class ForeignVectors:
    """What a file of another tool holds."""

    tool: str
    site: Site
    hint: str  # what the file says of its model
    vectors: dict[int, Tensor]  # [hidden] by layer, float32, as long as stored

    def direction(self, path: Path, anatomy: Anatomy, *, model: str, fingerprint: str, architecture: str) -> Direction:
        """Unit vectors for a model; layers without a vector are zero, and never edited.

        Nothing is known of how well they separate anything: the report says AUROC 0.5 on 0 held-out prompts. Raises
        WrongModelError for layers or a width that the model does not have.
        """
        widths = {len(vector) for vector in self.vectors.values()}
        if widths != {anatomy.hidden_size} or max(self.vectors) >= anatomy.layers:
            raise WrongModelError(
                f"{path} has vectors {', '.join(map(str, sorted(widths)))} wide up to layer {max(self.vectors)}, and the model has "
                f"{anatomy.layers} layers, {anatomy.hidden_size} wide. Pass the model that they were made for."
            )
        table = torch.zeros(anatomy.layers, anatomy.hidden_size)
        for layer, vector in self.vectors.items():
            table[layer] = unit(vector)
        wanted = layer_index("60%", anatomy.layers)
        none, even = [0.0] * anatomy.layers, [0.5] * anatomy.layers
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        source = f"{path.name} ({self.tool}{', ' + self.hint if self.hint else ''})"
        provenance = Provenance(
            model=model,
            fingerprint=fingerprint,
            architecture=architecture,
            layers=anatomy.layers,
            hidden_size=anatomy.hidden_size,
            enhance=source,
            normal="unknown",
            enhance_hash=digest,
            normal_hash="",
            enhance_prompts=0,
            normal_prompts=0,
            position="unknown",
            template=False,
            seed=0,
            protected=False,
            versions={"format": self.tool},
        )
        return Direction(
            min(self.vectors, key=lambda layer: abs(layer - wanted)),
            "per-layer",
            self.site,
            provenance,
            LayerReport(even, none, even, none, none, none, 0),
            anatomy,
            table,
        )


def is_foreign(path: Path) -> bool:
    """Whether a file is another tool's and not one of ours (by its ending and, for safetensors, its header)."""
    if path.suffix in (".gguf", ".pt", ".pth", ".bin", ".pkl", ".pickle"):
        return path.is_file()
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    with open_tensors(path, "safetensors") as file:
        return HEADER not in (file.metadata() or {})


def read_foreign(path: Path) -> ForeignVectors:
    """Reads a control vector (.gguf) or steering vectors (.safetensors, .pt). Raises InputError, ModelError for a damaged GGUF."""
    foreign = _read_repeng(path) if path.suffix == ".gguf" else _read_steering(path)
    usable = {
        layer: vector.float()
        for layer, vector in foreign.vectors.items()
        if vector.ndim == 1 and bool(vector.isfinite().all()) and bool(vector.any())
    }
    if not usable:
        raise InputError(f"{path} holds no vector that points anywhere. Pass a file with one vector a layer.")
    return replace(foreign, vectors=usable)


def _read_repeng(path: Path) -> ForeignVectors:
    file = read_gguf(path)
    if file.architecture != CONTROL:
        raise InputError(
            f"{path} is a GGUF file of '{file.architecture}', not a control vector. Pass a control vector, a direction or an enhancement."
        )
    hint = file.metadata.get(f"{CONTROL}.model_hint")
    vectors = {int(match[1]): file.read(name) for name in file.tensors if (match := REPENG.fullmatch(name))}
    return ForeignVectors("repeng control vector", "residual", hint if isinstance(hint, str) else "", vectors)


def _read_steering(path: Path) -> ForeignVectors:
    if path.suffix == ".safetensors":
        with open_tensors(path, "safetensors") as file:
            kind = (file.metadata() or {}).get("layer_type", "decoder_block")
            names = {name: STEERING.fullmatch(name) for name in file.keys()}  # noqa: SIM118
            layers = {int(match[1]): file.get_tensor(name) for name, match in names.items() if match}
    else:
        kind, layers = _unpickled(path)
    if kind not in SITES:
        raise InputError(
            f"{path} holds vectors for '{kind}', and directions live in the residual stream. Pass vectors for {' or '.join(SITES)}."
        )
    return ForeignVectors("steering-vectors", SITES[kind], "", layers)


def _unpickled(path: Path) -> tuple[str, dict[int, Tensor]]:
    """(layer type, vectors) of what `torch.save` wrote, with tensors and plain containers allowed and nothing else."""
    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read without running code that is in it, or is damaged. Save the vector's tensors alone: "
            "`torch.save(vector.layer_activations, PATH)`."
        ) from error
    kind = "decoder_block"
    if isinstance(stored, dict) and "layer_activations" in stored:
        kind, stored = str(stored.get("layer_type", kind)), stored["layer_activations"]
    if not isinstance(stored, dict) or not all(
        isinstance(layer, int) and isinstance(vector, Tensor) for layer, vector in stored.items()
    ):
        raise InputError(f"{path} is not a dict from layer to vector. Save `vector.layer_activations`.")
    return kind, {layer: vector.flatten() for layer, vector in stored.items() if layer >= 0}
