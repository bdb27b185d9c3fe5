"""Screens of a terminal, as pyte draws them."""

from __future__ import annotations

import io

import pyte
from gantool.terminal import _Console


class Terminal:
    """A terminal of `width` columns that a console of gantool writes to."""

    def __init__(self, width, height=40):
        self.file = io.StringIO()
        self.console = _Console(
            file=self.file,
            force_terminal=True,
            width=width,
            height=height,
            highlight=False,
            soft_wrap=True,
            emoji=False,
            legacy_windows=False,
            _environ={},
        )
        self.screen = pyte.Screen(width, height)
        self.stream = pyte.Stream(self.screen)

    def lines(self):
        """Return the lines of the screen, without what is blank at the end."""
        self.stream.feed(self.file.getvalue().replace("\n", "\r\n"))
        self.file.seek(0)
        self.file.truncate()
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip("\n").split("\n")
