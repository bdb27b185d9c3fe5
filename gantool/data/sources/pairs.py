"""The user's own pairs: images of the same name in two folders, or two images side by side in each file."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gantool.batches import Paired
from gantool.data import decode
from gantool.data.sources.folders import Folder
from gantool.data.sources.images import SIDES, SourceImage, side_by_side, two_classes
from gantool.data.sources.layout import explore
from gantool.errors import DataError
from gantool.terminal import printable

MAX_NAMED = 3  # files that the refusal of a folder names
Named = Mapping[str, Sequence[Path]]  # the files of each name; only one of them can be part of a pair


class Pairs(Folder):
    """A folder of pairs of images.

    If it has subfolders, two of them are the classes, and two files are a pair if their paths below them are equal but
    for the ending. Case counts. Otherwise each file is two images side by side, the left one of the class `A` and the
    right one of `B`. A lone wrapping folder is looked through.

    Args:
        path: the folder.
        inside: use this folder of it only, such as `train`; it may be at any depth if no other has its name.
        classes: the source's and the target's; None for the two that exist, sorted.

    Attributes:
        names: of the pairs, sorted.
        files: of each class, in the order of `names`; side by side, both classes have the same.
        problems: file or pair, and what is wrong with it. Files without a partner, a name of their own, a readable
            header or two equal halves are left out. Two images of unequal sizes are not, since each is resized anyway.

    Raises:
        DataError: as `Folder`; or the classes are not two that exist, or no pair is left.
    """

    kind = Paired

    def __init__(self, path: Path, inside: str | None = None, classes: Sequence[str] | None = None) -> None:
        self.path, found, self.problems = explore(path, inside)
        self.layout = "pairs-beside" if len(found) == 1 else "pairs-folders"
        if self.layout == "pairs-beside":
            pairs = self._halves(self._by_name(self.path, *found.values()))
            advice = "a file has to be two images side by side, or there have to be two folders with the same names"
        else:
            self.classes = two_classes(str(self.path), tuple(found), classes)
            pairs = self._partners(*(self._by_name(self.path / name, found[name]) for name in self.classes))
            advice = f"an image in {self.classes[0]} and its partner in {self.classes[1]} have to have the same name"
        if not pairs:
            named = ", ".join(f"{name} ({reason})" for name, reason in self.problems[:MAX_NAMED])
            more = f" and {len(self.problems) - MAX_NAMED} more" if len(self.problems) > MAX_NAMED else ""
            raise DataError(f"{self.path}: no pair in it: {named}{more}; {advice}")
        if self.layout == "pairs-beside":
            self.classes = two_classes(str(self.path), SIDES, classes)
        self.names = sorted(pairs)
        self.files = {name: [pairs[pair][place] for pair in self.names] for place, name in enumerate(self.classes)}

    def class_names(self, root: Path, classes: Sequence[str]) -> list[str]:
        """Return the classes of each pair in turn."""
        return [*classes] * len(self.names)

    def items(self, root: Path, classes: Sequence[str]) -> Iterator[SourceImage]:
        """Yield each pair's images, one after the other, in the order of `classes`; halves are decoded as they come.

        Files whose header is good may still be damaged: their reader has to leave out both images of a name.
        """
        for index, name in enumerate(self.names):
            if self.layout == "pairs-beside":
                yield from side_by_side(name, self.files[SIDES[0]][index], classes)
            else:
                for class_name in classes:
                    file = self.files[class_name][index]
                    yield SourceImage(self._shown(file), class_name, file)

    def _by_name(self, root: Path, files: Sequence[Path]) -> Named:
        """Group files by their name below `root` without its ending; all but the first of a name are problems."""
        named: dict[str, list[Path]] = {}
        for file in files:
            # Some systems store é as one character and others as two, which are the same name to a reader.
            name = unicodedata.normalize("NFC", file.relative_to(root).with_suffix("").as_posix())
            named.setdefault(name, []).append(file)
        for first, *others in named.values():
            for other in others:
                self._leave_out(other, f"has the name of {self._shown(first)}")
        return named

    def _halves(self, named: Named) -> dict[str, tuple[Path, Path]]:
        pairs = {}
        for name, (file, *others) in named.items():
            size = None if others else self._size(file)
            if size is None:
                continue
            height, width = size
            if width <= height:
                self._leave_out(file, f"{width}x{height}, but two images side by side are wider than high")
            elif width % 2:
                self._leave_out(file, f"{width} pixels wide, which is odd, so that its halves differ")
            else:
                pairs[name] = (file, file)
        return pairs

    def _partners(self, sources: Named, targets: Named) -> dict[str, tuple[Path, Path]]:
        source, target = self.classes
        self._leave_out_lone(sources, targets, target)
        self._leave_out_lone(targets, sources, source)
        pairs = {}
        for name in (name for name in sources if len(sources[name]) == len(targets.get(name, ())) == 1):
            files = (sources[name][0], targets[name][0])
            one, other = map(self._size, files)
            if one and other:
                pairs[name] = files
            if one and other and one != other:
                self.problems.append((name, f"{one[1]}x{one[0]} in {source}, {other[1]}x{other[0]} in {target}"))
        return pairs

    def _leave_out_lone(self, own: Named, others: Named, other: str) -> None:
        alike = {name.casefold(): name for name in others}
        for name in (name for name in own if name not in others):
            near = alike.get(name.casefold())
            self._leave_out(own[name][0], f"no partner in {other}{f', where {near!r} differs in case' if near else ''}")

    def _size(self, file: Path) -> tuple[int, int] | None:
        """Return height and width by the header, or None if it cannot be read, which is a problem."""
        try:
            return decode.native(file)[1:]
        except decode.Unreadable as error:
            self._leave_out(file, error.reason)
            return None

    def _leave_out(self, file: Path, reason: str) -> None:
        self.problems.append((self._shown(file), reason))

    def _shown(self, file: Path) -> str:
        return printable(str(file.relative_to(self.path)))
