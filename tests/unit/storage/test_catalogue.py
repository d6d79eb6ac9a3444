"""The base models at hand."""

import dataclasses
import hashlib
import json
from decimal import Decimal
from pathlib import Path

import pytest

from tunery.domain.errors import InvalidRequest
from tunery.domain.models import Prices
from tunery.storage.catalogue import DEFAULT_PRICES, Catalogue, digest, valid_name

FILES = {
    "config.json": json.dumps({"max_position_embeddings": 2048}),
    "tokenizer.json": "{}",
    "tokenizer_config.json": "{}",
    "generation_config.json": '{"eos_token_id": 2}',
    "chat_template.jinja": "{{ messages }}",
    "model-00001-of-00002.safetensors": "first",
    "model-00002-of-00002.safetensors": "second",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "catalogue")


def test_a_base_that_was_added_is_found_by_another_reader(
    catalogue: Catalogue, folder: Path
) -> None:
    prices = Prices(*map(Decimal, ("0.1", "1.25", "2", "0", "16.000001")))
    added = catalogue.add(
        "small-1.0", folder, aliases=("gpt-4o-mini", "x"), learning_rate=2e-4, prices=prices
    )
    assert (added.path, added.context_tokens) == (str(folder.resolve()), 2048)
    assert added.names == ("small-1.0", "gpt-4o-mini", "x")
    other = Catalogue(catalogue.root)
    assert other.get("small-1.0") == added
    assert other.all() == [added]
    assert [path.name for path in catalogue.root.rglob("*") if path.is_file()] == ["tunery.json"]


def test_an_entry_may_be_written_anew(catalogue: Catalogue, folder: Path) -> None:
    catalogue.add("a", folder, aliases=(), learning_rate=1.0)
    again = catalogue.add("a", folder, aliases=("b",), learning_rate=2.0)
    assert catalogue.all() == [again]
    assert again.prices == DEFAULT_PRICES


def test_bases_are_listed_by_name(catalogue: Catalogue, folder: Path) -> None:
    assert catalogue.all() == []
    for name in ("b", "a-1", "a", "C"):
        catalogue.add(name, folder, aliases=(), learning_rate=1.0)
    assert [base.name for base in catalogue.all()] == ["C", "a", "a-1", "b"]


def test_an_entry_may_lie_beside_its_weights(tmp_path: Path, folder: Path) -> None:
    base = Catalogue(tmp_path).add("elsewhere", folder, aliases=(), learning_rate=1.0)
    assert (folder / "tunery.json").is_file()
    # The entry is no part of what the model answers.
    assert digest(folder) == base.digest


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/b", "/etc", ".a", "a b", "é", "a\n", "x" * 101]
)
def test_a_name_that_is_no_folders_name_is_refused(
    catalogue: Catalogue, folder: Path, name: str
) -> None:
    assert not valid_name(name)
    assert catalogue.get(name) is None
    with pytest.raises(InvalidRequest):
        catalogue.add(name, folder, aliases=(), learning_rate=1.0)
    assert not catalogue.root.exists()


def test_an_unknown_name_has_no_base(catalogue: Catalogue) -> None:
    assert catalogue.get("unknown") is None


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (["config.json"], "config.json"),
        (["tokenizer.json", "tokenizer_config.json"], "tokenizer.json, tokenizer_config.json"),
        ([name for name in FILES if name.endswith("safetensors")], "safetensors weights"),
    ],
)
def test_a_folder_that_lacks_something_is_refused_by_name(
    catalogue: Catalogue, folder: Path, missing: list[str], says: str
) -> None:
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(InvalidRequest, match=says):
        catalogue.add("a", folder, aliases=(), learning_rate=1.0)
    assert catalogue.all() == []


def test_weights_under_a_name_that_is_not_loaded_are_no_weights(
    catalogue: Catalogue, folder: Path
) -> None:
    for path in folder.glob("model*.safetensors"):
        path.unlink()
    (folder / "adapter.safetensors").write_text("other")
    with pytest.raises(InvalidRequest, match="safetensors weights"):
        catalogue.add("a", folder, aliases=(), learning_rate=1.0)


@pytest.mark.parametrize("config", ["{}", "not json"])
def test_a_configuration_without_a_context_is_refused(
    catalogue: Catalogue, folder: Path, config: str
) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(InvalidRequest, match=r"config\.json"):
        catalogue.add("a", folder, aliases=(), learning_rate=1.0)


@pytest.mark.parametrize("name", FILES)
def test_the_digest_changes_with_every_file_that_decides_what_is_answered(
    folder: Path, name: str
) -> None:
    before = digest(folder)
    assert digest(folder) == before
    (folder / name).write_text(FILES[name] + " ")
    assert digest(folder) != before


def test_the_digest_does_not_depend_on_other_files_or_the_place(
    folder: Path, tmp_path: Path
) -> None:
    before = digest(folder)
    (folder / "README.md").write_text("hello")
    moved = folder.rename(tmp_path / "moved")
    assert digest(moved) == before
    assert len(before) == len(hashlib.sha256().hexdigest())


def test_prices_keep_every_digit(catalogue: Catalogue, folder: Path) -> None:
    prices = dataclasses.replace(DEFAULT_PRICES, input=Decimal("0.1000000000000000000000001"))
    catalogue.add("a", folder, aliases=(), learning_rate=1.0, prices=prices)
    found = catalogue.get("a")
    assert found is not None
    assert found.prices == prices
