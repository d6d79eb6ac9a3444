"""The models at hand."""

import dataclasses
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from tunery.domain.errors import InvalidRequest, TuneryError
from tunery.domain.models import Prices
from tunery.storage.catalogue import (
    DEFAULT_PRICES,
    DIGESTED_EMBEDDING,
    Catalogue,
    digest,
    missing_files,
    valid_alias,
    valid_name,
)

FILES = {
    "config.json": json.dumps({"max_position_embeddings": 2048}),
    "tokenizer.json": "{}",
    "tokenizer_config.json": "{}",
    "generation_config.json": '{"eos_token_id": 2}',
    "chat_template.jinja": "{{ messages }}",
    "model-00001-of-00002.safetensors": "first",
    "model-00002-of-00002.safetensors": "second",
}

EMBEDDING_FILES = {
    "config.json": json.dumps({"hidden_size": 384, "max_position_embeddings": 512}),
    "tokenizer.json": "{}",
    "sentence_bert_config.json": json.dumps({"max_seq_length": 256}),
    "1_Pooling/config.json": json.dumps({"pooling_mode_mean_tokens": True}),
    "model.safetensors": "weights",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    folder = tmp_path / "embedding"
    (folder / "1_Pooling").mkdir(parents=True)
    for name, content in EMBEDDING_FILES.items():
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
        (["chat_template.jinja"], r"lacks chat_template\.jinja\."),
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


# ---- embedding models


def test_an_embedding_model_is_found_by_each_name_and_is_no_base(
    catalogue: Catalogue, folder: Path, embedding: Path
) -> None:
    base = catalogue.add("base", folder, aliases=(), learning_rate=1.0)
    added = catalogue.add_embedding(
        "mini", embedding, aliases=("text-embedding-3-small",), price=Decimal("0.0200001")
    )
    assert (added.dimensions, added.max_tokens, added.price) == (384, 256, Decimal("0.0200001"))
    assert added.names == ("mini", "text-embedding-3-small")
    other = Catalogue(catalogue.root)
    assert (other.all(), other.embeddings()) == ([base], [added])
    assert other.entries() == [base, added]
    assert other.get("mini") is None
    assert other.entry("mini") == other.embedding("mini") == added
    assert other.embedding("text-embedding-3-small") == added
    assert other.embedding("base") is other.embedding("unknown") is None
    assert other.embedding_of(added.digest) == added
    assert other.embedding_of(base.digest) is None
    entry = json.loads((catalogue.root / "mini" / "tunery.json").read_text())
    assert entry["kind"] == "embedding"


@pytest.mark.parametrize("name", EMBEDDING_FILES)
def test_an_embedding_models_files_are_all_needed_and_all_decide_its_digest(
    catalogue: Catalogue, embedding: Path, name: str
) -> None:
    before = digest(embedding, DIGESTED_EMBEDDING)
    (embedding / name).write_text(EMBEDDING_FILES[name] + " ")
    assert digest(embedding, DIGESTED_EMBEDDING) != before
    (embedding / name).unlink()
    says = "weights" if "safetensors" in name else name
    with pytest.raises(InvalidRequest, match=says):
        catalogue.add_embedding("mini", embedding, aliases=())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "pooling_mode_mean_tokens"),
        ("sentence_bert_config.json", {}, "max_seq_length"),
        ("config.json", {"max_position_embeddings": 512}, "hidden_size"),
        ("config.json", [], "no JSON object"),
    ],
)
def test_an_embedding_model_of_another_make_is_refused(
    catalogue: Catalogue, embedding: Path, name: str, content: object, says: str
) -> None:
    (embedding / name).write_text(json.dumps(content))
    with pytest.raises(InvalidRequest, match=says):
        catalogue.add_embedding("mini", embedding, aliases=())
    assert catalogue.entries() == []


def test_a_text_is_never_longer_than_the_models_positions(
    catalogue: Catalogue, embedding: Path
) -> None:
    (embedding / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 1000}))
    assert catalogue.add_embedding("mini", embedding, aliases=()).max_tokens == 512


def test_an_entry_from_before_there_were_kinds_is_a_base(
    catalogue: Catalogue, folder: Path
) -> None:
    base = catalogue.add("old", folder, aliases=("gpt-3.5-turbo",), learning_rate=1.0)
    path = catalogue.root / "old" / "tunery.json"
    entry = json.loads(path.read_text())
    entry.pop("kind", None)
    path.write_text(json.dumps(entry))
    assert catalogue.get("old") == base
    path.write_text(json.dumps({**entry, "kind": "reranker"}))
    with pytest.raises(TuneryError, match="reranker"):
        catalogue.all()


# ---- names


@pytest.fixture
def named(catalogue: Catalogue, folder: Path, embedding: Path) -> Catalogue:
    catalogue.add("base", folder, aliases=("gpt-4o",), learning_rate=1.0)
    catalogue.add_embedding("mini", embedding, aliases=("text-embedding-3-small",))
    return catalogue


def test_a_model_answers_to_a_name_that_it_is_given_until_it_is_taken_away(
    named: Catalogue,
) -> None:
    assert named.alias("gpt-4.1", "base").names == ("base", "gpt-4o", "gpt-4.1")
    assert named.alias("org/mine", "text-embedding-3-small").name == "mini"
    assert named.alias("gpt-4o", "base") == named.get("base")  # it does so already
    base, mini = named.entries()
    assert base.names == ("base", "gpt-4o", "gpt-4.1")
    assert mini.names == ("mini", "text-embedding-3-small", "org/mine")
    (changed,) = named.unalias("gpt-4o")
    assert changed == named.get("base")
    assert changed.names == ("base", "gpt-4.1")
    assert named.alias("gpt-4o", "mini").names[-1] == "gpt-4o"


