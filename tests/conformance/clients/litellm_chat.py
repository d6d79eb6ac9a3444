"""LiteLLM: argument a model that answers "yes" to "ask 001"."""

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch a table of prices

import litellm
import openai

QUESTION = [{"role": "user", "content": "ask 001"}]


def ask(model: str, **settings: Any) -> Any:
    """Ask as LiteLLM's users do for a server that speaks OpenAI's API."""
    values: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "num_retries": 0, **settings}
    return litellm.completion(
        model=f"openai/{model}",
        messages=QUESTION,
        api_base=os.environ["OPENAI_BASE_URL"],
        **values,
    )


def main(model: str) -> dict[str, Any]:
    """Ask whole, streamed, and fail."""
    whole = ask(model)
    pieces = list(ask(model, stream=True))
    errors = {}
    calls: dict[str, Callable[[], Any]] = {
        "key": lambda: ask(model, api_key="sk-nobody"),
        "model": lambda: ask("nobody"),
        "value": lambda: ask(model, temperature=5),
    }
    for name, call in calls.items():
        try:
            call()
        except openai.APIStatusError as error:  # LiteLLM's errors are the SDK's too
            errors[name] = [type(error).__name__, error.status_code]
    return {
        "whole": [whole.choices[0].message.content, whole.choices[0].finish_reason],
        "tokens": [whole.usage.total_tokens],
        "streamed": "".join(piece.choices[0].delta.content or "" for piece in pieces),
        "errors": errors,
    }


if __name__ == "__main__":
    json.dump({"version": version("litellm"), "found": main(sys.argv[1])}, sys.stdout)
