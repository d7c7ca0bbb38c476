"""Stores behind TLS whose certificates nobody knows."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
import trio

from cdn.sources.interface import SourceRequest
from shared.errors import ConfigError, SourceError
from tests.programs import require_module
from tests.unit.cdn.sources.examples import read
from tests.unit.cdn.sources.objectstore.opening import open_client, opened

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "a"\r\n\r\nhello'


def issue(folder: Path) -> tuple[Path, Path]:
    """(authority, certificate with its key) for 127.0.0.1."""
    require_module("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)
    paths, keys, names = [], [], []
    for number, name in enumerate(("authority", "server")):
        keys.append(ec.generate_private_key(ec.SECP256R1()))
        names.append(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[-1])
            .issuer_name(names[0])
            .public_key(keys[-1].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=number == 0, path_length=None), critical=True)
        )
        if number:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        certificate = builder.sign(keys[0], hashes.SHA256())
        text = certificate.public_bytes(serialization.Encoding.PEM)
        if number:
            pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
            text += keys[-1].private_bytes(pem, form, serialization.NoEncryption())
        paths.append(folder / f"{name}.pem")
        paths[-1].write_bytes(text)
    return paths[0], paths[1]


async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
    try:
        while await stream.receive_some():
            await stream.send_all(ANSWER)
    except trio.BrokenResourceError:
        pass  # the client does not like the certificate


async def test_certificates(tmp_path: Path) -> None:
    authority, server = issue(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server)
    request = SourceRequest("s3://bucket/key")
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
        port = listeners[0].transport_listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        options = {"endpoint": f"https://127.0.0.1:{port}"}
        async with opened("s3", options) as client:
            with pytest.raises(SourceError, match=r"is not trusted \(UnknownIssuer\)") as caught:
                await client.download(request)
            assert caught.value.fault == "reader"
        async with opened("s3", {**options, "ca_file": str(authority)}) as client:
            assert await read(await client.download(request)) == b"hello"
        async with opened("s3", options, ca_file=str(authority)) as client:
            assert await read(await client.download(request)) == b"hello"
        nursery.cancel_scope.cancel()


def test_a_file_without_certificates(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match="holds no certificate"):
        open_client("s3", {"ca_file": str(tmp_path / "ca.pem")})
