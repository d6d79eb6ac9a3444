"""The guard: what may be asked, and that every address of a name is looked at."""

import asyncio
from collections.abc import Sequence

import pytest

from tunery.domain.errors import InvalidRequest
from tunery.outgoing.addresses import Guard, SystemResolver, Target, refusal


class Names:
    """Resolves from a table, and counts the look-ups."""

    def __init__(self, **names: Sequence[str]) -> None:
        self.names = {name.replace("_", "."): found for name, found in names.items()}
        self.asked: list[tuple[str, int]] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        if host not in self.names:
            raise OSError("no such name")
        return self.names[host]


def target(url: str, *, allow_private: bool = False, names: Names | None = None) -> Target:
    guard = Guard(allow_private=allow_private, resolve=(names or Names()).resolve)
    return asyncio.run(guard.target(url))


PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
PRIVATE = [
    "127.0.0.1",
    "127.8.9.10",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::c0a8:101",
    "64:ff9b::6440:1",
    "2002:7f00:1::1",
    "2002:c0a8:101::",
    "64:ff9b:1::808:808",
]
NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "0.0.0.0",  # noqa: S104 - refused, not bound
    "::",
    "::ffff:0.0.0.0",
    "224.0.0.1",
    "239.255.255.250",
    "ff02::1",
    "240.0.0.1",
    "255.255.255.255",
    "4000::1",
    "not an address",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_asked(address: str) -> None:
    assert refusal(address, allow_private=False) is None
    assert refusal(address, allow_private=True) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_may_not_however_it_is_wrapped(address: str) -> None:
    assert refusal(address, allow_private=False) is not None


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd12::1", "fec0::1"]
)
def test_a_private_address_may_be_asked_where_the_operator_says_so(address: str) -> None:
    assert refusal(address, allow_private=True) is None


@pytest.mark.parametrize("address", NEVER)
def test_these_may_never_be_asked(address: str) -> None:
    assert refusal(address, allow_private=False) is not None
    assert refusal(address, allow_private=True) is not None


def test_a_teredo_address_is_judged_by_those_inside_it() -> None:
    # Server 8.8.8.8; the client's address is stored inverted: 0x80ff:fffe is 127.0.0.1.
    assert refusal("2001:0:808:808:0:0:80ff:fffe", allow_private=False) is not None
    # And 169.254.169.254, which stays forbidden: 0x5601:5601.
    assert refusal("2001:0:808:808:0:0:5601:5601", allow_private=True) is not None


def test_a_name_is_resolved_once_and_leads_to_its_addresses() -> None:
    names = Names(hooks_example_com=["93.184.215.14", "2606:4700::1111"])
    found = target("https://Hooks.Example.com:8443/a/b?c=d", names=names)
    assert found.addresses == ("93.184.215.14", "2606:4700::1111")
    assert (found.host, found.url.port) == ("hooks.example.com", 8443)
    assert found.url.raw_path == b"/a/b?c=d"
    assert names.asked == [("hooks.example.com", 8443)]
    assert target("https://hooks.example.com/", names=names).host == "hooks.example.com"
    assert names.asked[1] == ("hooks.example.com", 443)


def test_one_bad_address_among_good_ones_is_enough() -> None:
    names = Names(two_example_com=["93.184.215.14", "127.0.0.1"])
    with pytest.raises(InvalidRequest, match="stands for this machine") as caught:
        target("https://two.example.com/", names=names)
    assert (caught.value.param, caught.value.code) == ("url", "url_not_allowed")


@pytest.mark.parametrize("found", [[], None])
def test_a_name_without_an_address_is_refused(found: list[str] | None) -> None:
    names = Names() if found is None else Names(gone_example_com=found)
    with pytest.raises(InvalidRequest, match="no address that could be found") as caught:
        target("https://gone.example.com/", names=names)
    assert (caught.value.param, caught.value.code) == ("url", "url_not_resolved")


