"""A program in a real memory cgroup (v1 or v2), for the attacks: limits, peaks and OOM kills as the kernel counts them."""

import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import wire

MIB = 1 << 20


def parent():
    """The directory for memory cgroups, and whether it is version 1; None if cgroups cannot be created."""
    v1 = Path("/sys/fs/cgroup/memory")
    if os.access(v1, os.W_OK):
        own = re.search(r"^\d+:memory:(.*)$", Path("/proc/self/cgroup").read_text(), re.M)
        return v1 / own[1].lstrip("/"), True
    v2 = Path("/sys/fs/cgroup")
    control = v2 / "cgroup.subtree_control"
    if os.access(v2, os.W_OK) and control.exists() and "memory" in control.read_text().split():
        return v2, False
    return None


class Cgroup:
    """A memory cgroup with a limit; removed at the end of a `with` block."""

    def __init__(self, mib):
        where, self.is_v1 = parent()
        self.limit = mib * MIB
        self.path = where / f"ebb-attack-{os.getpid()}-{time.monotonic_ns()}"
        self.path.mkdir()
        (self.path / ("memory.limit_in_bytes" if self.is_v1 else "memory.max")).write_text(str(self.limit))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        deadline = time.monotonic() + 10
        while True:
            try:
                return self.path.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _read(self, name):
        return (self.path / name).read_text()

    def used(self):
        return int(self._read("memory.usage_in_bytes" if self.is_v1 else "memory.current"))

    def peak(self):
        """The most memory in use, in bytes; None on kernels of v2 that do not count it."""
        name = "memory.max_usage_in_bytes" if self.is_v1 else "memory.peak"
        return int(self._read(name)) if (self.path / name).exists() else None

    def oom_kills(self):
        events = self._read("memory.oom_control" if self.is_v1 else "memory.events")
        return int(re.search(r"^oom_kill (\d+)", events, re.M)[1])


class Program:
    """`ebb` with these arguments in a cgroup. `address` contains its listen addresses by name."""

    def __init__(self, group, arguments, env=None):
        self.group = group
        self.folder = Path(tempfile.mkdtemp(prefix="ebb-attack-"))
        self.log_path = self.folder / "log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EBB_")}
        enter = ["sh", "-c", 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"', "sh", str(group.path)]
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                [*enter, ebb(), *arguments], stdout=subprocess.PIPE, stderr=log, text=True,
                env={**inherited, **(env or {})})
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if ready else ""
        self.address = dict(re.findall(r"(\w+)=(\S+)", line))
        if not self.address:
            raise SystemExit(f"the program did not start: {line!r} {self.log()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.folder)

    def is_alive(self):
        return self.process.poll() is None

    def log(self):
        return self.log_path.read_text()


def ebb():
    """The program under test."""
    return os.environ.get("EBB_PROGRAM", "target/debug/ebb")


def cache(group, *more):
    """`ebb serve` in a cgroup, with a full cache."""
    free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    program = Program(group, ["serve", *free, *more])
    wire.fill(program.address["data"], 2 * group.limit // MIB)
    return program


class Verdict:
    """Collects failures of attacks and prints one line per attack."""

    def __init__(self):
        self.failed = False

    def judge(self, name, program, **also):
        """Prints an attack's figures; `also` maps conditions to their results."""
        group = program.group
        kills, peak = group.oom_kills(), group.peak()
        also = {"alive": program.is_alive(), "no OOM kill": kills == 0, **also}
        broken = [what for what, holds in also.items() if not holds]
        shown = "?" if peak is None else f"{peak / MIB:.1f}"
        result = f"FAILED: not {', not '.join(broken)}" if broken else "ok"
        print(f"{name}: limit {group.limit // MIB} MiB, peak {shown} MiB, oom_kill {kills}: {result}", flush=True)
        if broken:
            self.failed = True
            print(program.log()[-2000:], file=sys.stderr)

    def end(self):
        sys.exit(1 if self.failed else 0)
