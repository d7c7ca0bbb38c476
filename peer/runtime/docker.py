"""What Docker needs to pull through the gateway: ``registry-mirrors`` in ``daemon.json``. Pure but for reading.

Docker asks mirrors for Docker Hub's images only, names no registry in the requests, and reads the list again when it
is told to reload. It does not start when the list is given as a flag and in the file.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import Any

from cdn.sources.oci.names import DOCKER_HUB
from peer.runtime.errors import BrokenFile, Conflict
from peer.runtime.names import Wanted
from peer.runtime.plan import Edit, Files, Plan

FILE = "/etc/docker/daemon.json"
KEY = "registry-mirrors"
FLAG = "--registry-mirror"

_UNITS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_DEFAULTS = ("/etc/default/docker", "/etc/sysconfig/docker", "/etc/conf.d/docker")
_BLANK = re.compile(r"[ \t\r\n]*")


def plan_docker(files: Files, wanted: Wanted) -> Plan:
    """Raises SetupError."""
    others = [name for name in wanted.registries if name != DOCKER_HUB]
    if others:
        raise Conflict(
            f"Docker can mirror Docker Hub only: leave --registry {', '.join(others)} out (containerd, podman and "
            "CRI-O can mirror any registry)"
        )
    if wanted.default != DOCKER_HUB:
        raise Conflict(
            "Docker names no registry when it asks a mirror, and the gateway would take its requests for "
            f"{wanted.default or 'no registry'}: set registry.default to {DOCKER_HUB}"
        )
    _refuse_flag(files)
    content = files.read(FILE)
    text = with_mirror(FILE, "" if content is None else _decoded(content), wanted.gateway.url, wanted.former)
    encoded = text.encode()
    edits = {FILE: Edit(encoded)} if encoded != content else {}
    return Plan("docker", edits, (DOCKER_HUB,))


def with_mirror(path: str, text: str, url: str, former: tuple[str, ...] = ()) -> str:
    """The text of a ``daemon.json`` with the mirror first, written as it was otherwise. Raises BrokenFile."""
    bare = text.removeprefix("\ufeff")
    if not bare.strip():
        return f'{{\n  "{KEY}": [{json.dumps(url)}]\n}}\n'
    meant = _load(path, bare)
    mirrors = meant.get(KEY, [])
    if not isinstance(mirrors, list) or not all(isinstance(mirror, str) for mirror in mirrors):
        raise BrokenFile(path, f"{KEY} is no list of URLs")
    ours = [mirror for mirror in mirrors if mirror.rstrip("/") in {url, *former}]
    if mirrors[:1] == ours and ours and ours[0].rstrip("/") == url:
        return text
    meant[KEY] = [url, *(mirror for mirror in mirrors if mirror not in ours)]
    edited = _edited(bare, url, meant[KEY], clean=not ours)
    return text[: len(text) - len(bare)] + edited


def _edited(text: str, url: str, mirrors: list[str], *, clean: bool) -> str:
    found = _values(text)
    if KEY not in found:
        at = text.index("{") + 1
        lead = _blank(text, at)
        comma = "," if found else ""
        return f'{text[:at]}{lead}"{KEY}": {json.dumps(mirrors)}{comma}{text[at:]}'
    start, end = found[KEY]
    if clean and len(mirrors) > 1:
        at = start + 1
        lead = _blank(text, at)
        gap = "" if lead else " "
        return f"{text[:at]}{lead}{json.dumps(url)},{gap}{text[at:]}"
    return f"{text[:start]}{json.dumps(mirrors)}{text[end:]}"


def _blank(text: str, at: int) -> str:
    match = _BLANK.match(text, at)
    return match[0] if match else ""


def _values(text: str) -> dict[str, tuple[int, int]]:
    """Where the values of an object's keys stand in a valid text."""
    decoder = json.JSONDecoder()
    at = text.index("{") + 1
    found: dict[str, tuple[int, int]] = {}
    while True:
        at += len(_blank(text, at))
        if text[at] == "}":
            return found
        if text[at] == ",":
            at += 1
            continue
        name, at = decoder.raw_decode(text, at)
        at += len(_blank(text, at)) + 1  # the colon
        at += len(_blank(text, at))
        _, end = decoder.raw_decode(text, at)
        found[name] = (at, end)
        at = end


def _load(path: str, text: str) -> dict[str, Any]:
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise BrokenFile(path, f"{error.msg} (at line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise BrokenFile(path, "it is nested too deeply") from None
    if not isinstance(table, dict):
        raise BrokenFile(path, "it holds no JSON object")
    return table


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BrokenFile(FILE, f"it is not UTF-8 (at line {line})") from None


def _refuse_flag(files: Files) -> None:
    for path in _startup(files):
        content = files.read(path) or b""
        lines = content.decode("utf-8", "replace").splitlines()
        if any(FLAG in line and not line.lstrip().startswith(("#", ";")) for line in lines):
            raise Conflict(
                f"{path} starts Docker with {FLAG}, and Docker does not start when {FILE} has {KEY} too: move the "
                f"mirror from there to {FILE}, and try again"
            )


def _startup(files: Files) -> list[str]:
    """The files that may tell with which flags Docker is started."""
    found = []
    for folder in _UNITS:
        drop_ins = f"{folder}/docker.service.d"
        found.append(f"{folder}/docker.service")
        found += [posixpath.join(drop_ins, name) for name in files.names(drop_ins) if name.endswith(".conf")]
    return [*found, *_DEFAULTS]
