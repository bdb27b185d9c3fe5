"""Archives for tests: good ones, and ones whose headers lie."""

from __future__ import annotations

import io
import tarfile
import zipfile


def make_zip(path, members, method=zipfile.ZIP_DEFLATED):
    """Write (name, bytes) pairs unchanged; a name may be a ZipInfo."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, body in members:
            archive.writestr(name, body)
    return path


def make_tar(path, members, mode="w:"):
    """Write (name, bytes) pairs unchanged; a name may be a TarInfo."""
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
        for name, body in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(body)
            if not isinstance(name, tarfile.TarInfo) and name.endswith("/"):
                info.type = tarfile.DIRTYPE
            archive.addfile(info, io.BytesIO(body))
    return path


def make(path, members):
    """Write the kind of archive that the name says."""
    kind = path.name.partition(".")[2]
    return make_zip(path, members) if kind == "zip" else make_tar(path, members, f"w:{kind[4:]}")


def changed(archive, *changes):
    """Replace (place, bytes) pairs in a file."""
    data = bytearray(archive.read_bytes())
    for place, new in changes:
        data[place : place + len(new)] = new
    archive.write_bytes(data)
    return archive


def in_directory(archive, *changes):
    """Replace (offset, bytes) pairs in the last entry of a zip's directory."""
    start = archive.read_bytes().rindex(b"PK\x01\x02")
    return changed(archive, *((start + offset, new) for offset, new in changes))


def tar_block(name, kind, size):
    """Return a header whose size field holds any number, below zero too."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (256**12 + size).to_bytes(12, "big") if size < 0 else b"\x80" + size.to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
