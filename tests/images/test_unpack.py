"""Hostile and broken archives: an ImageError or a safe unpack inside the root, never a byte outside, nothing half done."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import os
import stat
import tarfile
from pathlib import Path

import pytest

from sandboxkit import ImageError
from sandboxkit.runtime.unpack import unpack_tar
from sandboxkit.spec.unpack_limits import UnpackLimits

ROOT = os.geteuid() == 0


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    path = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    member.mtime = 1_000_000_000
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def archive(path: Path, *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for item in members:
            member, data = item if isinstance(item, tuple) else (item, b"")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def left(cache: Path) -> list[str]:
    """Roots and scratch directories; the locks stay."""
    roots = cache / "sandboxkit" / "rootfs"
    return sorted(name for name in os.listdir(roots) if not name.endswith(".lock")) if roots.exists() else []


def test_everything_an_image_has(tmp_path):
    source = archive(
        tmp_path / "t.tar",
        entry("usr/lib", tarfile.DIRTYPE),
        entry("lib", tarfile.SYMTYPE, linkname="usr/lib"),
        (entry("lib/through-a-link"), b"merged"),
        (entry("bin/tool", mode=0o4755), b"tool"),
        entry("bin/alias", tarfile.LNKTYPE, linkname="bin/tool"),
        entry("pipe", tarfile.FIFOTYPE),
        entry("dev/console", tarfile.CHRTYPE),
        entry("closed", tarfile.DIRTYPE, mode=0o500),
        (entry("closed/inside"), b"x"),
        (entry("twice"), b"first"),
        (entry("twice"), b"second"),
        (entry("was-file"), b"x"),
        entry("was-file", tarfile.DIRTYPE),
        (entry("was-dir/a/b"), b"x"),
        (entry("was-dir"), b"file"),
        (entry("/absolute/name"), b"inside"),
        (entry("n\udcffame"), b"bytes"),
        (entry("p" * 200 + "/" + "q" * 200), b"long"),
    )
    root = Path(unpack_tar(str(source)).path)
    assert (root / "usr/lib/through-a-link").read_bytes() == b"merged"
    assert os.readlink(root / "lib") == "usr/lib"
    assert (root / "bin/tool").stat().st_ino == (root / "bin/alias").stat().st_ino
    assert stat.S_IMODE((root / "bin/tool").stat().st_mode) == (0o4755 if ROOT else 0o755)
    assert (root / "bin/tool").stat().st_mtime == 1_000_000_000
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)
    assert not (root / "dev/console").exists()
    assert stat.S_IMODE((root / "closed").stat().st_mode) == 0o500
    assert (root / "closed").stat().st_mtime == 1_000_000_000
    assert (root / "twice").read_bytes() == b"second"
    assert (root / "was-file").is_dir()
    assert (root / "was-dir").read_bytes() == b"file"
    assert (root / "absolute/name").read_bytes() == b"inside"
    assert (root / os.fsdecode(b"n\xffame")).read_bytes() == b"bytes"
    assert (root / ("p" * 200) / ("q" * 200)).read_bytes() == b"long"


CANARY = "canary"
HOSTILE = {
    "dotdot": lambda out: [(entry(f"../../{CANARY}"), b"x")],
    "dotdot-inside": lambda out: [(entry(f"a/../../{CANARY}"), b"x")],
    "link-to-nowhere": lambda out: [entry("l", tarfile.LNKTYPE, linkname="no/such/entry")],
    "link-out": lambda out: [entry("l", tarfile.LNKTYPE, linkname=f"../../../..{out}/{CANARY}")],
    "link-to-directory": lambda out: [entry("d", tarfile.DIRTYPE), entry("l", tarfile.LNKTYPE, linkname="d")],
    "name-of-5000": lambda out: [(entry("/".join(["n" * 99] * 50)), b"x")],
    "component-of-300": lambda out: [(entry("n" * 300), b"x")],
    "too-deep": lambda out: [(entry("/".join(["d"] * 300)), b"x")],
    "file-as-parent": lambda out: [(entry("f"), b"x"), (entry("f/child"), b"y")],
    "link-loop-as-parent": lambda out: [
        entry("a", tarfile.SYMTYPE, linkname="b"),
        entry("b", tarfile.SYMTYPE, linkname="a"),
        (entry("a/x"), b""),
    ],
    "file-as-root": lambda out: [(entry("./"), b"x")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_and_nothing_is_left(tmp_path, cache, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / CANARY).write_text("safe")
    source = archive(tmp_path / "t.tar", (entry("fine"), b"x"), *HOSTILE[name](outside))
    with pytest.raises(ImageError) as failure:
        unpack_tar(str(source))
    assert failure.value.path == str(source)
    assert left(cache) == []
    assert [path.name for path in outside.iterdir()] == [CANARY]
    assert (outside / CANARY).read_text() == "safe"
    assert not list(cache.rglob(CANARY))


@pytest.mark.parametrize("target", ["{out}", "../../../../../../../../..{out}", "/proc/self/root{out}"])
def test_symlinks_that_lead_out_are_kept_and_lead_nowhere(tmp_path, cache, target):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = target.format(out=outside)
    source = archive(tmp_path / "t.tar", entry("escape", tarfile.SYMTYPE, linkname=link), (entry("escape/file"), b"x"))
    with pytest.raises(ImageError):  # what the link names does not exist inside
        unpack_tar(str(source))
    assert list(outside.iterdir()) == []
    alone = archive(tmp_path / "u.tar", entry("escape", tarfile.SYMTYPE, linkname=link))
    assert os.readlink(Path(unpack_tar(str(alone)).path) / "escape") == link


def test_broken_archives(tmp_path, cache):
    good = archive(tmp_path / "good.tar", (entry("file"), os.urandom(100_000))).read_bytes()
    packed = gzip.compress(good)
    cases = {
        "empty": b"",
        "text": b"this is no archive" * 1000,
        "zeros": bytes(10_240),
        "cut-in-file": good[:50_000],
        "cut-in-header": good[:300],
        "gzip-cut": packed[:-1000],
        "gzip-crc": packed[:-8] + b"\0\0\0\0" + packed[-4:],
    }
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ImageError):
            unpack_tar(str(path))
        assert left(cache) == [], name


def test_limits(tmp_path, cache):
    source = archive(tmp_path / "t.tar", (entry("a"), b"x" * 1000), (entry("b"), b"y" * 1000))
    for limits in (UnpackLimits(max_bytes=1500), UnpackLimits(max_entries=1), UnpackLimits(max_file_bytes=999)):
        with pytest.raises(ImageError):
            unpack_tar(str(source), limits=limits)
    bomb = tmp_path / "bomb.tar.gz"
    bomb.write_bytes(gzip.compress(archive(tmp_path / "b.tar", (entry("zeros"), bytes(50 << 20))).read_bytes()))
    with pytest.raises(ImageError):
        unpack_tar(str(bomb), limits=UnpackLimits(max_ratio=10))
    assert left(cache) == []


def test_the_same_content_is_unpacked_once_under_any_name(tmp_path, cache):
    one = archive(tmp_path / "one.tar", (entry("file"), b"x"))
    first = unpack_tar(str(one))
    (tmp_path / "two.tar").write_bytes(one.read_bytes())
    assert unpack_tar(str(tmp_path / "two.tar")) == first
    one.write_bytes(archive(tmp_path / "other.tar", (entry("file"), b"changed")).read_bytes())
    assert unpack_tar(str(one)) != first


def unpack(path: str) -> str:
    return unpack_tar(path).path


def test_two_processes_at_once(tmp_path, cache):
    source = archive(tmp_path / "t.tar", *[(entry(f"d{number}/file"), b"x" * 1000) for number in range(300)])
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        paths = pool.map(unpack, [str(source)] * 8)
    assert len(set(paths)) == 1
    assert len(os.listdir(paths[0])) == 300
    assert left(cache) == [os.path.basename(paths[0])]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path, cache):
    source = archive(tmp_path / "t.tar", (entry("file"), b"x"))
    unpack_tar(str(source))
    abandoned = cache / "sandboxkit" / "rootfs" / ".tmp-dead"
    (abandoned / "root" / "deep").mkdir(parents=True)
    os.chmod(abandoned / "root", 0o500)
    unpack_tar(str(archive(tmp_path / "u.tar", (entry("other"), b"y"))))
    assert not abandoned.exists()


def test_a_cache_that_others_may_write_to_is_refused(tmp_path, cache):
    cache.mkdir()
    (cache / "sandboxkit").mkdir()
    os.chmod(cache / "sandboxkit", 0o777)
    with pytest.raises(ImageError):
        unpack_tar(str(archive(tmp_path / "t.tar", (entry("file"), b"x"))))


def test_the_docker_export(busybox_tar):
    root = Path(unpack_tar(str(busybox_tar)).path)
    with tarfile.open(busybox_tar) as tar:
        expected = {member.name.rstrip("/") for member in tar if not (member.ischr() or member.isblk())}
    found = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert found == expected
    assert (root / "bin/sh").stat().st_ino == (root / "bin/busybox").stat().st_ino
