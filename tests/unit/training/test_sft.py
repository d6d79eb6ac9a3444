"""The loss of a batch against transformers and PEFT under plain autograd."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from support.networks import (
    PEFT_WARNING,
    assert_gradients_alike,
    peft_model,
    plain_model,
    random_adapter,
    tokens,
)
from tunery.datasets.batches import Example
from tunery.datasets.rendering import ChatRenderer
from tunery.model.base import BaseNetwork, load_base
from tunery.model.packed import PackedLayout
from tunery.training.adapter import LearnedAdapter
from tunery.training.packing import shared_tokens
from tunery.training.sft import batch_loss


def _reference(model: Any, examples: list[Example]) -> Tensor:
    """Return the mean over all supervised tokens, each example run alone."""
    losses = []
    for example in examples:
        logits = model(torch.tensor([example.token_ids])).logits[0, :-1]
        every = F.cross_entropy(logits, torch.tensor(example.token_ids[1:]), reduction="none")
        losses.append(every[torch.tensor(example.supervised[1:], dtype=torch.bool)])
    return torch.cat(losses).mean()


def _beginning_alike(shared: int, *lengths: int) -> list[Example]:
    """Return examples that begin with the same tokens, of which every third is learned."""
    return [
        Example(
            tokens(shared, 50) + tokens(length - shared, seed), [n % 3 == 1 for n in range(length)]
        )
        for seed, length in enumerate(lengths)
    ]


BATCHES = {
    "nothing shared": [
        Example(tokens(12, 0), [n >= 4 for n in range(12)]),
        Example(tokens(5, 1), [n % 2 == 0 for n in range(5)]),  # the first token has no loss
        Example(tokens(40, 2), [n in (7, 39) for n in range(40)]),
        Example(tokens(6, 3), [False] * 6),
    ],
    "shared": _beginning_alike(20, 40, 21, 64),
    "one within another": [*_beginning_alike(30, 31), *_beginning_alike(30, 60)],
    "the same": _beginning_alike(25, 25) * 3,
    "long": _beginning_alike(40, 900, 60),
    "a long beginning": _beginning_alike(800, 810, 803),
}


@pytest.mark.filterwarnings(PEFT_WARNING)
@pytest.mark.parametrize("batch", BATCHES)
def test_loss_and_gradients_equal_those_of_peft(any_base: Path, batch: str) -> None:
    examples = BATCHES[batch]
    weights = random_adapter(any_base, 1)
    network = load_base(any_base, torch.float32)
    learned = LearnedAdapter.over(network, seed=0, start_from=weights)
    loss = batch_loss(network, examples)
    assert loss is not None
    model = peft_model(any_base, weights)
    wanted = _reference(model, examples)
    torch.testing.assert_close(loss.mean, wanted, rtol=1e-5, atol=1e-6)
    loss.mean.backward()  # type: ignore[no-untyped-call]
    wanted.backward()  # type: ignore[no-untyped-call]
    assert_gradients_alike(learned, model, rtol=1e-3, share=1e-4)


def test_what_all_begin_with_is_shared_but_for_a_texts_last_token() -> None:
    alike = list(range(20))
    assert shared_tokens([[*alike, 30], [*alike, 31, 32]]) == 20
    assert shared_tokens([[*alike, 30], [*alike, 30]]) == 20
    assert shared_tokens([alike, [*alike, 30]]) == 19
    assert shared_tokens([[*alike, 30], [*alike, 31], [*alike[:17], 99, 98, 97]]) == 17
    assert shared_tokens([[*alike[:15], 30], [*alike[:15], 31]]) == 0  # not worth it
    assert shared_tokens([[*alike, 30]]) == 0  # with nobody


def test_what_is_shared_is_computed_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    hidden = BaseNetwork.hidden

    def counted(
        network: BaseNetwork, token_ids: Tensor, layout: PackedLayout, rows: Tensor
    ) -> Tensor:
        computed.append(len(token_ids) - layout.padding)
        return hidden(network, token_ids, layout, rows)

    monkeypatch.setattr(BaseNetwork, "hidden", counted)
    batch_loss(load_base(tiny_model, torch.float32), BATCHES["shared"])
    assert computed == [20 + 20 + 1 + 44]


def test_a_batch_without_supervised_tokens_has_no_loss(tiny_model: Path) -> None:
    network = load_base(tiny_model, torch.float32)
    only_first = Example([1, 2, 3], [True, False, False])
    assert batch_loss(network, [only_first]) is None


def test_messages_of_weight_zero_are_read_and_not_learned(tiny_model: Path) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "wrong", "weight": 0},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "right", "weight": 1},
    ]
    renderer = ChatRenderer.load(tiny_model)
    rendered = renderer.example(messages)
    network = load_base(tiny_model, torch.float32)
    loss = batch_loss(network, [Example(rendered.token_ids, rendered.supervised)])
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    ids = renderer.tokenizer.template_ids(text)
    # Before the last turn's content everything is context; after <|im_end|> comes a newline.
    learned = [False] * (len(ids) - 7) + [True] * (len("right") + 1) + [False]
    assert loss is not None
    with torch.no_grad():
        wanted = _reference(plain_model(tiny_model), [Example(ids, learned)])
    torch.testing.assert_close(loss.mean, wanted, rtol=1e-5, atol=1e-6)
