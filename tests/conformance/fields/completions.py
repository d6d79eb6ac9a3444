"""/completions: a text is gone on from."""

from openai.types.completion_create_params import CompletionCreateParamsNonStreaming

from conformance.fields.chat import LEDGER, completion_tokens
from conformance.fields.probe import Answer, Endpoint, Honoured, Refused

# The base model at a high temperature: every setting of the sampling changes the text.
LOOSE = {"temperature": 2, "seed": 1}


def text(answer: Answer) -> str:
    """Return a whole answer's first text."""
    return str(answer.value["choices"][0]["text"])


def other_text(sent: Answer, other: Answer) -> bool:
    """Whether two answers have other texts."""
    return text(sent) != text(other)


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/completions",
        params=CompletionCreateParamsNonStreaming,
        base={"model": "{base_model}", "prompt": "ask 001", "temperature": 0, "max_tokens": 16},
        fields={
            "model": Honoured(
                value="{model}",
                other="{base_model}",
                shows=other_text,
                wrong=("", 5),
                values="the base model under its names, a tuned model, a checkpoint",
            ),
            "prompt": Honoured(
                value=["ask 002", "ask 001"],
                other="ask 001",
                beside={"echo": True},
                shows=lambda sent, other: (
                    text(sent).startswith("ask 002")
                    and sent.value["choices"][1]["text"] == text(other)
                ),
                wrong=([], 5, [-1], [[]]),
                values="a text, token ids, or up to 2048 of either; null is an empty text",
            ),
            "max_tokens": Honoured(
                value=1,
                other=8,
                shows=completion_tokens(1),
                wrong=(-1, "9"),
                values="1 or more; 0 with `echo`; 16 unless given",
            ),
            "temperature": Honoured(
                value=2, other=0, beside=LOOSE, shows=other_text, wrong=(-1, 2.1), values="0 to 2"
            ),
            "top_p": Honoured(
                value=0, other=1, beside=LOOSE, shows=other_text, wrong=(-1, 1.1), values="0 to 1"
            ),
            "seed": Honoured(
                value=2, other=3, beside=LOOSE, shows=other_text, wrong=("x", 1.5), values="64 bits"
            ),
            "n": Honoured(
                value=2,
                shows=lambda sent, other: (
                    (len(sent.value["choices"]), len(other.value["choices"])) == (2, 1)
                ),
                wrong=(0, 129, "2"),
                values="1 to 128",
            ),
            "best_of": Honoured(
                value=3,
                beside=LOOSE,
                shows=lambda sent, other: (
                    len(sent.value["choices"]) == 1
                    and sent.value["usage"]["completion_tokens"]
                    > other.value["usage"]["completion_tokens"]
                ),
                wrong=(0, 21, "2"),
                values="`n` to 20; not with `stream`, unless it is `n`",
            ),
            "echo": Honoured(
                value=True,
                shows=lambda sent, other: text(sent) == "ask 001" + text(other),
                wrong=("yes", 1),
                values="true, false",
            ),
            "logprobs": Honoured(
                value=2,
                shows=lambda sent, other: (
                    len(sent.value["choices"][0]["logprobs"]["tokens"])
                    == sent.value["usage"]["completion_tokens"]
                    and other.value["choices"][0]["logprobs"] is None
                ),
                wrong=(-1, 6, "2", True),
                values="0 to 5",
            ),
            **{
                f"{name}_penalty": Honoured(
                    value=2,
                    other=0,
                    beside={"max_tokens": 32},
                    shows=other_text,
                    wrong=(-2.1, 2.1, "much"),
                    values="-2 to 2",
                )
                for name in ("presence", "frequency")
            },
            "logit_bias": Honoured(
                value={"5": 100},
                shows=other_text,
                wrong=({"x": 1}, {"5": 101}, {"999999": 1}, []),
                values="-100 to 100 for each of up to 1024 token ids",
            ),
            "stop": Honoured(
                value=["&"],
                beside={"logit_bias": {"5": 100}},  # of this tokenizer's: &
                shows=lambda sent, other: (text(sent), text(other)) == ("", "&" * 16),
                wrong=("", [""], ["a"] * 5, 5),
                values="up to four",
            ),
            "stream": Honoured(
                value=True,
                other=False,
                shows=lambda sent, other: (
                    (sent.content_type, other.content_type)
                    == ("text/event-stream", "application/json")
                ),
                wrong=("yes", 1),
                values="true, false",
            ),
            "stream_options.include_usage": Honoured(
                value=True,
                other=False,
                beside={"stream": True},
                shows=lambda sent, other: '"usage"' in sent.text and '"usage"' not in other.text,
                wrong=("yes",),
                values="true, false",
            ),
            "stream_options.include_obfuscation": Refused(
                value=True, neutral=(False,), beside={"stream": True}
            ),
            "suffix": Refused(value="the end", neutral=("", None)),
            "user": Honoured(value="ann", proof=LEDGER, wrong=(5, "x" * 513), values="512"),
        },
    ),
)
