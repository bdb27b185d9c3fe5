"""ASCII in place of letters that a console cannot show."""

from __future__ import annotations

import codecs
import unicodedata
from typing import Any

# One letter for one wherever tables or live lines depend on it.
STAND_INS = {
    **dict(zip("▁▂▃▄▅▆▇█", "_..--==#", strict=True)),
    **dict.fromkeys("━╸╺─╴╶", "-"),
    **dict.fromkeys("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "*"),
    **{"×": "x", "±": "+-", "→": ">", "…": "~", "·": "-", "–": "-", "—": "-", "’": "'", "“": '"', "”": '"', "²": "2"},
}


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """Return what replaces letters that an encoding lacks: the letter without its accent, or `?`."""
    assert isinstance(error, UnicodeEncodeError)
    text = ""
    for letter in error.object[error.start : error.end]:
        plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
        text += STAND_INS.get(letter, plain or "?")
    return text, error.end


def use_stand_ins(*streams: Any) -> None:
    """Make streams write stand-ins for what their encoding lacks, in place of raising an error."""
    codecs.register_error("gantool", _stand_in)
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="gantool")
