"""Model folders made on the spot: small random ones of each architecture, with a small tokenizer."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXT = "the cat sat on the mat and the dog ran to the cat while the rain fell on the old town and the men sang songs"
D_VOCAB = 384
SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": D_VOCAB}
GROUPED = SHAPE | {"num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 40, "max_position_embeddings": 64}
UNGROUPED = {key: value for key, value in GROUPED.items() if key != "head_dim"}
NO_IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
WINDOW = 5  # Gemma's layers that see only so far; texts of the tests are longer


def _gpt2() -> transformers.PretrainedConfig:
    return transformers.GPT2Config(
        n_embd=32, n_layer=3, n_head=4, n_inner=40, n_positions=24, vocab_size=D_VOCAB, **NO_IDS
    )


def _llama() -> transformers.PretrainedConfig:
    return transformers.LlamaConfig(**GROUPED, **NO_IDS, tie_word_embeddings=False)


def _qwen3() -> transformers.PretrainedConfig:
    return transformers.Qwen3Config(**GROUPED, **NO_IDS, tie_word_embeddings=True)


def _gemma2() -> transformers.PretrainedConfig:
    capped = {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0, "query_pre_attn_scalar": 20}
    return transformers.Gemma2Config(**GROUPED, **NO_IDS, **capped, sliding_window=WINDOW)


def _gemma3() -> transformers.PretrainedConfig:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return transformers.Gemma3TextConfig(
        **GROUPED, **NO_IDS, query_pre_attn_scalar=20, sliding_window=WINDOW, layer_types=kinds
    )


def _opt() -> transformers.PretrainedConfig:
    ids = NO_IDS | {"pad_token_id": 1}
    return transformers.OPTConfig(
        hidden_size=32,
        ffn_dim=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=D_VOCAB,
        word_embed_proj_dim=32,
        max_position_embeddings=64,
        **ids,
    )


def _neox() -> transformers.PretrainedConfig:
    own = {"intermediate_size": 40, "max_position_embeddings": 64, "rotary_pct": 0.5, "tie_word_embeddings": False}
    return transformers.GPTNeoXConfig(**SHAPE, **own, **NO_IDS)


def _llama3() -> transformers.PretrainedConfig:
    factors = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, **factors}
    return transformers.LlamaConfig(**GROUPED, **NO_IDS, rope_parameters=rope, tie_word_embeddings=True)


def _mistral() -> transformers.PretrainedConfig:
    return transformers.MistralConfig(**GROUPED, **NO_IDS, sliding_window=WINDOW)


def _phi3() -> transformers.PretrainedConfig:
    return transformers.Phi3Config(**UNGROUPED, **NO_IDS | {"pad_token_id": 0}, sliding_window=WINDOW)


def _olmo2() -> transformers.PretrainedConfig:
    return transformers.Olmo2Config(**UNGROUPED, **NO_IDS | {"pad_token_id": 0})


def _mixtral() -> transformers.PretrainedConfig:
    return transformers.MixtralConfig(**GROUPED, **NO_IDS, num_local_experts=4, num_experts_per_tok=2)


def _qwen3_moe() -> transformers.PretrainedConfig:
    experts = {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 12, "norm_topk_prob": False}
    return transformers.Qwen3MoeConfig(**GROUPED, **NO_IDS, **experts)


def _gpt_oss() -> transformers.PretrainedConfig:
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0}
    rope |= {"truncate": False, "original_max_position_embeddings": 16}
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW, "layer_types": kinds}
    return transformers.GptOssConfig(**GROUPED, **NO_IDS | {"pad_token_id": 0}, **experts, rope_parameters=rope)


def _qwen2_moe(**options: object) -> transformers.PretrainedConfig:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
    return transformers.Qwen2MoeConfig(**UNGROUPED, **NO_IDS, **experts, shared_expert_intermediate_size=20, **options)


CONFIGS: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gpt_neox": _neox,
    "llama3": _llama3,
    "mistral": _mistral,
    "phi3": _phi3,
    "olmo2": _olmo2,
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3_moe,
    "gpt_oss": _gpt_oss,
}
UNKNOWN: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "opt": _opt,
    "bloom": lambda: transformers.BloomConfig(vocab_size=D_VOCAB, hidden_size=32, n_layer=3, n_head=4, **NO_IDS),
    "granite": lambda: transformers.GraniteConfig(**UNGROUPED, **NO_IDS, residual_multiplier=0.3),
    "qwen2_moe": _qwen2_moe,
    "mixed_moe": lambda: transformers.Qwen3MoeConfig(
        **GROUPED, **NO_IDS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, mlp_only_layers=[1]
    ),
}
SENTENCEPIECE = ("llama", "gemma2", "gemma3", "mistral", "phi3", "mixtral")
WITHOUT_BOS = ("gpt2", "qwen3", "gpt_neox", "llama3", "olmo2", "qwen3_moe", "gpt_oss", *UNKNOWN)


def make_model(family: str, folder: Path) -> Path:
    """The folder of a random model of one family, every parameter random, norms and biases too."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config((CONFIGS | UNKNOWN)[family]())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
            parameter.copy_(
                torch.randn_like(parameter) * spread + (parameter if "norm" in name or ".ln_" in name else 0)
            )
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (sentencepiece_tokenizer() if family in SENTENCEPIECE else byte_tokenizer()).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None if family in WITHOUT_BOS else "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def make_corpus(file: Path, *, documents: int = 300) -> Path:
    """Texts of 18 words of TEXT in random order, one a line."""
    rng, words = random.Random(0), TEXT.split()
    texts = (" ".join(rng.choice(words) for _ in range(18)) for _ in range(documents))
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return file


def byte_tokenizer() -> Tokenizer:
    """Byte-level pairs, as in GPT-2: "Ġand" stands for " and"."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=D_VOCAB - 20, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 5, trainer)
    return tokenizer


def sentencepiece_tokenizer() -> Tokenizer:
    """As SentencePiece makes them: "▁and" stands for " and", a space is put before the text, bytes stand in for the rest."""
    characters = ["▁", *sorted(set(TEXT) - {" "})]
    words = sorted({"▁" + word for word in TEXT.split()})
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    merges = []
    for piece in characters:
        vocab.setdefault(piece, len(vocab))
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocab:
                merges.append((word[: end - 1], word[end - 1]))
                vocab[word[:end]] = len(vocab)
    assert len(vocab) <= D_VOCAB
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer
