"""The ladder: what each part of a sandbox costs, in multiples of `subprocess.run(["/bin/true"], capture_output=True)`.

    python benchmarks/ladder.py [--rounds 60] [--only REGEX] [--json FILE]

Every rung is timed in this one process. Each round takes every rung once, in an order of its own, so that a noisy
second hits all of them alike. Before anything is timed, each rung that claims isolation proves it: a shell inside reads
back its namespaces and its status. A rung that skipped a step therefore fails instead of looking fast. Read
benchmarks/README.md for what the columns mean and what they do not.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import environment

from sandboxkit import Bind, Namespace, RootFS, Sandbox, Symlink

TRUE = "/bin/true"
BASELINE = "subprocess.run"
NAMESPACES = ("user", "mnt", "pid", "ipc", "uts", "net", "cgroup")
# Read back from inside; `readlink` and `cat` exist in every root of this ladder.
PROBE = "for n in {}; do echo ns $n $(readlink /proc/self/ns/$n); done; cat /proc/self/status".format(
    " ".join(NAMESPACES)
)


class NotIsolated(AssertionError):
    """A rung does not do what its name says: its time would be a lie."""


@dataclass
class Rung:
    """One line of the table. `step` is what is timed; it must raise when its program did not succeed."""

    name: str
    step: Callable[[], object]
    prove: Callable[[], None] | None = None
    samples: list[int] = field(default_factory=list)


# --- proofs ---------------------------------------------------------------------------------------------------------


def host_namespaces() -> dict[str, str]:
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES}


def prove(report: str, *, created: frozenset[str], locked_down: bool) -> None:
    """Compare what a probe read inside with this process: exactly the `created` namespaces differ.

    `locked_down`: also no_new_privs is on and no capability is left.
    """
    inside: dict[str, str] = {}
    status: dict[str, str] = {}
    for line in report.splitlines():
        if line.startswith("ns "):
            _, name, value = line.split(" ", 2)
            inside[name] = value
        else:
            name, _, value = line.partition(":")
            status[name] = value.strip()
    host = host_namespaces()
    for name in NAMESPACES:
        if not inside.get(name, "").startswith(f"{name}:["):
            raise NotIsolated(f"could not read the {name} namespace inside: {inside.get(name)!r}")
        if (inside[name] != host[name]) != (name in created):
            raise NotIsolated(f"{name} namespace inside is {inside[name]}, the host's is {host[name]}")
    if "pid" in created and int(status["NSpid"].split()[-1]) > 100:
        raise NotIsolated(f"pid inside is {status['NSpid']}: not a fresh pid namespace")
    if locked_down and (status["NoNewPrivs"] != "1" or int(status["CapEff"], 16) or int(status["CapBnd"], 16)):
        raise NotIsolated(f"NoNewPrivs {status['NoNewPrivs']}, CapEff {status['CapEff']}, CapBnd {status['CapBnd']}")


# --- rungs without sandboxkit ---------------------------------------------------------------------------------------


def plain_rungs() -> Iterator[Rung]:
    def spawn() -> None:
        pid = os.posix_spawn(TRUE, [TRUE], os.environ)
        if os.waitpid(pid, 0)[1]:
            raise ChildProcessError(TRUE)

    yield Rung("fork+exec (posix_spawn, wait)", spawn)
    yield Rung(BASELINE, lambda: subprocess.run([TRUE], capture_output=True, check=True))


def wrapped(name: str, prefix: list[str], created: frozenset[str], *, locked_down: bool) -> Rung:
    """A rung that starts the payload through another program."""

    def proof() -> None:
        shown = subprocess.run([*prefix, "/bin/sh", "-c", PROBE], capture_output=True, text=True, check=False)
        if shown.returncode:
            raise NotIsolated(f"{' '.join(prefix)}: {shown.stderr.strip()}")
        prove(shown.stdout, created=created, locked_down=locked_down)

    return Rung(name, lambda: subprocess.run([*prefix, TRUE], capture_output=True, check=True), proof)


def unshare_rungs() -> Iterator[Rung]:
    """util-linux `unshare`, one more namespace per rung. It builds no root and drops no rights."""
    if not shutil.which("unshare"):
        return
    yield wrapped("unshare: nothing", ["unshare"], frozenset(), locked_down=False)
    flags: list[str] = []
    created: set[str] = set()
    for name, added in (
        ("user", ["--user", "--map-root-user"]),
        ("pid", ["--pid", "--fork"]),
        ("mnt", ["--mount"]),
        ("ipc", ["--ipc"]),
        ("uts", ["--uts"]),
        ("net", ["--net"]),
        ("cgroup", ["--cgroup"]),
    ):
        flags += added
        created.add(name)
        label = f"unshare: {name}" if len(created) == 1 else f"unshare: + {name}"
        yield wrapped(label, ["unshare", *flags], frozenset(created), locked_down=False)


def bubblewrap_rungs() -> Iterator[Rung]:
    """Everything bubblewrap can do towards sandboxkit's default: it has no cgroup limits and no id range."""
    if not shutil.which("bwrap"):
        return
    root = ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/box"]
    for name in merged_directories():
        root += ["--symlink", f"usr/{name}", f"/{name}"]
    options = [
        "--unshare-all",
        "--unshare-user",
        "--hostname",
        "sandbox",
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--clearenv",
    ]
    options += ["--new-session", "--die-with-parent", "--chdir", "/box"]
    yield wrapped("bubblewrap: all namespaces", ["bwrap", *options, *root], frozenset(NAMESPACES), locked_down=False)


