"""Baking a 4 GB bfloat16 checkpoint of the Kanana geometry, against `cp -r` and against load, edit and save.

python benchmarks/baking.py [--folder FOLDER] [--runs 5]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import measure

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1792,
    "intermediate_size": 8064,
    "num_hidden_layers": 32,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}
SHARDS = 4
LOAD_EDIT_SAVE = """
import sys, torch
from burnish.model.skeleton import load_config
from burnish.options import ModelOptions
from burnish.artifacts.direction import Enhancement
import transformers
from pathlib import Path
source, plan, out = sys.argv[1:]
config = load_config(Path(source), ModelOptions())
model = transformers.AutoModelForCausalLM.from_pretrained(source, config=config, dtype="auto")
plan = Enhancement.load(plan)
with torch.no_grad():
    for layer, block in enumerate(model.model.layers):
        weight = block.self_attn.o_proj.weight
        v = plan.vectors[layer, 0]
        w = weight.float()
        weight.copy_(w + plan.gains[layer, 0] * torch.outer(v, v @ w))
model.save_pretrained(out)
"""


def tensors(layer: int) -> dict[str, tuple[int, ...]]:
    """The shapes of one decoder layer."""
    hidden, inner, attention, kv = 1792, 8064, 24 * 128, 8 * 128
    stem = f"model.layers.{layer}"
    return {
        f"{stem}.self_attn.q_proj.weight": (attention, hidden),
        f"{stem}.self_attn.k_proj.weight": (kv, hidden),
        f"{stem}.self_attn.v_proj.weight": (kv, hidden),
        f"{stem}.self_attn.o_proj.weight": (hidden, attention),
        f"{stem}.mlp.gate_proj.weight": (inner, hidden),
        f"{stem}.mlp.up_proj.weight": (inner, hidden),
        f"{stem}.mlp.down_proj.weight": (hidden, inner),
        f"{stem}.input_layernorm.weight": (hidden,),
        f"{stem}.post_attention_layernorm.weight": (hidden,),
    }


def make_checkpoint(folder: Path) -> None:
    """Random weights in four shards with an index; about 4 GB."""
    import torch
    from safetensors.torch import save_file

    if (folder / "model.safetensors.index.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in range(SHARDS)]
    shapes[0]["model.embed_tokens.weight"] = (128256, 1792)
    shapes[-1]["model.norm.weight"] = (1792,)
    for layer in range(32):
        shapes[layer * SHARDS // 32] |= tensors(layer)
    where = {}
    for number, part in enumerate(shapes):
        file = f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors"
        values = {n: (torch.randn(s, generator=generator) * 0.02).bfloat16() for n, s in part.items()}
        save_file(values, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2), encoding="utf-8")
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def make_plan(folder: Path, path: Path) -> None:
    """An enhancement with one random direction a layer and factor 0.3."""
    import torch

    from burnish.artifacts.direction import Direction
    from burnish.artifacts.direction_file import LayerReport, Provenance
    from burnish.maths.statistics import unit
    from burnish.options import ModelOptions
    from burnish.pipeline import open_plan

    flat = [1.0] * 32
    plan = open_plan(folder, ModelOptions())
    provenance = Provenance(
        model="kanana geometry, random weights",
        fingerprint=plan.checkpoint.fingerprint,
        architecture="LlamaForCausalLM",
        layers=32,
        hidden_size=1792,
        enhance="random",
        normal="random",
        enhance_hash="",
        normal_hash="",
        enhance_prompts=0,
        normal_prompts=0,
        position="prompt",
        template=False,
        seed=0,
        protected=False,
    )
    vectors = unit(torch.randn(32, 1792, generator=torch.Generator().manual_seed(1)))
    report = LayerReport(flat, flat, flat, flat, flat, flat, 0)
    direction = Direction(19, "per-layer", "residual", provenance, report, plan.anatomy, vectors)
    direction.enhancement(0.3).save(path, overwrite=True)


def clear(out: Path) -> None:
    """Removes the last step's output and waits until nothing of it is left to be written."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="where the 4 GB checkpoint is made and kept")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--prepare", action="store_true", help="make the checkpoint and the plan, and stop")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        source, plan, out = root / "kanana-geometry", root / "plan.safetensors", root / "out"
        if arguments.prepare:
            make_checkpoint(source)
            make_plan(source, plan)
            return
        # In a process of its own: a child's peak memory starts at its parent's, which must therefore stay small.
        subprocess.run([sys.executable, __file__, "--prepare", "--folder", str(root)], check=True)
        burnish = str(Path(sys.executable).with_name("burnish"))
        steps = {
            "cp -r": ["cp", "-r", str(source), str(out)],
            "burnish apply": [burnish, "apply", str(source), str(plan), "-o", str(out)],
            "load, edit, save_pretrained": [sys.executable, "-c", LOAD_EDIT_SAVE, str(source), str(plan), str(out)],
        }
        rows = measure.repeat(steps, arguments.runs, lambda: clear(out))
        size = sum(p.stat().st_size for p in source.glob("*.safetensors"))
    copy = rows[0].median
    lines = ["| step | median seconds | times `cp -r` | peak memory, MB |", "|---|---|---|---|"]
    lines += [f"| {r.name} | {r.median:.2f} | {r.median / copy:.2f} | {r.peak_mb:.0f} |" for r in rows]
    table = (
        f"{size / 1e9:.2f} GB in bfloat16, 32 projections edited, median of {arguments.runs} runs in turn.\n\n"
        + "\n".join(lines)
    )
    measure.write("baking", "python benchmarks/baking.py", rows, {"bytes": size, "runs": arguments.runs}, table)


if __name__ == "__main__":
    main()
