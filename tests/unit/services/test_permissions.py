"""A model is shared with a project of the same organization, and with no other."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from support.databases import opened
from support.racing import Waiting
from support.rows import a_model
from tunery.domain.errors import Conflict, Forbidden, InvalidRequest, NotFound
from tunery.domain.jobs import Adapter, RequestedHyperparameters
from tunery.domain.once import OnceKey
from tunery.domain.permissions import CheckpointPermission
from tunery.domain.tenants import Administrator, Tenant
from tunery.services import accounts, jobs, models, permissions
from tunery.services.models import ModelDirectory
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database
from tunery.storage.repositories.paging import Order

NAME = "ft:tiny:acme::aaaaaaaa"


@dataclasses.dataclass(frozen=True)
class House:
    """An organization of three projects, the first with a model, and a foreign one."""

    database: Database
    directory: ModelDirectory
    blobs: LocalBlobStore
    admin: Administrator
    owner: Tenant
    friend: Tenant
    third: Tenant
    foreign: Tenant
    foreign_admin: Administrator

    def add_model(self, tenant: Tenant, name: str = NAME, **changes: Any) -> None:
        adapter = Adapter(f"{tenant.project_id}/jobs/ftjob-1/a", "9" * 64)
        digest = self.directory.base().digest
        model = a_model(name, **{"base_digest": digest, "adapter": adapter, **changes})
        self.blobs.put(f"{adapter.key}/adapter_model.safetensors", b"weights")
        with self.database.write() as tx:
            tx.models(tenant).add(model)

    def grant(
        self, *projects: Tenant, name: str = NAME, **options: Any
    ) -> Sequence[CheckpointPermission]:
        ids = [tenant.project_id for tenant in projects]
        return permissions.grant(self.database, self.admin, name, ids, **options)

    def uses(self, tenant: Tenant, name: str = NAME) -> models.NamedModel | None:
        """Return what stands behind the name for this project, in lists as in requests."""
        with self.database.read() as tx:
            found = self.directory.find(tx, tenant, name)
        listed = models.list_models(self.database, self.directory, tenant)
        assert [one for one in listed if one.name == name] == ([] if found is None else [found])
        return found

    def page(
        self,
        *,
        project_id: str | None = None,
        after: str | None = None,
        limit: int = 10,
        order: Order = "desc",
    ) -> Any:
        return permissions.list_permissions(
            self.database,
            self.admin,
            NAME,
            project_id=project_id,
            after=after,
            limit=limit,
            order=order,
        )


@pytest.fixture
def house(database: Database, directory: ModelDirectory, blobs: LocalBlobStore) -> House:
    owner, friend, third = (accounts.create_project(database, "Acme", n) for n in "abc")
    foreign = accounts.create_project(database, "Umbrella", "a")
    made = House(
        database,
        directory,
        blobs,
        Administrator(owner.organization_id, "key_1"),
        owner,
        friend,
        third,
        foreign,
        Administrator(foreign.organization_id, "key_2"),
    )
    made.add_model(owner)
    return made


def refusal(call: Callable[[], Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        call()
    return refused.value


def test_a_granted_model_answers_in_that_project_and_is_listed_there(house: House) -> None:
    assert house.uses(house.friend) is None
    (permission,) = house.grant(house.friend)
    assert permission.id.startswith("cp_")
    assert (permission.project_id, permission.owner_project_id) == (
        house.friend.project_id,
        house.owner.project_id,
    )
    found, own = house.uses(house.friend), house.uses(house.owner)
    assert found is not None
    assert own is not None
    assert (found.tuned, found.granted, own.granted) == (own.tuned, True, False)
    for other in (house.third, house.foreign):
        assert house.uses(other) is None


def test_a_permission_taken_back_ends_at_once(house: House) -> None:
    (permission,) = house.grant(house.friend)
    permissions.revoke(house.database, house.admin, NAME, permission.id)
    assert house.uses(house.friend) is None
    assert house.uses(house.owner) is not None
    with pytest.raises(NotFound):
        permissions.revoke(house.database, house.admin, NAME, permission.id)


def test_a_projects_own_model_of_the_name_wins(house: House) -> None:
    house.grant(house.friend)
    house.add_model(house.friend)
    found = house.uses(house.friend)
    assert found is not None
    assert found.tuned is not None
    assert found.tuned.adapter.key.startswith(house.friend.project_id)
    assert not found.granted
    models.delete_model(house.database, house.blobs, house.directory, house.friend, NAME)
    found = house.uses(house.friend)  # and behind it the granted one is still there
    assert found is not None
    assert found.granted


def test_only_the_owner_deletes_a_model_and_its_permissions_go_with_it(house: House) -> None:
    house.grant(house.friend, house.third)
    with pytest.raises(Forbidden):
        models.delete_model(house.database, house.blobs, house.directory, house.friend, NAME)
    assert house.uses(house.owner) is not None
    models.delete_model(house.database, house.blobs, house.directory, house.owner, NAME)
    assert house.uses(house.friend) is None
    with pytest.raises(NotFound):
        house.page()
    house.add_model(house.owner)  # a new model of the name is nobody else's
    assert house.uses(house.friend) is None
    assert house.page().items == ()


def test_a_granted_model_is_not_tuned_from(house: House) -> None:
    house.grant(house.friend)
    request = jobs.JobRequest(NAME, "file-1", None, None, None, RequestedHyperparameters(), None)
    error = refusal(lambda: jobs.create_job(house.database, house.directory, house.friend, request))
    assert (error.code, "belongs to another project" in error.message) == (
        "model_not_available",
        True,
    )


def test_a_model_of_another_base_is_granted_but_not_served(house: House) -> None:
    house.add_model(house.owner, "ft:old", base_digest="0" * 64)
    house.grant(house.friend, name="ft:old")
    assert house.uses(house.friend, "ft:old") is None


def test_granting_again_changes_nothing(house: House) -> None:
    first = house.grant(house.friend)
    both = house.grant(house.third, house.friend)
    assert [permission.project_id for permission in both] == [
        house.third.project_id,
        house.friend.project_id,
    ]
    assert both[1] == first[0]
    assert len(house.page().items) == 2


def test_a_repeat_under_a_key_grants_nothing_that_was_taken_back(house: House) -> None:
    key = OnceKey(b"k" * 32, b"r" * 32)
    (permission,) = house.grant(house.friend, once=key)
    assert house.grant(house.friend, once=key) == [permission]
    permissions.revoke(house.database, house.admin, NAME, permission.id)
    assert house.grant(house.friend, once=key) == []
    assert house.uses(house.friend) is None
    with pytest.raises(Conflict):
        house.grant(house.third, once=OnceKey(b"k" * 32, b"s" * 32))
    assert house.uses(house.third) is None


def test_projects_that_cannot_be_granted_are_refused_and_none_is(house: House) -> None:
    unknown = dataclasses.replace(house.foreign, project_id="proj_x")
    told = []
    for tenant in (house.foreign, unknown):
        error = refusal(partial(house.grant, house.friend, tenant))
        told.append((error.message.replace(tenant.project_id, "<id>"), error.param, error.code))
    assert told[0] == told[1]
    assert told[0][1:] == ("project_ids", "invalid_value")
    assert "owns the model" in refusal(lambda: house.grant(house.friend, house.owner)).message
    assert "twice" in refusal(lambda: house.grant(house.friend, house.friend)).message
    assert house.page().items == ()


def test_a_foreign_organizations_model_answers_as_an_unknown_one(house: House) -> None:
    (permission,) = house.grant(house.friend)
    db, admin, mine = house.database, house.foreign_admin, house.foreign.project_id
    acts: tuple[Callable[[str], Any], ...] = (
        lambda name: permissions.grant(db, admin, name, [mine]),
        lambda name: permissions.list_permissions(
            db, admin, name, project_id=None, after=None, limit=10, order="asc"
        ),
        lambda name: permissions.revoke(db, admin, name, permission.id),
    )
    for act in acts:
        told = []
        for name in (NAME, "ft:tiny:acme::zzzzzzzz"):
            with pytest.raises(NotFound) as refused:
                act(name)
            error = refused.value
            told.append((error.message.replace(name, "<name>"), error.param, error.code))
        assert told[0] == told[1]
    assert house.page().items == (permission,)


def test_a_name_that_two_projects_own_is_not_shared_and_what_was_can_be_taken_back(
    house: House,
) -> None:
    (permission,) = house.grant(house.third)
    house.add_model(house.friend)
    error = refusal(lambda: house.grant(house.third))
    assert error.code == "model_ambiguous"
    assert house.owner.project_id in error.message
    assert house.friend.project_id in error.message
    assert house.page().items == (permission,)
    permissions.revoke(house.database, house.admin, NAME, permission.id)
    assert house.uses(house.third) is None


def test_permissions_are_paged_filtered_and_ordered(house: House) -> None:
    projects = [house.friend, house.third]
    projects += [accounts.create_project(house.database, "Acme", str(n)) for n in range(3)]
    made = list(house.grant(*projects))
    assert house.page(limit=2).items == tuple(made[::-1][:2])
    assert house.page(limit=2).has_more
    assert house.page(limit=2, order="asc").items == tuple(made[:2])
    after = house.page(limit=9, order="asc", after=made[1].id)
    assert (after.items, after.has_more) == (tuple(made[2:]), False)
    assert house.page(project_id=house.third.project_id).items == (made[1],)
    for nobody in (house.foreign.project_id, "proj_x"):
        assert house.page(project_id=nobody).items == ()
    assert refusal(lambda: house.page(after="cp_x")).param == "after"


def test_a_permission_is_taken_back_under_its_own_model_only(house: House) -> None:
    (permission,) = house.grant(house.friend)
    house.add_model(house.owner, "ft:other")
    with pytest.raises(NotFound):
        permissions.revoke(house.database, house.admin, "ft:other", permission.id)
    assert house.page().items == (permission,)


def test_a_model_deleted_while_it_is_shared_leaves_no_permission(
    postgresql_url: str, directory: ModelDirectory, blobs: LocalBlobStore
) -> None:
    with opened(postgresql_url) as database:
        owner, friend = (accounts.create_project(database, "Acme", name) for name in "ab")
        with database.write() as tx:
            tx.models(owner).add(a_model(NAME, base_digest=directory.base().digest))
        with database.write() as tx:
            granted = tx.permissions(owner.organization_id)
            assert granted.owners(NAME, lock=True) == [owner.project_id]
            deleting = Waiting(lambda: models.delete_model(database, blobs, directory, owner, NAME))
            deleting.wait_for_lock(database)
            granted.grant(
                CheckpointPermission("cp_1", owner.project_id, NAME, friend.project_id, 0)
            )
        assert deleting.result() is None
        with database.read() as tx:
            page = tx.permissions(owner.organization_id).page(
                NAME, project_id=None, after=None, limit=9, order="asc"
            )
        assert page.items == ()
