"""A tiny random model made on the spot: the same files, names and tokenizer kind as a real one, and no sense at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops.errors import BadRequest
from mlxops.models.model_files import new_folder, write_json, write_tokenizer

if TYPE_CHECKING:
    import numpy
    from tokenizers import Tokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CONTEXT_LENGTH = 2048

_SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)

_CORPUS = """\
system user assistant You are a helpful assistant. What is the capital of France? The capital of France is Paris.
The answer to the question is that there are more things to know about it than one person could ever know.
How do I write a function that returns the sum of two numbers? You write it as a short function with a name.
She said that they would be there before the end of the day, and they were, which was a surprise for everyone.
If the weather is good we will go to the sea; when it rains we stay at home, read a book and make some tea.
The first step is the hardest one, the second step is easier, and after the third step you have done most of it.
People have always looked at the stars and asked where they come from, how far away they are and why they shine.
Please explain in other words what this means for the other side, and then give an example that shows the point.
Water boils at one hundred degrees, freezes at zero degrees, and covers more than two thirds of the whole earth.
I think that we should try again tomorrow, because the result of this experiment was not what we had expected.
"""


def make_tiny(
    folder: Path,
    *,
    layers: int = 4,
    hidden: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    vocab: int = 384,
    seed: int = 0,
    model_type: str = "llama",
    quantized: bool = False,
) -> Path:
    """Make a tiny random model in a new folder that mlx-lm and transformers load, and return the folder.

    The same arguments give the same bytes. `model_type` is llama, qwen2 or qwen3; `quantized` packs it in 4 bits.
    """
    from safetensors.numpy import save_file

    if model_type not in ("llama", "qwen2", "qwen3"):
        raise BadRequest(f"a tiny model is of the type llama, qwen2 or qwen3, not {model_type!r}")
    if vocab < _SMALLEST_VOCABULARY:
        raise BadRequest(f"a tiny model has at least {_SMALLEST_VOCABULARY} tokens, not {vocab}")
    config = {
        "architectures": [f"{model_type.capitalize()}ForCausalLM"],
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "vocab_size": vocab,
        "max_position_embeddings": CONTEXT_LENGTH,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "torch_dtype": "float32",
    }
    tensors = _random_tensors(config, seed)
    if quantized:
        tensors = _pack(tensors)
        config["quantization"] = {"group_size": 32, "bits": 4}
    with new_folder(folder) as filling:
        write_json(filling / "config.json", config)
        save_file(tensors, filling / "model.safetensors", metadata={"format": "mlx"})
        write_tokenizer(
            filling,
            _trained_tokenizer(vocab),
            special_tokens={
                "bos_token": "<|im_start|>",
                "eos_token": "<|im_end|>",
                "pad_token": "<|im_end|>",
                "unk_token": "<|endoftext|>",
            },
            chat_template=CHAT_TEMPLATE,
            context_length=CONTEXT_LENGTH,
        )
    return folder


def _random_tensors(config: dict[str, Any], seed: int) -> dict[str, numpy.ndarray]:
    import numpy

    generator = numpy.random.default_rng(seed)
    hidden, between, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head

    def normal(rows: int, columns: int, deviation: float) -> numpy.ndarray:
        return generator.standard_normal((rows, columns), dtype=numpy.float32) * numpy.float32(deviation)

    # So small that the first loss is that of guessing: the logarithm of the vocabulary.
    tensors = {"model.embed_tokens.weight": normal(config["vocab_size"], hidden, 0.02)}
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        for part, rows, columns in (
            ("self_attn.q_proj", queries, hidden),
            ("self_attn.k_proj", keys, hidden),
            ("self_attn.v_proj", keys, hidden),
            ("self_attn.o_proj", hidden, queries),
            ("mlp.gate_proj", between, hidden),
            ("mlp.up_proj", between, hidden),
            ("mlp.down_proj", hidden, between),
        ):
            tensors[f"{name}.{part}.weight"] = normal(rows, columns, columns**-0.5)
        for part in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{name}.{part}.weight"] = numpy.ones(hidden, numpy.float32)
        if config["model_type"] == "qwen2":
            for part, rows in (("q", queries), ("k", keys), ("v", keys)):
                tensors[f"{name}.self_attn.{part}_proj.bias"] = normal(1, rows, 0.02)[0]
        if config["model_type"] == "qwen3":
            for part in ("q_norm", "k_norm"):
                tensors[f"{name}.self_attn.{part}.weight"] = numpy.ones(head, numpy.float32)
    tensors["model.norm.weight"] = numpy.ones(hidden, numpy.float32)
    return tensors


def _pack(tensors: dict[str, numpy.ndarray]) -> dict[str, numpy.ndarray]:
    import mlx.core as mx
    import numpy

    packed = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            packed[name] = tensor
            continue
        parts = mx.quantize(mx.array(tensor), group_size=32, bits=4)
        for kind, part in zip(("weight", "scales", "biases"), parts, strict=True):
            packed[name.removesuffix("weight") + kind] = numpy.array(part)
    return packed


def _trained_tokenizer(vocabulary: int) -> Tokenizer:
    """A byte-level BPE over the corpus above, with each digit on its own as SmolLM2 has it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS.splitlines(), trainer)
    return tokenizer
