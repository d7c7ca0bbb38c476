"""Doors before the lab's registry that ask who comes: nginx with passwords, and docker-registry with tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.integration.net import request, wait_until
from tests.lab.cluster import ImageLab
from tests.programs import require_module, require_program
from tests.registry import PASSWORD, USER, DockerRegistry, TokenService

STRANGER = "mallory"
PRIVATE, PUBLIC = "team/app", "public/app"


@dataclass(frozen=True)
class Door:
    """Another name of the lab's registry, HOST:PORT, where only ``USER`` may have what is ``PRIVATE``."""

    name: str


@contextmanager
def nginx_with_passwords(lab: ImageLab) -> Iterator[Door]:
    """nginx in front of the registry. The stranger has a password, but not for the private repository."""
    folder = lab.folder / "nginx"
    folder.mkdir()
    (folder / "team").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
    (folder / "all").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n{STRANGER}:{{PLAIN}}{PASSWORD}\n")
    address = f"{lab.store.address}:5080"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}; " for kind in kinds)
    ask = 'auth_basic "lab"; auth_basic_user_file'
    upstream = f"proxy_pass http://{lab.registry.name}; proxy_set_header Host $http_host;"
    (folder / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {folder}/pid; user root; error_log {folder}/error.log;
        events {{ worker_connections 1024; }}
        http {{ access_log off; {temporary} proxy_buffering off;
        server {{ listen {address};
        location /v2/ {{ {ask} {folder}/all; {upstream} }}
        location /v2/team/ {{ {ask} {folder}/team; {upstream} }}
        location /v2/public/ {{ {upstream} }} }} }}"""
    )
    with (folder / "log").open("wb") as log:
        process = lab.store.start(
            [
                *(require_program("nginx"), "-p", str(folder), "-e", str(folder / "error.log")),
                *("-c", str(folder / "nginx.conf")),
            ],
            {},
            log,
        )
    try:
        wait_until(lambda: _answers(address), "nginx answers", 20)
        yield Door(address)
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def tokens(lab: ImageLab) -> Iterator[Door]:
    """The registry's content behind tokens. The stranger gets tokens, but for public repositories only."""
    require_module("cryptography")
    service = TokenService(frozenset({PUBLIC}), readers={STRANGER: frozenset()}, host=lab.network.gateway)
    with (
        service,
        DockerRegistry(
            lab.registry.folder,
            require_program("docker-registry"),
            auth=service.auth,
            address=f"{lab.store.address}:5001",
            prefix=lab.store.prefix,
        ) as registry,
    ):
        yield Door(registry.name)


DOORS = {"nginx with passwords": nginx_with_passwords, "tokens": tokens}


def _answers(address: str) -> bool:
    try:
        return request(address, "/v2/", timeout=2).status == 401
    except OSError:
        return False
