"""``dragonet runtime``: let a container runtime pull through dragonet, and take that back.

Exit codes of ``status``: 1 when somebody else has changed what dragonet wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from peer.cli.execution import UsageError, printable, run_blocking
from peer.cli.options import Common, load
from shared.errors import InvalidRequest

if TYPE_CHECKING:
    from peer.config import Config
    from peer.runtime.configuring import Asked
    from peer.runtime.locating import Version
    from peer.runtime.machine import Machine, Outcome

runtime = App(
    name="runtime",
    help="Let container runtimes of this machine pull through dragonet, and take that back.",
    help_format="plaintext",
)

_PROGRAMS = {"containerd": "containerd", "podman": "podman", "crio": "crio", "docker": "dockerd"}
VERSION_PATIENCE = 10.0
"""Seconds that a runtime may take to tell its version."""

Json = Annotated[bool, Parameter(negative=(), help="Nothing but one JSON object on stdout.")]
Root = Annotated[
    Path, Parameter(name="--root", help="Folder in which the machine's files are, as in a container.")
]
DryRun = Annotated[bool, Parameter(negative=(), help="Show what would be changed, and change nothing.")]


@runtime.command
def configure(
    name: Annotated[str, Parameter(name="RUNTIME", help="containerd, podman, crio or docker.")],
    /,
    *,
    registry: Annotated[
        tuple[str, ...],
        Parameter(
            negative=(),
            help="A registry to pull from through dragonet; all allowed ones by default. May be repeated.",
        ),
    ] = (),
    gateway: Annotated[
        str | None, Parameter(help="URL of the gateway; that of this machine by default.")
    ] = None,
    root: Root = Path("/"),
    dry_run: DryRun = False,
    json: Json = False,
    options: Common | None = None,
) -> None:
    """Have a container runtime pull through dragonet; what was there before is kept, and can be put back."""
    from peer.runtime.configuring import configure as change

    config = load(options).config
    try:
        asked = _asked(config, name, registry, gateway, root)
    except InvalidRequest as error:
        raise UsageError(str(error)) from None
    outcome = run_blocking(lambda: change(_machine(config, root), asked, dry_run=dry_run))
    notes = [*_absent(asked, root), *_refused(asked), *outcome.notes]
    head = f"{asked.runtime} {'would pull' if dry_run else 'pulls'} through {asked.gateway.url}"
    if json:
        _print_json(outcome, notes, dry_run, runtime=asked.runtime, gateway=asked.gateway.url)
        return
    _note(notes)
    done = "" if outcome.changes else " (no file has to be changed)"
    _print_outcome(outcome, f"{head}: {', '.join(outcome.registries)}{done}", dry_run)


@runtime.command
def restore(
    *names: Annotated[
        str, Parameter(name="RUNTIME", help="containerd, podman, crio, docker; all by default.")
    ],
    root: Root = Path("/"),
    dry_run: DryRun = False,
    force: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Also put back what somebody else has changed since; the changed file is kept beside.",
        ),
    ] = False,
    json: Json = False,
    options: Common | None = None,
) -> None:
    """Put back, byte for byte, what was there before `dragonet runtime configure`."""
    from peer.runtime.names import parse_runtime
    from peer.runtime.restoring import restore as put_back

    config = load(options).config
    try:
        chosen = tuple(dict.fromkeys(parse_runtime(name) for name in names))
    except InvalidRequest as error:
        raise UsageError(str(error)) from None
    outcome = run_blocking(lambda: put_back(_machine(config, root), chosen, dry_run=dry_run, force=force))
    notes = [*outcome.notes, *(f"what somebody else wrote is kept as {path}" for path in outcome.saved)]
    if dry_run and not force:
        notes += [
            f"{path} was changed by somebody else: this needs --force" for path in outcome.changed_since
        ]
    if json:
        _print_json(outcome, notes, dry_run, saved=outcome.saved)
        return
    _note(notes)
    done = "to be put back:" if dry_run else "put back:"
    _print_outcome(outcome, done if outcome.changes else "nothing to put back", dry_run)


@runtime.default
@runtime.command
def status(*, root: Root = Path("/"), json: Json = False, options: Common | None = None) -> int:
    """Tell which runtimes pull through dragonet, and whether their files were changed since."""
    from peer.runtime.names import RUNTIMES
    from peer.runtime.watching import look

    config = load(options).config
    found = run_blocking(look, _machine(config, root))
    if json:
        import msgspec

        print(msgspec.json.encode(found).decode())
    else:
        for name in RUNTIMES:
            state = found[name]
            if not state.configured:
                print(f"{name}: not configured")
                continue
            print(f"{name}: pulls through {state.gateway}: {', '.join(state.registries)}")
            for file in state.files:
                print(printable(f"  {file.state:<12}{file.path}"))
    return int(any(file.state == "changed" for state in found.values() for file in state.files))


def _asked(config: Config, name: str, registry: tuple[str, ...], gateway: str | None, root: Path) -> Asked:
    from peer.config import local_url
    from peer.runtime.configuring import Asked
    from peer.runtime.names import parse_gateway, parse_registries, parse_runtime

    runtime_name = parse_runtime(name)
    if gateway is None:
        if config.peer.gateway.endswith(":0"):
            raise UsageError("peer.gateway takes any free port: set one, or name the gateway with --gateway")
        gateway = local_url(config.peer.gateway)
    return Asked(
        runtime_name,
        parse_gateway(gateway),
        parse_registries(registry, runtime_name),
        config.registry.allow,
        config.registry.default,
        _containerd_version() if runtime_name == "containerd" and root == Path("/") else None,
    )


def _machine(config: Config, root: Path) -> Machine:
    from peer.runtime.machine import Machine
    from shared.config.places import SYSTEM_DATA, default_data_dir

    if not root.is_dir():
        raise UsageError(f"--root {root} is not a folder")
    # these are the machine's files, whoever asks
    data_dir = config.host.data_dir
    return Machine(root.absolute(), SYSTEM_DATA if data_dir == default_data_dir() else data_dir)


def _containerd_version() -> Version | None:
    """The version of the installed containerd; None where there is none that tells."""
    import shutil
    import subprocess

    from peer.runtime.containerd import parse_version

    program = shutil.which("containerd")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=VERSION_PATIENCE, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_version(done.stdout)


def _absent(asked: Asked, root: Path) -> list[str]:
    import shutil

    program = _PROGRAMS[asked.runtime]
    if root != Path("/") or shutil.which(program):
        return []
    return [f"{program} was not found on this machine"]


def _refused(asked: Asked) -> list[str]:
    """What the gateway does not let through of what was asked for."""
    from peer.runtime.names import EVERY, Wanted

    wanted = Wanted(asked.gateway, asked.registries, asked.allow)
    lacking = [name for name in asked.registries if name != EVERY and not wanted.allowed(name)]
    if EVERY in asked.registries and not asked.allow:
        return ["the gateway refuses every registry: name some in registry.allow in dragonet's configuration"]
    if not lacking:
        return []
    listed = ", ".join(f'"{name}"' for name in lacking)
    return [
        f"the gateway refuses {', '.join(lacking)}: add {listed} to registry.allow in dragonet's configuration"
    ]


def _print_outcome(outcome: Outcome, head: str, dry_run: bool) -> None:
    from peer.runtime.plan import diff

    print(printable(head))
    for change in outcome.changes:
        print(printable(f"  {change.action:<9}{change.path}"))
    if dry_run:
        for change in outcome.changes:
            print()
            for line in diff(change).splitlines():
                print(printable(line.expandtabs(4)))
        if outcome.changes:
            print()
    for command in outcome.commands:
        print(f"{'then run' if dry_run else 'now run'}: {command}")


def _print_json(outcome: Outcome, notes: list[str], dry_run: bool, **more: Any) -> None:
    import msgspec

    from peer.runtime.plan import diff

    changes = [
        {"path": change.path, "action": change.action, **({"diff": diff(change)} if dry_run else {})}
        for change in outcome.changes
    ]
    told = {**more, "dry_run": dry_run, "registries": outcome.registries, "changes": changes}
    told |= {"changed_since": outcome.changed_since, "commands": outcome.commands, "notes": notes}
    print(msgspec.json.encode(told).decode())


def _note(notes: Iterable[str]) -> None:
    for line in notes:
        print(printable(f"note: {line}"), file=sys.stderr, flush=True)
