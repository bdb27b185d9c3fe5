"""Plots of a search, and a page that holds them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gantool.files import atomic_write, disk, write
from gantool.report.findings import Findings
from gantool.report.page import page

_STYLE: dict[str, Any] = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "font.size": 10,
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E8E8E8",
    "legend.frameon": False,
    "legend.columnspacing": 1.4,
    "legend.handletextpad": 0.4,
    "text.parse_math": False,  # a choice may have a dollar in its name
}


def draw(findings: Findings, importances: dict[str, float], sentences: Sequence[str], folder: Path) -> list[Path]:
    """Draw what a search found.

    Args:
        findings: the trials; none need have finished.
        importances: shares by dotted key; without them there is no plot of them.
        sentences: what the page says above the plots.
        folder: where `history.png`, `importances.png`, `parallel.png`, `slices.png` and `index.html` are written.

    Returns:
        The files that were written.

    Raises:
        ResourceError: the folder cannot be written.
    """
    import matplotlib.style

    from gantool.report import charts

    pictures: list[tuple[Path, str]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk(folder, error) from None
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks shows as a box, which is all there is to say
        for name, figure in (
            ("history", charts.history(findings)),
            ("importances", charts.importances(findings, importances)),
            ("parallel", charts.parallel(findings)),
            ("slices", charts.slices(findings)),
        ):
            path = folder / f"{name}.png"
            if figure is None:
                path.unlink(missing_ok=True)  # one drawn earlier would be wrong by now
                continue
            with atomic_write(path) as aside:
                figure.savefig(aside, format="png")
            pictures.append((path, str(figure.get_label())))
    write(folder / "index.html", page(findings, sentences, pictures))
    return [*(path for path, _ in pictures), folder / "index.html"]
