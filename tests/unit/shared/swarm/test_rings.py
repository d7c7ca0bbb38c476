"""Hosts that are each other's schedulers: whoever comes or goes in the middle, downloads end with the right bytes."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from shared.swarm import ring
from shared.task.identity import TaskSpec
from tests.unit.shared.swarm.fakes import SPEC, Sample, sample
from tests.unit.shared.swarm.lans import Machine, Net, new_net, until

Clock = trio.testing.MockClock
OF = sample(40)
NAMES = ("a", "b", "c")


class Gets:
    """Downloads of the same content, on several machines."""

    def __init__(self, nursery: trio.Nursery, machines: list[Machine], spec: TaskSpec = SPEC) -> None:
        self.machines: list[Machine] = []
        self._spec = spec
        self._scopes: dict[str, trio.CancelScope] = {}
        self.add(nursery, machines)

    def add(self, nursery: trio.Nursery, machines: list[Machine]) -> None:
        """These want it, too."""
        for machine in machines:
            self.machines.append(machine)
            self._scopes[machine.name] = trio.CancelScope()
            nursery.start_soon(self._get, machine)

    async def _get(self, machine: Machine) -> None:
        with self._scopes[machine.name]:
            await machine.get(self._spec)

    def give_up(self, machine: Machine) -> None:
        """The machine is no more."""
        self._scopes[machine.name].cancel()
        self.machines.remove(machine)

    def right(self, of: Sample = OF) -> bool:
        return all(machine.store.held(of, self._spec) for machine in self.machines)


async def halfway(net: Net) -> None:
    """Wait until a part of the origin has been read."""
    await until(lambda: len(net.read) >= OF.count // 3)


async def test_a_ring_reads_its_origin_once(autojump_clock: Clock) -> None:
    async with new_net(OF, *NAMES) as net:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                gets = Gets(nursery, list(net.machines.values()))
        assert gets.right()
        assert sum(net.read.values()) == OF.count
        assert all(machine.links.usable == set(NAMES) for machine in net.machines.values())


def reader(net: Net) -> Machine:
    """Who reads the origin now."""
    return next(machine for machine in net.machines.values() if machine.origin.running)


def spec_for(owner: str, members: tuple[str, ...], *, but: str = "") -> TaskSpec:
    """A content that belongs to ``owner`` among these, and to another one without ``but``."""
    specs = (TaskSpec(f"https://origin.example/{number}") for number in range(10_000))
    return next(
        spec
        for spec in specs
        if ring.owner(members, spec.task_id) == owner
        and (not but or ring.owner([name for name in members if name != but], spec.task_id) != owner)
    )


@pytest.mark.parametrize("silently", [False, True])
@pytest.mark.parametrize("who", ["owner", "reader", "both"])
async def test_a_member_that_vanishes_in_the_middle_ends_no_download(
    autojump_clock: Clock, who: str, silently: bool
) -> None:
    async with new_net(OF, *NAMES) as net:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                first = spec_for("a", NAMES)
                machines = list(net.machines.values())
                gets = Gets(nursery, machines[:1] if who == "both" else machines, first)
                if who == "both":  # the one that decides wants it first, so it reads
                    await trio.sleep(0.5)
                    gets.add(nursery, machines[1:])
                await halfway(net)
                owner, reads = net.owner(first), reader(net)
                lost = owner if who != "reader" else reads
                if silently:
                    net.cut.add(lost.name)
                else:
                    lost.kill()
                    gets.give_up(lost)
                if silently:
                    await trio.sleep(8)
                    assert all(lost.name not in m.links.usable for m in machines if m is not lost)
        assert gets.right()
        assert sum(net.read.values()) <= 2 * OF.count
        if not silently and lost is not reads:
            assert sum(net.read.values()) == OF.count, "its reader went on for the next scheduler"


async def test_a_newcomer_takes_over_what_is_its_own_and_nothing_is_read_twice(autojump_clock: Clock) -> None:
    spec = spec_for("d", (*NAMES, "d"))
    async with new_net(OF, *NAMES) as net:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                gets = Gets(nursery, list(net.machines.values()), spec)
                await halfway(net)
                before = net.owner(spec)
                await net.add("d")
                net.meet()
                await trio.sleep(0.5)
                assert net.owner(spec).name == "d"
                assert known(net.owner(spec), spec) == set(NAMES), "all have told it what they hold"
                assert grants(net.owner(spec), spec) == {reader(net).name}, "and it has taken the read over"
                assert known(before, spec), "others may still go by what the former one knows"
        await trio.sleep(5)
        assert not known(before, spec), "which has been told in the end"
        assert gets.right()
        assert sum(net.read.values()) == OF.count
        newcomer = net.machines["d"]
        with trio.fail_after(60):
            await newcomer.get(spec)
        assert sum(net.read.values()) == OF.count


async def test_what_is_stored_is_known_to_whoever_decides_for_it(autojump_clock: Clock) -> None:
    """Whoever comes is told of what is its own, though nobody uses it; whoever goes is replaced."""
    specs = [TaskSpec(f"https://origin.example/stored/{number}") for number in range(120)]
    async with new_net(OF, *NAMES) as net:
        small = sample(1)
        for number, spec in enumerate(specs):
            machine = net.machines[NAMES[number % 3]]
            await machine.store.hold(small, spec=spec)
        await net.add("d")
        net.meet()
        await trio.sleep(5)
        for number, spec in enumerate(specs):
            if net.owner(spec).name == "d":
                assert known(net.machines["d"], spec) == {NAMES[number % 3]}
        net.machines["a"].kill()
        await trio.sleep(5)
        for number, spec in enumerate(specs):
            if net.owner(spec).name == "d":
                assert known(net.machines["d"], spec) - {"a"} == {NAMES[number % 3]} - {"a"}
        mine = [spec for spec in specs if ring.owner((*NAMES, "d"), spec.task_id) == "d"]
        assert 10 < len(mine) < 60


async def test_a_scheduler_that_comes_and_goes_in_the_middle(autojump_clock: Clock) -> None:
    async with new_net(OF, *NAMES) as net:
        hosts = list(net.machines.values())
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                gets = Gets(nursery, hosts)
                await halfway(net)
                scheduler = await net.add("s", hosts=False)
                for machine in hosts:
                    machine.links.use({"s": "http://s"})
                await trio.sleep(0.5)
                assert known(scheduler, SPEC) == set(NAMES)
                assert grants(scheduler, SPEC) == {reader(net).name}
                assert all(machine.links.usable == {"s"} for machine in hosts)
                scheduler.kill()
                await trio.sleep(0.5)
                net.meet()
        assert gets.right()
        assert sum(net.read.values()) == OF.count
        assert all(machine.changes[-1] is None for machine in hosts)


async def test_who_was_away_is_a_member_again(autojump_clock: Clock) -> None:
    spec = spec_for("a", NAMES)
    async with new_net(OF, *NAMES) as net:
        with trio.fail_after(120):
            net.cut.add("a")
            await trio.sleep(8)
            b, c = net.machines["b"], net.machines["c"]
            assert b.links.usable == c.links.usable == {"b", "c"}
            await b.get(spec)
            net.cut.discard("a")
            await trio.sleep(8)
            assert b.links.usable == c.links.usable == set(NAMES)
            assert known(net.machines["a"], spec) == {"b"}
            await c.get(spec)
        assert sum(net.read.values()) == OF.count


async def test_another_name_is_another_host(autojump_clock: Clock) -> None:
    async with new_net(OF, *NAMES) as net:
        a, b = net.machines["a"], net.machines["b"]
        await a.get()
        net.machines["z"] = a  # where it is reached stays
        a.host.rename("z")
        await trio.sleep(3)
        assert b.scheduler.state.knows("z")
        assert not b.scheduler.state.knows("a")
        for machine in (b, net.machines["c"]):
            assert known(machine, SPEC) in (set(), {"z"})
        assert any(known(machine, SPEC) == {"z"} for machine in net.machines.values())


def known(scheduler: Machine, spec: TaskSpec) -> set[str]:
    """Who wants or holds something of the content, as a scheduler knows."""
    task = scheduler.scheduler.state.cluster.tasks.get(spec.task_id)
    return set() if task is None else {*task.waiting, *task.holders}


def grants(scheduler: Machine, spec: TaskSpec) -> set[str]:
    """Who reads the origin, as a scheduler knows."""
    task = scheduler.scheduler.state.cluster.tasks.get(spec.task_id)
    return set() if task is None else {grant.host for grant in task.grants.values()}


async def test_a_read_that_stands_still_is_taken_over(autojump_clock: Clock) -> None:
    """Whoever decides next hears of it at once, not with the next piece."""
    spec = spec_for("d", (*NAMES, "d"))
    async with new_net(OF, *NAMES) as net:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                gets = Gets(nursery, list(net.machines.values()), spec)
                await halfway(net)
                net.go_on = trio.Event()
                await trio.sleep(1)
                await net.add("d")
                net.meet()
                await trio.sleep(5)
                assert grants(net.machines["d"], spec) == {reader(net).name}
                net.go_on.set()
        assert gets.right()
        assert sum(net.read.values()) == OF.count


async def test_who_has_nothing_yet_does_not_make_the_next_scheduler_read_anew(autojump_clock: Clock) -> None:
    """A registration that was told to another one before says so: whoever reads may move a moment later."""
    spec = spec_for("d", (*NAMES, "d"))
    async with new_net(OF, *NAMES) as net:
        hosts = list(net.machines.values())
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                net.go_on = trio.Event()
                gets = Gets(nursery, hosts, spec)
                await trio.sleep(1)
                reads = reader(net)
                await net.add("d")
                urls = {name: f"http://{name}" for name in net.machines}
                for machine in sorted(hosts, key=lambda each: each is reads):
                    machine.links.use(urls, ring=True)
                    await trio.sleep(0.5)
                net.go_on.set()
        assert gets.right()
        assert sum(net.read.values()) == OF.count
