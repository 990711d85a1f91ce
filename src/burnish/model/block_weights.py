"""A model's weights as they lie on disk, put into a network on the meta device part by part.

The names and shapes on disk are not always those of the loaded model: the library renames tensors, joins the experts of
a layer, splits what was joined. Each part therefore goes through the library's own loader, which sees nothing but
the tensors of that part.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from burnish.artifacts.checkpoint import DTYPES, INTEGERS, Checkpoint
from burnish.errors import ModelError, QuantisedModelError
from burnish.model.loading import quiet
from burnish.model.skeleton import renamed_tensors

Values = Mapping[str, Tensor]
IDS = ("input", "input_ids")  # what tables of rows are asked for; tables of positions are asked for other things


class DiskWeights:
    """The weights of `network`, which holds none of them until a part is filled.

    A part is a decoder block, or the parameters that a single module outside the blocks holds itself, by its path.
    """

    def __init__(self, network: Any, checkpoint: Checkpoint, stack: str, device: torch.device) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping

        self.network, self.checkpoint, self.stack, self.device = network, checkpoint, stack, device
        self.transforms = get_model_conversion_mapping(network)
        _fill_buffers(network, device)

    @cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The stored names of every part's tensors. Tensors that the network does not have are in none."""
        state = self.network.state_dict()
        parts: dict[str, list[str]] = {}
        for name, target, _ in renamed_tensors(self.network, self.checkpoint.tensors):
            if target not in state and name in state:
                target = name
            if target in state:
                parts.setdefault(self._part(target), []).append(name)
        return {part: tuple(names) for part, names in parts.items()}

    def _part(self, target: str) -> str:
        if target.startswith(f"{self.stack}."):
            return f"{self.stack}.{target[len(self.stack) + 1 :].split('.')[0]}"
        return target.rpartition(".")[0]

    def require_tables(self) -> None:
        """Raises ModelError for a table outside the blocks that is not stored as the model has it: its rows are read one by one, and a row of
        another shape would be other bytes."""
        for path, module in self.network.named_modules():
            names = self.parts.get(path, ())
            if not isinstance(module, nn.Embedding) or path.startswith(f"{self.stack}.") or len(names) > 1:
                continue
            stored = self.checkpoint.tensors[names[0]] if names else None
            if stored is None or stored.dtype not in DTYPES or stored.shape != tuple(module.weight.shape):
                there = (
                    f"stored as {stored.dtype} {list(stored.shape)}"
                    if stored
                    else "missing, or stored under the name of another part"
                )
                raise ModelError(
                    f"'{path}.weight' of {self.checkpoint.folder} is {there}, and the model has {list(module.weight.shape)} numbers there. "
                    "Download the model again, or load it as a whole, without --layer-by-layer."
                )

    def read(self, part: str) -> Values:
        """The part's tensors as they are stored. Raises ModelError, QuantisedModelError."""
        names = self.parts.get(part, ())
        for name in names:
            stored = self.checkpoint.tensors[name]
            if stored.dtype not in DTYPES and stored.dtype not in INTEGERS:
                raise QuantisedModelError(
                    f"'{name}' is stored as {stored.dtype}: weights in fewer than 16 bits cannot be run layer by layer. "
                    "Pass the original (unquantised) weights."
                )
        return {name: self.checkpoint.read(name) for name in names}

    def fill(self, part: str, values: Values) -> None:
        """Puts what was read into the part's modules. Raises ModelError for a tensor that is missing or of another shape."""
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig

        dtype = self.network.dtype
        how = LoadStateDictConfig(
            device_map={"": self.device},
            dtype=dtype,
            dtype_plan=self.network._get_dtype_plan(dtype),
            weight_mapping=self.transforms,
        )
        with quiet():
            info, _ = convert_and_load_state_dict_in_model(self.network, dict(values), how)
        wrong = [f"{name} of another shape" for name, *_ in info.mismatched_keys] + list(info.conversion_errors)
        missing = [name for name, _, tensor in self._stored(part) if tensor.is_meta]
        if wrong or missing:
            raise ModelError(
                f"The weights of '{part}' cannot be put together from the checkpoint ({', '.join((wrong + missing)[:3])}): they are "
                "missing, of another shape, or shared with another part. Load the model as a whole, without --layer-by-layer."
            )

    def free(self, part: str) -> None:
        """Gives the part's memory back."""
        for name, module, tensor in self._stored(part):
            attribute = name.rpartition(".")[2]
            if attribute in module._parameters:
                module._parameters[attribute] = nn.Parameter(tensor.to("meta"), requires_grad=False)
            else:
                module._buffers[attribute] = tensor.to("meta")

    def _stored(self, part: str) -> Iterator[tuple[str, nn.Module, Tensor]]:
        """(name, module that holds it, tensor) of every parameter and stored buffer of a part."""
        root = self.network.get_submodule(part)
        inside = root.named_modules() if part.startswith(f"{self.stack}.") else [("", root)]
        for path, module in inside:
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None and name not in module._non_persistent_buffers_set:
                    yield ".".join(word for word in (part, path, name) if word), module, tensor

    @contextmanager
    def around_the_blocks(self) -> Iterator[None]:
        """While open, what lies outside the blocks is read when it is first called; of tables, only the rows asked for."""
        handles = []
        filled: list[str] = []
        tables: list[tuple[Any, Any]] = []

        def fill(path: str) -> Any:
            def hook(module: nn.Module, arguments: Any) -> None:
                if path not in filled:
                    self.fill(path, self.read(path))
                    filled.append(path)

            return hook

        def rows(path: str) -> Any:
            names = self.parts[path]

            def hook(module: Any, arguments: Any, keywords: Any) -> Any:
                arguments = arguments or (keywords.pop(next(k for k in IDS if k in keywords)),)
                ids, places = arguments[0].unique(return_inverse=True)
                table = self.checkpoint.read_rows(names[0], ids.tolist())
                module.weight = nn.Parameter(table.to(self.device, module.weight.dtype), requires_grad=False)
                return (places, *arguments[1:]), keywords

            return hook

        try:
            for path, module in self.network.named_modules():
                if path not in self.parts or path.startswith(f"{self.stack}."):
                    continue
                asked = next(iter(signature(module.forward).parameters), None)
                if isinstance(module, nn.Embedding) and asked in IDS and len(self.parts[path]) == 1:
                    module.padding_idx = None  # says which row is not trained, and must lie in the table
                    tables.append((module, module.weight))
                    handles.append(module.register_forward_pre_hook(rows(path), with_kwargs=True))
                else:
                    handles.append(module.register_forward_pre_hook(fill(path)))
            yield
        finally:
            for handle in handles:
                handle.remove()
            for path in filled:
                self.free(path)
            for table, empty in tables:
                table.weight = empty


@torch.no_grad()
def _fill_buffers(network: Any, device: torch.device) -> None:
    """Computes what is not stored (rotary frequencies, masks), as the library does after loading."""
    for tensor in [*network.parameters(), *network.buffers()]:
        tensor._is_hf_initialized = True
    for name, buffer in list(network.named_non_persistent_buffers()):
        path, _, attribute = name.rpartition(".")
        network.get_submodule(path)._buffers[attribute] = torch.empty_like(buffer, device=device)
    network.initialize_weights()
