"""Writes the table of architectures in docs/compatibility.md from what the tests go through; with --check, fails when it is out of date."""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from burnish.anatomy import Anatomy
from burnish.model.loading import quiet
from burnish.model.skeleton import anatomy_of, auto_class, relax_head_check

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from families import FAMILIES, GGUF, LLAMA_CPP, VLLM, build_config  # noqa: E402

PAGE = ROOT / "docs" / "compatibility.md"
START, END = "<!-- architectures: written by `make fix` -->\n", "<!-- end of architectures -->\n"
HEAD = "| class | in the tests | writes through | beside that | GGUF | vLLM's loader |\n|---|---|---|---|---|---|\n"


def built(family: str) -> tuple[nn.Module, Anatomy]:
    """A family's model without weights, and where it writes."""
    with quiet():
        config = build_config(FAMILIES[family])
        with torch.device("meta"):
            network = auto_class(config).from_config(config)
    return network, anatomy_of(network, config)


def remarks(anatomy: Anatomy) -> Iterator[str]:
    """What is particular about a model's projections."""
    edited = anatomy.attention()
    if any(p.bias for p in edited):
        yield "bias"
    if any(p.post_norm for p in edited):
        yield "norm behind"
    if any(p.layout == "in_out" for p in edited):
        yield "stored [in, out]"
    if any(p.inputs != p.outputs for p in edited):
        yield "not square"
    if len({p.inputs for p in edited}) > 1:
        yield "of several shapes"
    yield from sorted({f"{p.kind.replace('_', '-')} left alone" for p in anatomy.projections if p not in edited})
    yield from sorted({f"layers left alone: {s.reason}" for s in anatomy.skipped})


def row(family: str) -> str:
    network, anatomy = built(family)
    stem = len(f"{anatomy.stack}.0.")
    paths = sorted({p.path[stem:] for p in anatomy.attention()})
    through = ", ".join(f"`{path}`" for path in paths)
    gguf = GGUF.get(family, LLAMA_CPP.get(family, ""))
    ran = ", run" if family in LLAMA_CPP else ""
    loader = "yes" if family in VLLM else ""
    return f"| {type(network).__name__} | {family} | {through} | {', '.join(remarks(anatomy))} | {gguf}{ran} | {loader} |\n"


def main() -> int:
    relax_head_check()
    old = PAGE.read_text(encoding="utf-8")
    before, behind = old.split(START)
    after = behind.split(END)[1]
    rows = sorted((row(family) for family in FAMILIES), key=str.lower)
    new = before + START + HEAD + "".join(rows) + END + after
    if "--check" not in sys.argv:
        PAGE.write_text(new, encoding="utf-8")
    elif new != old:
        print("docs/compatibility.md is out of date: run `make fix`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
