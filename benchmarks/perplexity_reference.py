"""The perplexity of a model by Transformers and PyTorch, to hold `inv test` against: it shares no code with mlxops.

    python -m venv reference && reference/bin/pip install torch==2.13.0 transformers
    reference/bin/python benchmarks/perplexity_reference.py models/SmolLM2-135M-Instruct data/test.jsonl

Rows are {"messages": …} of a template that writes a conversation once and for all and ends a turn with the end-of-text
token, such as ChatML. A row is computed alone, in float32: the prompt as the template writes it, then the last answer.

SmolLM2-135M-Instruct (Q4_1 in float32) on the 8 rows of templates/data/manual/valid.jsonl, on a CPU:

                                           perplexity     perplexity_all
    PyTorch 2.13.0, Transformers 5.24.0    107.4626       112.2552
    inv test                               107.4626       112.2553
    inv test, one sum over all scores      107.4465       112.2416

The logits of one short row differ by 0.0001 at most, and by 0.000015 on average. The last line is what training and
`inv test` gave before they summed the softmax in blocks: MLX's logsumexp over 49,152 float32 scores is about 0.00015
nats too low on a CPU, because it adds small terms to a large sum.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path


def main(model_folder: str, file: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    trained = everything = 0.0
    tokens = all_tokens = 0
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        messages = json.loads(line)["messages"]
        prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        answer = messages[-1]["content"] + tokenizer.eos_token
        assert whole.startswith(prompt + answer), whole
        parts = [
            tokenizer(text, add_special_tokens=False).input_ids
            for text in (prompt, answer, whole[len(prompt + answer) :])
        ]
        ids = torch.tensor([[token for part in parts for token in part]])
        with torch.no_grad():
            scores = torch.log_softmax(model(ids).logits[0, :-1].double(), dim=-1)
        losses = -scores.gather(1, ids[0, 1:, None])[:, 0]
        start, stop = len(parts[0]), len(parts[0]) + len(parts[1])
        trained += losses[start - 1 : stop - 1].sum().item()
        everything += losses.sum().item()
        tokens += stop - start
        all_tokens += len(losses)
    print(f"perplexity {math.exp(trained / tokens):.6f} over {tokens:,} tokens")
    print(f"perplexity_all {math.exp(everything / all_tokens):.6f} over {all_tokens:,} tokens")


if __name__ == "__main__":
    main(*sys.argv[1:])
