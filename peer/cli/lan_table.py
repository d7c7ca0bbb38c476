"""What ``dragonet lan`` prints: a view of the LAN as lines of text. Pure.

Names, versions and addresses are what others say of themselves: whatever is in them, they stay in their cell.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from peer.cli.execution import printable
from shared.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peer.lan.views import HostView, LanView

PAGE = "docs/howto/lan.md"

_WIDEST = 40
"""Terminal cells of a column at most."""
_HEAD = ("NAME", "ROLE", "STATE", "ADDRESS", "VERSION", "HOLDS", "RTT", "FOUND BY", "LOCATION", "ALSO AT")
_OPTIONAL = ("LOCATION", "ALSO AT")
"""Columns that are shown only where somebody has something in them."""
_MOST_ADDRESSES = 8
_LINK_LOCAL = "[fe80:"
"""How addresses begin that every machine has, and that say nothing to people unless they are in use."""
_MOST_SILENT = 10
"""Of those that were announced only: anybody can announce any number of them."""
_STATES = ("present", "absent", "unknown")
_IGNORED = {
    "cluster": "of another cluster",
    "protocol": "with another version of the protocol",
    "malformed": "that could not be read",
    "full": "beyond lan.max_hosts",
    "conflict": "with the id of another host",
    "mismatch": "that are not who was announced",
}


def lan_lines(view: LanView, now: float) -> list[str]:
    """All lines; ``now`` is in Unix seconds."""
    lines = [headline(view)]
    rows = host_table(view, now)
    if len(rows) > 1:
        lines += ["", *rows]
    ignored = describe_ignored(view)
    if not any(host.state == "present" for host in view.hosts):
        lines += ["", *advice(view)]
    return [*lines, "", ignored] if ignored else lines


def headline(view: LanView) -> str:
    """The cluster, who is there, and who schedules."""
    present = [host for host in view.hosts if host.state == "present"]
    others = sum(host.role != "scheduler" for host in present)
    if view.here.state == "present":
        there = f"this host and {_count(others, 'other')}" if others else "this host, and no other"
    else:
        there = f"no daemon on this machine, {_count(others, 'host')} elsewhere"
    return f"cluster {cell(view.cluster)}: {there}; {_decision(view, present)}"


def _decision(view: LanView, present: Sequence[HostView]) -> str:
    named = ", ".join(cell(url, 100) for url in view.schedulers)
    many = "s" * (len(view.schedulers) > 1)
    match view.mode:
        case "configured":
            return f"scheduler {named or '?'} (configured)"
        case "scheduler":
            return f"scheduler{many} {named or '?'} (found)"
        case "ring":
            members = sum(host.member for host in present) + (view.here.state == "present")
            return f"no scheduler, so the hosts schedule for each other (a ring of {members})"
        case _:
            return "no scheduler" + ", so this host works alone" * (view.here.state == "present")


def host_table(view: LanView, now: float) -> list[str]:
    """Aligned columns below their names: this host first, then those that answer, schedulers before others, by name."""
    hosts = sorted(view.hosts, key=_rank)
    silent = sum(host.state == "unknown" for host in hosts)
    more = max(0, silent - _MOST_SILENT)
    del hosts[len(hosts) - more :]
    rows: list[tuple[str, ...]] = [_HEAD]
    if view.here.state == "present":
        rows.append(_row(view.here, "self", view))
    rows += [_row(host, _state(host, view, now), view) for host in hosts]
    used = [n for n, name in enumerate(_HEAD) if name not in _OPTIONAL or any(row[n] for row in rows[1:])]
    widths = [max(_width(row[n]) for row in rows) for n in used]
    lines = [
        "  ".join(
            row[n] + " " * (width - _width(row[n])) for n, width in zip(used, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return [*lines, f"… and {_count(more, 'other')} without an answer"] if more else lines


def _rank(host: HostView) -> tuple[int, bool, str, str]:
    return _STATES.index(host.state), host.role != "scheduler", host.name, host.id


def _row(host: HostView, state: str, view: LanView) -> tuple[str, ...]:
    address = host.address or next(iter(host.addresses), "")
    others = [other for other in host.addresses if other != address and not other.startswith(_LINK_LOCAL)]
    also = [cell(other) for other in others[:_MOST_ADDRESSES]] + ["…"] * (len(others) > _MOST_ADDRESSES)
    return (
        cell(host.name or ("" if host.id in host.addresses else host.id[:8])) or "?",
        cell(host.role) or "?",
        state,
        cell(address) or "?",
        cell(host.version, 20) or "?",
        _holds(host),
        "" if host.rtt is None or host is view.here else _milliseconds(host.rtt),
        "" if host is view.here else cell(", ".join(host.found)),
        cell(host.location),
        ", ".join(also),
    )


def _state(host: HostView, view: LanView, now: float) -> str:
    if host.state == "unknown":
        return "no answer yet"
    if host.state == "absent":
        return f"absent {format_duration(max(0.0, now - host.since))}" if host.since else "absent"
    unused = view.mode == "ring" and view.here.state == "present" and not host.member
    return "not in use" if unused else "present"


def _holds(host: HostView) -> str:
    if host.role == "scheduler" or host.state == "unknown":
        return ""
    return f"{_count(host.tasks, 'task')}, {format_size(host.held)}" if host.tasks else "nothing"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else format_duration(seconds)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def describe_ignored(view: LanView) -> str:
    """What was left out and why; "" for nothing. That a host hears itself is not worth a word."""
    parts = [
        f"{number} {_IGNORED.get(reason) or cell(f'({reason})')}"
        for reason, number in sorted(view.ignored.items())
        if number > 0 and reason != "self"
    ]
    return f"ignored: {', '.join(parts)}" if parts else ""


def advice(view: LanView) -> list[str]:
    """What to look at when nobody else is there."""
    if not view.discovery:
        return [
            "Nobody else is looked for: a scheduler is configured, lan.discovery is off, or pieces are served on",
            f"loopback alone. See {PAGE}.",
        ]
    port = view.here.address.rpartition(":")[2]
    port = port if port.isdecimal() else "65002"
    silent = any(host.state == "unknown" for host in view.hosts)
    return [
        "No other host has answered. Where there should be one:",
        *["  - with `no answer yet` it was announced, but its address does not answer: a firewall there?"]
        * silent,
        "  - does `dragonet up` or `dragonet peer` run there, with the same lan.cluster "
        f"(here: {cell(view.cluster)})?",
        f"  - do the firewalls, here and there, let UDP 5353 (mDNS) and TCP {port} (pieces) through?",
        "  - does the Wi-Fi keep its stations apart, or the network drop multicast? Then name the others in lan.peers.",
        f"See {PAGE}.",
    ]


def cell(text: str, limit: int = _WIDEST) -> str:
    """Text of others on one line: nothing in it moves the cursor, and it is at most ``limit`` cells wide."""
    from rich.cells import cell_len

    # cut before anything is done with it, since it may be long
    composed = printable(unicodedata.normalize("NFC", text[: 2 * limit]))
    shown: list[str] = []
    width = 0
    for character in composed:
        size = cell_len(character)
        if not size:  # a mark that is drawn over what stands before it: many of them reach into other lines
            character, size = "\N{REPLACEMENT CHARACTER}", 1
        if width + size > limit:
            while width > limit - 1:
                width -= cell_len(shown.pop())
            return "".join(shown) + "…"
        shown.append(character)
        width += size
    return "".join(shown)


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
