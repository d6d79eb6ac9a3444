"""What a server's own settings make of a job's creation."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.rows import a_file
from tunery.domain.tenants import KeyKind
from tunery.services.accounts import create_first_account, create_key
from tunery.services.models import ModelDirectory
from tunery.settings import Settings, WandbSettings
from tunery.storage.database import Database
from tunery.storage.migrate import migrate
from tunery.wiring.api import build_api
from tunery.wiring.storage import load_pepper, open_database

INTEGRATIONS = [{"type": "wandb", "wandb": {"project": "p"}}]


def created(settings: Settings, body: dict[str, Any]) -> httpx2.Response:
    """Return the answer of a new server with one file, `file-1`, to a job's creation."""
    database: Database = open_database(settings)
    migrate(database)
    pepper = load_pepper(settings)
    assert create_first_account(database, pepper, "Acme") is not None
    key = create_key(database, pepper, KeyKind.PROJECT, "test", None)
    with database.write() as tx:
        tx.files(key.key.tenant).add(a_file())
    database.close()

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(build_api(settings))
        async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.post(
                "/v1/fine_tuning/jobs",
                json={"model": "gpt-tiny", "training_file": "file-1", **body},
                headers={"authorization": f"Bearer {key.secret}"},
            )

    return asyncio.run(ask())


@pytest.mark.parametrize("integrations", [INTEGRATIONS, [], None])
@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_integrations_are_refused_by_name_where_the_operator_switched_them_off(
    tmp_path: Path, directory: ModelDirectory, mode: Any, integrations: Any
) -> None:
    del directory  # makes the catalogue
    settings = Settings(
        data=tmp_path / "data",
        models=tmp_path / "catalogue",
        base="tiny",
        wandb=WandbSettings(mode=mode),
    )
    answer = created(settings, {"integrations": integrations})
    if mode == "disabled" and integrations:
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert (error["param"], error["code"]) == ("integrations", "unsupported_parameter")
        assert "switched them off" in error["message"]
    else:
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["integrations"]) == len(integrations or [])
