"""The message of an error that a user can act on."""

from __future__ import annotations

import pytest
from gantool.errors import GantoolError


def refusal(function, *arguments, code=3):
    """Call a function, and return the one line of the error that it raises, whose exit code has to be `code`."""
    with pytest.raises(GantoolError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == code
    return message
