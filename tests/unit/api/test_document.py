"""The OpenAPI document says what the server does."""

import re
from typing import Any, cast

import pytest
from fastapi import FastAPI

from tunery.api.app import create_app
from tunery.api.context import Context


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    # The document depends on no part behind the edge.
    app = cast(Any, create_app(cast(Context, None)))._app._app
    assert isinstance(app, FastAPI)
    assert app.openapi() is app.openapi()
    return app.openapi()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    named = set(re.findall(r"'\$ref': '([^']*)'", str(document)))
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert named <= known
    assert "'$defs'" not in str(document)


def test_each_operation_has_a_name_of_its_own_that_stays(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(names)) == len(names)
    assert operations(document)["POST /v1/chat/completions"]["operationId"] == "chat_create"


def test_errors_are_the_envelope_and_never_the_frameworks_own(document: dict[str, Any]) -> None:
    for label, operation in operations(document).items():
        assert "422" not in operation["responses"]
        if label.split()[1].startswith("/v1/"):
            for status in ("400", "401", "403", "404", "409", "413", "429", "503"):
                content = operation["responses"][status]["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}
            assert operation["security"] == [{"HTTPBearer": []}]
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


def test_bodies_and_answers_that_are_not_json_are_there(document: dict[str, Any]) -> None:
    known = operations(document)
    upload = known["POST /v1/files"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert upload["required"] == ["file", "purpose"]
    assert set(upload["properties"]) == {
        "file",
        "purpose",
        "expires_after[anchor]",
        "expires_after[seconds]",
    }
    part = known["POST /v1/uploads/{upload_id}/parts"]["requestBody"]["content"]
    assert part["multipart/form-data"]["schema"]["required"] == ["data"]
    content = known["GET /v1/files/{file_id}/content"]["responses"]["200"]["content"]
    assert list(content) == ["application/octet-stream"]
    chat = known["POST /v1/chat/completions"]["responses"]["200"]["content"]
    assert set(chat) == {"application/json", "text/event-stream"}