@pytest.mark.parametrize(
    ("name", "target", "says"),
    [
        ("gpt-4o", "mini", "'base' answers to 'gpt-4o'; run `tunery models unalias gpt-4o`"),
        ("text-embedding-3-small", "base", "run `tunery models unalias text-embedding-3-small`"),
        ("mini", "base", "another model's own name"),
        ("new", "unknown", "No model answers to 'unknown'"),
        ("ft:base:org::12345678", "base", "needed letters"),
        ("", "base", "needed letters"),
        ("a b", "base", "needed letters"),
    ],
)
def test_a_name_that_cannot_be_given_is_refused_and_nothing_changes(
    named: Catalogue, name: str, target: str, says: str
) -> None:
    before = named.entries()
    with pytest.raises(InvalidRequest) as refused:
        named.alias(name, target)
    assert says in refused.value.message
    assert named.entries() == before


@pytest.mark.parametrize(("name", "says"), [("mini", "own name"), ("unknown", "No model answers")])
def test_a_name_that_cannot_be_taken_away_is_refused(
    named: Catalogue, name: str, says: str
) -> None:
    before = named.entries()
    with pytest.raises(InvalidRequest, match=says):
        named.unalias(name)
    assert named.entries() == before


@pytest.mark.parametrize("alias", ["gpt-4o", "mini", "a:b"])
def test_a_new_model_cannot_take_anothers_name(
    named: Catalogue, folder: Path, embedding: Path, alias: str
) -> None:
    before = named.entries()
    with pytest.raises(InvalidRequest):
        named.add("third", folder, aliases=(alias,), learning_rate=1.0)
    with pytest.raises(InvalidRequest):
        named.add_embedding("third", embedding, aliases=("free", alias))
    with pytest.raises(InvalidRequest):
        named.add("gpt-4o", folder, aliases=(), learning_rate=1.0)
    assert named.entries() == before


def test_default_names_are_added_where_nobody_has_them(named: Catalogue) -> None:
    defaults = ("gpt-4o", "text-embedding-3-small", "gpt-4.1", "gpt-4.1", "mini", "gpt-4")
    assert named.add_free_aliases("base", defaults) == ("gpt-4.1", "gpt-4")
    assert named.add_free_aliases("base", defaults) == ()
    base, mini = named.entries()
    assert base.names == ("base", "gpt-4o", "gpt-4.1", "gpt-4")
    assert mini.names == ("mini", "text-embedding-3-small")


def test_a_name_that_two_entries_from_before_have_can_be_taken_from_both(
    named: Catalogue,
) -> None:
    path = named.root / "mini" / "tunery.json"
    path.write_text(path.read_text().replace("text-embedding-3-small", "gpt-4o"))
    assert [entry.name for entry in named.unalias("gpt-4o")] == ["base", "mini"]
    assert [entry.aliases for entry in named.entries()] == [(), ()]


def test_names_given_at_the_same_time_are_all_there(named: Catalogue) -> None:
    wanted = [f"name-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: Catalogue(named.root).alias(name, "mini"), wanted))
    mini = named.embedding("mini")
    assert mini is not None
    assert sorted(mini.aliases) == sorted([*wanted, "text-embedding-3-small"])


@pytest.mark.parametrize(
    ("name", "valid"),
    [("gpt-4o", True), ("a/b", True), ("x" * 101, False), ("é", False), ("a\n", False)],
)
def test_what_can_be_a_name(name: str, valid: bool) -> None:
    assert valid_alias(name) is valid


@pytest.mark.parametrize("gone", [1, 2])
def test_weights_that_the_index_names_and_that_are_missing_are_named(
    catalogue: Catalogue, folder: Path, gone: int
) -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    weights = {f"layers.{number}.weight": shards[number % 2] for number in range(6)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    assert missing_files(folder) == []
    (folder / shards[gone - 1]).unlink()
    with pytest.raises(InvalidRequest, match=f"it lacks {shards[gone - 1]}."):
        catalogue.add("a", folder, aliases=(), learning_rate=1.0)
    assert missing_files(folder) == [shards[gone - 1]]


@pytest.mark.parametrize("index", ["{}", "not json", '{"weight_map": {"a": 1}}'])
def test_an_index_that_names_no_files_is_refused(
    catalogue: Catalogue, folder: Path, index: str
) -> None:
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InvalidRequest, match=r"model\.safetensors\.index\.json"):
        catalogue.add("a", folder, aliases=(), learning_rate=1.0)


def test_a_template_may_stand_in_the_tokenizers_settings(
    catalogue: Catalogue, folder: Path
) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    catalogue.add("a", folder, aliases=(), learning_rate=1.0)
    assert missing_files(folder) == []


def test_an_entry_is_on_disk_before_it_has_its_name(
    catalogue: Catalogue, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def flush(descriptor: int) -> None:
        acts.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def name(path: Path, target: Path) -> Path:
        acts.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "rename", name)
    catalogue.add("a", folder, aliases=(), learning_rate=1.0)
    assert acts == ["tunery.tmp", "renamed", "a", catalogue.root.name]
