"""A loaded model as lm-eval asks it: how likely a text is behind another one, and what the model writes.

lm-eval tokenizes, splits and asks through its own `TemplateLM`; the tokens of an answer come from `generation`. This
module is imported only where the package lm-eval is there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mlxops.models.conversation import has_template
from mlxops.models.generation import LoadedModel, generate_batch, read_ahead
from mlxops.models.sampling import LogitsProcessor, Sampling
from mlxops.models.tokenizer import template_arguments

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerBase

_STEP = 512  # tokens of a continuation whose scores are in memory at a time
_LONGEST_WINDOW = 2048  # tokens of a text scored at a time where the model does not say its context length
_USUAL_TOKENS = 256  # of an answer, where neither the task nor a person says

# The context and the continuation as text, then the tokens of each.
_TokenPair = tuple[tuple[str, str], list[int], list[int]]


class LoadedLM(TemplateLM):
    """A loaded model with the adapter it has now. `batch_size` is that of the answers it writes.

    `max_tokens` None leaves the length of an answer to the task. `clean` takes the prompt and the answer, and returns
    the answer without thoughts. `progress` is told requests done and requests in all.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        max_tokens: int | None,
        batch_size: int,
        seed: int,
        is_chat: bool,
        template_config: Mapping[str, Any],
        clean: Callable[[str, str], str],
        progress: Callable[[int, int], None],
    ) -> None:
        super().__init__()
        self.tokenizer: PreTrainedTokenizerBase = loaded.tokenizer
        self._loaded = loaded
        self._max_tokens = max_tokens
        self._batch_size = batch_size
        self._seed = seed
        self._is_chat = is_chat and has_template(loaded.tokenizer)
        self._template_config = template_config
        self._clean = clean
        self._progress = progress

    @property
    def is_chat(self) -> bool:
        """Whether questions are written by the model's chat template."""
        return self._is_chat

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        own = self.tokenizer.eos_token_id
        return int(own if isinstance(own, int) else min(self._loaded.stop_tokens, default=0))

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has nothing before it: that which begins a text, where there is one."""
        begin = self.tokenizer.bos_token_id
        return int(begin) if isinstance(begin, int) else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval names its cached requests by."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The token ids of a text; what a chat template wrote has its special tokens already."""
        special = not self._is_chat if add_special_tokens is None else add_special_tokens
        return list(self.tokenizer.encode(string, add_special_tokens=special))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a conversation, up to where the assistant begins, or resumes, to speak."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **{**template_arguments(self.tokenizer), **self._template_config},
            )
        )

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """How likely each continuation is, in nats, and whether it is what the model would write."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(self, requests: list[_TokenPair], **_: Any) -> list[tuple[float, bool]]:
        # the choices of a question share its context, which is read once
        of_context: dict[tuple[int, ...], list[int]] = {}
        pairs = [self._fitting(context, continuation) for _, context, continuation in requests]
        for place, pair in enumerate(pairs):
            of_context.setdefault(tuple(pair[0]), []).append(place)
        found: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        done = 0
        for tokens, places in of_context.items():
            scored = self._score(list(tokens), [pairs[place][1] for place in places])
            for place, score in zip(places, scored, strict=True):
                found[place] = score
            done += len(places)
            self._progress(done, len(pairs))
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """How likely each text is, in nats, from its first token on, in windows of the model's context."""
        longest = self._loaded.context_length or _LONGEST_WINDOW
        found = []
        for done, request in enumerate(requests, start=1):
            (text,) = request.args
            windows = get_rolling_token_windows(
                self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=longest,
                context_len=1,
            )
            pairs = [make_disjoint_window(window) for window in windows]
            found.append(sum(self._score(context, [tokens])[0][0] for context, tokens in pairs))
            self._progress(done, len(requests))
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """What the model writes behind each context, up to the first of the texts that end it there."""
        answers = [""] * len(requests)
        of_settings: dict[tuple[int, Sampling], list[int]] = {}
        for place, request in enumerate(requests):
            of_settings.setdefault(self._settings(request.args[1]), []).append(place)
        done = 0
        for (max_tokens, sampling), places in of_settings.items():
            for start in range(0, len(places), self._batch_size):
                batch = places[start : start + self._batch_size]
                texts = self._write([requests[place] for place in batch], max_tokens, sampling)
                for place, text in zip(batch, texts, strict=True):
                    answers[place] = text
                done += len(batch)
                self._progress(done, len(requests))
        return answers

    def _write(self, requests: Sequence[Instance], max_tokens: int, sampling: Sampling) -> list[str]:
        """The answers to one batch of requests with the same settings."""
        ends = [_ends(request.args[1]) for request in requests]
        prompts = [self._prompt(request.args[0], max_tokens) for request in requests]
        made = generate_batch(
            self._loaded,
            prompts,
            max_tokens=max_tokens,
            sampling=sampling,
            batch_size=self._batch_size,
            processors=lambda row: self._stop_at(ends[row], len(prompts[row])),
        )
        return [
            _before(self._clean(request.args[0], answer.text), ends[row])
            for row, (request, answer) in enumerate(zip(requests, made, strict=True))
        ]

    def _fitting(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """As much of the end of both as the model's context holds, with at least one token before what is scored."""
        longest = self._loaded.context_length
        if longest is None or len(context) + len(continuation) <= longest + 1:
            return context, continuation
        continuation = continuation[-longest:]
        return context[-max(1, longest + 1 - len(continuation)) :], continuation

    def _score(self, context: list[int], continuations: Sequence[list[int]]) -> list[tuple[float, bool]]:
        """The log-probability of each of some texts behind the same tokens, and whether each is the likeliest."""
        model, cache = self._loaded.model, read_ahead(self._loaded, context[:-1]).model_entries
        first = model(mx.array(context[-1:])[None], cache=cache)[0]
        mx.eval(first, [entry.state for entry in cache])
        found = []
        for tokens in continuations:
            entries = copy.deepcopy(cache) if len(tokens) > 1 else cache
            total, is_greedy = _of_tokens(first, tokens[:1])
            for start in range(0, len(tokens) - 1, _STEP):
                read = tokens[start : min(start + _STEP, len(tokens) - 1)]
                score, same = _of_tokens(
                    model(mx.array(read)[None], cache=entries)[0], tokens[start + 1 : start + 1 + len(read)]
                )
                total, is_greedy = total + score, is_greedy and same
            found.append((total, is_greedy))
        return found

    def _settings(self, options: Mapping[str, Any]) -> tuple[int, Sampling]:
        said = options.get("max_gen_toks") or options.get("max_tokens") or _USUAL_TOKENS
        is_sampled = bool(options.get("do_sample", float(options.get("temperature") or 0) > 0))
        sampling = Sampling(
            temperature=float(options.get("temperature") or 0) if is_sampled else 0.0,
            top_p=float(options.get("top_p") or 1.0),
            top_k=max(0, int(options.get("top_k") or 0)),
            seed=self._seed,
        )
        return self._max_tokens or int(said), sampling

    def _prompt(self, context: str, max_tokens: int) -> list[int]:
        tokens = self.tok_encode(context) or [self.prefix_token_id]
        longest = self._loaded.context_length
        return tokens if longest is None else tokens[-max(1, longest - max_tokens) :]

    def _stop_at(self, ends: Sequence[str], prompt_tokens: int) -> list[LogitsProcessor]:
        """Has the model end its answer once one of some texts stands in it: what follows is cut off anyway."""
        if not ends or not self._loaded.stop_tokens:
            return []
        stop, tokenizer = min(self._loaded.stop_tokens), self.tokenizer
        tail = max(map(len, ends)) + 8  # tokens in which a text that has just been written lies

        def end(tokens: mx.array, logits: mx.array) -> mx.array:
            made = np.array(tokens[prompt_tokens:]).tolist()[-tail:]
            text = tokenizer.decode(made) if made else ""
            if not any(each in text for each in ends):
                return logits
            return mx.where(mx.arange(logits.shape[-1]) == stop, mx.array(0.0, logits.dtype), -mx.inf)[None]

        return [end]


def _of_tokens(logits: mx.array, tokens: Sequence[int]) -> tuple[float, bool]:
    """The log-probability of tokens, each by its own row of logits, and whether each is the likeliest of its row."""
    if not tokens:
        return 0.0, True
    rows, wanted = logits.astype(mx.float32), mx.array(list(tokens))
    scores = mx.take_along_axis(rows, wanted[:, None], axis=-1)[:, 0] - mx.logsumexp(rows, axis=-1)
    return float(scores.sum()), bool(mx.all(mx.argmax(rows, axis=-1) == wanted).item())


def _ends(options: Mapping[str, Any]) -> list[str]:
    until = options.get("until") or []
    return [each for each in ([until] if isinstance(until, str) else until) if each]


def _before(text: str, ends: Sequence[str]) -> str:
    return text[: min((place for each in ends if (place := text.find(each)) >= 0), default=len(text))]
