"""The commands by name. Their modules import what they need when they run, not before."""

from __future__ import annotations

from cyclopts import App, Group, Parameter

from peer.cli.credentials import Credentials
from peer.cli.get import Tree, get
from peer.cli.lan import lan
from peer.cli.options import Common, Daemon
from peer.cli.plugin import plugin
from peer.cli.preheat import preheat, preheats
from peer.cli.roles import peer, scheduler, seeder, up
from peer.cli.runtime import runtime
from peer.cli.settings import config, version
from peer.cli.tasks import ls, rm, stat

_RUN = Group.create_ordered("Run")
_USE = Group.create_ordered("Use")
_ASK = Group.create_ordered("Ask")

for _options in (Common, Daemon, Credentials, Tree):
    Parameter(name="*")(_options)  # their options stand beside those of the command

app = App(
    name="dragonet",
    help="Peer-to-peer distribution for clusters: one origin read, many machines, every piece verified.",
    default_parameter=Parameter(show_default=False),
    version_flags=[],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)
for _group, _commands in (
    (_RUN, (up, scheduler, seeder, peer)),
    (_USE, (get, stat, ls, rm, preheat, preheats)),
    (_ASK, (lan, config, version)),
):
    for _command in _commands:
        app.command(_command, group=_group)
plugin.group = _ASK
app.command(plugin)
runtime.group = _USE
app.command(runtime)
