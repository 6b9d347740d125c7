"""Roots and mounts: what is where, what can be written, and that what is shared stays as it was."""

from __future__ import annotations

import os
import sys

import pytest

from sandboxkit import (
    Bind,
    File,
    ImageError,
    LaunchError,
    OverlayLayer,
    RootFS,
    Sandbox,
    SpecError,
    Symlink,
    Tmpfs,
    UnsupportedError,
    User,
)

LIBRARIES = [
    Bind("/usr", "/usr"),
    Symlink("/bin", "usr/bin"),
    Symlink("/lib", "usr/lib"),
    Symlink("/lib64", "usr/lib64"),
]


@pytest.fixture
def tree(tmp_path):
    """A root directory as an image might have it, with a link where a mount has to go."""
    root = tmp_path / "root"
    for name in ("etc", "usr", "var/real-tmp"):
        (root / name).mkdir(parents=True)
    (root / "etc" / "os-release").write_text("ID=tree\n")
    (root / "tmp").symlink_to("var/real-tmp")
    (root / "bin").symlink_to("usr/bin")
    (root / "lib").symlink_to("usr/lib")
    (root / "lib64").symlink_to("usr/lib64")
    os.chmod(tmp_path, 0o755)
    return root


def snapshot(root):
    return sorted((str(path.relative_to(root)), path.lstat().st_mtime_ns) for path in root.rglob("*"))


def test_host_view():
    with Sandbox() as sb:
        names = {info.name for info in sb.files.list("/")}
        assert {"bin", "box", "dev", "etc", "lib", "proc", "tmp", "usr"} <= names
        interpreter = {sys.prefix.split("/")[1], sys.base_prefix.split("/")[1]}
        assert not ({"home", "var", "srv", "mnt", "sys", "root", "opt", "run"} - interpreter) & names
        assert sb.run(["sh", "-c", "echo x > /box/a && echo y > /tmp/b && echo z > /dev/shm/c"]).ok
        assert {info.name for info in sb.files.list("/dev")} == {
            "null",
            "zero",
            "full",
            "random",
            "urandom",
            "fd",
            "stdin",
            "stdout",
            "stderr",
            "shm",
        }
        assert sb.files.read_text("/etc/hostname") == "sandbox\n"


def test_empty_root_with_mounts():
    mounts = [*LIBRARIES, File("/opt/etc/conf", "content"), Tmpfs("/scratch", size="1M", inodes=10)]
    with Sandbox(RootFS.empty(), mounts=mounts) as sb:
        assert sb.run(["/bin/cat", "/opt/etc/conf"]).stdout == b"content"
        full = sb.run(["/bin/sh", "-c", "head -c 2M /dev/zero > /scratch/x"])
        assert b"No space left" in full.stderr
        many = sb.run(
            ["/bin/sh", "-c", "rm /scratch/x; for i in 1 2 3 4 5 6 7 8 9 10 11; do : > /scratch/$i || exit 1; done"]
        )
        assert not many.ok


def test_directory_root_is_copied_on_write(tree):
    before = snapshot(tree)
    with Sandbox(RootFS.directory(tree), mounts=[Bind("/usr", "/usr")], user=User(uid=0, gid=0)) as sb:
        assert sb.run(["/bin/cat", "/etc/os-release"]).stdout == b"ID=tree\n"
        assert sb.run(["/bin/sh", "-c", "echo changed > /etc/os-release; echo new > /new; rm -r /var"]).returncode in (
            0,
            1,
        )
        assert sb.files.read_text("/etc/os-release") == "changed\n"
        assert sb.files.exists("/new")
    assert snapshot(tree) == before
    assert (tree / "etc" / "os-release").read_text() == "ID=tree\n"


def test_readonly_root(tree):
    with Sandbox(RootFS.directory(tree), mounts=[Bind("/usr", "/usr")], user=User(uid=0, gid=0), readonly=True) as sb:
        assert not sb.run(["/bin/sh", "-c", "echo x > /new"]).ok
        assert sb.run(["/bin/sh", "-c", "echo x > /tmp/new"]).ok


