"""Every plugin, whatever it extends, is a record in one registry."""

from shared.plugins.records import PluginKind, PluginRecord, PluginState
from shared.plugins.registry import PluginConflict, PluginRegistry

__all__ = ["PluginConflict", "PluginKind", "PluginRecord", "PluginRegistry", "PluginState"]
