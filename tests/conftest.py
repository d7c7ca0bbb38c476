"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# Nothing is asserted about time: a busy machine is not a failure.
settings.register_profile("dragonet", deadline=None)
settings.load_profile("dragonet")