def merged_directories() -> list[str]:
    """The names in / that are links into /usr on this host (bin, lib, lib64, ...)."""
    return [
        path.name
        for path in sorted(Path("/").iterdir())
        if path.is_symlink() and os.readlink(path) == f"usr/{path.name}"
    ]


# --- sandboxkit -----------------------------------------------------------------------------------------------------


def proof_of(spec: Sandbox, created: frozenset[str]) -> Callable[[], None]:
    def proof() -> None:
        with spec.replace() as sandbox:
            shown = sandbox.run(["/bin/sh", "-c", PROBE], text=True)
        if not shown.ok:
            raise NotIsolated(f"probe failed: {shown.reason} {shown.stderr}")
        prove(shown.stdout, created=created, locked_down=True)

    return proof


def open_close(name: str, spec: Sandbox, created: frozenset[str], *, probe: Sandbox | None = None) -> Rung:
    """Set-up and tear-down alone. `probe`: the same sandbox with programs in it, where the root has none."""

    def step() -> None:
        with spec.replace():
            pass

    return Rung(name, step, proof_of(probe or spec, created))


def cold_run(name: str, spec: Sandbox) -> Rung:
    def step() -> None:
        with spec.replace() as sandbox:
            result = sandbox.run([TRUE])
        if not result.ok:
            raise ChildProcessError(f"{name}: {result.reason} {result.stderr!r}")

    return Rung(name, step, proof_of(spec, frozenset(NAMESPACES)))


def sandbox_rungs(stack: ExitStack) -> Iterator[Rung]:
    everything = frozenset(NAMESPACES)
    host, empty = RootFS.host(), RootFS.empty()
    tar = RootFS.tar(stack.enter_context(small_root()))
    # An empty root has no program to read anything back with: its proof adds the host's /usr and changes nothing else.
    programs = [Bind("/usr", "/usr"), *(Symlink(f"/{name}", f"usr/{name}") for name in merged_directories())]

    # sandboxkit always has its own mount and pid namespace; without the user namespace only root can do it.
    created = ["user", "mnt", "pid"]
    for name in ("", "ipc", "uts", "net", "cgroup"):
        if name:
            created.append(name)
        label = f"sandboxkit open+close, empty root: {'+ ' + name if name else 'user mnt pid'}"
        spec = Sandbox(empty, namespaces=Namespace.only(*created))
        yield open_close(label, spec, frozenset(created), probe=spec.replace(mounts=programs))

    yield open_close(
        "sandboxkit open+close, all: empty root", Sandbox(empty), everything, probe=Sandbox(empty, mounts=programs)
    )
    yield open_close("sandboxkit open+close, all: host root", Sandbox(host), everything)
    yield open_close("sandboxkit open+close, all: tar root", Sandbox(tar), everything)
    yield cold_run("sandboxkit cold run: host root", Sandbox(host))
    yield cold_run("sandboxkit cold run: tar root", Sandbox(tar))

    warm = stack.enter_context(Sandbox(host))

    def run() -> None:
        warm.run([TRUE]).check()

    def popen() -> None:
        with warm.popen([TRUE]) as process:
            if process.wait():
                raise ChildProcessError(TRUE)

    proof = proof_of(Sandbox(host), everything)
    yield Rung("sandboxkit warm run", run, proof)
    yield Rung("sandboxkit warm popen, wait, close", popen, proof)


