"""vLLM's completions on the wire: a generation as a request's fields, and events as answers.

Prompts go out as token ids and answers come back as token ids: text is made here, by the tokenizer
that training used. Every field that changes sampling is sent, since vLLM would else take its value
from the model's own generation config. Knows no HTTP.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from tunery.datasets.text import TextStream
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.errors import InvalidRequest, TuneryError, Unavailable
from tunery.domain.ports.engine import Delta, Generation, TokenLogprob

_LOWEST = -9999.0  # stands for every lower log-probability, at vLLM too
_MAX_BIASES, _MAX_STOPS, _MAX_TOP = 1024, 16, 20
_LLGUIDANCE = "%llguidance {}\n"  # no other library reads a grammar that begins so


def check(generation: Generation) -> None:
    """Raise what cannot be asked of vLLM: every number is checked before it goes out."""
    most = float("inf")
    numbers = [
        ("max_tokens", generation.max_tokens, 1, most),
        ("temperature", generation.temperature, 0, 2),
        ("top_p", generation.top_p, 0, 1),
        ("presence_penalty", generation.presence_penalty, -2, 2),
        ("frequency_penalty", generation.frequency_penalty, -2, 2),
        ("top_logprobs", generation.top_logprobs or 0, 0, _MAX_TOP),
        ("seed", generation.seed or 0, -(2**63), 2**63 - 1),
        ("count of stop strings", len(generation.stop), 0, _MAX_STOPS),
        ("count of logit biases", len(generation.logit_bias), 0, _MAX_BIASES),
        ("count of prompt tokens", len(generation.prompt_ids), 1, most),
        *(("prompt token", token, 0, most) for token in generation.prompt_ids),
        *(("logit bias's token", token, 0, most) for token, _ in generation.logit_bias),
        *(("logit bias", bias, -100, 100) for _, bias in generation.logit_bias),
    ]
    for name, value, low, high in numbers:
        if not low <= value <= high:  # nor is a NaN
            raise TuneryError(
                f"The engine refused: got {name} {value}; needed {low} to {high}.",
                code="engine_error",
            )
    if len(dict(generation.logit_bias)) < len(generation.logit_bias):
        raise TuneryError(
            "The engine refused: got a logit bias twice for one token; send each id once.",
            code="engine_error",
        )
    changed = generation.logit_bias or generation.presence_penalty or generation.frequency_penalty
    if changed and generation.top_logprobs is not None:
        raise InvalidRequest(
            "Log-probabilities together with logit_bias, presence_penalty or frequency_penalty are"
            " not supported where vLLM answers: it tells of those before bias and penalties. Leave"
            " out the ones or the others.",
            param="logprobs",
            code="unsupported_parameter",
        )


def completion(
    generation: Generation, model: str, eos_ids: frozenset[int], salt: str
) -> dict[str, Any]:
    """Return the fields of a streamed completion."""
    greedy = generation.temperature == 0 or generation.top_p == 0  # vLLM takes no top_p of 0
    fields: dict[str, Any] = {
        **_common(model, salt),
        "prompt": list(generation.prompt_ids),
        "max_tokens": generation.max_tokens,
        "temperature": 0.0 if greedy else generation.temperature,
        "top_p": 1.0 if greedy else generation.top_p,
        "presence_penalty": generation.presence_penalty,
        "frequency_penalty": generation.frequency_penalty,
        "stop": list(generation.stop),
        "stop_token_ids": sorted(eos_ids),
        "stream": True,
        "return_token_ids": True,
    }
    if generation.seed is not None:
        fields["seed"] = generation.seed
    if generation.logit_bias:
        fields["logit_bias"] = {str(token): bias for token, bias in generation.logit_bias}
    if generation.top_logprobs is not None:
        fields["logprobs"] = generation.top_logprobs
        fields["return_tokens_as_token_ids"] = True
    if generation.grammar is not None:
        begins = generation.grammar.startswith("%llguidance")
        grammar = generation.grammar if begins else _LLGUIDANCE + generation.grammar
        fields["structured_outputs"] = {"grammar": grammar}
    return fields


def scoring(token_ids: Sequence[Sequence[int]], model: str, salt: str, top: int) -> dict[str, Any]:
    """Return the fields of a request for how likely the tokens of texts are.

    vLLM makes a token more for each: it takes no request for none.
    """
    return {
        **_common(model, salt),
        "prompt": [list(ids) for ids in token_ids],
        "max_tokens": 1,
        "temperature": 0.0,
        "top_p": 1.0,
        "stream": False,
        "prompt_logprobs": top,
    }


def _common(model: str, salt: str) -> dict[str, Any]:
    """Return what every request says, with sampling that nothing but its own fields changes."""
    return {
        "model": model,
        "n": 1,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "cache_salt": salt,
    }


def likelihoods(
    answer: Mapping[str, Any], token_ids: Sequence[Sequence[int]]
) -> list[list[dict[int, float]]]:
    """Return, for each text and each of its tokens but the first, (token, log p) told of there."""
    choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
    found = [[_by_id(place) for place in choice["prompt_logprobs"][1:]] for choice in choices]
    if [len(one) for one in found] != [len(ids) - 1 for ids in token_ids]:
        raise Unavailable("vLLM told of other texts than it was asked for.", code="engine_error")
    return found


def _by_id(place: Mapping[str, Mapping[str, float]]) -> dict[int, float]:
    return {int(token): max(_LOWEST, told["logprob"]) for token, told in place.items()}


def token_logprob(
    tokenizer: TextTokenizer, token: int, told: Mapping[int, float], count: int
) -> TokenLogprob:
    """Return what is told of a token, with `count` of the likeliest ones.

    Among equally likely ones the token itself comes first.
    """
    spell, data = tokenizer.token_id_text, tokenizer.token_id_bytes
    ranked = sorted(told.items(), key=lambda pair: (-pair[1], pair[0] != token, pair[0]))[:count]
    top = tuple((spell(other), data(other), value) for other, value in ranked)
    return TokenLogprob(spell(token), data(token), told[token], top)


class AnswerStream:
    """Turns the events of one completion into the pieces of an answer."""

    def __init__(self, tokenizer: TextTokenizer, generation: Generation) -> None:
        self._tokenizer = tokenizer
        self._top = generation.top_logprobs
        self._text = TextStream(tokenizer, generation.stop)
        self._count = 0
        self._untold: deque[TokenLogprob] = deque()
        self._told = 0

    def read(self, event: Mapping[str, Any]) -> Delta | None:
        """Return what the event adds; None for nothing. Its reason says that the answer ended."""
        if not event.get("choices"):
            return None
        choice = event["choices"][0]
        tokens, reason = choice.get("token_ids") or (), choice.get("finish_reason")
        if self._top is not None and tokens:
            self._untold += self._logprobs(tokens, choice["logprobs"])
        text = ""
        for token in tokens:
            self._count += 1
            if token in self._tokenizer.eos_ids:
                return Delta(text + self._text.close(), self._count, "stop", self._due())
            text += self._text.add(token)
            if self._text.stopped:
                return Delta(text, self._count, "stop", self._due())
        if reason is None:
            return Delta(text, self._count, None, self._due()) if tokens else None
        if reason not in ("stop", "length"):
            raise Unavailable(f"vLLM ended the answer: {reason}.", code="engine_error")
        text += self._text.close()
        ended = reason == "stop" or self._text.stopped
        return Delta(text, self._count, "stop" if ended else "length", self._due())

    def _logprobs(self, tokens: Sequence[int], told: Mapping[str, Any]) -> list[TokenLogprob]:
        found = []
        places = zip(tokens, told["token_logprobs"], told["top_logprobs"], strict=True)
        for token, logprob, others in places:
            here = {int(name.removeprefix("token_id:")): value for name, value in others.items()}
            here[token] = max(_LOWEST, logprob)
            found.append(token_logprob(self._tokenizer, token, here, self._top or 0))
        return found

    def _due(self) -> tuple[TokenLogprob, ...]:
        """Return what is to be told of the tokens whose text is given out."""
        due = self._text.delivered - self._told if self._untold else 0
        self._told += due
        return tuple(self._untold.popleft() for _ in range(due))
