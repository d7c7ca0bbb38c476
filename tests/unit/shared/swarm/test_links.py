"""Links to several schedulers: who hears what, who is obeyed, and what becomes of those that go."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import trio
import trio.testing

from shared.protocol import (
    CheckGranted,
    ParentsAssigned,
    PeerLeft,
    Preheated,
    PreheatItem,
    PreheatOver,
    PreheatWanted,
    Report,
    Resolved,
    ResolveWanted,
    SourceChecked,
    SourceFailed,
    SourceGranted,
    SourceRevoked,
    TaskMoved,
    TaskRemoved,
)
from shared.swarm.link import SchedulerLink
from shared.swarm.links import GRACE, Links
from shared.swarm.links_owner import CONFIGURED
from shared.swarm.origin import OriginJob, OriginSink
from shared.task.identity import TaskSpec
from tests.unit.shared.swarm.fakes import SPEC, sample
from tests.unit.shared.swarm.lans import Machine, Net, new_net, until

Clock = trio.testing.MockClock
OF = sample(10)


def link(machine: Machine, name: str) -> SchedulerLink:
    return machine.links._links[name]


def watched(links: Links) -> list[tuple[str, Report]]:
    """What is reported from now on, and to whom."""
    told: list[tuple[str, Report]] = []
    for each in links._links.values():
        report = each.report
        each.report = lambda what, each=each, report=report: (  # type: ignore[method-assign,misc]
            told.append((each.name, what)),
            report(what),
        )
    return told


def owned(machine: Machine, name: str) -> TaskSpec:
    """A content for which this one decides, as a host sees it."""
    specs = (TaskSpec(f"https://origin.example/{number}") for number in range(1000))
    return next(spec for spec in specs if machine.links._ownership.owner(spec.task_id) == name)


async def hang(job: OriginJob, sink: OriginSink) -> None:
    await trio.sleep_forever()


# --- whom there is -------------------------------------------------------------------------------------


async def test_links_that_stay_are_kept_and_the_others_left(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b", "c") as net:
        a = net.machines["a"]
        kept = link(a, "a"), link(a, "b")
        a.links.use({"a": "http://a/", "b": "http://b"}, ring=True)
        await trio.sleep(1)
        assert (link(a, "a"), link(a, "b")) == kept
        assert a.links.usable == {"a", "b"}
        assert not net.machines["c"].scheduler.state.knows("a")
        assert a.links.silent_for("b") == 0
        assert a.links.silent_for("c") == inf
        a.links.use({"b": "http://c"}, ring=True)
        await trio.sleep(1)
        assert net.machines["c"].scheduler.state.knows("a")
        assert not net.machines["b"].scheduler.state.knows("a")
        a.links.use({})
        assert not a.links.connected
        assert a.links.usable == frozenset()
        assert a.changes[-1] == "no scheduler is known"
        await trio.sleep(7)
        assert a.links.lost_for(SPEC.task_id) == 7
        a.host.report(PeerLeft(SPEC.task_id))  # which nobody has to know
        a.links.use({"s": "http://b"})
        assert a.links.lost_for(SPEC.task_id) == 7
        assert a.changes[-1] == "connecting to the scheduler"
        await trio.sleep(1)
        assert a.links.lost_for(SPEC.task_id) == 0
        assert a.changes[-1] is None


async def test_all_leases_are_given_up_at_the_end(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b", "c") as net:
        net.cut.add("c")
        at = trio.current_time()
        net.machines["a"].stop()
        await until(lambda: not net.machines["b"].scheduler.state.knows("a"))
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() - at <= 1.1


async def test_a_stream_that_breaks_moves_nothing(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b") as net:
        a, b = net.machines["a"], net.machines["b"]
        told = watched(a.links)
        changes = 0

        async def count() -> None:
            nonlocal changes
            while True:
                await a.links.changed.wait()
                changes += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await trio.testing.wait_all_tasks_blocked()
            b.scheduler._hub.close_all()
            await until(lambda: not link(a, "b").connected)
            assert a.links.usable == {"a", "b"}
            await trio.sleep(2 * GRACE)
            assert link(a, "b").connected
            assert changes == 0
            b.kill()
            await trio.sleep(GRACE + 0.2)
            assert a.links.usable == {"a"}
            assert changes == 1
            assert a.links.silent_for("b") >= GRACE
            assert a.links.lost_for(SPEC.task_id) == 0
            nursery.cancel_scope.cancel()
        assert told == []


async def test_a_lease_tells_what_its_scheduler_has_to_know(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b") as net:
        a, b = net.machines["a"], net.machines["b"]
        a.host.own_address = lambda: "10.0.0.1:65002"
        a.host.readdress(address="*:65002", network="10.0.0.0/24")
        await trio.sleep(0.1)
        assert a.links.lease(link(a, "a")).address == "10.0.0.1:65002"
        of_a = b.scheduler.state.cluster.present("a")
        assert of_a is not None
        assert (of_a.lease.address, of_a.lease.network) == ("*:65002", "10.0.0.0/24")
        assert of_a.lease.resuming, "it was here before"
        a.links.use({"a": "http://a"}, ring=True)
        a.links.use({"a": "http://a", "b": "http://b"}, ring=True)
        assert a.links.lease(link(a, "b")).resuming
        assert not Machine(net, "new", OF).links.identity.network


async def test_only_the_configured_scheduler_hears_the_secret(autojump_clock: Clock) -> None:
    """And only that one is believed: anybody may be found on a network."""
    async with new_net(OF, "a", "b") as net:
        a, b = net.machines["a"], net.machines["b"]
        b.host.scope_secret, b.host.secret_since = b"\x01" * 32, 5.0
        own = a.host.scope_secret
        for machine in (a, b):
            machine.links.renew()
        await trio.sleep(45)  # a ring's leases are renewed every 40 seconds
        a.links.use({"found": "http://b"})
        await trio.sleep(2)
        assert a.host.scope_secret == own
        assert b.scheduler.state.cluster.secret not in (own, b.host.scope_secret)
        b.links.use({CONFIGURED: "http://b"})
        await trio.sleep(2)
        assert b.scheduler.state.cluster.secret == b.host.scope_secret == b"\x01" * 32
        assert a.host.scope_secret == own
        a.links.use({CONFIGURED: "http://b"})
        await trio.sleep(2)
        assert (a.host.scope_secret, a.host.secret_since) == (b"\x01" * 32, 5.0)


# --- whose word counts ---------------------------------------------------------------------------------


async def test_only_the_owner_of_a_task_is_obeyed(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b") as net:
        a = net.machines["a"]
        spec = owned(a, "a")
        task = spec.task_id
        told = watched(a.links)
        async with trio.open_nursery() as nursery:
            a.origin.script = hang
            nursery.start_soon(a.get, spec)
            await trio.sleep(0.5)
            assert a.origin.running == 1
            told.clear()
            other = link(a, "b")
            for ignored in (
                SourceRevoked(task, next(iter(a.host.reads._running))),
                TaskMoved(task, "00018bcfe568"),
                ParentsAssigned(task, []),
            ):
                await a.links.assigned(ignored, other)
            await a.links.assigned(SourceGranted(task, "g", spec), other)
            await a.links.assigned(CheckGranted(task, "check", spec, OF.meta, 5.0), other)
            await trio.sleep(1)
            assert a.origin.running == 1
            assert {name for name, _ in told} == {"b"}
            assert [report for _, report in told] == [PeerLeft(task), SourceChecked(task, "check", None)]
            await trio.sleep(5)
            assert told.count(("b", PeerLeft(task))) == 2, "so that it assigns nothing any more"
            told.clear()
            a.host.identity = replace(a.host.identity, role="seeder")
            await a.links.assigned(SourceGranted(task, "g", spec), other)
            ((_, failed),) = told
            assert isinstance(failed, SourceFailed)
            assert (failed.grant, failed.failure.fault) == ("g", "reader")
            nursery.cancel_scope.cancel()


async def test_a_read_goes_on_until_its_next_owner_says_otherwise(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b") as net:
        a = net.machines["a"]
        spec = owned(a, "b")
        async with trio.open_nursery() as nursery:
            a.origin.script = hang
            nursery.start_soon(a.get, spec)
            await trio.sleep(0.5)
            (grant,) = a.host.reads._running
            net.machines["b"].kill()
            await trio.sleep(3)
            assert grant in a.host.reads._running
            await a.links.assigned(SourceRevoked(spec.task_id, grant), link(a, "a"))
            await trio.testing.wait_all_tasks_blocked()
            assert grant not in a.host.reads._running
            nursery.cancel_scope.cancel()


async def test_what_a_scheduler_had_checked_is_told_to_that_one(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b") as net:
        a = net.machines["a"]
        await a.get()
        owner = a.links._ownership.owner(SPEC.task_id)
        other = "b" if owner == "a" else "a"
        told = watched(a.links)
        await a.links.assigned(CheckGranted(SPEC.task_id, "check", SPEC, OF.meta, 5.0), link(a, owner))
        assert told == [(owner, SourceChecked(SPEC.task_id, "check", None))], "nobody here asked for it"
        told.clear()
        a.links._checks["later"] = other
        a.host.report(SourceChecked(SPEC.task_id, "later", False))
        a.host.report(SourceChecked(SPEC.task_id, "unknown", False))
        assert [name for name, _ in told] == [other, owner]


class Taker:
    """What a host was told to preheat, and whether it may show its own login for it."""

    def __init__(self) -> None:
        self.orders: list[tuple[object, bool]] = []

    def ordered(self, order: object, *, own_login: bool = False) -> None:
        self.orders.append((order, own_login))

    def reports(self) -> list[Report]:
        return [Preheated(7, SPEC.task_id), Preheated(8, SPEC.task_id)]


def refused(told: list[tuple[str, Report]]) -> list[tuple[str, int, str]]:
    """Who was told that something is not done, of which preheat, and the first words of why."""
    return [
        (name, report.job, report.failure.words[:40])
        for name, report in told
        if isinstance(report, Resolved | Preheated) and report.failure is not None
    ]


ORDERS = (
    ResolveWanted(7, "registry.example/team/app", 60.0),
    PreheatWanted(7, [PreheatItem(SPEC, "file")], 60.0, own_login=True),
    PreheatWanted(7, [PreheatItem(SPEC, "file")], 60.0, headers={"authorization": "x"}),
    PreheatOver(7),
)


async def test_a_peer_preheats_for_the_scheduler_of_its_configuration_only(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b", "c") as net:
        a = net.machines["a"]
        taker = a.host.preheats = Taker()
        for ring in (True, False):  # other hosts, and a scheduler that was found
            a.links.use({"b": "http://b", "c": "http://c"}, ring=ring)
            await trio.sleep(1)
            assert not a.links.lease(link(a, "b")).preheats
            told = watched(a.links)
            for order in ORDERS:
                await a.links.assigned(order, link(a, "b"))
            words = "this host preheats for the scheduler of "
            assert refused(told) == [("b", 7, words)] * 3
        assert taker.orders == []
        a.links.use({CONFIGURED: "http://b"})
        await trio.sleep(1)
        assert a.links.lease(link(a, CONFIGURED)).preheats
        told = watched(a.links)
        for order in ORDERS:
            await a.links.assigned(order, link(a, CONFIGURED))
        assert refused(told) == []
        assert taker.orders == [(order, True) for order in ORDERS]


async def test_a_seeder_preheats_for_a_scheduler_found_without_its_own_login(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b", "c") as net:
        a = net.machines["a"]
        a.host.identity = replace(a.host.identity, role="seeder")
        taker = a.host.preheats = Taker()
        assert not a.links.lease(link(a, "b")).preheats
        for order in ORDERS:
            await a.links.assigned(order, link(a, "b"))
        assert taker.orders == [], "it is no scheduler, but a host"
        a.links.use({"b": "http://b", "c": "http://c"})
        await trio.sleep(1)
        assert a.links.lease(link(a, "b")).preheats
        told = watched(a.links)
        for order in ORDERS:
            await a.links.assigned(order, link(a, "c"))
        resolve, own, given, over = ORDERS
        assert refused(told) == [("c", 7, "this host shows its own login to a regis")]
        assert own not in [order for order, _ in taker.orders]
        assert taker.orders == [(resolve, False), (given, False), (over, False)]


async def test_of_a_preheat_only_who_ordered_it_hears(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b", "c") as net:
        a = net.machines["a"]
        a.host.identity = replace(a.host.identity, role="seeder")
        taker = a.host.preheats = Taker()
        a.links.use({"b": "http://b", "c": "http://c"})
        await trio.sleep(1)
        resolve = ResolveWanted(7, "registry.example/team/app", 60.0)
        await a.links.assigned(resolve, link(a, "c"))
        told = watched(a.links)
        for order in (resolve, PreheatOver(7)):
            await a.links.assigned(order, link(a, "b"))
        assert taker.orders == [(resolve, False)]
        assert refused(told) == [("b", 7, "another scheduler ordered a preheat of t")]
        told.clear()
        a.host.report(Preheated(7, SPEC.task_id))
        a.host.report(Preheated(8, SPEC.task_id))
        assert [name for name, _ in told] == ["c"], "nobody ordered the other one"
        told.clear()
        net.machines["c"].scheduler._hub.close_all()
        await trio.sleep(1)
        assert ("c", Preheated(7, SPEC.task_id)) in told
        assert ("c", Preheated(8, SPEC.task_id)) not in told


# --- what not everybody may have -------------------------------------------------------------------------


PRIVATE = TaskSpec("https://origin.example/secret", scope="ab" * 16)


async def test_nobody_else_is_told_of_what_is_private(autojump_clock: Clock) -> None:
    """Its scope, which is told with it, is the key to its pieces."""
    async with new_net(OF, "a", "b", "c") as net:
        a, b, c = (net.machines[name] for name in "abc")
        others = {"b": "http://b", "c": "http://c"}
        for found, ring in (({"a": "http://a", **others}, True), (others, True), ({"s": "http://b"}, False)):
            a.links.use(found, ring=ring, own="http://a")
            await trio.sleep(8)
            await a.get(PRIVATE)
            stranger = next(link for name, link in a.links._links.items() if name != "a")
            await a.links.assigned(SourceGranted(PRIVATE.task_id, "g", PRIVATE), stranger)
            a.links.renew()
            await trio.sleep(8)
            assert a.scheduler.state.cluster.tasks.get(PRIVATE.task_id) is not None
            for other in (b, c):
                assert other.scheduler.state.cluster.tasks.get(PRIVATE.task_id) is None
            assert a.links.lost_for(PRIVATE.task_id) == 0
        assert a.origin.running == 0
        await a.get(SPEC)
        assert b.scheduler.state.cluster.tasks.get(SPEC.task_id) is not None, (
            "of all else the one found is told"
        )
        a.links.use({CONFIGURED: "http://c"}, own="http://a")
        await trio.sleep(8)
        assert set(a.links._links) == {CONFIGURED}
        assert c.scheduler.state.cluster.tasks.get(PRIVATE.task_id) is not None


async def test_the_own_scheduler_beside_one_that_was_found(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b") as net:
        a, b = net.machines["a"], net.machines["b"]
        a.links.use({"s": "http://b"}, own="http://a")
        await trio.sleep(1)
        assert a.links.usable == {"s"}
        assert a.links.connected
        b.kill()
        await trio.sleep(5)
        assert not a.links.connected, "nobody decides for what everybody may have"
        assert link(a, "a").connected
        assert a.links.lost_for(SPEC.task_id) > 0
        await a.get(PRIVATE)
        assert a.links.lost_for(PRIVATE.task_id) == 0


async def test_without_a_scheduler_of_its_own_nobody_is_told(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b") as net:
        a, b = net.machines["a"], net.machines["b"]
        a.links.use({"s": "http://b"})
        await trio.sleep(1)
        await a.get(PRIVATE)
        assert a.links.lost_for(PRIVATE.task_id) == inf
        assert b.scheduler.state.cluster.tasks.get(PRIVATE.task_id) is None


# --- the host ------------------------------------------------------------------------------------------


async def test_parents_are_reached_where_this_host_sees_them(autojump_clock: Clock) -> None:
    async with new_net(OF, "a", "b") as net:
        a, b = net.machines["a"], net.machines["b"]
        with trio.fail_after(30):
            await b.get()
            b.host.identity = replace(b.host.identity, address="unreachable")
            b.links.renew()
            await trio.sleep(0.5)
            a.host.address_of = {"b": "b"}.get
            await a.get()
        assert sum(net.read.values()) == OF.count


async def test_a_peer_reads_only_what_somebody_here_waits_for(autojump_clock: Clock) -> None:
    async with new_net(OF, "a") as net:
        a = net.machines["a"]
        told = watched(a.links)
        stranger = TaskSpec("http://169.254.169.254/latest")
        await a.links.assigned(SourceGranted(stranger.task_id, "g", stranger), link(a, "a"))
        assert told == [("a", PeerLeft(stranger.task_id))]
        a.origin.script = hang
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.get)
            await trio.sleep(0.5)
            await a.links.assigned(SourceGranted(SPEC.task_id, "mine", stranger), link(a, "a"))
            await trio.sleep(0.5)
            assert {job.spec.url for job in a.origin.jobs} == {SPEC.url}
            digested = TaskSpec("https://one.example/x", digest="sha256:" + "ab" * 32)
            elsewhere = TaskSpec("https://two.example/x", digest="sha256:" + "ab" * 32)
            assert digested.task_id == elsewhere.task_id
            nursery.start_soon(a.get, digested)
            await trio.sleep(0.5)
            await a.links.assigned(SourceGranted(digested.task_id, "else", elsewhere), link(a, "a"))
            failed = told[-1][1]
            assert isinstance(failed, SourceFailed)
            assert failed.grant == "else"
            nursery.cancel_scope.cancel()


async def test_much_that_is_stored_is_told_without_holding_anybody_up(autojump_clock: Clock) -> None:
    async with new_net(OF, "a") as net:
        a = net.machines["a"]
        one = sample(1)
        for number in range(3000):
            await a.store.hold(one, spec=TaskSpec(f"https://origin.example/{number}"))
        await net.add("b")
        net.meet()
        b = net.machines["b"]
        slept = 0
        with trio.fail_after(60):
            while len(b.scheduler.state.cluster.tasks) + len(a.scheduler.state.cluster.tasks) < 3000:
                await trio.sleep(0.001)
                slept += 1
                assert all(len(each.outbox) <= 1100 for each in a.links._links.values())
        assert slept > 3
        assert 1000 < len(b.scheduler.state.cluster.tasks) < 2000


def test_nothing_is_needed_before_it_runs() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            net = Net(nursery, OF)
            a = Machine(net, "a", OF)
            a.links.use({"a": "http://a"}, ring=True)
            a.links.use({"configured": "http://a"})
            assert not a.links.connected
            assert a.links.lost_for("t") == 0
            net.machines["a"] = a
            await nursery.start(a.run)
            await trio.sleep(1)
            assert a.links.usable == {"configured"}
            a.kill()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_another_version_that_is_found_while_reading_is_not_told_before_it_is_opened(
    autojump_clock: Clock,
) -> None:
    """What the store held of the one before is removed then; the task itself is not, and its scheduler knows it."""
    async with new_net(OF, "a") as net:
        a = net.machines["a"]
        told = watched(a.links)
        other = sample(10, version="v2", seed=2)

        async def changes(job: OriginJob, sink: OriginSink) -> None:
            for of, numbers in ((OF, range(3)), (other, range(10))):
                if of is other:
                    a.host.report(
                        TaskRemoved(job.spec.task_id)
                    )  # as the store has it told, before it goes on
                await sink.opened(of.meta)
                for number in numbers:
                    await trio.sleep(0.3)
                    await sink.piece(number, memoryview(of.piece(number)))
            await sink.finished(other.meta)

        a.origin.script = changes
        assert (await a.get(owned(a, "a"))).length == len(other.data)
        kinds = [type(report).__name__ for _, report in told]
        removed = kinds.index("TaskRemoved")
        assert kinds[removed + 1] == "SourceOpened", kinds
