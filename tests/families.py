"""Tiny random models of every family class, built in memory."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers

from burnish.model.skeleton import auto_class, relax_head_check

VOCABULARY = 300
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MOE = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
MLA = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 6,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}
OLD = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Family:
    """A model type and the sizes its tiny model gets."""

    model_type: str
    sizes: dict[str, Any] = field(default_factory=lambda: dict(SMALL))
    layers: int = 3  # decoder layers
    projections: int = 3  # attention output projections expected


def small(model_type: str, layers: int = 3, projections: int = 3, **sizes: Any) -> Family:
    return Family(model_type, {**SMALL, **sizes}, layers, projections)


HYBRID = ["linear_attention", "full_attention"] * 2
SLIDING = ["sliding_attention", "full_attention"] * 2
FOUR = {"num_hidden_layers": 4}
DELTA = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
FAMILIES = {
    "llama": small("llama"),
    "llama-biased": small("llama", attention_bias=True),
    "kanana": small("llama", hidden_size=56, num_attention_heads=12, head_dim=8, num_key_value_heads=4),
    "mistral": small("mistral"),
    "qwen2": small("qwen2"),
    "qwen3-non-square": small("qwen3", head_dim=16),
    "gemma": small("gemma", head_dim=16),
    "gemma2": small("gemma2", head_dim=16, query_pre_attn_scalar=16, sliding_window=64),
    "gemma3": small("gemma3_text", head_dim=16, sliding_window=64),
    "olmo2": small("olmo2"),
    "olmo3": small("olmo3", sliding_window=64),
    "exaone4": small("exaone4", head_dim=8, sliding_window=64),
    "glm4": small("glm4", head_dim=8),
    "glm": small("glm", head_dim=8),
    "phi": small("phi", num_key_value_heads=4),
    "phi3": small("phi3"),
    "starcoder2": small("starcoder2"),
    "stablelm": small("stablelm"),
    "cohere": small("cohere"),
    "granite": small("granite", residual_multiplier=0.5),
    "smollm3": small("smollm3"),
    "gpt2": Family("gpt2", OLD),
    "gpt_bigcode": Family("gpt_bigcode", OLD),
    "gptj": Family("gptj", {**OLD, "rotary_dim": 4}),
    "gpt_neo": Family(
        "gpt_neo",
        {
            **SMALL,
            "num_hidden_layers": 2,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 64,
        },
        layers=2,
        projections=2,
    ),
    "gpt_neox": small("gpt_neox"),
    "opt": small("opt", ffn_dim=48, word_embed_proj_dim=32),
    "bloom": Family("bloom", {**OLD, "hidden_size": 32}),
    "falcon": small("falcon", bias=True, new_decoder_architecture=False),
    "mpt": Family("mpt", {"vocab_size": VOCABULARY, "d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 256}),
    "mixtral": small("mixtral", **MOE),
    "qwen3_moe": small("qwen3_moe", **MOE, head_dim=16),
    "gpt_oss": small("gpt_oss", **MOE, head_dim=16, sliding_window=64),
    "deepseek_v3": small("deepseek_v3", **{**MOE, **MLA}),
    "qwen3_next": small(
        "qwen3_next",
        layers=4,
        projections=4,
        **MOE,
        shared_expert_intermediate_size=16,
        num_hidden_layers=4,
        layer_types=HYBRID,
        head_dim=16,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
    ),
    "jamba": small(
        "jamba",
        layers=4,
        projections=2,
        **MOE,
        num_hidden_layers=4,
        attn_layer_period=2,
        attn_layer_offset=1,
        mamba_dt_rank=4,
        mamba_d_state=4,
        use_mamba_kernels=False,
    ),
    "gemma3n": small(
        "gemma3n_text",
        4,
        4,
        **FOUR,
        head_dim=8,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=VOCABULARY,
        num_kv_shared_layers=0,
        laurel_rank=4,
        intermediate_size=[48] * 4,
        activation_sparsity_pattern=[0.0] * 4,
        layer_types=SLIDING,
        altup_num_inputs=2,
    ),
    "gemma4-two-shapes": small(
        "gemma4_text",
        4,
        4,
        **FOUR,
        head_dim=8,
        global_head_dim=16,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=VOCABULARY,
        layer_types=SLIDING,
        num_kv_shared_layers=0,
    ),
    "vaultgemma": small("vaultgemma", head_dim=16, sliding_window=64),
    "seed_oss": small("seed_oss", head_dim=16, attention_out_bias=True),
    "ernie4_5": small("ernie4_5", head_dim=16),
    "apertus": small("apertus"),
    "arcee": small("arcee"),
    "helium": small("helium", head_dim=8),
    "nanochat": small("nanochat"),
    "qwen2_moe": small("qwen2_moe", **MOE, shared_expert_intermediate_size=16),
    "qwen3_5": small("qwen3_5_text", 4, 4, **FOUR, **DELTA, layer_types=HYBRID, head_dim=16),
    "minimax": small("minimax", 4, 4, **MOE, **FOUR, head_dim=8, layer_types=HYBRID),
    "minimax_m2": small("minimax_m2", **MOE, head_dim=16),
    "mimo_v2_flash": small("mimo_v2_flash", **MOE, head_dim=8, v_head_dim=16),
    "kimi_linear": small("kimi_linear", **{**MOE, **MLA, "linear_num_heads": 4, "linear_head_dim": 6}),
    "olmo_hybrid": small(
        "olmo_hybrid",
        4,
        4,
        **FOUR,
        layer_types=HYBRID,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=16,
    ),
    "afmoe": small("afmoe", **MOE, head_dim=8, sliding_window=64),
    "glm4_moe": small("glm4_moe", **MOE, head_dim=8, n_group=1, topk_group=1, first_k_dense_replace=1),
    "phimoe": small("phimoe", **MOE, attention_bias=True),
    "persimmon": small("persimmon"),
    "codegen": Family("codegen", {**OLD, "rotary_dim": 4}),
    "gpt_neox-sequential": small("gpt_neox", use_parallel_residual=False),
    "opt-350m": small("opt", ffn_dim=48, word_embed_proj_dim=16, do_layer_norm_before=False),
    "xglm": Family(
        "xglm",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "num_layers": 3,
            "attention_heads": 4,
            "ffn_dim": 48,
            "max_position_embeddings": 256,
        },
    ),
    "biogpt": small("biogpt"),
    "modernbert-decoder": small("modernbert-decoder", num_key_value_heads=4),
    "bitnet": small("bitnet"),
    "minicpm3": small("minicpm3", **MLA),
    "cohere2": small("cohere2", sliding_window=64),
    "granitemoehybrid": small(
        "granitemoehybrid",
        4,
        2,
        **MOE,
        **FOUR,
        **MAMBA,
        layer_types=["mamba", "attention"] * 2,
        shared_intermediate_size=16,
    ),
    "bamba": small("bamba", 4, 2, **FOUR, **MAMBA, attn_layer_indices=[1, 3]),
    "nemotron_h": small(
        "nemotron_h",
        4,
        1,
        **MOE,
        **FOUR,
        hybrid_override_pattern="M*M-",
        mamba_num_heads=8,
        mamba_head_dim=8,
        ssm_state_size=8,
        n_groups=1,
        head_dim=8,
        moe_shared_expert_intermediate_size=16,
        n_group=1,
        topk_group=1,
    ),
    "falcon_h1": small("falcon_h1", **MAMBA, mamba_d_ssm=64, head_dim=8),
    "lfm2": small("lfm2", 4, 2, **FOUR, layer_types=["conv", "full_attention"] * 2, block_ff_dim=48),
    "recurrent_gemma": small(
        "recurrent_gemma",
        3,
        1,
        lru_width=32,
        attention_window_size=64,
        block_types=["recurrent", "recurrent", "attention"],
    ),
    "deepseek_v2": small("deepseek_v2", **{**MOE, **MLA}),
    "deepseek_v4": small("deepseek_v4", **{**MOE, **MLA}, o_groups=2, o_lora_rank=8, head_dim=8),
    "gemma3-vision": Family(
        "gemma3", {"text_config": {**SMALL, "head_dim": 16, "sliding_window": 64}, "vision_config": VISION}
    ),
    "llava": Family(
        "llava",
        {
            "text_config": {**SMALL, "model_type": "llama"},
            "vision_config": {**VISION, "model_type": "clip_vision_model"},
        },
    ),
    "qwen2_5_vl": Family(
        "qwen2_5_vl",
        {
            "text_config": {
                **SMALL,
                "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
            },
            "vision_config": {
                "depth": 1,
                "hidden_size": 16,
                "num_heads": 2,
                "intermediate_size": 16,
                "out_hidden_size": 32,
            },
        },
    ),
}

# One of each way to write to the residual stream: plain, with a bias, heads that do not divide the hidden size or make another one, norms
# behind the projection, the other layout, several maps of one name, latent attention with experts, linear attention, state space, streams
# beside each other, a tower around the text model.
REPRESENTATIVE = (
    "llama",
    "llama-biased",
    "kanana",
    "qwen3-non-square",
    "gemma2",
    "olmo2",
    "gpt2",
    "gpt_bigcode",
    "deepseek_v3",
    "qwen3_next",
    "jamba",
    "gemma3n",
    "gemma3-vision",
)


def case(name: str, *, full: bool = False) -> Any:
    """A family as a parameter of a test. Its tests go to one worker, which makes and loads it once."""
    return pytest.param(name, marks=[pytest.mark.xdist_group(name), *([pytest.mark.full] if full else [])])


EVERY = pytest.mark.parametrize("family", [case(name) for name in FAMILIES])
# The representatives in every run, all families in `make test-full`.
MOST = pytest.mark.parametrize("family", [case(name, full=name not in REPRESENTATIVE) for name in FAMILIES])


def build_config(family: Family) -> Any:
    return transformers.AutoConfig.for_model(family.model_type, **family.sizes)


def build(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny model with weights large enough that attention matters."""
    torch.manual_seed(0)
    if name == "kanana":
        relax_head_check()
    config = build_config(FAMILIES[name])
    model = auto_class(config).from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(7)
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                noise = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
                parameter.copy_(noise.to(dtype))
            else:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator).to(dtype))
    return model


TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer(*, template: bool = True) -> Any:
    """A byte-level tokenizer with a beginning-of-text token and a small chat template."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    if template:
        tokenizer.chat_template = "<s>" + TEMPLATE
    return tokenizer


def save(
    name: str, folder: Path, dtype: torch.dtype = torch.float32, *, shard: str = "5GB", template: bool = True
) -> Path:
    """Writes a tiny model and its tokenizer as a Hugging Face folder."""
    model = build(name, dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    build_tokenizer(template=template).save_pretrained(folder)
    return folder


LLAMA_CPP = {  # families and the architectures that llama.cpp knows them as
    "llama": "llama",
    "kanana": "llama",
    "qwen3-non-square": "qwen3",
    "gemma2": "gemma2",
    "olmo2": "olmo2",
    "gpt2": "gpt2",
}
GGUF = {  # families and the architectures whose tensor names are tested on them
    "llama": "llama",
    "llama-biased": "llama",
    "kanana": "llama",
    "mixtral": "llama",
    "qwen3-non-square": "qwen3",
    "qwen3_next": "qwen3next",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "olmo2": "olmo2",
    "glm4": "glm4",
    "exaone4": "exaone4",
    "gpt2": "gpt2",
    "phi": "phi2",
    "phi3": "phi3",
    "gpt_neox": "gptneox",
    "falcon": "falcon",
    "bloom": "bloom",
    "mpt": "mpt",
    "starcoder2": "starcoder2",
    "cohere": "command-r",
    "granite": "granite",
    "smollm3": "smollm3",
    "deepseek_v3": "deepseek2",
    "gpt_oss": "gpt-oss",
    "jamba": "jamba",
}
VLLM = [  # families whose adapters go through vLLM's own loader
    "llama",
    "kanana",
    "mistral",
    "qwen2",
    "qwen3-non-square",
    "gemma2",
    "mixtral",
    "phi3",
    "cohere",
    "qwen3_next",
]


def save_gguf(path: Path, family: str = "llama") -> Path:
    """Writes a tiny model with a byte-level tokenizer as an F32 GGUF file, turned and named as llama.cpp's converter does."""
    import gguf

    model = build(family)
    sizes, architecture = model.config, LLAMA_CPP[family]
    heads = sizes.num_attention_heads
    shared = getattr(sizes, "num_key_value_heads", heads)
    wide = getattr(sizes, "head_dim", None) or sizes.hidden_size // heads
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(sizes.max_position_embeddings)
    writer.add_embedding_length(sizes.hidden_size)
    writer.add_block_count(sizes.num_hidden_layers)
    writer.add_feed_forward_length(getattr(sizes, "intermediate_size", None) or 4 * sizes.hidden_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(shared)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(sizes.layer_norm_epsilon)
    else:
        writer.add_layer_norm_rms_eps(sizes.rms_norm_eps)
        writer.add_rope_freq_base(10000.0)
        writer.add_rope_dimension_count(wide)
        writer.add_key_length(wide)
        writer.add_value_length(wide)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(sizes.attn_logit_softcapping)
        writer.add_final_logit_softcapping(sizes.final_logit_softcapping)
        writer.add_sliding_window(sizes.sliding_window)
    vocabulary = build_tokenizer().get_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    tokens += ["ab", *(f"<extra{i}>" for i in range(VOCABULARY - len(tokens) - 1))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["a b"])
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, sizes.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and sizes.tie_word_embeddings:
            continue
        values = tensor
        if architecture == "llama":  # whose rotary halves GGUF stores interleaved
            for projection, count in (("q_proj", heads), ("k_proj", shared)):
                if projection in name:
                    values = tensor.view(count, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        if architecture == "gemma2" and name.endswith("norm.weight"):
            values = tensor + 1
        if architecture == "gpt2" and tensor.ndim == 2 and ".h." in name:
            values = tensor.T
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), values.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
