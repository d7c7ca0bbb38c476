"""Messages to bytes and back."""

from __future__ import annotations

import msgspec

from shared.errors import InvalidRequest
from shared.protocol.assignments import Assignment
from shared.protocol.availability import AvailabilityEvent
from shared.protocol.reports import Reports, ReportsTaken
from shared.protocol.values import PROTOCOL_VERSION, HostLease, LeaseGranted

encode = msgspec.msgpack.Encoder().encode
decode_lease = msgspec.msgpack.Decoder(HostLease).decode
decode_lease_granted = msgspec.msgpack.Decoder(LeaseGranted).decode
decode_reports = msgspec.msgpack.Decoder(Reports).decode
decode_reports_taken = msgspec.msgpack.Decoder(ReportsTaken).decode
decode_assignment = msgspec.msgpack.Decoder(Assignment).decode
decode_availability = msgspec.msgpack.Decoder(AvailabilityEvent).decode


def check_version(version: int) -> None:
    """Raises InvalidRequest, in words, when the other side speaks another protocol version."""
    if version != PROTOCOL_VERSION:
        raise InvalidRequest(
            f"the other side speaks dragonet protocol {version}, this side {PROTOCOL_VERSION}: "
            "run the same dragonet release on all hosts"
        )
