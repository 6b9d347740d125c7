"""`Sandbox.files`: from outside, with the rights and the view of the sandbox's user."""

from __future__ import annotations

import errno

import pytest

from sandboxkit import Sandbox, User


@pytest.fixture(scope="module")
def sb():
    with Sandbox() as sandbox:
        yield sandbox


def test_write_and_read_make_parents_and_belong_to_the_user(sb):
    sb.files.write_text("a/b/c.txt", "hello")
    assert sb.files.read_text("/box/a/b/c.txt") == "hello"
    info = sb.files.stat("a/b/c.txt")
    assert (info.kind, info.size, info.uid, info.gid, info.mode) == ("file", 5, 1000, 1000, 0o644)
    assert sb.run(["stat", "-c", "%u %U", "a/b/c.txt"]).stdout == b"1000 sandbox\n"


def test_list_exists_mkdir_remove(sb):
    sb.files.mkdir("d/e", parents=True)
    sb.files.write_bytes("d/f", b"")
    assert [(info.name, info.kind) for info in sb.files.list("d")] == [("e", "directory"), ("f", "file")]
    with pytest.raises(OSError):
        sb.files.remove("d")
    sb.files.remove("d", recursive=True)
    assert not sb.files.exists("d")
    with pytest.raises(FileExistsError):
        sb.files.mkdir("/box")


def test_builtin_errors(sb):
    with pytest.raises(FileNotFoundError):
        sb.files.read_bytes("no-such-file")
    with pytest.raises(IsADirectoryError):
        sb.files.read_bytes("/tmp")
    with pytest.raises(PermissionError):
        sb.files.read_bytes("/proc/1/environ")
    sb.run(["sh", "-c", "echo secret > closed; chmod 000 closed"])
    with pytest.raises(PermissionError):
        sb.files.read_bytes("closed")
    with pytest.raises(OSError) as readonly:
        sb.files.write_text("/usr/x", "")
    assert readonly.value.errno in (errno.EROFS, errno.EACCES)
    sb.files.write_bytes("big", b"x" * 100)
    assert sb.files.read_bytes("big", max_bytes=100) == b"x" * 100
    with pytest.raises(OSError) as large:
        sb.files.read_bytes("big", max_bytes=99)
    assert large.value.errno == errno.EFBIG


def test_planted_links_resolve_inside(sb, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    sb.run(
        [
            "sh",
            "-c",
            f"ln -s {secret} absolute; ln -s ../../../../../../..{secret} climbing; ln -s /proc/self/root magic",
        ]
    )
    for name in ("absolute", "climbing", f"magic{secret}"):
        with pytest.raises(OSError):
            sb.files.read_bytes(name)
    sb.run(["sh", "-c", "ln -s /tmp/there out; echo inside > /tmp/there"])
    assert sb.files.read_text("out") == "inside\n"


def test_a_fifo_does_not_block(sb):
    sb.run(["mkfifo", "pipe"])
    with pytest.raises(OSError):
        sb.files.read_bytes("pipe")
    with pytest.raises(OSError):
        sb.files.write_bytes("pipe", b"x")


def test_copy_in_and_out(sb, tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "script").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "in" / "sub" / "script").chmod(0o755)
    sb.files.copy_in(tmp_path / "in", "copied")
    assert sb.run(["copied/sub/script"]).stdout == b"ran\n"
    sb.run(["sh", "-c", "echo made > copied/new; ln -s /etc/shadow copied/link; mkfifo copied/fifo"])
    sb.files.copy_out("copied", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["new", "sub"]
    assert (tmp_path / "out" / "new").read_text() == "made\n"


def test_deep_trees_are_removed_without_recursion(sb):
    deep = "import os\nfor _ in range(1100):\n    os.mkdir('d'); os.chdir('d')\n"
    sb.run(["python3", "-c", deep], cwd="/tmp", check=True)
    sb.files.remove("/tmp/d", recursive=True)
    assert not sb.files.exists("/tmp/d")


def test_acts_as_the_user_and_not_as_the_caller():
    with Sandbox(user=User(uid=4321, gid=4321)) as sandbox:
        sandbox.files.write_text("mine", "x")
        assert sandbox.files.stat("mine").uid == 4321
        with pytest.raises(OSError):
            sandbox.files.write_text("/etc/passwd", "x")