def test_an_address_in_the_url_is_not_resolved() -> None:
    names = Names()
    assert target("https://8.8.8.8/x", names=names).addresses == ("8.8.8.8",)
    assert target("https://[2606:4700::1111]:444/", names=names).addresses == ("2606:4700::1111",)
    assert names.asked == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://hooks.example.com/", "needs to begin with https://"),
        ("ftp://hooks.example.com/", "needs to begin with https://"),
        ("hooks.example.com", "needs to begin with https://"),
        ("//hooks.example.com/", "needs to begin with https://"),
        ("file:///etc/passwd", "needs to begin with https://"),
        ("https://user@hooks.example.com/", "user name or password"),
        ("https://user:word@hooks.example.com/", "user name or password"),
        ("https://8.8.8.8\\@hooks.example.com/", "user name or password"),
        ("https:///path", "names no host"),
        ("https://", "names no host"),
        ("https://hooks.example.com:0/", "port needs to be 1 to 65535"),
        ("https://hooks.example.com:65536/", "port needs to be 1 to 65535"),
        ("https://hooks.example.com:x/", "no URL"),
        ("https://hooks.example.com/\n", "no URL"),
        ("https://[::1", "no URL"),
        ("https://a b.com/", "no name or address"),
        ("https://%6cocalhost/", "no name or address"),
        ("https://a..b/", "no name or address"),
        ("https://[fe80::1%25eth0]/", "no name or address"),
        (f"https://{'a.' * 127}com/", "no name or address"),
        ("https://2130706433/", "four decimal numbers"),
        ("https://0x7f000001/", "four decimal numbers"),
        ("https://0x7f.1/", "four decimal numbers"),
        ("https://127.1/", "four decimal numbers"),
        ("https://0177.0.0.1/", "no URL"),
        ("https://010.8.8.8/", "no URL"),
        ("https://8.8.8.8./", "four decimal numbers"),
        ("https://127.0.0.1/", "stands for this machine"),
        ("https://[::1]/", "stands for this machine"),
        ("https://[::ffff:127.0.0.1]/", "stands for this machine"),
        ("https://169.254.169.254/latest/meta-data", "only this network link knows"),
        ("https://10.1.2.3/", "a private address"),
        ("https://0.0.0.0/", "no single machine"),
    ],
)
def test_a_url_that_may_not_be_asked_is_refused_by_its_reason(url: str, why: str) -> None:
    names = Names(hooks_example_com=["8.8.8.8"])
    with pytest.raises(InvalidRequest, match=f"^Invalid 'url': .*{why}") as caught:
        target(url, names=names)
    assert (caught.value.param, caught.value.code) == ("url", "url_not_allowed")
    assert names.asked == []


def test_the_parameter_at_fault_has_the_name_that_the_caller_gives() -> None:
    guard = Guard(allow_private=False, resolve=Names().resolve)
    with pytest.raises(InvalidRequest, match=r"^Invalid 'image_url': ") as caught:
        asyncio.run(guard.target("https://10.0.0.1/", "image_url"))
    assert caught.value.param == "image_url"


def test_the_operator_may_allow_plain_http_and_private_networks() -> None:
    names = Names(receiver=["10.0.0.9"], meta=["169.254.169.254"])
    assert target("http://receiver:9000/", allow_private=True, names=names).addresses == (
        "10.0.0.9",
    )
    assert target("http://127.0.0.1/", allow_private=True).addresses == ("127.0.0.1",)
    with pytest.raises(InvalidRequest, match="only this network link"):
        target("http://meta/", allow_private=True, names=names)
    with pytest.raises(InvalidRequest, match="begin with https:// or http://"):
        target("ftp://receiver/", allow_private=True, names=names)


@pytest.mark.parametrize("name", ["localhost", "localhost."])
def test_this_machines_own_resolver_knows_its_own_name(name: str) -> None:
    guard = Guard(allow_private=False)
    with pytest.raises(InvalidRequest, match="Invalid 'url'"):
        asyncio.run(guard.target(f"https://{name}/"))


def test_the_systems_resolver_lists_each_address_once() -> None:
    found = asyncio.run(SystemResolver().resolve("localhost", 443))
    assert set(found) <= {"127.0.0.1", "::1"}
    assert len(found) == len(set(found)) > 0
