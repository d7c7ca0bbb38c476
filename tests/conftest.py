"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Nothing is asserted about time: a busy machine is not a failure.
settings.register_profile("dragonet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dragonet")
