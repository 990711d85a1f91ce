"""How users name layers: a number, a share of the depth, or a window of them."""

import re

from burnish.errors import LayerError

_LAYER = re.compile(r"^\s*(-?\d+(?:\.\d+)?)\s*(%?)\s*$")


def layer_index(text: str | int, layers: int) -> int:
    """'19' or '60%' -> a layer from 0 to layers - 1; shares count the layers: 60 % of 32 is layer 19.

    Raises LayerError for anything else.
    """
    match = _LAYER.match(str(text))
    if match is None or (not match[2] and "." in match[1]):
        raise LayerError(f"'{text}' is not a layer. Pass a number 0..{layers - 1} or a share such as 60%.")
    number = float(match[1])
    if match[2]:
        if not 0 <= number <= 100:
            raise LayerError(f"{text} is not a share of the depth. Pass 0% to 100%.")
        return min(int(number / 100 * layers), layers - 1)
    if not 0 <= number < layers:
        raise LayerError(
            f"Layer {text} does not exist: this model has layers 0-{layers - 1}. "
            f"Pass --layer-idx 0..{layers - 1} or a share such as 60%."
        )
    return int(number)


def layer_window(text: str, layers: int) -> range:
    """'all', '60%..', '10..20' or '..50%' -> the layers, both ends included. Raises LayerError."""
    if text.strip() == "all":
        return range(layers)
    start, dots, end = text.partition("..")
    if not dots:
        only = layer_index(text, layers)
        return range(only, only + 1)
    first = layer_index(start, layers) if start.strip() else 0
    last = layer_index(end, layers) if end.strip() else layers - 1
    if first > last:
        raise LayerError(f"The window {text} is empty: layer {first} is after layer {last}. Swap the two ends.")
    return range(first, last + 1)
