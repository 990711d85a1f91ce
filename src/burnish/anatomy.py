"""Where each architecture's attention writes to the residual stream.

Found by structure: the largest stack of decoder layers in the text model; in each layer its token mixer; in the mixer
the last linear map whose *output* is the hidden size. Names only break ties. The class of the map, never its name,
decides the layout (GPT-2's `Conv1D` stores [in, out]; GPT-BigCode has the same names with `Linear`). Works on modules on
any device, "meta" included, so that a plan costs no weights.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from burnish.errors import NoProjectionError

Layout = Literal["out_in", "in_out"]
MixerKind = Literal["attention", "linear_attention", "state_space", "convolution"]

# The children of a decoder layer that mix tokens, and what each kind is. Order: a layer with two mixers is edited in both.
MIXERS: dict[str, MixerKind] = {
    "self_attn": "attention",
    "self_attention": "attention",
    "attention": "attention",
    "attn": "attention",
    "norm_attn_norm": "attention",
    "linear_attn": "linear_attention",
    "mamba": "state_space",
    "mamba_decoder": "state_space",
    "mixer": "state_space",
    "temporal_block": "state_space",
    "conv": "convolution",
}
# Blocks whose attention feeds a feed-forward network instead of the residual stream (Zamba).
NOT_WRITING = ("shared_transformer", "shared_transf")
# The names of output projections, best first; a map with another name is taken only when it is the mixer's last.
OUTPUT_NAMES = ("o_b_proj", "o_proj", "out_proj", "c_proj", "dense", "Wo", "wo", "linear_out", "output")
# Maps into attention are never taken for the one out of it, even where they are square.
INPUT_NAMES = re.compile(
    r"(^|_)(q|k|v|kv|qk|qkv|query|key|value|gate|g|b|a|f|z|in|x|beta|alpha|router)(_|\d|$)|^(W|c_)?(q|k|v|qkv|attn)$"
)
# Norms between the projection and the residual addition. `post_attention_layernorm` is one only where the layer has no
# pre-attention norm (OLMo 2, EXAONE 4) or has a separate pre-feed-forward norm (Gemma 2 and 3).
ALWAYS_POST_NORMS = ("post_self_attn_layernorm",)
PRE_ATTENTION_NORMS = ("input_layernorm", "ln_1", "operator_norm")
PRE_MLP_NORMS = ("pre_feedforward_layernorm", "pre_mlp_layernorm")


@dataclass(frozen=True)
class Projection:
    """One attention output projection."""

    layer: int
    path: str  # dotted module path
    kind: MixerKind
    layout: Layout
    outputs: int  # hidden size
    inputs: int
    bias: bool
    post_norm: str | None = None  # dotted path of the norm applied to its output before the residual addition


@dataclass(frozen=True)
class LinearMap:
    """Any linear map inside a decoder layer."""

    layer: int
    path: str  # dotted module path
    layout: Layout
    outputs: int
    inputs: int
    bias: bool


@dataclass(frozen=True)
class SkippedLayer:
    layer: int
    reason: str


@dataclass(frozen=True)
class Anatomy:
    """The decoder stack of a model and where its token mixers write."""

    stack: str  # dotted path of the module list of decoder layers
    layers: int
    hidden_size: int
    projections: tuple[Projection, ...]
    skipped: tuple[SkippedLayer, ...]

    def attention(self) -> tuple[Projection, ...]:
        """Projections of attention proper (softmax or linear); state-space and convolution mixers are left alone."""
        return tuple(p for p in self.projections if p.kind in ("attention", "linear_attention"))

    def coverage(self) -> str:
        """One line for plans: what is edited, what is not and why."""
        edited = self.attention()
        covered = sorted({p.layer for p in edited})
        text = f"{len(edited)} attention output projections in {len(covered)} of {self.layers} layers"
        reasons: dict[str, list[int]] = {}
        for skipped in self.skipped:
            reasons.setdefault(skipped.reason, []).append(skipped.layer)
        for projection in self.projections:
            if projection not in edited and projection.layer not in covered:
                reasons.setdefault(f"a {projection.kind.replace('_', '-')} layer", []).append(projection.layer)
        for reason, layers in reasons.items():
            text += f"; layers {_ranges(layers)} left alone: {reason}"
        return text


def layout_of(module: nn.Module) -> tuple[Layout, int, int] | None:
    """(layout, outputs, inputs) of a linear map, None for anything else. Decided by class.

    Quantised linear maps (whose weights are packed) say their sizes as `out_features` and `in_features`, as `Linear` does.
    """
    weight: Any = getattr(module, "weight", None)
    if any(base.__name__ == "Conv1D" for base in type(module).__mro__):
        return "in_out", int(weight.shape[1]), int(weight.shape[0])
    sizes = getattr(module, "out_features", None), getattr(module, "in_features", None)
    if isinstance(sizes[0], int) and isinstance(sizes[1], int) and getattr(weight, "ndim", 2) <= 2:
        return "out_in", sizes[0], sizes[1]
    return None


def linear_maps(model: nn.Module, anatomy: Anatomy) -> tuple[LinearMap, ...]:
    """Every linear map in the decoder's layers, in the model's order."""
    maps = []
    for path, module in model.get_submodule(anatomy.stack).named_modules():
        shape = layout_of(module) if path else None
        if shape is not None:
            layer = int(path.split(".", 1)[0])
            bias = getattr(module, "bias", None) is not None
            maps.append(LinearMap(layer, f"{anatomy.stack}.{path}", *shape, bias))
    return tuple(maps)


def find_anatomy(model: nn.Module, hidden_size: int, expected_layers: int | None = None) -> Anatomy:
    """Finds the decoder stack and every mixer's output projection of a causal language model.

    hidden_size, expected_layers: from the text config. Raises NoProjectionError listing what was found when no layer has
    an attention output projection.
    """
    stack_path, stack = _decoder_stack(model, expected_layers)
    projections: list[Projection] = []
    skipped: list[SkippedLayer] = []
    seen: set[int] = set()
    for index, layer in enumerate(stack):
        candidates = list(_layer_projections(layer, index, f"{stack_path}.{index}", hidden_size))
        fresh = []
        for projection, weight in candidates:
            identity = id(weight)
            if identity not in seen:
                seen.add(identity)
                fresh.append(projection)
        if fresh:
            projections.extend(fresh)
        elif candidates:
            skipped.append(SkippedLayer(index, "its weights are those of an earlier layer"))
        if not candidates or any(name in NOT_WRITING for name, _ in layer.named_children()):
            skipped.append(SkippedLayer(index, _why_none(layer)))
    anatomy = Anatomy(stack_path, len(stack), hidden_size, tuple(projections), tuple(skipped))
    if not anatomy.attention():
        children = ", ".join(name for name, _ in stack[0].named_children()) if len(stack) else "nothing"
        reasons = {s.reason for s in skipped} | {f"a {p.kind.replace('_', '-')} layer" for p in projections}
        raise NoProjectionError(
            f"No attention output projection was found in {type(model).__name__}: its {len(stack)} layers at "
            f"'{stack_path}' hold {children}; {'; '.join(sorted(reasons))}. "
            "Burnish edits linear maps that write to the residual stream; please report this architecture."
        )
    return anatomy


def _decoder_stack(model: nn.Module, expected_layers: int | None) -> tuple[str, nn.ModuleList]:
    candidates: list[tuple[int, int, str, nn.ModuleList]] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) == 0:
            continue
        if any(word in path.lower() for word in ("vision", "visual", "audio", "encoder", "mtp", "speech", "image")):
            continue
        if not any(name in MIXERS for name, _ in module[0].named_children()):
            continue
        wanted = int(expected_layers is not None and len(module) == expected_layers)
        candidates.append((wanted, len(module), path, module))
    if not candidates:
        raise NoProjectionError(
            f"No stack of decoder layers was found in {type(model).__name__} (children: "
            f"{', '.join(name for name, _ in model.named_children())}). Burnish needs a decoder-only language model."
        )
    _, _, path, stack = max(candidates, key=lambda c: (c[0], c[1], -len(c[2])))
    return path, stack


def _layer_projections(
    layer: nn.Module, index: int, path: str, hidden_size: int
) -> Iterator[tuple[Projection, object]]:
    for name, mixer in layer.named_children():
        kind = MIXERS.get(name)
        if kind is None:
            continue
        # A list of mixers (two attentions in a layer) counts each; a wrapper's children are searched by named_modules.
        mixers = list(mixer.named_children()) if isinstance(mixer, nn.ModuleList) else [("", mixer)]
        for part, module in mixers:
            prefix = f"{path}.{name}" + (f".{part}" if part else "")
            output_map = _output_map(module, hidden_size)
            if output_map is None:
                continue
            inner, linear, (layout, outputs, inputs) = output_map
            mixer_kind = _mixer_kind(kind, module)
            if mixer_kind is None:
                continue
            yield (
                Projection(
                    layer=index,
                    path=f"{prefix}.{inner}" if inner else prefix,
                    kind=mixer_kind,
                    layout=layout,
                    outputs=outputs,
                    inputs=inputs,
                    bias=getattr(linear, "bias", None) is not None,
                    post_norm=_post_norm(layer, path),
                ),
                getattr(linear, "weight", linear),
            )


def _mixer_kind(kind: MixerKind, mixer: nn.Module) -> MixerKind | None:
    """Some hybrids call every block of a layer `mixer`: one with queries and keys is attention, one without any map into a
    state is a feed-forward network."""
    names = {name.rsplit(".", 1)[-1] for name, _ in mixer.named_modules()}
    if kind != "state_space":
        return kind
    if {"q_proj", "k_proj"} <= names:
        return "attention"
    return kind if names & {"in_proj", "conv1d", "conv_1d", "linear_x"} else None


def _output_map(mixer: nn.Module, hidden_size: int) -> tuple[str, nn.Module, tuple[Layout, int, int]] | None:
    fitting: list[tuple[str, nn.Module, tuple[Layout, int, int]]] = [
        (path, module, shape)
        for path, module in mixer.named_modules()
        if (shape := layout_of(module)) is not None and shape[1] == hidden_size
    ]
    for wanted in OUTPUT_NAMES:
        for entry in reversed(fitting):
            if entry[0].rsplit(".", 1)[-1] == wanted:
                return entry
    others = [entry for entry in fitting if not INPUT_NAMES.search(entry[0].rsplit(".", 1)[-1])]
    return others[-1] if others else None


def _post_norm(layer: nn.Module, path: str) -> str | None:
    children = dict(layer.named_children())
    for name in ALWAYS_POST_NORMS:
        if name in children:
            return f"{path}.{name}"
    if "post_attention_layernorm" not in children:
        return None
    sandwiched = any(name in children for name in PRE_MLP_NORMS)
    no_pre_norm = not any(name in children for name in PRE_ATTENTION_NORMS)
    return f"{path}.post_attention_layernorm" if sandwiched or no_pre_norm else None


def _why_none(layer: nn.Module) -> str:
    children = [name for name, _ in layer.named_children()]
    if any(name in NOT_WRITING for name in children):
        return "its attention does not write to the residual stream"
    mixers = [name for name in children if name in MIXERS]
    if not mixers:
        return "no token mixer (only " + ", ".join(children) + ")"
    packed = [
        f"{path} {tuple(parameter.shape)}"
        for name in mixers
        for path, parameter in getattr(layer, name).named_parameters()
        if parameter.ndim == 3
    ]
    return f"weights packed per expert ({', '.join(packed[:2])})" if packed else "no linear map to the residual stream"


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> '0-2, 5'."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
