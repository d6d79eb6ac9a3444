"""Names to models: the base under each of its names, and each tenant's own tuned ones."""

import shutil
from pathlib import Path

import pytest

from support.rows import OURS, THEIRS, a_model
from support.tiny import make_tiny_model
from tunery.domain.errors import Forbidden, NotFound, TuneryError, Unavailable
from tunery.services import models
from tunery.services.models import ModelDirectory
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.catalogue import Catalogue
from tunery.storage.database import Database

TUNED = "ft:tiny:acme::aaaaaaaa"


def add(database: Database, blobs: LocalBlobStore, digest: str, *names: str) -> None:
    adapter = a_model().adapter
    blobs.put(f"{adapter.key}/adapter_model.safetensors", b"weights")
    with database.write() as tx:
        for name in names:
            tx.models(OURS).add(a_model(name, base_digest=digest))


def test_the_base_answers_to_each_of_its_names_for_everyone(
    database: Database, directory: ModelDirectory
) -> None:
    for tenant in (OURS, THEIRS):
        listed = models.list_models(database, directory, tenant)
        assert [(m.name, m.tuned) for m in listed] == [("tiny", None), ("gpt-tiny", None)]
        for name in ("tiny", "gpt-tiny"):
            found = models.get_model(database, directory, tenant, name)
            assert (found.name, found.base, found.tuned) == (name, directory.base(), None)


def test_a_tuned_model_is_its_owners_only(
    database: Database, directory: ModelDirectory, blobs: LocalBlobStore
) -> None:
    add(database, blobs, directory.base().digest, TUNED)
    listed = models.list_models(database, directory, OURS)
    assert [m.name for m in listed] == ["tiny", "gpt-tiny", TUNED]
    found = models.get_model(database, directory, OURS, TUNED)
    assert found.tuned == a_model(base_digest=directory.base().digest)
    assert [m.name for m in models.list_models(database, directory, THEIRS)] == [
        "tiny",
        "gpt-tiny",
    ]


@pytest.mark.parametrize("act", ["get", "delete"])
def test_another_projects_model_answers_as_an_unknown_one(
    database: Database, directory: ModelDirectory, blobs: LocalBlobStore, act: str
) -> None:
    add(database, blobs, directory.base().digest, TUNED)
    told = []
    for name in (TUNED, "ft:tiny:acme::zzzzzzzz"):
        with pytest.raises(NotFound) as refused:  # noqa: PT012 - one of two calls
            if act == "get":
                models.get_model(database, directory, THEIRS, name)
            else:
                models.delete_model(database, blobs, directory, THEIRS, name)
        error = refused.value
        told.append((error.message.replace(name, "<name>"), error.param, error.code))
    assert told[0] == told[1]
    assert told[0][2] == "model_not_found"
    assert models.get_model(database, directory, OURS, TUNED).tuned is not None
    assert list(blobs.keys("p")) != []


def test_a_model_of_another_base_is_not_served(
    database: Database, directory: ModelDirectory, blobs: LocalBlobStore
) -> None:
    add(database, blobs, "0" * 64, TUNED)
    with pytest.raises(NotFound):
        models.get_model(database, directory, OURS, TUNED)
    assert len(models.list_models(database, directory, OURS)) == 2


def test_an_adapter_is_removed_with_the_last_model_that_has_it(
    database: Database, directory: ModelDirectory, blobs: LocalBlobStore
) -> None:
    add(database, blobs, directory.base().digest, "ft:one", "ft:two")
    models.delete_model(database, blobs, directory, OURS, "ft:one")
    assert len(list(blobs.keys("p"))) == 1
    models.delete_model(database, blobs, directory, OURS, "ft:two")
    assert list(blobs.keys("p")) == []
    with pytest.raises(NotFound):
        models.delete_model(database, blobs, directory, OURS, "ft:two")


def test_a_base_is_not_deleted(
    database: Database, directory: ModelDirectory, blobs: LocalBlobStore
) -> None:
    with pytest.raises(Forbidden):
        models.delete_model(database, blobs, directory, OURS, "gpt-tiny")


def test_a_base_that_is_not_there_is_told_as_unavailable(
    database: Database, directory: ModelDirectory
) -> None:
    missing = ModelDirectory(directory.catalogue, "other")
    with pytest.raises(Unavailable) as told:
        models.list_models(database, missing, OURS)
    assert told.value.code == "model_files_missing"


def test_every_base_of_the_catalogue_answers_and_a_tuned_model_stays_with_its_own(
    database: Database, directory: ModelDirectory, blobs: LocalBlobStore, tmp_path: Path
) -> None:
    weights = make_tiny_model(tmp_path / "second", seed=1)
    second = directory.catalogue.add("second", weights, aliases=("gpt-2nd",), learning_rate=1e-3)
    assert second.digest != directory.base().digest
    add(database, blobs, second.digest, TUNED)
    listed = models.list_models(database, directory, OURS)
    assert [(one.name, one.base.name) for one in listed] == [
        ("tiny", "tiny"),
        ("gpt-tiny", "tiny"),
        ("second", "second"),
        ("gpt-2nd", "second"),
        (TUNED, "second"),
    ]
    for name in ("second", "gpt-2nd", TUNED):
        assert models.get_model(database, directory, OURS, name).base == second

    # Whatever it is called: the weights are what the model was made with.
    other = ModelDirectory(Catalogue(tmp_path / "other"), "tiny")
    other.catalogue.add("tiny", Path(directory.base().path), aliases=(), learning_rate=1e-3)
    with pytest.raises(NotFound):
        models.get_model(database, other, OURS, TUNED)
    other.catalogue.add("renamed", weights, aliases=(), learning_rate=1e-3)
    assert models.get_model(database, other, OURS, TUNED).base.name == "renamed"


def test_a_job_whose_base_has_lost_a_file_is_told_which(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    catalogue = Catalogue(tmp_path / "catalogue")
    base = catalogue.add("tiny", folder, aliases=(), learning_rate=1e-3)
    directory = ModelDirectory(catalogue, "tiny")
    assert directory.pinned("tiny", base.digest) == base
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TuneryError, match=r"tiny lacks tokenizer\.json;") as told:
        directory.pinned("tiny", base.digest)
    assert told.value.code == "model_files_missing"
