"""What is remembered of who may read what: never longer, never for others, never more than the bound."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.sources.oci.descriptor import Descriptor
from peer.gateway import proofs as module
from peer.gateway.proofs import DOUBT_FOR, MAX_TAGS, TAG_FOR, Proofs, Standing
from shared.errors import SourceError

HERE, THERE = ("registry.example", "team/app"), ("registry.example", "team/other")
ERROR = SourceError("no", origin_status=401)

repositories = st.sampled_from([HERE, THERE, ("other.example", "team/app")])
credentials = st.sampled_from(["Basic YQ==", "Basic YQ", "Bearer a", ""])
seconds = st.floats(0, 200, allow_nan=False)


def described(number: int = 1) -> Descriptor:
    return Descriptor("application/json", f"sha256:{number:064x}", number)


@given(
    st.lists(
        st.tuples(st.sampled_from(["learn", "forget", "ask"]), repositories, credentials, seconds, seconds)
    )
)
def test_a_proof_is_what_was_proven(
    steps: list[tuple[str, tuple[str, str], str, float, float]],
) -> None:
    """Against the plainest model: for each repository and each credentials, until when."""
    proofs, until, now = Proofs(60.0, b"k" * 32), {}, 0.0
    for what, repository, shown, later, life in steps:
        now += later
        key = proofs.key(repository, shown)
        if what == "learn":
            proofs.learn(key, now, now + life)
            until[repository, shown] = min(now + life, now + 60.0)
        elif what == "forget":
            proofs.forget(key)
            until.pop((repository, shown), None)
        for other_repository, other in [(repository, shown), (HERE, "Bearer a"), (THERE, "Bearer a")]:
            expected = now < until.get((other_repository, other), -inf)
            assert proofs.good(proofs.key(other_repository, other), now) == expected


@given(st.lists(st.tuples(st.sampled_from(["public", "refused", "trouble"]), repositories, seconds)))
def test_what_is_public_is_what_was_public_lately(steps: list[tuple[str, tuple[str, str], float]]) -> None:
    standing, now = Standing(100.0), 0.0
    until: dict[tuple[str, str], float] = {}
    revoked: set[tuple[str, str]] = set()
    for what, repository, later in steps:
        now += later
        if what == "public":
            standing.note_public(repository, now)
            until[repository] = now + 100.0
            revoked.discard(repository)
        elif what == "refused":
            standing.note_refused(repository, ERROR, now)
            until.pop(repository, None)
            revoked.add(repository)
        else:
            standing.note_trouble(repository, ERROR, now)
        for known in (HERE, THERE):
            assert standing.public(known, now) == (now < until.get(known, -inf))
            assert standing.revoked(known) == (known in revoked)


def test_a_doubt_is_short() -> None:
    standing = Standing(100.0)
    standing.note_trouble(HERE, ERROR, 0.0)
    assert standing.doubt(HERE, DOUBT_FOR - 0.1) is ERROR
    assert standing.doubt(THERE, 0.0) is None
    assert standing.doubt(HERE, DOUBT_FOR) is None
    standing.note_refused(HERE, ERROR, 10.0)
    standing.note_public(HERE, 11.0)
    assert standing.doubt(HERE, 11.0) is None


def test_tags_are_known_for_a_while_and_under_their_proof_only() -> None:
    proofs = Proofs(1000.0, b"k" * 32)
    mine, theirs = proofs.key(HERE, "Bearer a"), proofs.key(HERE, "Bearer b")
    proofs.learn(mine, 0.0, inf, tag="v1", descriptor=described())
    proofs.learn(theirs, 0.0, inf)
    assert proofs.tag(mine, "v1", TAG_FOR - 1) == described()
    assert proofs.tag(theirs, "v1", 0.0) is None
    assert proofs.last_tag(theirs, "v1", 0.0) is None
    assert proofs.tag(mine, "v2", 0.0) is None
    assert proofs.tag(mine, "v1", TAG_FOR) is None
    assert proofs.last_tag(mine, "v1", TAG_FOR) == described()
    assert proofs.last_tag(mine, "v1", 1000.0) is None, "it went with the proof"
    proofs.learn(mine, 2000.0, inf)
    assert proofs.last_tag(mine, "v1", 2000.0) is None


def test_a_shorter_life_shortens() -> None:
    proofs = Proofs(60.0, b"k" * 32)
    key = proofs.key(HERE, "Bearer a")
    proofs.learn(key, 0.0, inf)
    proofs.learn(key, 1.0, 2.0)
    assert not proofs.good(key, 2.0)


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KNOWN", 10)
    proofs, standing = Proofs(60.0, b"k" * 32), Standing(60.0)
    first = proofs.key(HERE, "first")
    for number in range(50):
        proofs.learn(proofs.key(HERE, f"Bearer {number}"), 0.0, inf)
        standing.note_public(("registry.example", str(number)), 0.0)
        proofs.learn(first, 0.0, inf, tag=f"v{number}", descriptor=described())
    assert len(proofs) == len(standing) == 10
    assert proofs.good(first, 1.0), "what is used stays"
    for number in range(200):
        proofs.learn(first, 0.0, inf, tag=f"v{number}", descriptor=described())
    assert sum(proofs.tag(first, f"v{number}", 1.0) is not None for number in range(200)) == MAX_TAGS


def test_credentials_cannot_be_found_out() -> None:
    one, other = Proofs(60.0, b"k" * 32), Proofs(60.0, b"l" * 32)
    assert one.key(HERE, "Bearer a") == one.key(HERE, "Bearer a") != one.key(HERE, "Bearer b")
    assert one.key(HERE, "Bearer a") != one.key(THERE, "Bearer a")
    assert one.key(HERE, "Bearer a") != other.key(HERE, "Bearer a"), "the hash means nothing elsewhere"
    assert "Bearer" not in repr(one.key(HERE, "Bearer a")) + repr(one)
    assert one.key(HERE, "Bearer a").credentials.hex() not in repr(one.key(HERE, "Bearer a"))
