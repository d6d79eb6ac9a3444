"""ChatOpenAI of LangChain: argument a model that answers "yes" to "ask 001"."""

import json
import os
import sys
from importlib.metadata import version
from typing import Any

import openai
from langchain_openai import ChatOpenAI


def make(model: str, **settings: Any) -> ChatOpenAI:
    """Return a client as LangChain's users make it."""
    values: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "max_retries": 0, **settings}
    return ChatOpenAI(model=model, base_url=os.environ["OPENAI_BASE_URL"], **values)


def main(model: str) -> dict[str, Any]:
    """Ask whole, streamed, in a conversation, and fail."""
    chat = make(model)
    whole = chat.invoke("ask 001")
    pieces = list(chat.stream("ask 001"))
    talk = chat.invoke([("system", "Be brief."), ("user", "ask 001"), whole, ("user", "ask 001")])
    errors = {}
    for name, broken in {
        "key": make(model, api_key="sk-nobody"),
        "model": make("nobody"),
        "value": make(model, temperature=5),
    }.items():
        try:
            broken.invoke("ask 001")
        except openai.APIStatusError as error:
            errors[name] = [error.status_code, error.param, error.code]
    return {
        "whole": [whole.content, whole.response_metadata["finish_reason"]],
        "tokens": [(whole.usage_metadata or {}).get("total_tokens")],
        "streamed": "".join(str(piece.content) for piece in pieces),
        "talk": isinstance(talk.content, str),
        "errors": errors,
    }


if __name__ == "__main__":
    found = main(sys.argv[1])
    json.dump({"version": version("langchain-openai"), "found": found}, sys.stdout)
