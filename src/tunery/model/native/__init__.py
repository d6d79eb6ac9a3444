"""Native operations: compiled on this machine where it can be done, else not there.

The compiled file is kept beside the models, under a digest of the sources, torch's version and the
processor's features, so that it is built once and never loaded where it would not run. Nothing
depends on it: without it, model/fused.py and model/operations.py compute the same in torch.
"""

import errno
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

_FOLDER = Path(__file__).parent
_COMPILERS = ("g++", "clang++")
_BUILD_S = 600.0
_FULL = os.strerror(errno.ENOSPC)


@dataclass(frozen=True, slots=True)
class Library:
    """A source, and what it takes to compile and to run it."""

    source: Path
    needed: tuple[str, ...]
    flags: tuple[str, ...]
    linked: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Return the digest of all that the compiled bytes depend on."""
        parts = [
            *(path.read_bytes() for path in (self.source, *sorted(_FOLDER.glob("*.h")))),
            torch.__version__.encode(),
            " ".join(sorted(_processor_flags())).encode(),
            " ".join(self.flags).encode(),
        ]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


_FLAGS = ("-O3", "-march=native", "-std=c++20", "-shared", "-fPIC", "-fopenmp")
_FEATURES = ("avx512f", "avx512bw", "avx512vl", "avx512_bf16")
SERVING = Library(
    _FOLDER / "decoder.cpp",
    (*_FEATURES, "avx512_vnni"),
    _FLAGS,
    ("-ltorch", "-ltorch_cpu", "-lc10"),
)
TRAINING = Library(_FOLDER / "training.cpp", _FEATURES, (*_FLAGS, "-ffp-contract=off"), ())


class NotBuilt(Exception):
    """The operations cannot be had here; the message says why."""


def missing_features(library: Library = SERVING) -> list[str]:
    """Return what this processor lacks for the operations."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return [f"{platform.system()} on {platform.machine()}"]
    has = set(_processor_flags())
    return [name for name in library.needed if name not in has]


def built(folder: Path, library: Library = SERVING) -> Path | None:
    """Return the compiled file in `folder`, if there is one for this machine."""
    path = folder / f"{library.digest}.so"
    return path if path.is_file() and not missing_features(library) else None


def build(folder: Path, library: Library = SERVING) -> Path:
    """Compile the operations into `folder`; raise NotBuilt where that cannot be done.

    An OSError is the folder's disk. On one core, serving's take half a minute, training's two
    seconds.
    """
    if missing := missing_features(library):
        raise NotBuilt(f"this processor has no {', '.join(missing)}")
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise NotBuilt(f"no compiler was found ({' or '.join(_COMPILERS)})")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{library.digest}.so"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / path.name
        root = Path(torch.__file__).parent
        command = [
            compiler,
            *library.flags,
            f"-I{root / 'include'}",
            f"-I{root / 'include/torch/csrc/api/include'}",
            "-o",
            str(made),
            str(library.source),
            f"-L{root / 'lib'}",
            *library.linked,
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_BUILD_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotBuilt(f"{compiler} did not end well: {error}") from None
        if _FULL in done.stderr:
            raise OSError(errno.ENOSPC, _FULL)
        if done.returncode:
            said = next((line for line in done.stderr.splitlines() if "error" in line), "")
            raise NotBuilt(f"{compiler} refused: {said[:300]}")
        made.replace(path)
    return path


def load(path: Path) -> None:
    """Load serving's compiled operations into torch; raise NotBuilt where they do not fit it."""
    try:
        torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise NotBuilt(f"{path} cannot be loaded: {error}") from None


def _processor_flags() -> list[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return line.partition(":")[2].split()
    return []
