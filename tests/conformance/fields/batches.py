"""/batches."""

from openai.types import BatchCreateParams, BatchListParams

from conformance.fields.files import after_first, shorter
from conformance.fields.probe import Endpoint, Honoured, echoes

EXPIRY = "tests/acceptance/test_batches.py::test_the_files_of_a_batch_expire_when_it_was_asked_for"

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/batches",
        params=BatchCreateParams,
        base={
            "input_file_id": "{batch_file}",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        },
        fields={
            "input_file_id": Honoured(
                value="{other_batch_file}",
                other="{batch_file}",
                shows=echoes("input_file_id"),
                wrong=("file-x", "{file_id}", 5),
                values="a file of purpose batch",
            ),
            "endpoint": Honoured(
                value="/v1/completions",
                other="/v1/chat/completions",
                shows=echoes("endpoint", value="/v1/completions"),
                wrong=("/v1/videos", "", 5),
                values="`/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`,"
                " `/v1/moderations`, `/v1/responses`",
            ),
            "completion_window": Honoured(
                value="24h",
                other="24h",
                shows=lambda sent, other: sent.value["completion_window"] == "24h",
                wrong=("1h", "24", 24),
                values="`24h`",
            ),
            "metadata": Honoured(
                value={"k": "v"},
                shows=echoes("metadata", value={"k": "v"}),
                wrong=({"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}, "k"),
                values="16 keys of 64 characters, values of 512",
            ),
            "output_expires_after.anchor": Honoured(
                value="created_at",
                proof=EXPIRY,
                wrong=("last_active_at", 5),
                beside={"output_expires_after.seconds": 3600},
                values="`created_at`",
            ),
            "output_expires_after.seconds": Honoured(
                value=3600,
                proof=EXPIRY,
                wrong=(3599, 2592001, "long"),
                beside={"output_expires_after.anchor": "created_at"},
                values="3600 to 2592000",
            ),
        },
    ),
    Endpoint(
        method="GET",
        path="/batches",
        params=BatchListParams,
        encoding="query",
        fields={
            "after": Honoured(
                value="{newest_batch}", shows=after_first, wrong=("batch_x",), values="a batch's id"
            ),
            "limit": Honoured(value=1, shows=shorter, wrong=(0, 101, "few"), values="1 to 100"),
        },
    ),
    Endpoint(method="GET", path="/batches/{batch_id}"),
    Endpoint(method="POST", path="/batches/{batch_id}/cancel"),
)
