"""Every message of dragonet's protocols. MessagePack on the wire, JSON on request.

Control protocol (host to scheduler, HTTP/1.1; hosts call, the scheduler never does):

* ``PUT /v1/hosts/{host}``             HostLease -> LeaseGranted; renewed every ``ttl / 3`` seconds
* ``GET /v1/hosts/{host}/assignments`` a stream of frames, each one Assignment, until either side hangs up
* ``POST /v1/hosts/{host}/reports``    Reports -> ReportsTaken
* ``DELETE /v1/hosts/{host}``          the lease is given up
* ``GET /v1/hello``                    Hello, in JSON: who answers here (hosts and schedulers alike)

Data protocol (host to host, HTTP/1.1):

* ``GET /v1/tasks/{task}/pieces/{number}``  the bytes
* ``GET /v1/tasks/{task}/availability``     a stream of frames, each one AvailabilityEvent

A frame is a 4-byte big-endian length and so many bytes of MessagePack (``shared.http.frames``).
Unknown fields are ignored, so fields may be added; a message whose ``version`` is not
``PROTOCOL_VERSION`` is refused in words. Task ids are 64 hex digits; times and durations are seconds,
lengths and rates bytes and bytes per second; digests are 32 bytes of BLAKE3.
"""

from __future__ import annotations

from shared.protocol.assignments import (
    Assignment,
    Beat,
    CheckGranted,
    ParentsAssigned,
    PieceDigests,
    PreheatOver,
    PreheatWanted,
    ResolveWanted,
    SourceGranted,
    SourceRevoked,
    TaskDescribed,
    TaskFailed,
    TaskFresh,
    TaskMoved,
    Welcome,
)
from shared.protocol.availability import Availability, AvailabilityEnded, AvailabilityEvent, PiecesAdded
from shared.protocol.codecs import (
    check_version,
    decode_assignment,
    decode_availability,
    decode_lease,
    decode_lease_granted,
    decode_reports,
    decode_reports_taken,
    encode,
)
from shared.protocol.reports import (
    FreshWanted,
    ParentFailed,
    ParentsWanted,
    PeerFinished,
    PeerHolding,
    PeerLeft,
    PeerRegistered,
    PiecesHeld,
    Preheated,
    Report,
    Reports,
    ReportsTaken,
    Resolved,
    SourceChecked,
    SourceFailed,
    SourceFinished,
    SourceOpened,
    SourcePieces,
    SourceProgress,
    TaskRemoved,
)
from shared.protocol.values import (
    CLASSES,
    KEY_HEADER,
    MAX_KNOWS,
    MAX_PLACES,
    MSGPACK,
    PROTOCOL_VERSION,
    SECRET_SIZE,
    VERSION_HEADER,
    Failure,
    Hello,
    HostLease,
    LeaseGranted,
    Message,
    Parent,
    PreheatItem,
    Role,
    TaskMeta,
)

__all__ = [
    "CLASSES",
    "KEY_HEADER",
    "MAX_KNOWS",
    "MAX_PLACES",
    "MSGPACK",
    "PROTOCOL_VERSION",
    "SECRET_SIZE",
    "VERSION_HEADER",
    "Assignment",
    "Availability",
    "AvailabilityEnded",
    "AvailabilityEvent",
    "Beat",
    "CheckGranted",
    "Failure",
    "FreshWanted",
    "Hello",
    "HostLease",
    "LeaseGranted",
    "Message",
    "Parent",
    "ParentFailed",
    "ParentsAssigned",
    "ParentsWanted",
    "PeerFinished",
    "PeerHolding",
    "PeerLeft",
    "PeerRegistered",
    "PieceDigests",
    "PiecesAdded",
    "PiecesHeld",
    "PreheatItem",
    "PreheatOver",
    "PreheatWanted",
    "Preheated",
    "Report",
    "Reports",
    "ReportsTaken",
    "ResolveWanted",
    "Resolved",
    "Role",
    "SourceChecked",
    "SourceFailed",
    "SourceFinished",
    "SourceGranted",
    "SourceOpened",
    "SourcePieces",
    "SourceProgress",
    "SourceRevoked",
    "TaskDescribed",
    "TaskFailed",
    "TaskFresh",
    "TaskMeta",
    "TaskMoved",
    "TaskRemoved",
    "Welcome",
    "check_version",
    "decode_assignment",
    "decode_availability",
    "decode_lease",
    "decode_lease_granted",
    "decode_reports",
    "decode_reports_taken",
    "encode",
]
