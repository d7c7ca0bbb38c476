"""gs://, Google Cloud Storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
from obstore.store import GCSStore

from cdn.sources.objectstore.credentials import Credentials
from cdn.sources.objectstore.names import GOOGLE_BUCKETS, BucketRule, ObjectName
from cdn.sources.objectstore.service import Place, Service

if TYPE_CHECKING:
    from obstore.store import GCSConfig, GCSCredential, GCSCredentialProvider

_DEFAULT = "https://storage.googleapis.com"


class _ServiceAccountKey(msgspec.Struct):
    """What is used of a key. Nothing else of it is handed on: it may name an endpoint, for one."""

    client_email: str
    private_key: str
    private_key_id: str = ""


def _clean(key: str | bytes) -> str:
    """A service account's key without what is not needed. Raises ValueError when it is none."""
    return msgspec.json.encode(msgspec.json.decode(key, type=_ServiceAccountKey)).decode()


class GoogleService(Service):
    """Google Cloud Storage, or an emulator at ``endpoint``."""

    buckets: ClassVar[BucketRule] = GOOGLE_BUCKETS
    version_parameter = "generation"
    secrets = frozenset(
        {"service_account", "service_account_key", "application_default_credentials", "token"}
    )
    carried = frozenset({"service_account_key", "token"})
    places = frozenset({"endpoint", "instance_credentials"})
    # What is stored is wanted as it is stored: without this, Google undoes a gzip coding on the way.
    default_headers: ClassVar[dict[str, str]] = {"accept-encoding": "gzip"}

    def place(self, name: ObjectName) -> Place:
        if not name.odd:
            return Place(self.endpoint, name.bucket, name.key)
        root, _, last = name.key.rpartition("/")
        return Place(f"{self.endpoint}/{name.bucket}", root, last)

    def open(self, place: Place, credentials: Credentials) -> GCSStore:
        config: GCSConfig = {"base_url": place.base, "skip_signature": credentials.origin == "none"}
        provider: GCSCredentialProvider | None = None
        if "token" in credentials or credentials.origin == "none":
            provider = _provider(credentials["token"])
        elif "service_account_key" in credentials:
            config["service_account_key"] = _clean(credentials["service_account_key"])
        elif "service_account" in credentials:
            config["service_account_key"] = _clean(Path(credentials["service_account"]).read_bytes())
        elif "application_default_credentials" in credentials:
            config["application_credentials"] = credentials["application_default_credentials"]
        return GCSStore(
            place.bucket,
            config=config,
            client_options=self._transport,
            retry_config=self._retries,
            credential_provider=provider,
        )

    def problem(self, credentials: Credentials) -> str:
        if len(credentials.values) > 1:
            return f"are too many: give one of {', '.join(sorted(self.secrets))}"
        try:
            if "service_account_key" in credentials:
                _clean(credentials["service_account_key"])
            if "service_account" in credentials:
                _clean(Path(credentials["service_account"]).read_bytes())
        except ValueError:  # whose words might show a part of the key
            return "hold no service account's key: it is the JSON text that Google gives for one"
        except OSError as error:
            return f"cannot be read: service_account: {error.strerror}"
        return ""

    def _endpoint(self) -> str:
        return self._endpoint_option() or _DEFAULT


def _provider(token: str) -> GCSCredentialProvider:
    """The token in a form that keeps obstore from looking for other credentials in the home folder."""

    def provide() -> GCSCredential:
        return {"token": token, "expires_at": None}

    return provide
