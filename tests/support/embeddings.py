"""A tiny embedding model that tests make themselves, and its vectors worked out by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, BertModel

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LETTERS = ("cls", "sep", "a", "b", "c")
WORDS = (*SPECIAL, "the", "sun", "##s", "##ny", "rain", ",", "[", "]", *LETTERS)
CLS, SEP, UNKNOWN = (WORDS.index(word) for word in ("[CLS]", "[SEP]", "[UNK]"))
LONGEST, DIMENSIONS = 24, 32
POOLING = {"word_embedding_dimension": DIMENSIONS, "pooling_mode_mean_tokens": True}


def make_tiny_embedding(folder: Path, seed: int = 0) -> Path:
    """Write a two-layer BERT with random weights into `folder` and return it."""
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = BertModel(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=DIMENSIONS,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.3)
    model.save_pretrained(folder)
    make_word_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LONGEST}))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(POOLING))
    return folder


def make_word_tokenizer() -> Tokenizer:
    """Return a WordPiece tokenizer that cuts and pads, as the packaged one's file says."""
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    return tokenizer


def vector_by_hand(folder: Path, ids: Sequence[int]) -> list[float]:
    """Return a text's vector from the weights alone: BERT's equations in float64, no padding."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: w.double() for name, w in load_file(folder / "model.safetensors").items()}

    def linear(name: str, x: Tensor) -> Tensor:
        product: Tensor = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        return product

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + config["layer_norm_eps"]).sqrt()
        scaled: Tensor = centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]
        return scaled

    def table(name: str) -> Tensor:
        return weights[f"embeddings.{name}_embeddings.weight"]

    x = table("word")[list(ids)] + table("position")[: len(ids)] + table("token_type")[0]
    x = norm("embeddings.LayerNorm", x)
    size = config["hidden_size"] // config["num_attention_heads"]
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        q, k, v = (linear(f"{at}.attention.self.{n}", x) for n in ("query", "key", "value"))
        heads = []
        for head in range(config["num_attention_heads"]):
            part = slice(head * size, (head + 1) * size)
            seen = torch.softmax(q[:, part] @ k[:, part].T / size**0.5, -1)
            heads.append(seen @ v[:, part])
        attended = linear(f"{at}.attention.output.dense", torch.cat(heads, -1))
        x = norm(f"{at}.attention.output.LayerNorm", x + attended)
        wide = linear(f"{at}.intermediate.dense", x)
        wide = wide * 0.5 * (1 + torch.erf(wide / 2**0.5))
        x = norm(f"{at}.output.LayerNorm", x + linear(f"{at}.output.dense", wide))
    mean = x.mean(0)
    values: list[float] = (mean / mean.square().sum().sqrt()).tolist()
    return values
