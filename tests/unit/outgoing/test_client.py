"""Requests go to the address that was checked, once, and are bounded."""

import asyncio
import shutil
import ssl
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.receivers import Answer, receiving
from tunery.domain.errors import InvalidRequest
from tunery.domain.ports.delivery import NotDelivered
from tunery.outgoing.addresses import Guard
from tunery.outgoing.client import GuardedSender

BODY = b'{"object":"event"}'


class Rebinding:
    """Resolves any name to the next of its answers; the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def sender(
    *answers: Sequence[str], allow_private: bool = True, deadline_s: float = 15.0
) -> GuardedSender:
    guard = Guard(
        allow_private=allow_private, resolve=Rebinding(*(answers or (["127.0.0.1"],))).resolve
    )
    return GuardedSender(guard, deadline_s=deadline_s)


def post(sender: GuardedSender, url: str, **headers: str) -> int:
    return asyncio.run(sender.post(url, headers, BODY))


def test_the_body_arrives_as_it_is_under_the_hosts_name() -> None:
    with receiving() as receiver:
        status = post(sender(), f"http://hooks.test:{receiver.port}/in?key=1", **{"x-a": "b"})
    assert status == 200
    (received,) = receiver.received
    assert (received.path, received.body) == ("/in?key=1", BODY)
    assert received.headers["host"] == f"hooks.test:{receiver.port}"
    assert received.headers["x-a"] == "b"
    assert "cookie" not in received.headers
    assert "authorization" not in received.headers


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    with (
        receiving() as checked,
        receiving(host="127.0.0.2", port=checked.port) as other,
    ):
        guard_names = Rebinding(["127.0.0.1"], ["127.0.0.2"])
        one = GuardedSender(Guard(allow_private=True, resolve=guard_names.resolve))
        assert post(one, f"http://hooks.test:{checked.port}/") == 200
        assert (guard_names.asked, len(checked.received), len(other.received)) == (1, 1, 0)


def test_a_name_that_turns_private_after_its_check_is_not_asked() -> None:
    with receiving() as receiver:
        rebinding = sender(["93.184.215.14"], ["127.0.0.1"], allow_private=False)
        url = f"https://hooks.test:{receiver.port}/"
        asyncio.run(rebinding.check(url))
        with pytest.raises(InvalidRequest, match="stands for this machine"):
            post(rebinding, url)
    assert receiver.received == []


def test_the_next_address_is_tried_where_the_first_takes_no_connection() -> None:
    with receiving(host="127.0.0.2") as receiver:
        url = f"http://hooks.test:{receiver.port}/"
        assert post(sender(["127.0.0.1", "127.0.0.2"]), url) == 200
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirection_is_an_answer_and_is_not_followed(status: int) -> None:
    with receiving() as elsewhere:
        moved = Answer(status, {"location": elsewhere.url})
        with receiving(moved) as receiver:
            assert post(sender(), f"http://hooks.test:{receiver.port}/") == status
    assert (len(receiver.received), elsewhere.received) == (1, [])


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert post(sender(), f"http://hooks.test:{receiver.port}/") == 200
    assert (len(receiver.received), proxy.received) == (1, [])


def test_an_answer_without_end_is_left_alone() -> None:
    endless = Answer(200, {"content-length": str(2**40)}, b"x" * 2**20)
    with receiving(endless) as receiver:
        assert post(sender(), f"http://hooks.test:{receiver.port}/") == 200


def test_a_receiver_that_does_not_answer_is_not_waited_for_longer_than_the_deadline() -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(60)

    with receiving(Answer(before=hang)) as receiver:
        with pytest.raises(NotDelivered, match=r"^no answer within 0\.3 s$"):
            post(sender(deadline_s=0.3), f"http://hooks.test:{receiver.port}/")
        release.set()
    assert len(receiver.received) == 1


def test_a_name_that_does_not_resolve_in_time_is_refused_at_the_check() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    slow = GuardedSender(Guard(allow_private=True, resolve=never), deadline_s=0.1)
    with pytest.raises(InvalidRequest, match=r"not resolved within 0\.1 s") as caught:
        asyncio.run(slow.check("http://hooks.test/"))
    assert caught.value.param == "url"
    with pytest.raises(NotDelivered, match="no answer"):
        post(slow, "http://hooks.test/")


def test_a_port_that_nobody_listens_on_is_no_answer() -> None:
    with receiving() as receiver:
        port = receiver.port
    with pytest.raises(NotDelivered, match=r"^no connection could be made$"):
        post(sender(), f"http://hooks.test:{port}/")


def test_a_connection_that_breaks_is_no_answer() -> None:
    def give_up() -> None:
        raise ConnectionAbortedError

    with (
        receiving(Answer(before=give_up)) as receiver,
        pytest.raises(NotDelivered, match=r"^the connection broke before an answer$"),
    ):
        post(sender(), f"http://hooks.test:{receiver.port}/")


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a key and a certificate of hooks.test, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("makes its certificate with openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate, both = (folder / name for name in ("key.pem", "cert.pem", "both.pem"))
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=hooks.test", "-addext", "subjectAltName=DNS:hooks.test"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both


@pytest.fixture
def names_asked_for() -> list[str | None]:
    return []


@pytest.fixture
def tls(certificate: Path, names_asked_for: list[str | None]) -> ssl.SSLContext:
    """Return a server's context, which notes the names that clients ask for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def note(socket: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        names_asked_for.append(name)

    context.sni_callback = note
    return context


def test_tls_is_made_with_the_hosts_name(
    tls: ssl.SSLContext,
    certificate: Path,
    names_asked_for: list[str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with receiving(tls=tls) as receiver:
        assert post(sender(), f"https://hooks.test:{receiver.port}/") == 200
        assert names_asked_for == ["hooks.test"]
        with pytest.raises(NotDelivered, match="certificate is not trusted, or is for another"):
            post(sender(), f"https://other.test:{receiver.port}/")
    assert len(receiver.received) == 1


def test_a_certificate_that_nobody_trusts_is_refused(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with (
        receiving(tls=tls) as receiver,
        pytest.raises(NotDelivered, match="certificate is not trusted"),
    ):
        post(sender(), f"https://hooks.test:{receiver.port}/")
    assert receiver.received == []


def test_plain_http_behind_an_https_url_is_no_connection() -> None:
    with (
        receiving() as receiver,
        pytest.raises(NotDelivered, match=r"^no TLS connection could be made$"),
    ):
        post(sender(), f"https://hooks.test:{receiver.port}/")
