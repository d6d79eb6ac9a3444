"""/fine_tuning/checkpoints: who else may use a model."""

from openai.types.fine_tuning.checkpoints import PermissionCreateParams, PermissionListParams

from conformance.fields.files import reversed_order, shorter
from conformance.fields.probe import ABSENT, Answer, Endpoint, Honoured

PATH = "/fine_tuning/checkpoints/{model}/permissions"


def projects(answer: Answer) -> list[str]:
    """Return the projects of a page of permissions."""
    return [str(one["project_id"]) for one in answer.value["data"]]


ENDPOINTS = (
    Endpoint(
        method="POST",
        path=PATH,
        params=PermissionCreateParams,
        admin=True,
        base={"project_ids": ["{project}"]},
        fields={
            "project_ids": Honoured(
                value=["{project}"],
                other=["{other_project}", "{project}"],
                shows=lambda sent, other: projects(sent) == projects(other)[1:],
                wrong=([], ["proj_x"], ["{project}", "{project}"], "{project}", None),
                values="1 to 100 other projects of the organization",
            ),
        },
    ),
    Endpoint(
        method="GET",
        path=PATH,
        params=PermissionListParams,
        encoding="query",
        admin=True,
        fields={
            "after": Honoured(
                value="{newest_permission}",
                shows=lambda sent, other: projects(sent) == projects(other)[1:],
                wrong=("cp_x",),
                values="a permission's id",
            ),
            "limit": Honoured(
                value=1, shows=shorter, wrong=(0, 101, "few"), values="1 to 100; 10 unless given"
            ),
            "order": Honoured(
                value="ascending",
                other="descending",
                shows=reversed_order,
                wrong=("asc",),
                values="`ascending`, `descending`",
            ),
            "project_id": Honoured(
                value="{project}",
                other=ABSENT,
                shows=lambda sent, other: (
                    len(set(projects(sent))) == 1 < len(projects(other))
                    and projects(sent)[0] in projects(other)
                ),
                values="a project's id",
            ),
        },
    ),
    Endpoint(method="DELETE", path="/fine_tuning/checkpoints/{model}/permissions/{permission_id}"),
)
