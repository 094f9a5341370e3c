"""Archives read in place: a source's root may be a zip or a tar, whole or in parts.

An archive is listed once, when scans are looked for. A scan then carries the members it is made
of, each with its place in the archive, so that a worker reads those bytes and no others. They are
unpacked one scan at a time to a folder that goes when the scan is done.

    parts.py    which files are parts of one archive
    joined.py   one stream over them
    members.py  the values: Archive, Member, Packed; which member names are safe
    zips.py     the list of a zip, and one member's bytes, proved by length and CRC
    tars.py     the same of a tar, plain or compressed
    tree.py     members as files below a root
    unpack.py   `unpacked(scan)`: the one door
"""

from vocodata.archives.listing import list_archives
from vocodata.archives.members import Archive, Member, Packed
from vocodata.archives.unpack import unpacked

__all__ = ["Archive", "Member", "Packed", "list_archives", "unpacked"]
