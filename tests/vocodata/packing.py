"""Archives for tests: files packed in every way that is read."""

import io
import re
import struct
import subprocess
import tarfile
import zipfile

KINDS = ["zip", "tar", "tar.gz", "tar.xz", "zip.001", "tar.001", "z01", "pieces", "zips", "zip64"]


def contents(folder):
    """All files below a folder, by name, as `pack` takes them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def pack(files, folder, kind):
    """Pack {name: bytes} as `kind` into `folder`; the root that a manifest names."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "zips":
        for number, (name, content) in enumerate(files.items()):
            write_zip(folder / f"set{number % 2}.zip", {name: content}, mode="a")
        return folder
    if kind == "z01":
        return _spanned(files, folder)
    if kind == "zip64":
        return write_zip64(folder / "all.zip", files)
    whole = folder / f"all.{kind.split('.0')[0] if kind != 'pieces' else 'zip'}"
    if ".tar" in whole.name:
        write_tar(whole, files)
    else:
        write_zip(whole, files)
    if kind == "zip.001" or kind == "tar.001":
        return _cut(whole, [f"{whole.name}.{n:03}" for n in range(1, 6)])
    if kind == "pieces":
        _cut(whole, ["NLST_v188", "NLST_v189", "NLST_v19000", "NLST_v19001"])
        return folder
    return whole


def write_zip(path, files, *, mode="w", method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, mode, method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_zip64(path, files):
    """A small zip as one of 5 GB is: sizes, places and counts in their wide fields alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    content = path.read_bytes()
    end = content.rfind(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HLL", content, end + 10)
    entries, at = b"", start
    while at < start + size:
        head = bytearray(content[at : at + 46])
        packed, whole, name_bytes, extra_bytes = struct.unpack_from("<2L2H", head, 20)
        place = struct.unpack_from("<L", head, 42)[0]
        name = content[at + 46 : at + 46 + name_bytes]
        # A field of another kind before it, as tools write of times.
        extra = struct.pack("<2H4s", 0x7875, 4, b"time")
        extra += struct.pack("<2H3Q", 1, 24, whole, packed, place)
        struct.pack_into("<2L2H", head, 20, 0xFFFFFFFF, 0xFFFFFFFF, name_bytes, len(extra))
        struct.pack_into("<L", head, 42, 0xFFFFFFFF)
        entries += head + name + extra
        at += 46 + name_bytes + extra_bytes
    wide = (b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entries), start)
    tail = struct.pack("<4sQ2H2L4Q", *wide)
    tail += struct.pack("<4sLQL", b"PK\6\7", 0, start + len(entries), 1)
    tail += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)
    path.write_bytes(content[:start] + entries + tail)
    return path


def write_tar(path, files):
    mode = {".gz": "w:gz", ".xz": "w:xz", ".tar": "w"}[path.suffix]
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _cut(whole, names):
    content = whole.read_bytes()
    whole.unlink()
    step = -(-len(content) // len(names))
    for number, name in enumerate(names):
        (whole.parent / name).write_bytes(content[number * step : (number + 1) * step])
    return whole.parent / names[0]


def _spanned(files, folder):
    """x.z01 and on, by hand: a zip whose list knows on which part a member begins."""
    whole = write_zip(folder / "x.zip", files)
    content = bytearray(whole.read_bytes())
    at = content.rfind(b"PK\x05\x06")
    start = struct.unpack_from("<L", content, at + 16)[0]
    half = start // 2
    begins = [0, half, start]
    for entry in [m.start() for m in re.finditer(b"PK\x01\x02", content) if m.start() >= start]:
        offset = struct.unpack_from("<L", content, entry + 42)[0]
        disk = 1 if offset >= half else 0
        struct.pack_into("<H", content, entry + 34, disk)
        struct.pack_into("<L", content, entry + 42, offset - begins[disk])
    struct.pack_into("<2H", content, at + 4, 2, 2)
    struct.pack_into("<L", content, at + 16, 0)
    (folder / "x.z01").write_bytes(content[:half])
    (folder / "x.z02").write_bytes(content[half:start])
    whole.write_bytes(content[start:])
    return whole


def zip_with_the_tool(path, files, *options):
    """Pack by the `zip` command, for what Python's library cannot write."""
    for name, content in files.items():
        (path.parent / name).write_bytes(content)
    command = ["zip", "-q", *options, path.name, *files]
    subprocess.run(command, cwd=path.parent, check=True, timeout=60, stdin=subprocess.DEVNULL)
    for name in files:
        (path.parent / name).unlink()
    return path


def patch_list(path, name, offset, form, value):
    """Change a field of a member's entry in a zip's list."""
    content = bytearray(path.read_bytes())
    raw = name.encode()
    for match in re.finditer(b"PK\x01\x02", bytes(content)):
        at = match.start()
        if content[at + 46 : at + 46 + len(raw)] == raw:
            struct.pack_into(form, content, at + offset, value)
    path.write_bytes(content)
    return path
