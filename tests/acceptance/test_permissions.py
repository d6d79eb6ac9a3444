"""A tuned model is shared with another project of its organization, with the real SDK."""

from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from support.server import Server, Tuned, ask, upload
from support.server import chat_lines as lines

HI: Any = [{"role": "user", "content": "hi"}]


def path(model: str, permission: str = "") -> str:
    return f"/v1/fine_tuning/checkpoints/{model}/permissions{permission}"


@pytest.fixture(scope="module")
def admin(server: Server) -> OpenAI:
    """Return a client with an admin key: the SDK sends its `api_key` here, not `admin_api_key`."""
    return server.client(server.env["OPENAI_ADMIN_KEY"])


@pytest.fixture
def friend(server: Server) -> tuple[str, OpenAI]:
    project = server.new_project("friend")
    return project, server.client(server.new_key("--project", project)[1])


def test_a_shared_model_answers_until_it_is_taken_back(
    admin: OpenAI, client: OpenAI, tuned: Tuned, friend: tuple[str, OpenAI]
) -> None:
    project, theirs = friend
    permissions = admin.fine_tuning.checkpoints.permissions
    with pytest.raises(openai.NotFoundError):
        ask(theirs, tuned.model)
    created = permissions.create(tuned.model, project_ids=[project])
    (permission,) = created.data
    assert (permission.object, permission.project_id) == ("checkpoint.permission", project)
    assert permission.id.startswith("cp_")
    assert created.object == "list"

    assert ask(theirs, tuned.model) == ask(client, tuned.model)
    model = theirs.models.retrieve(tuned.model)
    assert (model.id, model.owned_by) == (tuned.model, client.models.retrieve(tuned.model).owned_by)
    assert tuned.model in [one.id for one in theirs.models.list()]
    assert model.model_dump()["tunery"]["job_id"] is None
    with pytest.raises(openai.PermissionDeniedError):
        theirs.models.delete(tuned.model)
    training = upload(theirs, lines(12))
    with pytest.raises(openai.BadRequestError, match="belongs to another project"):
        theirs.fine_tuning.jobs.create(model=tuned.model, training_file=training.id)

    deleted = permissions.delete(permission.id, fine_tuned_model_checkpoint=tuned.model)
    assert (deleted.id, deleted.deleted, deleted.object) == (
        permission.id,
        True,
        "checkpoint.permission",
    )
    with pytest.raises(openai.NotFoundError):
        ask(theirs, tuned.model)
    assert tuned.model not in [one.id for one in theirs.models.list()]
    assert client.models.retrieve(tuned.model).id == tuned.model


def test_permissions_are_listed_in_pages(server: Server, admin: OpenAI, tuned: Tuned) -> None:
    checkpoint = admin_checkpoint(server, tuned)
    permissions = admin.fine_tuning.checkpoints.permissions
    projects = [server.new_project(f"listed {n}") for n in range(3)]
    made = [one.id for one in permissions.create(checkpoint, project_ids=projects).data]
    assert [one.id for one in permissions.list(checkpoint)] == made[::-1]
    assert [one.id for one in permissions.list(checkpoint, order="ascending", limit=1)] == made
    page = permissions.list(checkpoint, limit=2)
    assert ([one.id for one in page.data], page.has_more) == (made[::-1][:2], True)
    (only,) = permissions.list(checkpoint, project_id=projects[1])
    assert only.id == made[1]
    with pytest.warns(DeprecationWarning, match="Retrieve is deprecated"):
        old = permissions.retrieve(checkpoint, limit=2)
    assert (old.first_id, old.last_id, old.has_more) == (made[2], made[1], True)
    for bad in ({"order": "asc"}, {"limit": "0"}, {"limit": "101"}, {"colour": "blue"}):
        answer = server.http(server.env["OPENAI_ADMIN_KEY"]).get(path(checkpoint), params=bad)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == next(iter(bad))


def admin_checkpoint(server: Server, tuned: Tuned) -> str:
    """Return the name of an earlier checkpoint, which holds `:ckpt-step-`."""
    checkpoints = server.client().fine_tuning.jobs.checkpoints.list(tuned.job.id).data
    name = checkpoints[-1].fine_tuned_model_checkpoint
    assert ":ckpt-step-" in name
    return name


def test_a_project_key_administers_nothing(client: OpenAI, tuned: Tuned) -> None:
    permissions = client.fine_tuning.checkpoints.permissions
    for act in (
        lambda: permissions.list(tuned.model),
        lambda: permissions.create(tuned.model, project_ids=["proj_x"]),
        lambda: permissions.delete("cp_x", fine_tuned_model_checkpoint=tuned.model),
    ):
        with pytest.raises(openai.PermissionDeniedError, match="needs an admin key") as refused:
            act()
        assert refused.value.code == "insufficient_permissions"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "project_ids"),
        ({"project_ids": []}, "project_ids"),
        ({"project_ids": "proj_x"}, "project_ids"),
        ({"project_ids": [""]}, "project_ids.0"),
        ({"project_ids": ["proj_x"]}, "project_ids"),
        ({"project_ids": ["proj_x"], "colour": "blue"}, "colour"),
    ],
)
def test_a_grant_that_cannot_be_is_refused_by_the_field(
    server: Server, tuned: Tuned, body: dict[str, Any], param: str
) -> None:
    http = server.http(server.env["OPENAI_ADMIN_KEY"])
    answer = http.post(path(tuned.model), json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_another_organization_neither_shares_nor_is_shared_with(
    server: Server, tuned: Tuned, friend: tuple[str, OpenAI]
) -> None:
    foreign = server.new_project("foreign", "--organization", "Umbrella")
    secret = server.new_key("--kind", "admin", "--project", foreign)[1]
    ours, theirs = server.http(server.env["OPENAI_ADMIN_KEY"]), server.http(secret)
    unknown_project, unknown_model = "proj_" + "0" * 24, "ft:gpt-3.5-turbo:personal::00000000"

    def grant(http: httpx2.Client, model: str, project: str) -> tuple[int, str]:
        answer = http.post(path(model), json={"project_ids": [friend[0], project]})
        return answer.status_code, answer.text.replace(project, "<p>").replace(model, "<m>")

    assert grant(ours, tuned.model, foreign) == grant(ours, tuned.model, unknown_project)
    assert grant(ours, tuned.model, foreign)[0] == 400
    assert grant(theirs, tuned.model, foreign) == grant(theirs, unknown_model, foreign)
    acts: tuple[Callable[[str], httpx2.Response], ...] = (
        lambda model: theirs.get(path(model)),
        lambda model: theirs.delete(path(model, "/cp_x")),
    )
    for act in acts:
        known, unknown = act(tuned.model), act(unknown_model)
        assert known.status_code == unknown.status_code == 404
        assert known.text.replace(tuned.model, "") == unknown.text.replace(unknown_model, "")
    with pytest.raises(openai.NotFoundError):
        friend[1].chat.completions.create(model=tuned.model, messages=HI, max_tokens=1)


def test_a_grant_sent_again_under_its_key_is_the_first_one(
    server: Server, tuned: Tuned, friend: tuple[str, OpenAI]
) -> None:
    http = server.http(server.env["OPENAI_ADMIN_KEY"])

    def grant(*projects: str) -> httpx2.Response:
        return http.post(
            path(tuned.model),
            json={"project_ids": projects},
            headers={"idempotency-key": f"grant {friend[0]}"},
        )

    first = grant(friend[0]).json()
    assert grant(friend[0]).json() == first
    assert grant(friend[0], "proj_x").status_code == 409
    http.delete(path(tuned.model, f"/{first['data'][0]['id']}"))
