"""POST /v1/files/{id}/check on a running server: the report, for its owner alone."""

from typing import Any

import httpx2
import pytest
from openai import OpenAI

from support.preparing import chat, chats, json_lines
from support.server import BASE, Server

FILES = "/v1/files"


@pytest.fixture(scope="module")
def http(server: Server) -> httpx2.Client:
    return server.http()


def uploaded(client: OpenAI, lines: list[Any], purpose: Any = "fine-tune") -> str:
    return client.files.create(file=("a.jsonl", json_lines(lines)), purpose=purpose).id


def test_a_file_is_told_what_is_in_it(http: httpx2.Client, client: OpenAI) -> None:
    first = uploaded(client, [*chats(20), chats(20)[2], chat("Empty?", "")])
    second = uploaded(client, [chats(20)[4]])
    body = {"model": BASE, "validation_file": second}
    response = http.post(f"{FILES}/{first}/check", json=body)
    assert response.status_code == 200, response.text
    report = response.json()
    assert report["object"] == "file.check"
    assert [(one["id"], one["role"], one["lines"], one["fit"]) for one in report["files"]] == [
        (first, "training", 22, 21),
        (second, "validation", 1, 1),
    ]
    found = {one["kind"]: one for one in report["findings"]}
    assert found["empty_answer"]["severity"] == "necessary"
    assert found["duplicate_lines"]["places"] == [
        {"file": "training", "line": 21, "detail": "like line 3"}
    ]
    assert found["leaked_lines"]["places"][0]["file"] == "validation"
    assert report["sides"][0]["examples"] == 21
    assert report["sides"][0]["tokens"] > report["sides"][0]["learned_tokens"] > 0
    assert report["estimate"]["billed_tokens"] == (
        report["sides"][0]["tokens"] * report["estimate"]["epochs"]
    )
    without = http.post(f"{FILES}/{first}/check", json={}).json()
    assert (without["model"], without["estimate"]) == (None, None)
    assert without["sides"][0]["tokens"] is None


def test_files_of_other_projects_and_other_purposes_are_not_looked_at(
    server: Server, http: httpx2.Client, client: OpenAI
) -> None:
    mine = uploaded(client, chats(10))
    _, secret = server.new_key("--new-project", "another that checks files")
    other = server.http(secret)
    unknown = other.post(f"{FILES}/file-x/check", json={})
    foreign = other.post(f"{FILES}/{mine}/check", json={})
    assert unknown.status_code == foreign.status_code == 404
    assert (
        foreign.json()["error"]["message"].replace(mine, "file-x")
        == (unknown.json()["error"]["message"])
    )
    own = other.post(FILES, data={"purpose": "fine-tune"},
                     files={"file": ("a.jsonl", json_lines(chats(10)))}).json()["id"]  # fmt: skip
    leak = other.post(f"{FILES}/{own}/check", json={"validation_file": mine})
    assert leak.status_code == 404
    text = uploaded(client, chats(1), "user_data")
    refused = http.post(f"{FILES}/{text}/check", json={})
    assert refused.status_code == 400
    assert "only files of purpose 'fine-tune'" in refused.json()["error"]["message"]
    nobody = http.post(f"{FILES}/{mine}/check", json={"model": "nobody"})
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (404, "model_not_found")
