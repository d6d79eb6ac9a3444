"""/chat/completions of stored answers."""

from openai.types.chat import CompletionListParams, CompletionUpdateParams
from openai.types.chat.completions import MessageListParams

from conformance.fields.files import after_first, page_ids, reversed_order, shorter
from conformance.fields.fine_tuning import LABEL, labelled
from conformance.fields.probe import ABSENT, Endpoint, Honoured, echoes

COMPLETION = "/chat/completions/{completion_id}"

ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/chat/completions",
        params=CompletionListParams,
        encoding="query",
        base={"limit": 100},
        fields={
            "after": Honoured(
                value="{oldest_completion}",
                shows=after_first,
                wrong=("chatcmpl-x",),
                values="a stored completion's id",
            ),
            "limit": Honoured(value=1, shows=shorter, wrong=(0, 101, "few"), values="1 to 100"),
            "order": Honoured(
                value="desc",
                other="asc",
                shows=reversed_order,
                wrong=("down",),
                values="`asc`, `desc`",
            ),
            "model": Honoured(
                value="{model}",
                other=ABSENT,
                shows=lambda sent, other: (
                    len({one["model"] for one in sent.value["data"]}) == 1
                    and 0 < len(page_ids(sent)) < len(page_ids(other))
                ),
                values="the name that was asked for",
            ),
            "metadata": Honoured(
                value=LABEL,
                shows=labelled,
                wrong=({"": "v"}, {"k" * 65: "v"}, {"k": "v" * 513}, "k"),
                values="`metadata[k]=v`, or `metadata=null` for completions without",
            ),
        },
    ),
    Endpoint(method="GET", path=COMPLETION),
    Endpoint(
        method="POST",
        path=COMPLETION,
        params=CompletionUpdateParams,
        base={"metadata": LABEL},
        fields={
            "metadata": Honoured(
                value={"k": "v"},
                other=LABEL,
                shows=echoes("metadata", value={"k": "v"}),
                wrong=({"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}, "k"),
                values="16 keys of 64 characters, values of 512; null for none",
            ),
        },
    ),
    Endpoint(method="DELETE", path=COMPLETION),
    Endpoint(
        method="GET",
        path=COMPLETION + "/messages",
        params=MessageListParams,
        encoding="query",
        fields={
            "after": Honoured(
                value="{first_message}",
                shows=after_first,
                wrong=("chatcmpl-x",),
                values="a message's id",
            ),
            "limit": Honoured(value=1, shows=shorter, wrong=(0, 101, "few"), values="1 to 100"),
            "order": Honoured(
                value="desc",
                other="asc",
                shows=reversed_order,
                wrong=("down",),
                values="`asc`, `desc`",
            ),
        },
    ),
)
