"""Whether the kernel has killed a process for want of memory: it tells nobody but its counters.

The counter of this process's control group is read, or that of the whole machine where the group
has none. A kill by another's hand, such as an operator's, is in neither.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")


def oom_kills(root: Path = _ROOT) -> int:
    """Return a number that grows when a process is killed for want of memory.

    Always 0 where there is no counter: on other systems than Linux.
    """
    counters = [*_groups(root), root / "proc/vmstat"]
    return next((count for path in counters if (count := _counted(path)) is not None), 0)


def _groups(root: Path) -> Iterator[Path]:
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:  # version 2
                yield root / "sys/fs/cgroup" / group.lstrip("/") / "memory.events"
            elif "memory" in controllers.split(","):  # version 1
                yield root / "sys/fs/cgroup/memory" / group.lstrip("/") / "memory.oom_control"


def _counted(path: Path) -> int | None:
    """Return the number in the line `oom_kill N`, if there is one."""
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return None
