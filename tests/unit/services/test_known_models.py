"""Models that are remembered for a moment: each tenant's own, and gone in time."""

import pytest

from support.rows import OURS, THEIRS, a_model
from tunery.services.known_models import KNOWN_S, KnownModels
from tunery.services.models import ModelDirectory
from tunery.storage.database import Database


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_what_another_process_deletes_is_gone_once_it_is_no_longer_remembered(
    database: Database, directory: ModelDirectory
) -> None:
    clock = Clock()
    models = KnownModels(database, directory, clock)
    tuned = a_model(base_digest=directory.base().digest)
    assert models.find(OURS, tuned.name) is None
    with database.write() as tx:
        tx.models(OURS).add(tuned)
    found = models.find(OURS, tuned.name)  # that it was not there is not remembered
    assert found is not None
    assert (found.tuned, found.base) == (tuned, directory.base())
    assert models.find(THEIRS, tuned.name) is None
    assert models.known(THEIRS, tuned.name) is None
    with database.write() as tx:
        tx.models(OURS).delete(tuned.name)
    clock.now += KNOWN_S * 0.99
    assert models.find(OURS, tuned.name) == found
    clock.now += KNOWN_S * 0.02
    assert models.known(OURS, tuned.name) is None
    assert models.find(OURS, tuned.name) is None


def test_what_is_deleted_here_is_gone_at_once(
    database: Database, directory: ModelDirectory
) -> None:
    models = KnownModels(database, directory)
    tuned = a_model(base_digest=directory.base().digest)
    with database.write() as tx:
        tx.models(OURS).add(tuned)
    assert models.find(OURS, tuned.name) is not None
    with database.write() as tx:
        tx.models(OURS).delete(tuned.name)
    models.forget()
    assert models.find(OURS, tuned.name) is None


def test_a_look_up_that_a_deletion_overtakes_is_not_remembered(
    database: Database, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = KnownModels(database, directory)
    look_up = ModelDirectory.find

    def overtaken(*args: object) -> object:
        found = look_up(*args)  # type: ignore[arg-type]
        models.forget()
        return found

    monkeypatch.setattr(ModelDirectory, "find", overtaken)
    assert models.find(OURS, "tiny") is not None
    assert models.known(OURS, "tiny") is None
