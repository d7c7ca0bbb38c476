"""az://, Azure Blob Storage."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from obstore.store import AzureStore

from cdn.sources.builtin import environment_credentials
from cdn.sources.context import SourceContext
from cdn.sources.interface import SourceRequest
from cdn.sources.objectstore.credentials import Credentials
from cdn.sources.objectstore.names import AZURE_CONTAINERS, BucketRule, ObjectName
from cdn.sources.objectstore.service import Place, Service
from shared.errors import SourceError

if TYPE_CHECKING:
    from obstore.store import AzureConfig, AzureCredential, AzureCredentialProvider

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_TENANT = re.compile(r"[A-Za-z0-9.-]{1,100}")
_CLIENT = frozenset({"client_id", "client_secret", "tenant_id"})
_DOMAIN = "blob.core.windows.net"
_EMULATOR = "http://127.0.0.1:10000/devstoreaccount1"
_EMULATOR_ACCOUNT = "devstoreaccount1"
_EMULATOR_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of the emulator, the same for everybody (Azure's manual, "Use the Azurite emulator"): no secret."""


class AzureService(Service):
    """The containers of one storage account. A request may bring the name of another account with its
    credentials; where that account lies is for the configuration to say."""

    buckets: ClassVar[BucketRule] = AZURE_CONTAINERS
    secrets = frozenset({"account_key", "sas_token"}) | _CLIENT
    carried = secrets | {"account_name"}
    places = frozenset({"account_name", "endpoint", "use_emulator", "instance_credentials"})

    def __init__(self, context: SourceContext) -> None:
        self._emulator = context.options.get("use_emulator", "").strip().lower() == "true"
        super().__init__(context)
        self._flag("use_emulator", False)
        found = environment_credentials(self.scheme, self._environ)
        self._account = self._option("account_name") or found.get("account_name", "")
        if self._emulator:
            self._account = self._account or _EMULATOR_ACCOUNT
        if self._account and _ACCOUNT.fullmatch(self._account) is None:
            raise self._wrong("account_name", "is not the name of a storage account: 3 to 24 of a-z and 0-9")

    @property
    def host(self) -> str:
        return super().host or f"{self._account}.{_DOMAIN}"

    def credentials_for(self, request: SourceRequest) -> Credentials:
        found = super().credentials_for(request)
        if not self._account_of(found):
            raise SourceError(
                f"{self.scheme}:// needs the name of a storage account: set "
                f"source.options.{self.scheme}.account_name",
                fault="reader",
            )
        return found

    def _account_of(self, credentials: Credentials) -> str:
        return credentials["account_name"] or self._account

    def place(self, name: ObjectName) -> Place:
        if not name.odd:
            return Place(self.endpoint, name.bucket, name.key)
        root, _, last = name.key.rpartition("/")
        # obstore puts the container's name behind the endpoint, whatever that ends with.
        return Place(f"{self.endpoint}/{name.bucket}/{quote(root)}", last, "")

    def open(self, place: Place, credentials: Credentials) -> AzureStore:
        account = self._account_of(credentials)
        config: AzureConfig = {
            "account_name": account,
            "endpoint": place.base if self.endpoint else f"https://{account}.{_DOMAIN}{place.base}",
            "use_emulator": False,
            "authority_host": "https://login.microsoftonline.com",
            "skip_signature": not self.signed(credentials),
        }
        if "client_id" in credentials:
            config["client_id"] = credentials["client_id"]
            config["client_secret"] = credentials["client_secret"]
            config["tenant_id"] = credentials["tenant_id"]
            config["credential_type"] = "client_secret"
        return AzureStore(
            place.bucket,
            config=config,
            client_options=self._transport,
            retry_config=self._retries,
            credential_provider=_provider(credentials),
        )

    def problem(self, credentials: Credentials) -> str:
        names = {name for name, _ in credentials.values} & self.secrets
        if names & _CLIENT and not names >= _CLIENT:
            return "are not complete: client_id, client_secret and tenant_id belong together"
        if len(names - _CLIENT) + bool(names & _CLIENT) > 1:
            return "are too many: give account_key, sas_token, or client_id with client_secret and tenant_id"
        if "tenant_id" in credentials and _TENANT.fullmatch(credentials["tenant_id"]) is None:
            return "hold a tenant_id that is none"
        if "account_name" in credentials and _ACCOUNT.fullmatch(credentials["account_name"]) is None:
            return "hold an account_name that is none: such names have 3 to 24 of a-z and 0-9"
        return ""

    def _configured(self) -> Credentials:
        found = super()._configured()
        if self._emulator and found.origin == "none":
            return Credentials.of({"account_key": _EMULATOR_KEY}, "options")
        return found

    def _endpoint(self) -> str:
        return self._endpoint_option() or (_EMULATOR if self._emulator else "")


def _provider(credentials: Credentials) -> AzureCredentialProvider | None:
    """The credentials in a form before which nothing of the environment comes; None for what is no secret
    by itself but has a token fetched."""

    def key() -> AzureCredential:
        return {"access_key": credentials["account_key"], "expires_at": None}

    def signature() -> AzureCredential:
        return {"sas_token": credentials["sas_token"].removeprefix("?"), "expires_at": None}

    if "account_key" in credentials:
        return key
    return signature if "sas_token" in credentials else None
