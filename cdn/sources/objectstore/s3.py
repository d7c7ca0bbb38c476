"""s3:// and what speaks the same protocol: oss://, and every endpoint that the options name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, urlsplit

from obstore.store import S3Store

from cdn.sources.context import SourceContext
from cdn.sources.objectstore.credentials import Credentials
from cdn.sources.objectstore.names import OSS_BUCKETS, S3_BUCKETS, BucketRule, ObjectName
from cdn.sources.objectstore.service import Place, Service

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Credential, S3CredentialProvider

_REGION = re.compile(r"[a-z0-9][a-z0-9-]{1,40}")
_SECRETS = frozenset({"access_key_id", "secret_access_key", "session_token"})


class S3Service(Service):
    """Amazon S3; with an endpoint, any other service that speaks its protocol (in path style, unless
    ``virtual_hosted`` says otherwise)."""

    buckets: ClassVar[BucketRule] = S3_BUCKETS
    secrets = carried = _SECRETS
    places = frozenset({"region", "endpoint", "virtual_hosted", "instance_credentials"})

    def __init__(self, context: SourceContext) -> None:
        super().__init__(context)
        self._virtual_hosted = self._flag("virtual_hosted", self._hosted_by_default())

    def place(self, name: ObjectName) -> Place:
        base = self._bucket_url(name.bucket)
        if not name.odd:
            return Place(base, name.bucket, name.key)
        root, _, last = name.key.rpartition("/")
        return Place(f"{base}/{quote(root)}", name.bucket, last)

    def open(self, place: Place, credentials: Credentials) -> S3Store:
        config: S3Config = {
            "region": self.region,
            "endpoint": place.base,
            "aws_endpoint_url_s3": place.base,
            "virtual_hosted_style_request": True,  # the endpoint given here has the bucket in it either way
            "skip_signature": credentials.origin == "none",
            "s3_express": False,
            "request_payer": False,
        }
        return S3Store(
            place.bucket,
            config=config,
            client_options=self._transport,
            retry_config=self._retries,
            credential_provider=None if credentials.origin == "instance" else _provider(credentials),
        )

    def problem(self, credentials: Credentials) -> str:
        if credentials.values and not ("access_key_id" in credentials and "secret_access_key" in credentials):
            return "are not complete: access_key_id and secret_access_key belong together"
        return ""

    @property
    def region(self) -> str:
        """The region that requests are signed for. Raises ConfigError."""
        text = self._option("region") or self._default_region()
        if _REGION.fullmatch(text) is None:
            raise self._wrong("region", f"{text!r} is not a region: write it as in us-east-1")
        return text

    def _default_region(self) -> str:
        names = ("AWS_REGION", "AWS_DEFAULT_REGION")
        return next((self._environ[name] for name in names if self._environ.get(name)), "us-east-1")

    def _hosted_by_default(self) -> bool:
        return not self._option("endpoint")

    def _endpoint(self) -> str:
        return self._endpoint_option() or f"https://s3.{self.region}.amazonaws.com"

    def _bucket_url(self, bucket: str) -> str:
        # A certificate for *.HOST does not hold for a bucket with dots.
        if not self._virtual_hosted or "." in bucket:
            return f"{self.endpoint}/{bucket}"
        parts = urlsplit(self.endpoint)
        return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path}"


class OssService(S3Service):
    """Aliyun OSS, through the endpoints that speak the S3 protocol (its manual, "Use AWS SDKs to access
    OSS"); it wants the bucket in the host name."""

    buckets: ClassVar[BucketRule] = OSS_BUCKETS
    places = frozenset({"region", "endpoint", "virtual_hosted"})

    def _default_region(self) -> str:
        if not self._option("endpoint"):
            raise self._wrong("region", "is not set: write it as in cn-hangzhou, or set endpoint")
        return "oss"

    def _hosted_by_default(self) -> bool:
        return True

    def _endpoint(self) -> str:
        return self._endpoint_option() or f"https://s3.oss-{self.region.removeprefix('oss-')}.aliyuncs.com"


def _provider(credentials: Credentials) -> S3CredentialProvider:
    """The credentials in a form with which nothing of the environment is mixed (a session token, say)."""

    def provide() -> S3Credential:
        return {
            "access_key_id": credentials["access_key_id"],
            "secret_access_key": credentials["secret_access_key"],
            "token": credentials["session_token"] or None,
            "expires_at": None,
        }

    return provide
