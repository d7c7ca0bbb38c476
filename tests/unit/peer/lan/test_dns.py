"""Finding others under a DNS name: with stand-ins, and with a name server on loopback."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import structlog
import trio
from trio.testing import MockClock

from peer.lan.dns import INTERVAL, DnsSource, Target, ask_addresses, ask_services
from tests.unit.peer.lan.watching import Watching

NAME = "_dragonet._tcp.cluster.example"


class Answers:
    """What is answered, one after the other; the last one again and again."""

    def __init__(self, *answers: list[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await trio.lowlevel.checkpoint()
        if isinstance(answer, OSError):
            raise answer
        return answer


async def watch(source: DnsSource, seconds: float) -> Watching:
    watching = Watching()
    with trio.move_on_after(seconds):
        await source.run(watching)
    return watching


async def test_the_addresses_of_a_headless_service(autojump_clock: MockClock) -> None:
    answers = Answers(["10.0.0.1", "fd00::2"])
    watching = await watch(DnsSource("peers.svc:65002", addresses=answers), 50)
    assert watching.told == [("seen", "10.0.0.1:65002"), ("seen", "[fd00::2]:65002")]
    assert watching.here["[fd00::2]:65002"].addresses == ("[fd00::2]:65002",)
    assert watching.here["10.0.0.1:65002"].source == "dns"
    assert set(answers.asked) == {"peers.svc"}
    assert 4 <= len(answers.asked) <= 6


async def test_who_is_missing_in_two_answers_is_gone(autojump_clock: MockClock) -> None:
    answers = Answers(["10.0.0.1", "10.0.0.2"], ["10.0.0.1"], ["10.0.0.1", "10.0.0.2"], ["10.0.0.1"])
    watching = await watch(DnsSource("peers.svc:1", addresses=answers), 3.5 * INTERVAL)
    assert set(watching.here) == {"10.0.0.1:1", "10.0.0.2:1"}
    answers.answers = [["10.0.0.1", "10.0.0.2"], ["10.0.0.1"]]
    watching = await watch(DnsSource("peers.svc:1", addresses=answers), 3.5 * INTERVAL)
    assert watching.told[2:] == [("gone", "10.0.0.2:1")]


async def test_a_failure_takes_nobody_away_and_is_told_once(autojump_clock: MockClock) -> None:
    answers = Answers(
        ["10.0.0.1"], OSError("no name server"), OSError("no name server"), OSError("still none")
    )
    with structlog.testing.capture_logs() as logs:
        watching = await watch(DnsSource("peers.svc:1", addresses=answers), 100)
    assert set(watching.here) == {"10.0.0.1:1"}
    assert [entry["log_level"] for entry in logs if entry["log_level"] != "debug"] == ["warning"]
    assert len(answers.asked) > 10


async def test_an_answer_that_never_comes(autojump_clock: MockClock) -> None:
    async def never(_: str) -> list[str]:
        await trio.sleep_forever()
        raise AssertionError

    with structlog.testing.capture_logs() as logs:
        watching = await watch(DnsSource("peers.svc:1", addresses=never), 100)
    assert not watching.told
    assert [entry["error"] for entry in logs][:1] == ["no answer in time"]


async def test_answers_are_bounded(autojump_clock: MockClock) -> None:
    many = Answers([f"10.0.{number // 250}.{number % 250}" for number in range(5000)])
    assert len((await watch(DnsSource("peers.svc:1", addresses=many), 1)).here) == 64

    async def services(_: str) -> list[Target]:
        await trio.lowlevel.checkpoint()
        return [Target(f"h{number}", 1) for number in range(5000)]

    watching = await watch(DnsSource(NAME, services=services, addresses=many), 1)
    assert len(watching.here) == 64
    assert all(len(sighting.addresses) == 8 for sighting in watching.here.values())


async def test_services_by_priority_with_all_addresses(autojump_clock: MockClock) -> None:
    async def services(_: str) -> list[Target]:
        await trio.lowlevel.checkpoint()
        return [Target("b", 2, 20), Target("a", 1, 10), Target("c", 3, 10, 50), Target("nobody", 4, 0)]

    async def addresses(host: str) -> list[str]:
        await trio.lowlevel.checkpoint()
        if host == "nobody":
            raise OSError("unknown")
        return [f"10.0.0.{ord(host)}", "fd00::1"]

    watching = await watch(DnsSource(NAME, services=services, addresses=addresses), 1)
    assert watching.told == [("seen", "c:3"), ("seen", "a:1"), ("seen", "b:2")]
    assert watching.here["a:1"].addresses == ("10.0.0.97:1", "[fd00::1]:1")


Respond = Callable[[dns.message.Message], bytes]


@asynccontextmanager
async def name_server(respond: Respond) -> AsyncIterator[Callable[[str], Awaitable[list[Target]]]]:
    """A name server on loopback, and ``ask_services`` with it."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        await server.bind(("127.0.0.1", 0))

        async def serve() -> None:
            while True:
                data, address = await server.recvfrom(4096)
                await server.sendto(respond(dns.message.from_wire(data)), address)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield partial(ask_services, nameservers=["127.0.0.1"], port=server.getsockname()[1])
            nursery.cancel_scope.cancel()


def listing(*records: str) -> Respond:
    def respond(query: dns.message.Message) -> bytes:
        answer = dns.message.make_response(query)
        if records:
            answer.answer.append(dns.rrset.from_text(query.question[0].name, 5, "IN", "SRV", *records))
        return answer.to_wire()

    return respond


async def test_srv_records_of_a_name_server() -> None:
    records = ["10 5 65002 a.example.", "20 0 65003 b.example.", "0 0 0 noport.example.", "0 0 1 ."]
    async with name_server(listing(*records)) as ask:
        found = await ask(NAME)
    assert sorted(found, key=lambda target: target.host) == [
        Target("a.example", 65002, 10, 5),
        Target("b.example", 65003, 20, 0),
    ]


async def test_a_name_that_has_no_records() -> None:
    async with name_server(listing()) as ask:
        assert await ask(NAME) == []

    def unknown(query: dns.message.Message) -> bytes:
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer.to_wire()

    async with name_server(unknown) as ask:
        assert await ask(NAME) == []


async def test_a_name_server_that_refuses() -> None:
    def refuse(query: dns.message.Message) -> bytes:
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.REFUSED)
        return answer.to_wire()

    async with name_server(refuse) as ask:
        with pytest.raises(OSError, match="NoNameservers"):
            await ask(NAME)


async def test_a_name_that_is_none() -> None:
    with pytest.raises(OSError, match="Label"):
        await ask_services("_x." + "y" * 80, nameservers=["127.0.0.1"])


async def test_addresses_as_the_system_finds_them() -> None:
    assert "127.0.0.1" in await ask_addresses("127.0.0.1")
    assert await ask_addresses("::1") == ["::1"]
    with pytest.raises(OSError, match="no host name"):
        await ask_addresses("a" * 70 + ".example")


async def test_a_host_of_which_nothing_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lookup(*_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", lookup)
    assert await ask_addresses("peers.svc") == []
