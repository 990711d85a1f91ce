"""The names that GGUF gives to a model's tensors, and what of a model a GGUF file can confirm."""

from functools import lru_cache

from gguf import MODEL_ARCH_NAMES, TensorNameMap, get_tensor_name_map
from torch import Tensor

from burnish.anatomy import Anatomy, Projection
from burnish.artifacts.gguf_file import GgufFile
from burnish.errors import ModelError, WrongModelError


@lru_cache(maxsize=4)
def _names(architecture: str, blocks: int) -> TensorNameMap:
    """The `gguf` package's table, which its converters use as well. Raises ModelError for an architecture it does not know."""
    for number, name in MODEL_ARCH_NAMES.items():
        if name == architecture:
            return get_tensor_name_map(number, blocks)
    raise ModelError(
        f"The installed gguf package knows no architecture '{architecture}'. Update the package (pip install -U gguf)."
    )


def gguf_name(source: GgufFile, path: str) -> str:
    """The name of the module at `path`, without "weight" or "bias". Raises ModelError for a module that has none."""
    names = _names(source.architecture, source.number("block_count") or 0)
    # Wrappers nest the language model; converters strip what stands before its layers.
    inner = "model." + path[path.index("layers.") :] if "layers." in path else path
    name: str | None = names.get_name(path) or names.get_name(inner)
    if name is None:
        raise ModelError(
            f"'{path}' has no name of its own in GGUF files of the architecture '{source.architecture}', so it cannot be edited "
            "there. Enhance the original model and convert the result."
        )
    return name


def stored_names(source: GgufFile, projection: Projection) -> list[str]:
    """The tensors of a projection: its weight and, where it has one, its bias.

    GGUF stores every map as [outputs, inputs], GPT-2's too. Some converters reorder the heads of queries and keys, none the
    coordinates of the residual stream, which are the rows here. Raises ModelError for a missing tensor or another shape.
    """
    stem = gguf_name(source, projection.path)
    wanted: dict[str, tuple[int, ...]] = {f"{stem}.weight": (projection.outputs, projection.inputs)}
    if projection.bias:
        wanted[f"{stem}.bias"] = (projection.outputs,)
    for name, shape in wanted.items():
        tensor = source.tensors.get(name)
        if tensor is None:
            raise ModelError(
                f"{source.path.name} has no tensor '{name}'. It is not a file of this model, or its attention is fused with "
                "something else; enhance the original model and convert the result."
            )
        if tensor.shape != shape:
            raise WrongModelError(
                f"'{name}' in {source.path.name} is {list(tensor.shape)}, and the plan was made for {list(shape)}. "
                "Pass the file of the model that the direction was found on."
            )
    if f"{stem}.scale" in source.tensors:
        raise ModelError(
            f"'{stem}.weight' has a separate scale in {source.path.name}, which is not supported. Pass a file of another type."
        )
    return list(wanted)


def norm_scale(source: GgufFile, path: str) -> Tensor:
    """The effective weight [hidden] of the norm at `path`. Converters store what the norm multiplies by (Gemma's plus one)."""
    name = f"{gguf_name(source, path)}.weight"
    if name not in source.tensors:
        raise ModelError(
            f"{source.path.name} has no tensor '{name}', the norm behind the projection. It is not a file of this model."
        )
    return source.read(name).double()


def check_same_shape(source: GgufFile, anatomy: Anatomy) -> None:
    """Raises ModelError for split files, WrongModelError where layers or width are not those of the plan."""
    parts = source.metadata.get("split.count") or 1
    if parts != 1:
        raise ModelError(
            f"{source.path.name} is one of {parts} parts, and only whole files are read. Join them with "
            "`llama-gguf-split --merge FIRST.gguf WHOLE.gguf`."
        )
    if source.metadata.get("general.type", "model") != "model":
        raise ModelError(
            f"{source.path.name} holds a {str(source.metadata['general.type'])[:40]}, not a model. Pass the model's own file."
        )
    blocks = source.number("block_count") or 0
    # Layers that guess further tokens are not decoder layers.
    layers = blocks - (source.number("nextn_predict_layers") or 0)
    width = source.number("embedding_length")
    if blocks > 2 * anatomy.layers or (layers, width) != (anatomy.layers, anatomy.hidden_size):
        raise WrongModelError(
            f"{source.path.name} ('{source.architecture}') has {layers} layers, {width} wide, and the plan was made for "
            f"{anatomy.layers} layers, {anatomy.hidden_size} wide. Pass the file of the model that the direction was found on."
        )
