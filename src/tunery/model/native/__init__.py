"""Native operations for serving: compiled on this machine where it can be done, else not there.

The compiled file is kept beside the models, under a digest of the sources, torch's version and the
processor's features, so that it is built once and never loaded where it would not run. Nothing
depends on it: without it, model/fused.py computes the same in torch.
"""

import hashlib
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_name("decoder.cpp")
_SOURCES = (_SOURCE, *sorted(_SOURCE.parent.glob("*.h")))
_NEEDED = ("avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx512_vnni")
_FLAGS = ("-O3", "-march=native", "-std=c++20", "-shared", "-fPIC", "-fopenmp")
_COMPILERS = ("g++", "clang++")
_BUILD_S = 600.0


class NotBuilt(Exception):
    """The operations cannot be had here; the message says why."""


def missing_features() -> list[str]:
    """Return what this processor lacks for the operations."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return [f"{platform.system()} on {platform.machine()}"]
    has = set(_processor_flags())
    return [name for name in _NEEDED if name not in has]


def built(folder: Path) -> Path | None:
    """Return the compiled file in `folder`, if there is one for this machine."""
    path = folder / f"{_digest()}.so"
    return path if path.is_file() and not missing_features() else None


def build(folder: Path) -> Path:
    """Compile the operations into `folder`; raise NotBuilt where that cannot be done.

    Takes half a minute on one core.
    """
    if missing := missing_features():
        raise NotBuilt(f"this processor has no {', '.join(missing)}")
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise NotBuilt(f"no compiler was found ({' or '.join(_COMPILERS)})")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_digest()}.so"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / path.name
        root = Path(torch.__file__).parent
        command = [
            compiler,
            *_FLAGS,
            f"-I{root / 'include'}",
            f"-I{root / 'include/torch/csrc/api/include'}",
            "-o",
            str(made),
            str(_SOURCE),
            f"-L{root / 'lib'}",
            *("-ltorch", "-ltorch_cpu", "-lc10"),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_BUILD_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotBuilt(f"{compiler} did not end well: {error}") from None
        if done.returncode:
            said = next((line for line in done.stderr.splitlines() if "error" in line), "")
            raise NotBuilt(f"{compiler} refused: {said[:300]}")
        made.replace(path)
    return path


def load(path: Path) -> None:
    """Load the compiled operations into torch; raise NotBuilt where they do not fit it."""
    try:
        torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise NotBuilt(f"{path} cannot be loaded: {error}") from None


def _processor_flags() -> list[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return line.partition(":")[2].split()
    return []


def _digest() -> str:
    parts = [
        *(path.read_bytes() for path in _SOURCES),
        torch.__version__.encode(),
        " ".join(sorted(_processor_flags())).encode(),
        " ".join(_FLAGS).encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
