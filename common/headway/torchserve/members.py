"""Which members an archive may have: names that stay in its folder, plain files and folders, not too much.

Knows: names, zip files' tables. Must not know: what is unpacked where.

A zip file says in its table what is in it, so what would be refused when it is unpacked is refused before it
is registered. What the table declares is not believed: whoever unpacks counts for himself. A gzipped tar has
no table, and is looked at when it is unpacked.
"""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

from headway.errors import SettingsError

DEPTH_MAX = 64
FILES_MAX = 100_000
# A file may unpack to this many times its own size, and to so much in any case. Weights hardly shrink;
# a bomb grows a thousandfold.
GROWTH_MAX = 100
ALWAYS_BYTES = 256 << 20


class Refused(SettingsError):
    """An archive that is not unpacked, with the member that is the reason."""


def unpacked_bytes_max(path: Path) -> int:
    """The most that a packed archive of this size is allowed to unpack to."""
    return max(path.stat().st_size * GROWTH_MAX, ALWAYS_BYTES)


def parts_of(name: str) -> tuple[str, ...]:
    """The folders and the file that a member's name says. Raises: Refused."""
    if not name or "\0" in name or "\\" in name or not name.isprintable():
        raise Refused("its name is not one of a file")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or not parts:
        raise Refused("it leads out of the archive's folder")
    if len(parts) > DEPTH_MAX:
        raise Refused(f"it is more than {DEPTH_MAX} folders deep")
    return parts


def check_zipped(member: zipfile.ZipInfo) -> None:
    """Raises: Refused for a link, a device, and what nobody can read."""
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Refused("it is a link or a device")
    if member.flag_bits & 1:
        raise Refused("it is encrypted")


def check_zip(path: Path) -> None:
    """What its table says. Raises: Refused naming the member; what `zipfile` raises for what is none."""
    with zipfile.ZipFile(path) as packed:
        members = packed.infolist()
    if len(members) > FILES_MAX:
        raise Refused(f"{path.name} has more than {FILES_MAX} members")
    if sum(member.file_size for member in members) > (most := unpacked_bytes_max(path)):
        raise Refused(f"{path.name} unpacks to more than {most} bytes")
    for member in members:
        try:
            check_zipped(member)
            parts_of(member.filename)
        except Refused as error:
            raise Refused(f"{path.name}: {member.filename!r} is refused: {error}") from None
