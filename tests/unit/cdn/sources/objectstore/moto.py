"""Moto's S3 over real HTTP, with signatures checked: who is not its user is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.programs import require_module

REGION = "eu-west-1"


@dataclass
class Moto:
    """A running server. ``s3`` is a client (of boto3) that may do everything; ``session`` are credentials
    that hold for a while, with a token."""

    endpoint: str
    access_key_id: str
    secret_access_key: str
    s3: Any
    session: dict[str, Any]

    @property
    def options(self) -> dict[str, str]:
        return {
            "endpoint": self.endpoint,
            "region": REGION,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
        }

    def bucket(self, name: str, **objects: bytes) -> str:
        """Make a bucket that holds these objects."""
        self.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        for key, content in objects.items():
            self.put(name, key, content)
        return name

    def put(self, bucket: str, key: str, content: bytes) -> str:
        """Write an object; gives its version, where the bucket has versions."""
        answer = self.s3.put_object(Bucket=bucket, Key=key, Body=content, ContentType="text/x-test")
        return str(answer.get("VersionId", ""))


@contextmanager
def moto_server() -> Iterator[Moto]:
    require_module("moto")
    import boto3
    from moto import settings
    from moto.core.responses import ActionAuthenticatorMixin
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    before = settings.INITIAL_NO_AUTH_ACTION_COUNT
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"

        def client(service: str, key: str, secret: str) -> Any:
            return boto3.client(
                service,
                endpoint_url=endpoint,
                region_name=REGION,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
            )

        iam = client("iam", "anybody", "anybody")
        iam.create_user(UserName="reader")
        everything = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
        }
        iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(everything))
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}
        role = iam.create_role(RoleName="role", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        iam.put_role_policy(RoleName="role", PolicyName="all", PolicyDocument=json.dumps(everything))
        sts = client("sts", "anybody", "anybody")
        session = sts.assume_role(RoleArn=role, RoleSessionName="session")["Credentials"]
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        ActionAuthenticatorMixin.request_count = 0
        names = key["AccessKeyId"], key["SecretAccessKey"]
        yield Moto(endpoint, *names, client("s3", *names), session)
    finally:
        settings.INITIAL_NO_AUTH_ACTION_COUNT = before
        server.stop()
