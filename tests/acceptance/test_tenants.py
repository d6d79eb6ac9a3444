"""One project sees nothing of another: its ids answer as ids that never were."""

import httpx2
import pytest

from support.server import BASE, EMBEDDING, Server, Tuned, poll

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def stranger(server: Server) -> httpx2.Client:
    return server.http(server.new_key("--new-project", "stranger")[1])


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("GET", "/v1/files/{file}", None),
        ("GET", "/v1/files/{file}/content", None),
        ("DELETE", "/v1/files/{file}", None),
        ("GET", "/v1/files/{result}", None),
        ("GET", "/v1/files/{result}/content", None),
        ("GET", "/v1/files?after={file}", None),
        ("GET", "/v1/fine_tuning/jobs/{job}", None),
        ("POST", "/v1/fine_tuning/jobs/{job}/cancel", None),
        ("GET", "/v1/fine_tuning/jobs/{job}/events", None),
        ("GET", "/v1/fine_tuning/jobs/{job}/checkpoints", None),
        ("GET", "/v1/fine_tuning/jobs?after={job}", None),
        ("GET", "/v1/models/{model}", None),
        ("DELETE", "/v1/models/{model}", None),
        ("GET", "/v1/models/{checkpoint}", None),
        ("POST", "/v1/chat/completions", {"model": "{model}", "messages": HI}),
        ("POST", "/v1/chat/completions", {"model": "{model}", "messages": HI, "stream": True}),
        ("POST", "/v1/chat/completions", {"model": "{checkpoint}", "messages": HI}),
        ("POST", "/v1/fine_tuning/jobs", {"model": BASE, "training_file": "{file}"}),
        ("POST", "/v1/fine_tuning/jobs", {"model": "{model}", "training_file": "{file}"}),
    ],
)
def test_anothers_id_answers_as_an_unknown_one(
    server: Server,
    stranger: httpx2.Client,
    tuned: Tuned,
    verb: str,
    path: str,
    body: dict[str, object] | None,
) -> None:
    owner = server.client()
    checkpoint = owner.fine_tuning.jobs.checkpoints.list(tuned.job.id).data[-1]
    known = {
        "{file}": tuned.training.id,
        "{result}": tuned.job.result_files[0],
        "{job}": tuned.job.id,
        "{model}": tuned.model,
        "{checkpoint}": checkpoint.fine_tuned_model_checkpoint,
    }
    unknown = {
        "{file}": "file-" + "0" * 24,
        "{result}": "file-" + "1" * 24,
        "{job}": "ftjob-" + "0" * 24,
        "{model}": "ft:gpt-3.5-turbo:personal:acceptance:00000000",
        "{checkpoint}": "ft:gpt-3.5-turbo:personal:acceptance:00000000:ckpt-step-6",
    }

    def answer(names: dict[str, str]) -> tuple[int, str]:
        def fill(text: str) -> str:
            for place, name in names.items():
                text = text.replace(place, name)
            return text

        filled = body and {k: fill(v) if isinstance(v, str) else v for k, v in body.items()}
        response = stranger.request(verb, fill(path), json=filled)
        text = response.text
        for place, name in reversed(names.items()):  # a checkpoint's name may begin as its model's
            text = text.replace(name, place)
        return response.status_code, text

    status, text = answer(known)
    assert status in (400, 404)
    assert (status, text) == answer(unknown)

    # And nothing was done to it.
    assert owner.files.retrieve(tuned.training.id).status == "processed"
    assert owner.fine_tuning.jobs.retrieve(tuned.job.id).status == "succeeded"
    assert owner.models.retrieve(tuned.model).id == tuned.model


def test_a_strangers_lists_hold_only_the_base(
    server: Server, stranger: httpx2.Client, tuned: Tuned
) -> None:
    assert server.client().files.list().data
    assert stranger.get("/v1/files").json()["data"] == []
    assert stranger.get("/v1/fine_tuning/jobs").json()["data"] == []
    models = stranger.get("/v1/models").json()["data"]
    assert [model["id"] for model in models] == ["tiny", BASE, "tiny-vectors", EMBEDDING]


def test_a_second_key_opens_the_same_project_until_it_is_revoked(
    server: Server, tuned: Tuned
) -> None:
    key_id, secret = server.new_key("--name", "second")
    http = server.http(secret)
    assert http.get(f"/v1/files/{tuned.training.id}").status_code == 200
    assert server.tunery("keys", "revoke", key_id).returncode == 0
    # The API looks a key up again after a second; five are what is promised.
    path = f"/v1/files/{tuned.training.id}"
    poll(lambda: http.get(path).status_code == 401, "the refusal of a revoked key", 5)
    response = http.get(path)
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert server.http().get(f"/v1/files/{tuned.training.id}").status_code == 200
