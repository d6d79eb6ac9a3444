"""Files, models and pages of them."""

from decimal import Decimal

import pytest

from tunery.domain.files import FilePurpose, FileStatus, StoredFile
from tunery.domain.jobs import Adapter
from tunery.domain.models import BaseModel, EmbeddingModel, Prices, TunedModel
from tunery.domain.tenants import Tenant
from tunery.services.models import NamedModel
from tunery.wire.files import to_wire_file
from tunery.wire.models import to_wire_embedding_model, to_wire_model
from tunery.wire.pages import to_wire_page

ENGINE = "tunery-0.1.0"
TENANT = Tenant("org-1", "acme", "proj_1")
PRICES = Prices(*map(Decimal, ("8", "1.5", "2", "12", "16")))
BASE = BaseModel("small", ("gpt-4o-mini",), "/models/small", "d" * 64, 2048, 1e-4, PRICES, 5)


def file(number: int) -> StoredFile:
    return StoredFile(
        id=f"file-{number}",
        filename="train.jsonl",
        purpose=FilePurpose.FINE_TUNE,
        size_bytes=12,
        sha256="0" * 64,
        blob_key="secret/place",
        status=FileStatus.ERROR,
        status_details="line 1: not JSON",
        created_at=3,
    )


def test_a_file_is_written_as_openai_writes_it_and_not_where_it_lies() -> None:
    assert to_wire_file(file(1)).model_dump() == {
        "id": "file-1",
        "object": "file",
        "bytes": 12,
        "created_at": 3,
        "expires_at": None,
        "filename": "train.jsonl",
        "purpose": "fine-tune",
        "status": "error",
        "status_details": "line 1: not JSON",
    }


def test_a_base_is_the_systems_at_the_bases_prices() -> None:
    written = to_wire_model(NamedModel("gpt-4o-mini", BASE, None), TENANT, ENGINE).model_dump()
    assert (written["id"], written["created"], written["owned_by"]) == ("gpt-4o-mini", 5, "system")
    assert written["tunery"] == {
        "kind": "base",
        "base": "small",
        "base_digest": "d" * 64,
        "adapter_digest": None,
        "engine": "tunery-0.1.0",
        "system_fingerprint": "fp_dddddddddd_base_tunery-0.1.0",
        "dimensions": None,
        "context_tokens": 2048,
        "prices": {"training": 8.0, "input": 1.5, "output": 2.0},
        "job_id": None,
    }


def test_a_tuned_model_is_its_organizations_at_the_tuned_prices() -> None:
    tuned = TunedModel("ft:x", "ftjob-1", "small", "d" * 64, Adapter("key", "a" * 64), 9)
    written = to_wire_model(NamedModel("ft:x", BASE, tuned), TENANT, ENGINE).model_dump()
    assert (written["id"], written["created"], written["owned_by"]) == ("ft:x", 9, "acme")
    assert written["tunery"] == {
        "kind": "tuned",
        "base": "small",
        "base_digest": "d" * 64,
        "dimensions": None,
        "adapter_digest": "a" * 64,
        "engine": "tunery-0.1.0",
        "system_fingerprint": "fp_dddddddddd_aaaaaaaaaa_tunery-0.1.0",
        "context_tokens": 2048,
        "prices": {"training": 8.0, "input": 12.0, "output": 16.0},
        "job_id": "ftjob-1",
    }


def test_the_job_of_a_granted_model_stays_its_owners() -> None:
    tuned = TunedModel("ft:x", "ftjob-1", "small", "d" * 64, Adapter("key", "a" * 64), 9)
    written = to_wire_model(NamedModel("ft:x", BASE, tuned, granted=True), TENANT, ENGINE)
    assert (written.owned_by, written.tunery.job_id) == ("acme", None)


def test_an_embedding_model_has_a_price_of_input_alone() -> None:
    model = EmbeddingModel("mini", ("e-3",), "/m", "e" * 64, 384, 256, Decimal("0.02"), 7)
    written = to_wire_embedding_model("e-3", model, ENGINE).model_dump()
    assert (written["id"], written["created"], written["owned_by"]) == ("e-3", 7, "system")
    assert written["tunery"] == {
        "kind": "embedding",
        "base": "mini",
        "base_digest": "e" * 64,
        "adapter_digest": None,
        "engine": "tunery-0.1.0",
        "system_fingerprint": None,
        "dimensions": 384,
        "context_tokens": 256,
        "prices": {"training": None, "input": 0.02, "output": None},
        "job_id": None,
    }


@pytest.mark.parametrize(
    ("count", "first", "last"), [(0, None, None), (1, "file-1", "file-1"), (3, "file-1", "file-3")]
)
@pytest.mark.parametrize("has_more", [True, False])
def test_a_pages_cursors_are_its_first_and_last_id(
    count: int, first: str | None, last: str | None, has_more: bool
) -> None:
    items = [to_wire_file(file(number)) for number in range(1, count + 1)]
    page = to_wire_page(items, has_more)
    assert (page.object, page.first_id, page.last_id) == ("list", first, last)
    assert (page.data, page.has_more) == (items, has_more)
