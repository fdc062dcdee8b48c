"""The machine: its two cores, and what a process has used of it. Linux only, for it reads /proc."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def two_cores() -> tuple[int, int]:
    """The core for the server and the core for the load: the same one if there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[1 if len(cores) > 1 else 0]


def cpu_seconds(pid: int) -> float:
    """User and system time that the process has used in all its threads, to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident_bytes(pid: int) -> int:
    """What the process holds of the memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def raise_file_limit() -> int:
    """Let this process and those it starts open as many files as the system allows. How many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def describe() -> dict[str, str]:
    """What the figures depend on: processor, memory, versions, commit."""
    facts = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            facts["processor"] = line.partition(":")[2].strip()
            break
    pages = os.sysconf("SC_PHYS_PAGES")
    facts["cores"] = str(len(os.sched_getaffinity(0)))
    facts["memory"] = f"{pages * _PAGE / 2**30:.0f} GiB"
    facts["system"] = f"{platform.system()} {platform.release()}"
    facts["Python"] = platform.python_version()
    facts["Node.js"] = _output("node", "--version").removeprefix("v") or "none"
    facts["load average"] = f"{os.getloadavg()[0]:.1f} at the start"
    dirty = " and changes" if _output("git", "status", "--porcelain", "--untracked-files=no") else ""
    facts["commit"] = (_output("git", "rev-parse", "--short", "HEAD") or "unknown") + dirty
    return facts


def _output(*command: str) -> str:
    """What the program prints; nothing if there is no such program or it fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
