"""Writes a new plugin from its template."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cdn.sources.plugins.attributes import is_scheme
from cdn.sources.plugins.folder import PREFIX
from cdn.sources.plugins.intree import BUILT_IN
from shared.errors import DragonetError, InvalidRequest

KINDS = ("source",)
"""The kinds of plugins that there are templates for."""
PLACEHOLDER = "templatefs"
MAX_NAME = 64

_TEMPLATES = Path(__file__).parent


class NotWritten(DragonetError):
    """The plugin could not be written; nothing of it is left behind."""


def write_source(name: str, folder: Path, plugin_dir: Path) -> list[str]:
    """Write a source plugin for the scheme ``name`` and its test to ``folder``; what to tell its author.

    Existing files are never touched. Raises InvalidRequest when the name is no scheme or is taken,
    NotWritten.
    """
    scheme = name.lower()
    if not is_scheme(name) or len(name) > MAX_NAME:
        raise InvalidRequest(
            f"{name!r} cannot be a scheme: a letter, then letters, digits, '+', '-' and '.', {MAX_NAME} at most"
        )
    if scheme in BUILT_IN:
        raise InvalidRequest(f"{scheme}:// is built in: choose another name")
    plugin = folder / f"{PREFIX}{scheme}.py"
    test = folder / f"test_{re.sub('[+.-]', '_', scheme)}.py"
    _write({plugin: _filled("source/plugin.py", scheme), test: _filled("source/test_plugin.py", scheme)})
    settings = f"--set source.plugin_dir={folder} --set source.options.{scheme}.root=FOLDER"
    return [
        f"wrote {plugin}",
        f"wrote {test}",
        "",
        "Test it, see that dragonet takes it, and read FOLDER/FILE through it:",
        f"  python -m pytest {test}",
        f"  dragonet plugin {settings}",
        f"  dragonet get {scheme}://host/FILE -o out {settings}",
        f"To install it, copy {plugin.name} to {plugin_dir} on the seeders.",
    ]


def _filled(template: str, scheme: str) -> str:
    return (_TEMPLATES / template).read_text(encoding="utf-8").replace(PLACEHOLDER, scheme)


def _write(texts: dict[Path, str]) -> None:
    written: list[Path] = []
    try:
        for path, text in texts.items():
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o755, parents=True)
            # not the umask's mode: root's daemon refuses plugins that a group may write
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            written.append(path)
            with open(fd, "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise NotWritten(
                f"{error.filename} is there already: remove it, or choose another --dir"
            ) from None
        raise NotWritten(f"cannot write {error.filename}: {error.strerror}") from None
