"""/uploads. Each request is about an upload of its own, with one part in it."""

from openai.types import UploadCompleteParams, UploadCreateParams
from openai.types.uploads import PartCreateParams

from conformance.fields.files import LINE
from conformance.fields.probe import ABSENT, Endpoint, Honoured, echoes

PARTS = "tests/acceptance/test_uploads.py::"
EXPIRES = PARTS + "test_parts_come_in_parallel_and_the_list_says_their_order"
CREATE = {"bytes": len(LINE), "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "batch"}

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/uploads",
        params=UploadCreateParams,
        base=CREATE,
        undo="POST /uploads/{id}/cancel",
        fields={
            "bytes": Honoured(
                value=7,
                other=8,
                shows=echoes("bytes", value=7),
                wrong=(0, 8 * 2**30 + 1, 200 * 2**20 + 1, "7", 1.5, None),
                values="1 to 8 GB; 200 MB for `batch`, the size that the server is set to for"
                " `fine-tune`",
            ),
            "filename": Honoured(
                value="b.jsonl",
                other="a.jsonl",
                shows=echoes("filename", value="b.jsonl"),
                wrong=("", "x" * 256, "a\0b", None),
                values="1 to 255 characters",
            ),
            "mime_type": Honoured(
                value="application/jsonl",
                other="text/jsonl",
                proof="tests/unit/domain/test_uploads.py::test_a_mime_type_goes_with_some_purposes",
                wrong=("", "jsonl", "image/png", None),
                values="one that goes with the purpose",
            ),
            "purpose": Honoured(
                value="fine-tune",
                other="batch",
                shows=echoes("purpose", value="fine-tune"),
                wrong=("pleasure", "batch_output", None),
                values="`assistants`, `batch`, `fine-tune`, `vision`, `user_data`, `evals`",
            ),
            "expires_after.anchor": Honoured(
                value="created_at",
                beside={"expires_after.seconds": 7200},
                proof=EXPIRES,
                wrong=("last_active_at", None),
                values="`created_at`",
            ),
            "expires_after.seconds": Honoured(
                value=7200,
                beside={"expires_after.anchor": "created_at"},
                proof=EXPIRES,
                wrong=(3599, 2_592_001, "3600", None),
                values="3600 to 2592000",
            ),
        },
    ),
    Endpoint(
        method="POST",
        path="/uploads/{upload_id}/parts",
        params=PartCreateParams,
        encoding="form",
        base={"data": ("upload", LINE)},
        fields={
            "data": Honoured(
                value=("upload", b"some text"),
                proof=PARTS + "test_the_sdk_uploads_a_file_in_chunks",
                wrong=(("upload", b""),),
                values="1 byte to 64 MB",
            ),
        },
    ),
    Endpoint(
        method="POST",
        path="/uploads/{upload_id}/complete",
        params=UploadCompleteParams,
        base={"part_ids": ["{part_id}"]},
        fields={
            "part_ids": Honoured(
                value=["{part_id}"],
                proof=PARTS + "test_parts_come_in_parallel_and_the_list_says_their_order",
                wrong=([], ["part_x"], ["{part_id}", "{part_id}"], "{part_id}", None),
                values="the upload's parts, in order; together as large as `bytes` said",
            ),
            "md5": Honoured(
                value=ABSENT,
                proof=PARTS + "test_the_sdk_uploads_a_file_in_chunks",
                wrong=("0" * 32, "x", 5),
                values="the content's digest, 32 hexadecimal digits",
            ),
        },
    ),
    Endpoint(method="POST", path="/uploads/{upload_id}/cancel"),
)