@contextmanager
def small_root() -> Iterator[str]:
    """A flat tar with a shell, the payload and the libraries they load: this host's own, so that rungs compare."""
    wanted: dict[str, str] = {}
    for program in ("sh", "true", "cat", "readlink"):
        found = shutil.which(program)
        if found is None:
            raise FileNotFoundError(program)
        wanted[f"bin/{program}"] = found
        linked = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", linked):
            wanted[library.lstrip("/")] = library
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "root.tar")
        with tarfile.open(path, "w", dereference=True) as archive:
            for name in ("proc", "dev", "etc", "tmp", "box"):
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            for name, source in sorted(wanted.items()):
                archive.add(os.path.realpath(source), name)
        yield path


# --- the measurement ------------------------------------------------------------------------------------------------


def measure(rungs: list[Rung], *, rounds: int, warm_up: int, gap: float, seed: int) -> None:
    shuffle = random.Random(seed)
    order = list(rungs)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # as timeit does: a collection belongs to the whole program, not to the rung it happens in
    try:
        for turn in range(-warm_up, rounds):
            shuffle.shuffle(order)
            for rung in order:
                if gap:
                    time.sleep(gap)
                begin = time.perf_counter_ns()
                rung.step()
                spent = time.perf_counter_ns() - begin
                if turn >= 0:
                    rung.samples.append(spent)
    finally:
        if collecting:
            gc.enable()


def table(rungs: list[Rung]) -> str:
    base = next((statistics.median(rung.samples) for rung in rungs if rung.name == BASELINE), None)
    width = max(len(rung.name) for rung in rungs)
    lines = [f"{'case':<{width}}  {'min ms':>8}  {'p50 ms':>8}  {'p90 ms':>8}  {'x S':>6}"]
    lines.append("-" * len(lines[0]))
    for rung in rungs:
        middle = statistics.median(rung.samples)
        tail = statistics.quantiles(rung.samples, n=10)[8] if len(rung.samples) > 1 else middle
        ratio = f"{middle / base:6.2f}" if base else "     -"
        times = "  ".join(f"{value / 1e6:8.3f}" for value in (min(rung.samples), middle, tail))
        lines.append(f"{rung.name:<{width}}  {times}  {ratio}")
    return "\n".join(lines)


@contextmanager
def burdened(megabytes: int, threads: int) -> Iterator[None]:
    """Make this caller big: memory that is really there, and threads that do nothing."""
    ballast = bytearray(megabytes << 20)
    ballast[::4096] = b"x" * len(range(0, len(ballast), 4096))
    done = threading.Event()
    idle = [threading.Thread(target=done.wait, daemon=True) for _ in range(threads)]
    for thread in idle:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in idle:
            thread.join()
        del ballast


def main() -> int:
    parser = argparse.ArgumentParser(description="What each part of a sandbox costs.")
    parser.add_argument("--rounds", type=int, default=60, help="timed rounds (default %(default)s)")
    parser.add_argument("--warm-up", type=int, default=5, help="rounds before the timed ones (default %(default)s)")
    parser.add_argument("--gap", type=float, default=0.0, help="idle seconds before each sample; 0 is a closed loop")
    parser.add_argument("--ballast", type=int, default=0, help="MiB this process holds while it measures")
    parser.add_argument("--threads", type=int, default=0, help="idle threads this process has while it measures")
    parser.add_argument("--only", default="", help="only rungs whose name matches this regular expression")
    parser.add_argument("--seed", type=int, default=1, help="of the order within the rounds")
    parser.add_argument("--json", metavar="FILE", help="write the environment and every sample (nanoseconds) there")
    options = parser.parse_args()
    if options.rounds < 1 or options.warm_up < 0:
        parser.error("--rounds must be at least 1 and --warm-up at least 0")

    with burdened(options.ballast, options.threads), ExitStack() as stack:
        every = [*plain_rungs(), *unshare_rungs(), *bubblewrap_rungs(), *sandbox_rungs(stack)]
        rungs = [rung for rung in every if rung.name == BASELINE or re.search(options.only, rung.name)]
        for rung in rungs:
            if rung.prove:
                rung.prove()
        facts = environment.record()
        print(environment.show(facts), end="\n\n", flush=True)
        measure(rungs, rounds=options.rounds, warm_up=options.warm_up, gap=options.gap, seed=options.seed)
        facts["load after"] = " ".join(f"{load:.2f}" for load in os.getloadavg())

    print(table(rungs))
    print(
        f"\nS = {BASELINE}([{TRUE!r}], capture_output=True); {options.rounds} rounds; load after: {facts['load after']}"
    )
    if os.getloadavg()[0] > len(os.sched_getaffinity(0)) * 2:
        print("The machine was busy with something else: take ratios with care.")
    if options.json:
        samples = {rung.name: rung.samples for rung in rungs}
        Path(options.json).write_text(
            json.dumps({"environment": facts, "options": vars(options), "samples_ns": samples}, indent=1)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
