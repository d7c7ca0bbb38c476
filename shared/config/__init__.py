"""Configuration: frozen structs filled from a TOML file, the environment and flags, under the same names.

A section is a ``msgspec.Struct`` beside the component that it configures; its fields are
``Annotated[T, msgspec.Meta(description="one sentence")]``. The key ``upload_rate`` of section ``host`` is
``[host] upload_rate`` in the file, ``DRAGONET_HOST_UPLOAD_RATE`` in the environment, ``host.upload_rate``
among the flags. A flag wins over the environment, that over the file, that over the default.
"""

from __future__ import annotations

from shared.config.dumping import dump
from shared.config.fields import Address, Fraction, Rate, Seconds, Secret, Size, Url, WrongSetting
from shared.config.loading import ENVIRONMENT_PREFIX, Loaded, load

__all__ = [
    "ENVIRONMENT_PREFIX",
    "Address",
    "Fraction",
    "Loaded",
    "Rate",
    "Seconds",
    "Secret",
    "Size",
    "Url",
    "WrongSetting",
    "dump",
    "load",
]
