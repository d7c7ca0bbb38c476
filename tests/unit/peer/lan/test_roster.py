"""Who is found, when, and at what price; who is left out; what flooders can do. All in a network of thought."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.lan.candidates import LASTS, MAX_NAMED, MAX_TOLD, MAX_TOLD_BY_ONE, SIGHTINGS_PER_HOST
from peer.lan.hosts import AWAY, CALM, FIRST_LOOK, KEEN, LACKING, LINKED, RECENT
from peer.lan.sightings import SourceName
from peer.lan.turns import AT_ONCE, BURST, RATE
from tests.unit.peer.lan.networks import DEAD, HTML, Network, hello, new_network, sighting

A, B, C, S = "10.0.0.1:65002", "10.0.0.2:65002", "10.0.0.3:65002", "10.0.0.9:65002"


@pytest.fixture
def net() -> Network:
    return new_network()


# --- finding -------------------------------------------------------------------------------------------


def test_whoever_is_announced_is_asked_at_once(net: Network) -> None:
    net.announce("a", A)
    net.run(0.1)
    assert net.present() == {"a"}
    host = net.roster.hosts["a"]
    assert (host.address, host.rtt) == (A, pytest.approx(0.002))
    assert net.roster.sources(host) == ("mdns",)


def test_several_sources_tell_of_one_host(net: Network) -> None:
    net.at |= {A: hello("a"), B: hello("a")}
    net.see(
        sighting("a", A, B, id="a"),
        sighting(A, A, source="static"),
        sighting("dns", B, source="dns"),
        sighting("a", B, id="a", source="lease"),
    )
    net.run(5)
    assert list(net.roster.hosts) == ["a"]
    host = net.roster.hosts["a"]
    assert set(net.roster.sources(host)) == {"mdns", "static", "dns", "lease"}
    assert set(net.roster.addresses(host)) == {A, B}
    assert not list(net.roster.unknown())


def test_a_dead_first_address_does_not_hide_a_good_second_one(net: Network) -> None:
    net.at |= {A: DEAD, B: hello("a")}
    net.see(sighting("a", A, B, id="a"))
    net.run(0.6)
    assert net.roster.hosts["a"].address == B


def test_a_host_that_is_found_needs_no_further_questions_for_its_other_addresses(net: Network) -> None:
    net.at |= {A: hello("a"), B: hello("a")}
    net.see(sighting("a", A, B, id="a"))
    net.run(20)
    assert [address for _, address in net.asked] == [A]


def test_who_never_answers_is_asked_ever_more_seldom(net: Network) -> None:
    net.see(sighting("a", A, id="a"))
    net.run(200)
    assert net.times(A) == pytest.approx([0, 1, 3, 7, 15, 31, 63, 123, 183], abs=0.1)


def test_an_announcement_told_again_brings_the_next_question_forward(net: Network) -> None:
    net.see(sighting("a", A, id="a"))
    net.run(40)
    net.at[A] = hello("a")
    net.see(sighting("a", A, id="a"))
    net.run(0.1)
    assert net.present() == {"a"}


def test_other_addresses_of_an_announcement_are_asked_at_once(net: Network) -> None:
    net.see(sighting("a", A, id="a"))
    net.run(40)
    net.at[B] = hello("a")
    net.see(sighting("a", B, id="a"))
    net.run(0.1)
    assert net.present() == {"a"}
    assert net.roster.addresses(net.roster.hosts["a"]) == (B,)


def test_a_host_whose_announcement_changes_stays_with_its_new_address(net: Network) -> None:
    net.announce("a", A)
    net.run(1)
    del net.at[A]
    net.at[B] = hello("a")
    net.see(sighting("a ", B, id="a"))
    net.run(1)
    assert net.roster.hosts["a"].address == B
    net.run(60)
    assert net.present() == {"a"}
    assert net.roster.addresses(net.roster.hosts["a"]) == (B,)


# --- presence ------------------------------------------------------------------------------------------


def test_a_host_without_need_of_a_link_is_asked_now_and_then(net: Network) -> None:
    net.announce("a", A)
    net.run(3.5 * CALM)
    assert len(net.times(A)) == 4


def test_a_member_that_has_no_link_yet_is_asked_often(net: Network) -> None:
    net.announce("a", A)
    net.run(0.1)
    net.roster.links({"a"}, set(), net.now)
    net.run(10 * KEEN)
    assert 9 <= len(net.times(A)) <= 11


def test_a_link_is_presence_and_saves_the_questions(net: Network) -> None:
    net.announce("a", A)
    net.run(0.1)
    net.roster.links({"a"}, {"a"}, net.now)
    net.at[A] = DEAD
    net.run(LINKED + 150)
    assert net.present() == {"a"}
    assert 2 <= len(net.times(A)) <= 10, "it was asked in vain"


def test_a_lost_link_is_looked_into_at_once(net: Network) -> None:
    net.announce("a", A)
    net.run(1)
    net.roster.links({"a"}, {"a"}, net.now)
    net.run(5)
    del net.at[A]
    net.roster.links({"a"}, set(), net.now)
    net.run(0.1)
    assert net.present() == set()


def test_a_frozen_host_is_gone_after_one_question_and_found_again_soon(net: Network) -> None:
    net.roster.ring = True
    net.announce("a", A)
    net.run(1)
    net.roster.links({"a"}, {"a"}, net.now)
    net.at[A] = DEAD
    net.roster.links({"a"}, set(), net.now)
    net.run(1.1)
    assert net.present() == set()
    net.run(60)
    net.at[A] = hello("a")
    net.run(KEEN + 1.1)
    assert net.present() == {"a"}


def test_a_link_brings_back_who_did_not_answer(net: Network) -> None:
    net.announce("a", A)
    net.run(1)
    net.at[A] = DEAD
    net.roster.disturbed(net.now)
    net.run(2)
    assert net.present() == set()
    net.roster.links({"a"}, {"a"}, net.now)
    assert net.present() == {"a"}


def test_another_address_is_tried_before_a_host_is_gone(net: Network) -> None:
    net.at |= {A: hello("a"), B: hello("a")}
    net.see(sighting("a", A, B, id="a"))
    net.run(1)
    net.at[A] = DEAD
    net.roster.disturbed(net.now)
    net.run(1.1)
    assert net.present() == {"a"}
    assert net.roster.hosts["a"].address == B


def test_who_says_goodbye_is_asked_at_once_and_then_seldom(net: Network) -> None:
    net.roster.ring = True
    net.announce("a", A)
    net.run(1)
    del net.at[A]
    net.roster.gone("mdns", "a ", net.now)
    net.run(0.6)
    assert net.present() == set()
    net.run(300)
    assert len(net.times(A)) < 15
    net.run(RECENT)
    net.roster.sweep(net.now)
    assert not net.roster.hosts


def test_who_crashed_is_looked_for_for_ten_minutes_then_as_one_that_never_came(net: Network) -> None:
    net.roster.ring = True
    net.announce("a", A)
    net.run(1)
    del net.at[A]
    net.roster.disturbed(net.now)
    net.run(RECENT - 1)
    assert len(net.times(A)) == pytest.approx(RECENT / KEEN, rel=0.05)
    net.run(60)
    net.roster.sweep(net.now)
    assert not net.roster.hosts
    before = len(net.times(A))
    net.run(600)
    assert len(net.times(A)) - before <= 12
    net.at[A] = hello("a")
    net.run(61)
    assert net.present() == {"a"}


def test_where_a_scheduler_decides_hosts_that_are_gone_are_looked_for_calmly(net: Network) -> None:
    net.announce("a", A)
    net.run(1)
    del net.at[A]
    net.roster.disturbed(net.now)
    before = len(net.times(A))
    net.run(60)
    assert len(net.times(A)) - before == pytest.approx(60 / AWAY, abs=2)


def test_one_that_is_back_makes_the_others_looked_for(net: Network) -> None:
    for number in range(20):
        net.announce(f"h{number}", f"10.0.1.{number}:1")
    net.run(3)
    there = dict(net.at)
    net.at = dict.fromkeys(there, DEAD)
    net.roster.disturbed(net.now)
    net.run(30)
    assert not net.present()
    net.at = dict(there)
    net.see(sighting("h3 ", "10.0.1.3:1", id="h3"))
    net.run(2.5)
    assert len(net.present()) == 20


def test_a_lease_as_sighting_runs_out(net: Network) -> None:
    net.see(sighting("a", A, id="a", source="lease"))
    net.at[A] = hello("a")
    net.run(100)
    net.see(sighting("a", A, id="a", source="lease"))
    net.run(100)
    net.roster.sweep(net.now)
    assert net.roster.sources(net.roster.hosts["a"]) == ("lease",)
    net.run(100)
    net.roster.sweep(net.now)
    assert net.roster.sources(net.roster.hosts["a"]) == ()
    assert net.present() == {"a"}


# --- who is left out -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason"),
    [({"cluster": "other"}, "cluster"), ({"version": 2}, "protocol")],
)
def test_others_are_left_out_and_counted_once(net: Network, words: dict[str, object], reason: str) -> None:
    net.announce("a", A, **words)
    net.run(100)
    assert not net.roster.hosts
    assert net.roster.ignored == {reason: 1}
    assert not list(net.roster.unknown())


def test_what_is_not_dragonet_is_left_out(net: Network) -> None:
    net.at[A] = HTML
    net.see(sighting("a", A, id="a"))
    net.run(100)
    assert net.roster.ignored == {"malformed": 1}
    assert not net.roster.hosts


def test_this_host_is_not_found(net: Network) -> None:
    net.at[A] = hello("me")
    net.see(sighting("me", A, id="me"), sighting("static", A, source="static"))
    net.run(100)
    assert not net.roster.hosts
    assert net.roster.ignored == {"self": 1}
    assert len(net.times(A)) <= 3


@pytest.mark.parametrize(
    "bad",
    [
        sighting("x", "nothing", id="a"),
        sighting("x", "10.0.0.1:0", id="a"),
        sighting("x", "10.0.0.1:70000", id="a"),
        sighting("x", "10.0.0.1 :80", id="a"),
        sighting("x", "a/b@c:80", id="a"),
        sighting("x", id="a"),
        sighting("x", A, id="a b"),
        sighting("x", A, id="\x1b[31mred"),
        sighting("x", A, id="a" * 65),
        sighting("x" * 200, A, id="a"),
    ],
)
def test_malformed_sightings_are_counted(net: Network, bad: object) -> None:
    net.see(bad)  # type: ignore[arg-type]
    net.run(10)
    assert net.roster.ignored == {"malformed": 1}
    assert not net.asked


def test_names_are_made_fit_to_be_shown(net: Network) -> None:
    net.see(sighting("a", A, id="a", name="evil\x1b[2J\n" + "x" * 1000, role="king"))
    (seen,) = net.roster.unknown()
    assert seen.name.isprintable()
    assert len(seen.name) == 200
    assert seen.role == ""


# --- claims that are not true --------------------------------------------------------------------------


def test_an_id_announced_at_the_address_of_another_host_is_not_believed(net: Network) -> None:
    net.at[A] = hello("a")
    net.see(sighting("b", A, id="b"))
    net.run(10)
    assert net.present() == {"a"}
    assert net.roster.ignored == {"mismatch": 1}


def test_an_address_that_many_claim_is_asked_once(net: Network) -> None:
    net.see(*(sighting(f"fake{n}", A, id=f"fake{n}") for n in range(300)))
    net.run(30)
    assert len(net.times(A)) <= 6
    net.at[A] = hello("a")
    net.see(sighting("a", A, id="a"))
    net.run(2)
    assert net.present() == {"a"}
    before = len(net.times(A))
    net.run(120)
    assert len(net.times(A)) - before <= 8


def test_so_many_may_name_an_address(net: Network) -> None:
    for number in range(1000):
        net.see(sighting(f"fake{number}", A, id=f"fake{number}"))
    assert len(net.roster._candidates.seen) == MAX_NAMED
    assert len(net.roster._candidates.places[A].claims) == MAX_NAMED
    net.see(*(sighting(f"10.0.0.1:65002/{n}", A, source="static") for n in range(MAX_NAMED + 5)))
    net.announce("a", A)
    net.run(2)
    assert net.present() == {"a"}


def test_many_announcements_of_one_host_do_not_pile_up(net: Network) -> None:
    net.at[A] = hello("a")
    net.see(*(sighting(f"again{n}", A, id="a") for n in range(3000)))
    net.run(5)
    assert net.present() == {"a"}
    assert len(net.roster.hosts["a"].claims) <= 8
    net.announce("b", B)
    net.run(5)
    assert net.present() == {"a", "b"}


def test_two_processes_with_one_id(net: Network) -> None:
    net.announce("a", A)
    net.run(1)
    net.announce("a", B, instance="copy")
    net.run(0.1)
    assert net.results["doubt"] == 1
    net.run(20)
    assert net.results["conflict"] >= 1
    assert net.roster.ignored["conflict"] >= 1
    assert net.roster.hosts["a"].address == A
    assert net.roster.hosts["a"].hello.instance == "a-1"


def test_a_host_that_started_again_at_another_address_is_no_conflict(net: Network) -> None:
    net.announce("a", A)
    net.run(1)
    del net.at[A]
    net.announce("a", B, instance="second")
    net.run(3)
    assert net.results["conflict"] == 0
    assert net.roster.hosts["a"].address == B
    assert net.roster.hosts["a"].hello.instance == "second"


def test_a_host_that_started_again_where_it_was_is_no_conflict(net: Network) -> None:
    net.announce("a", A)
    net.run(1)
    net.at[A] = hello("a", "second")
    net.run(CALM + 1)
    assert net.roster.hosts["a"].hello.instance == "second"
    assert net.results["doubt"] == 0


def test_another_host_took_over_an_address(net: Network) -> None:
    net.announce("a", A)
    net.run(1)
    net.announce("b", A)
    net.run(1)
    net.roster.disturbed(net.now)
    net.run(3)
    assert net.present() == {"b"}


def test_another_process_with_the_own_id_is_told(net: Network) -> None:
    net.announce("me", A, instance="copy")
    net.run(0.1)
    assert net.results["same_id"] == 1
    assert not net.roster.hosts
    net.roster.renamed(("new", "me-1"), net.now)
    net.run(0.1)
    assert net.present() == {"me"}


def test_a_host_without_a_link_gives_its_place_to_another_one_with_its_id(net: Network) -> None:
    """Who answered in its place while it was away cannot do what it can: it comes back."""
    net.roster.ring = True
    net.announce("a", A)
    net.run(1)
    net.roster.links({"a"}, {"a"}, net.now)
    net.at[A] = DEAD
    net.announce("a", B, instance="evil")
    net.roster.links({"a"}, set(), net.now)
    net.run(3)
    assert net.roster.hosts["a"].address == B
    net.at[A] = hello("a")
    net.run(LACKING + 2 * KEEN)
    assert net.roster.hosts["a"].address == A
    net.roster.links({"a"}, {"a"}, net.now)
    net.run(300)
    assert net.roster.hosts["a"].address == A


def test_an_address_is_never_that_of_one_who_is_there_no_more(net: Network) -> None:
    net.roster.ring = True
    net.announce("a", A)
    net.run(1)
    net.roster.links({"a"}, {"a"}, net.now)
    net.announce("b", A)  # it has taken another id, and its scheduler goes on
    net.run(2)
    assert net.present() == {"b"}
    net.roster.links({"b"}, {"b"}, net.now)
    net.run(2 * LINKED)
    assert net.present() == {"b"}
    assert net.roster.hosts["b"].address == A


def test_who_has_another_id_each_time_is_not_many(net: Network) -> None:
    net.roster.ring = True
    for number in range(400):
        net.announce(f"h{number}", A)
        net.run(0.5)
    assert len(net.roster.hosts) <= 9
    assert net.roster.ignored["conflict"] > 0
    net.run(120)
    net.announce("b", A)
    net.run(600)
    assert net.present() == {"b"}


# --- whom others tell of ----------------------------------------------------------------------------------


def test_who_is_told_of_is_asked(net: Network) -> None:
    net.announce("s", S, knows=(A, B))
    net.at |= {A: hello("a"), B: hello("b", knows=(C,)), C: hello("c")}
    net.run(1)
    assert net.present() == {"s", "a", "b", "c"}
    assert net.roster.sources(net.roster.hosts["c"]) == ("told",)


def test_who_cannot_be_announced_is_asked_soon_again_for_others(net: Network) -> None:
    """Two who come at the same time find nobody told of yet."""
    net.at[S] = hello("s")
    net.see(sighting(S, S, source="static"))
    net.run(0.1)
    net.roster.links({"s"}, {"s"}, net.now)
    net.at |= {S: hello("s", knows=(A,)), A: hello("a")}
    net.run(2 * FIRST_LOOK)
    assert net.present() == {"s", "a"}
    before = len(net.times(S))
    net.run(600)
    assert len(net.times(S)) - before <= 600 / LINKED + 6


@pytest.mark.parametrize(
    "place",
    ["8.8.8.8:80", "127.0.0.1:80", "[fe80::1%eth0]:80", "example.org:80", "10.0.0.1:0", "\x1b[2J", ""],
)
def test_what_is_told_may_be_a_lie(net: Network, place: str) -> None:
    net.announce("s", S, knows=(place, place))
    net.run(5)
    assert {address for _, address in net.asked} == {S}
    assert net.roster.ignored["malformed"] > 0


def test_loopback_is_believed_of_who_is_there(net: Network) -> None:
    net.announce("s", "127.0.0.1:1", knows=("127.0.0.1:2",))
    net.at["127.0.0.1:2"] = hello("a")
    net.run(1)
    assert net.present() == {"s", "a"}


def test_who_is_present_is_not_asked_for_being_told_of(net: Network) -> None:
    net.announce("a", A)
    net.at["10.0.0.8:1"] = hello("me")
    net.run(1)
    net.announce("s", S, knows=(A, "10.0.0.8:1"))
    net.run(200)
    assert len(net.times("10.0.0.8:1")) <= 5
    assert net.roster.sources(net.roster.hosts["a"]) == ("mdns",)
    assert not list(net.roster.unknown())


def test_who_never_answers_is_forgotten_though_told_of(net: Network) -> None:
    net.announce("s", S, knows=(A,))
    net.run(20)
    net.at[S] = hello("s")
    net.run(60)
    net.roster.sweep(net.now)
    assert not list(net.roster.unknown())
    assert len(net.times(A)) <= 7


def test_who_has_not_answered_yet_is_asked_on_request(net: Network) -> None:
    net.see(sighting("a", A, B, id="a"))
    net.run(60)
    asked = len(net.times(A)), len(net.times(B))
    net.at[B] = hello("a")
    for ask in net.roster.ask_unknown(net.now, 1):
        net.roster.failed(ask, "unreachable", net.now)
    assert [ask.address for ask in net.roster.ask_unknown(net.now, 8)] == [A, B]
    assert not net.roster.ask_unknown(net.now, 8), "they are being asked"
    assert (len(net.times(A)), len(net.times(B))) == asked, "out of turn"


def test_the_own_address_is_not_shown_because_others_tell_of_it(net: Network) -> None:
    net.at["10.0.0.8:1"] = hello("me")
    net.announce("s", S, knows=("10.0.0.8:1",))
    net.run(0.1)
    assert not list(net.roster.unknown())


def test_one_more_address_of_a_host_is_nobody_new(net: Network) -> None:
    net.at[A] = hello("a")
    net.see(sighting("a", A, B, id="a"))
    net.announce("s", S, knows=(B,))
    net.run(30)
    assert net.present() == {"a", "s"}
    assert not list(net.roster.unknown())


def test_what_is_told_no_more_is_forgotten(net: Network) -> None:
    net.announce("s", S, knows=(A,))
    net.at[A] = hello("a")
    net.run(1)
    net.at[S] = hello("s")
    net.run(LASTS["told"] + 2 * CALM)
    net.roster.sweep(net.now)
    assert net.roster.sources(net.roster.hosts["a"]) == ()
    assert net.present() == {"a", "s"}


def test_liars_who_tell_of_many(net: Network) -> None:
    for liar in range(20):
        net.announce(f"liar{liar}", f"10.8.0.{liar}:1")
    for turn in range(30):
        for liar in range(20):
            lies = tuple(f"10.{liar}.{turn}.{number}:9" for number in range(100, 200))
            net.at[f"10.8.0.{liar}:1"] = hello(f"liar{liar}", knows=lies)
        net.roster.disturbed(net.now)
        net.run(2)
        assert len([k for k in net.roster._candidates.seen if k[0] == "told"]) <= MAX_TOLD
        net.roster.sweep(net.now)
    one = sum(known.teller == "liar3" for known in net.roster._candidates.seen.values())
    assert one <= MAX_TOLD_BY_ONE
    net.announce("a", A)
    net.run(2)
    assert "a" in net.present()


# --- floods --------------------------------------------------------------------------------------------


def test_fakes_do_not_delay_who_comes_after_them(net: Network) -> None:
    ghosts = [f"10.9.{n // 250}.{n % 250}:65002" for n in range(500)]
    net.at |= dict.fromkeys(ghosts, DEAD)
    net.see(*(sighting(f"g{n}", address, id=f"g{n}") for n, address in enumerate(ghosts)))
    net.run(0.5)
    net.announce("a", A)
    net.run(1.5)
    assert net.present() == {"a"}


def test_fakes_do_not_delay_the_return_of_who_was_here(net: Network) -> None:
    net.roster.ring = True
    net.announce("a", A)
    net.run(1)
    net.at[A] = DEAD
    net.roster.disturbed(net.now)
    net.run(2)
    ghosts = [f"10.9.{n // 250}.{n % 250}:65002" for n in range(500)]
    net.at |= dict.fromkeys(ghosts, DEAD)
    net.see(*(sighting(f"g{n}", address, id=f"g{n}") for n, address in enumerate(ghosts)))
    net.run(1)
    net.at[A] = hello("a")
    net.run(KEEN + 1.5)
    assert net.present() == {"a"}


def test_real_hosts_among_fakes_are_all_found(net: Network) -> None:
    ghosts = [f"10.9.{n // 250}.{n % 250}:65002" for n in range(500)]
    net.at |= dict.fromkeys(ghosts, DEAD)
    told = [sighting(f"g{n}", address, id=f"g{n}") for n, address in enumerate(ghosts)]
    for number in range(5):
        net.at[f"10.0.0.{number}:1"] = hello(f"real{number}")
        told.append(sighting(f"real{number}", f"10.0.0.{number}:1", id=f"real{number}"))
    random.Random(5).shuffle(told)
    net.see(*told)
    net.run(60)
    assert len(net.present()) == 5
    assert net.most <= AT_ONCE


def test_questions_are_bounded_in_rate_and_number(net: Network) -> None:
    for number in range(500):
        net.at[f"10.9.{number // 250}.{number % 250}:1"] = hello(f"h{number}")
        net.see(sighting(f"{number}", f"10.9.{number // 250}.{number % 250}:1", id=f"h{number}"))
    net.run(10)
    assert len(net.asked) <= BURST + 10 * RATE + 1
    assert net.most <= AT_ONCE


def test_fifty_hosts_are_found_within_a_few_seconds_and_cost_little_then(net: Network) -> None:
    for number in range(50):
        net.announce(f"h{number}", f"10.0.1.{number}:1")
    net.run(2)
    assert len(net.present()) == 50
    everybody = net.present()
    net.roster.links(everybody, everybody, net.now)
    before = len(net.asked)
    net.run(600)
    assert len(net.asked) - before <= 50 * 600 / LINKED + 50


def test_what_is_remembered_is_bounded() -> None:
    net = new_network(max_hosts=16)
    for number in range(2000):
        net.see(sighting(f"g{number}", f"10.9.{number // 250}.{number % 250}:1", id=f"g{number}"))
        net.run(0.01)
    assert len(net.roster._candidates.seen) <= 16 * SIGHTINGS_PER_HOST
    assert len(net.roster._candidates.places) <= 2000
    net.run(120)
    net.roster.sweep(net.now)
    assert len(net.roster._candidates.places) <= 16 * SIGHTINGS_PER_HOST
    assert net.roster.ignored["full"] >= 1900
    net.announce("a", A)
    net.run(2)
    assert net.present() == {"a"}


def test_hosts_that_answer_are_bounded_and_absent_ones_make_room() -> None:
    net = new_network(max_hosts=4)
    for number in range(4):
        net.announce(f"h{number}", f"10.0.1.{number}:1")
    net.run(2)
    net.announce("late", A)
    net.run(2)
    assert len(net.roster.hosts) == 4
    assert net.roster.ignored["full"] >= 1
    del net.at["10.0.1.2:1"]
    net.roster.disturbed(net.now)
    net.run(30)
    assert net.present() == {"h0", "h1", "h3", "late"}


@pytest.mark.parametrize("flood", ["mdns", "lease"])
@pytest.mark.parametrize("source", ["mdns", "lease", "dns", "static"])
def test_no_source_drowns_another(flood: SourceName, source: SourceName) -> None:
    net = new_network(max_hosts=64)
    net.at[A] = hello("a")
    for number in range(1000):
        address = f"10.9.{number // 250}.{number % 250}:1"
        net.at[address] = DEAD
        net.see(sighting(f"g{number}", address, id=f"g{number}", source=flood))
        net.run(0.01)
    net.see(sighting("a", A, id="a", source=source))
    net.run(3)
    assert net.present() == {"a"}


def test_nobody_whom_the_operator_named_is_dropped_for_announcements() -> None:
    net = new_network(max_hosts=4)
    net.see(*(sighting(f"10.0.2.{n}:1", f"10.0.2.{n}:1", source="static") for n in range(3)))
    net.run(5)
    for number in range(50):
        net.see(sighting(f"g{number}", f"10.9.0.{number}:1", id=f"g{number}"))
        net.run(0.2)
    told = {s.key for s in net.roster.unknown()}
    assert {f"10.0.2.{n}:1" for n in range(3)} <= told


# --- whatever happens ----------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "me"])
PLACES = st.sampled_from([A, B, C])
STEPS = st.one_of(
    st.tuples(st.just("see"), st.sampled_from(["mdns", "static", "lease"]), NAMES, PLACES, PLACES),
    st.tuples(st.just("gone"), st.sampled_from(["mdns", "static", "lease"]), NAMES),
    st.tuples(st.just("serve"), PLACES, NAMES, st.sampled_from(["1", "2"])),
    st.tuples(st.just("fall"), PLACES, st.sampled_from([DEAD, HTML, None])),
    st.tuples(st.just("link"), st.sets(NAMES), st.sets(NAMES)),
    st.tuples(st.just("run"), st.sampled_from([0.001, 0.5, 2.0, 40.0, 700.0])),
)


@given(st.lists(STEPS, max_size=40))
def test_whatever_happens_the_roster_holds_together(steps: list[tuple[object, ...]]) -> None:
    net = new_network(max_hosts=3)
    for step in steps:
        match step:
            case ("see", source, name, one, other):
                net.see(sighting(str(name), str(one), str(other), id=str(name), source=source))  # type: ignore[arg-type]
            case ("gone", source, name):
                net.roster.gone(source, str(name), net.now)  # type: ignore[arg-type]
            case ("serve", place, name, instance):
                net.at[str(place)] = hello(str(name), f"{name}-{instance}")
            case ("fall", place, how):
                net.at.pop(str(place), None)
                if how is not None:
                    net.at[str(place)] = how  # type: ignore[assignment]
            case ("link", wanted, usable):
                net.roster.links(wanted, usable, net.now)  # type: ignore[arg-type]
            case ("run", seconds):
                net.run(seconds)  # type: ignore[arg-type]
                net.roster.sweep(net.now)
        check(net)
    net.roster.links((), (), net.now)
    net.run(400)
    check(net)
    for host in net.roster.hosts.values():  # what is said to be present is
        if host.present:
            assert net.at.get(host.address, host.hello) == host.hello


def check(net: Network) -> None:
    roster = net.roster
    assert len(roster.hosts) <= 3
    assert "me" not in roster.hosts
    candidates = roster._candidates
    for host in roster.hosts.values():
        assert all(candidates.seen[key].host == host.id for key in host.claims)
        assert roster.addresses(host)
        assert host.asking or host.due < float("inf")
    for key, known in candidates.seen.items():
        assert not known.host or key in roster.hosts[known.host].claims
        assert all(key in candidates.places[a].claims for a in known.sighting.addresses)
