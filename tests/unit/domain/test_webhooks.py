"""Webhook endpoints: which secrets sign, what may be shown, how long a retry waits."""

from tunery.domain.webhooks import (
    GIVE_UP_S,
    Delivery,
    Endpoint,
    EventType,
    OldSecret,
    retry_wait_s,
)

ENDPOINT = Endpoint(
    id="we_1",
    name="mine",
    url="https://hooks.example.com/path-that-nobody-guesses",
    event_types=(EventType.JOB_FAILED,),
    secret="whsec_newest1234",
    old_secrets=(OldSecret("whsec_older", until=200), OldSecret("whsec_oldest", until=100)),
    created_at=1,
    updated_at=2,
)


def test_old_secrets_sign_until_their_time_and_the_newest_comes_first() -> None:
    assert ENDPOINT.secrets_at(99) == ("whsec_newest1234", "whsec_older", "whsec_oldest")
    assert ENDPOINT.secrets_at(100) == ("whsec_newest1234", "whsec_older")
    assert ENDPOINT.secrets_at(200) == ("whsec_newest1234",)


def test_a_hint_is_the_secrets_end() -> None:
    assert ENDPOINT.secret_hint == "whsec_...1234"


def test_no_secret_is_in_what_may_come_into_a_log() -> None:
    delivery = Delivery("whd_1", "we_1", "evt_1", EventType.JOB_FAILED, "a body", 0, 1)
    text = repr(ENDPOINT) + repr(delivery)
    for hidden in ("newest", "older", "nobody-guesses", "a body"):
        assert hidden not in text


def test_retries_wait_longer_and_longer_and_then_three_hours_each() -> None:
    waits = [retry_wait_s(attempts, 5.0) for attempts in range(1, 10)]
    assert waits == [5, 30, 120, 600, 1800, 3600, 10800, 10800, 10800]
    assert GIVE_UP_S == 259200


def test_each_type_of_event_knows_the_ids_of_its_objects() -> None:
    assert {(one.partition(".")[0], one.id_prefix) for one in EventType} == {
        ("fine_tuning", "ftjob-"),
        ("batch", "batch_"),
        ("response", "resp_"),
    }
