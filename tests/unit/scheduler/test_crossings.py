"""Two zones with a border between: each piece crosses it once. Scheduler and children are the real ones, the
network is simulated."""

from __future__ import annotations

import pytest

from tests.unit.scheduler.crossing import Swarm

A, B = "10.0.1.0/24", "10.0.2.0/24"
AS, BS = [f"a{n}" for n in range(4)], [f"b{n}" for n in range(4)]
SEEDS = range(2)


def two_zones(*, seeder: bool = True, zones: tuple[str, str] = (A, B), **network: float) -> Swarm:
    swarm = Swarm(**network)  # type: ignore[arg-type]
    if seeder:
        swarm.host("seeder", zones[0])
    for name in AS:
        swarm.host(name, zones[0])
    for name in BS:
        swarm.host(name, zones[1])
    return swarm


def all_once(swarm: Swarm) -> None:
    assert swarm.sent_to(B) == dict.fromkeys(range(swarm.pieces), 1)
    assert not swarm.sent_to(A)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("stagger", [0.0, 0.007, 0.05])
def test_both_zones_at_once(seed: int, stagger: float) -> None:
    swarm = two_zones(seed=seed)
    swarm.start(*[name for pair in zip(AS, BS, strict=True) for name in pair], every=stagger)
    swarm.run(swarm.finished)
    all_once(swarm)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("stagger", [0.0, 0.01, 0.3])
def test_one_zone_later(seed: int, stagger: float) -> None:
    swarm = two_zones(seed=seed)
    swarm.start(*AS)
    swarm.run(swarm.finished)
    swarm.start(*BS, every=stagger)
    swarm.run(lambda: all(swarm.nodes[b].done_at for b in BS))
    all_once(swarm)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_slow_border(seed: int) -> None:
    swarm = two_zones(seed=seed, border=0.4)
    swarm.start(*AS, *BS, every=0.2)
    swarm.run(swarm.finished)
    assert sum(swarm.sent_to(B).values()) <= 1.05 * swarm.pieces
    assert not swarm.sent_to(A)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_seeder_but_a_peer_that_reads(seed: int) -> None:
    swarm = two_zones(seeder=False, seed=seed)
    swarm.start(*AS, *BS)
    swarm.run(swarm.finished)
    crossings = swarm.sent_to(A) + swarm.sent_to(B)
    assert crossings == dict.fromkeys(range(swarm.pieces), 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dead", ["b0", "b2"])
def test_a_host_dies_that_brought_pieces_over(seed: int, dead: str) -> None:
    swarm = two_zones(seed=seed, border=0.05)
    swarm.start(*AS, *BS)
    swarm.run(lambda: len(swarm.nodes[dead].held) > 25)
    swarm.die(dead)
    swarm.run(swarm.finished)
    again = {number for number, times in swarm.sent_to(B).items() if times > 1}
    assert again <= set(swarm.crossed_by[dead])
    assert max(swarm.sent_to(B).values()) <= 2
    assert set(swarm.sent_to(B)) == set(range(swarm.pieces))


def test_a_host_that_brings_nothing_holds_nobody_up_for_ever() -> None:
    swarm = two_zones()
    swarm.nodes["b1"].stuck = True
    swarm.start(*AS, *BS)
    swarm.run(swarm.finished, limit=60)
    assert sum(swarm.sent_to(B).values()) <= 1.25 * swarm.pieces


def test_the_seeder_dies_while_pieces_cross() -> None:
    swarm = two_zones(border=0.05)
    swarm.start(*AS, *BS)
    swarm.run(lambda: len(swarm.nodes["b0"].held) > 25 and len(swarm.nodes["seeder"].held) == swarm.pieces)
    swarm.die("seeder")
    swarm.run(swarm.finished)
    assert sum(swarm.sent_to(B).values()) <= 1.1 * swarm.pieces


@pytest.mark.parametrize("zones", [("", ""), (A, A), (A, "")])
def test_without_a_border_there_is_no_crossing(zones: tuple[str, str]) -> None:
    swarm = two_zones(zones=zones)
    swarm.start(*AS, *BS)
    swarm.run(swarm.finished)
    assert not swarm.crossed


def test_many_hosts_of_a_zone() -> None:
    swarm = Swarm(32)
    swarm.host("seeder", A)
    many = [f"b{n}" for n in range(20)]
    for name in many:
        swarm.host(name, B)
    swarm.start(*many, every=0.01)
    swarm.run(swarm.finished)
    assert swarm.sent_to(B) == dict.fromkeys(range(32), 1)
