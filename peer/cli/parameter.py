"""How an option is called and explained, without loading what parses command lines.

Annotations are looked at when a command line is parsed in full; a command that ``quick`` understands starts
without all that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts import Parameter
else:

    def Parameter(**said: Any) -> Any:  # noqa: N802 - stands for the class
        """``cyclopts.Parameter(...)``."""
        from cyclopts import Parameter

        return Parameter(**said)


__all__ = ["Parameter"]