def test_mount_targets_that_are_links_stay_inside(tree, tmp_path):
    """`/tmp` is a link inside the tree; the other link leads to a directory of the host, which is nowhere inside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (tree / "escape").symlink_to(outside)
    with Sandbox(RootFS.directory(tree), mounts=[Bind("/usr", "/usr"), File("/tmp/f", "x")]) as sb:
        assert sb.run(["/bin/sh", "-c", "echo x > /tmp/a; ls /var/real-tmp"]).stdout == b"a\nf\n"
    for mount in (Tmpfs("/escape/here"), File("/escape/file", "x"), Bind("/usr", "/escape/usr")):
        with pytest.raises(LaunchError), Sandbox(RootFS.directory(tree), mounts=[mount]):
            pass
    assert list(outside.iterdir()) == []


def test_commit_stacks_under_another(tree):
    options = {"mounts": [Bind("/usr", "/usr")], "user": User(uid=0, gid=0)}
    with Sandbox(RootFS.directory(tree), **options) as first:
        first.run(
            ["/bin/sh", "-c", "mkdir /made; echo one > /made/file; ln /made/file /made/hard; ln -s file /made/soft"],
            check=True,
        )
        first.run(["/bin/rm", "/etc/os-release"], check=True)
        layer = first.commit()
        first.run(["/bin/sh", "-c", "echo later > /made/file"], check=True)
    with Sandbox(RootFS.directory(tree), layers=[layer], **options) as second:
        assert second.files.read_text("/made/file") == "one\n"
        assert second.files.read_text("/made/soft") == "one\n"
        assert second.run(["/bin/stat", "-c", "%h %u", "/made/hard"]).stdout == b"2 0\n"
        assert not second.files.exists("/etc/os-release")
        second.run(["/bin/rm", "-r", "/made"], check=True)
        on_top = second.commit()
    with Sandbox(RootFS.directory(tree), layers=[layer, on_top, OverlayLayer.tmpfs(size="1M")], **options) as third:
        assert not third.files.exists("/made")
        assert b"No space left" in third.run(["/bin/sh", "-c", "head -c 2M /dev/zero > /big"]).stderr


def test_the_host_view_has_nothing_to_commit():
    with Sandbox() as sb, pytest.raises(UnsupportedError):
        sb.commit()
    with pytest.raises(SpecError):
        Sandbox(layers=[OverlayLayer.tmpfs()])


def test_binds(tmp_path):
    os.chmod(tmp_path, 0o755)
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").write_text("host")
    (tmp_path / "open").mkdir()
    os.chmod(tmp_path / "open", 0o777)
    mounts = [
        Bind(tmp_path / "dir", "/data"),
        Bind(tmp_path / "dir" / "file", "/box/one"),
        Bind(tmp_path / "open", "/out", readonly=False),
    ]
    with Sandbox(mounts=mounts) as sb:
        assert sb.run(["cat", "/data/file", "/box/one"]).stdout == b"hosthost"
        assert not sb.run(["sh", "-c", "echo x > /data/new"]).ok
        assert sb.run(["sh", "-c", "echo x > /out/new"]).ok
    assert (tmp_path / "open" / "new").read_text() == "x\n"


def test_a_missing_bind_source_is_named(tmp_path):
    with pytest.raises(LaunchError) as failure, Sandbox(mounts=[Bind(tmp_path / "none", "/x")]):
        pass
    assert failure.value.step == "bind_source"
    assert failure.value.path == str(tmp_path / "none")


def test_missing_roots_are_image_errors(tmp_path):
    (tmp_path / "file").write_text("")
    for rootfs in (
        RootFS.directory(tmp_path / "none"),
        RootFS.directory(tmp_path / "file"),
        RootFS.tar(tmp_path / "none"),
        RootFS.tar(tmp_path),
        RootFS.tar(tmp_path / "file"),
    ):
        with pytest.raises(ImageError), Sandbox(rootfs):
            pass
