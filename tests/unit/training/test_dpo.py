"""The loss of pairs: by hand, against plain autograd, and against transformers and PEFT."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from support.networks import (
    PEFT_WARNING,
    assert_gradients_alike,
    log_probabilities,
    peft_model,
    plain_model,
    random_adapter,
    tokens,
)
from tunery.datasets.batches import Example
from tunery.datasets.rendering import ChatRenderer
from tunery.model.base import BaseNetwork, load_base
from tunery.training.adapter import LearnedAdapter
from tunery.training.data import load_examples
from tunery.training.dpo import Pair, Preferences, preference_loss, score_answers
from tunery.training.losses import token_log_probabilities
from tunery.training.objective import BatchLoss, Examples
from tunery.training.packing import pack
from tunery.training.token_cache import CachedExamples, TokenCache

BETA = 0.5
ANSWERS = [  # to two conversations
    Example(tokens(12, 0), [n >= 4 for n in range(12)]),
    Example(tokens(9, 1), [n >= 4 for n in range(9)]),
    Example(tokens(5, 2), [n == 4 for n in range(5)]),
    Example(tokens(40, 3), [n >= 4 for n in range(40)]),
]


def _cached(folder: Path, answers: Sequence[Example]) -> CachedExamples:
    return TokenCache(folder, 1 << 16, lambda _: None).open(lambda: answers, lambda one: one)


def _read(pairs: Examples[Pair]) -> list[Pair]:
    return [pairs[place] for place in range(len(pairs))]


def _loss(method: Preferences, pairs: Sequence[Pair]) -> BatchLoss:
    loss = method.loss(pairs)
    assert loss is not None
    return loss


def test_a_case_by_hand() -> None:
    # The first pair: the chosen answer has become likelier by ln 4 and the rejected one less likely
    # by ln 4. With beta 1/2 the rewards are ln 2 and -ln 2, the margin is ln 4, sigmoid(ln 4) is
    # 4/5 and the loss ln(5/4).
    # The second: both have become less likely by 3: rewards of -3/2, no margin, ln 2.
    # The third: the chosen one unchanged, the other likelier by 2 ln 3: sigmoid(-ln 3) is 1/4.
    chosen = torch.tensor([-1 + math.log(4), -8.0, -2.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor(
        [-2 - math.log(4), -9.0, -5 + 2 * math.log(3)], dtype=torch.float64, requires_grad=True
    )
    reference = torch.tensor([[-1.0, -2.0], [-5.0, -6.0], [-2.0, -5.0]], dtype=torch.float64)
    losses, rewards = preference_loss(chosen, rejected, reference, 0.5)
    assert losses.tolist() == pytest.approx([math.log(5 / 4), math.log(2), math.log(4)])
    wanted = torch.tensor([[math.log(2), -math.log(2)], [-1.5, -1.5], [0.0, math.log(3)]])
    torch.testing.assert_close(rewards.detach(), wanted.double(), atol=1e-7, rtol=1e-6)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    # -beta * (1 - sigmoid(margin)) for the chosen one, and its opposite: eq. 7's gradient.
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx([-0.5 * 1 / 5, -0.5 * 1 / 2, -0.5 * 3 / 4])
    assert rejected.grad.tolist() == pytest.approx([0.5 * 1 / 5, 0.5 * 1 / 2, 0.5 * 3 / 4])


def test_a_margin_however_large_has_a_loss() -> None:
    nothing = torch.zeros(2, 2)
    losses, _ = preference_loss(torch.tensor([1e4, -1e4]), torch.zeros(2), nothing, 2.0)
    assert losses.tolist() == [0.0, 2e4]


def test_loss_and_gradient_from_hidden_states_equal_those_of_the_naive_form_in_float64() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(1300, 8, generator=generator, dtype=torch.float64)
    head = torch.randn(30, 8, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 30, (1300,), generator=generator)
    owners = torch.randint(0, 6, (1300,), generator=generator)  # six answers, three pairs
    reference = -100 * torch.rand(3, 2, generator=generator, dtype=torch.float64) - 1000
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()

    scored = token_log_probabilities(ours, head, targets).log_probabilities
    answers = scored.new_zeros(6).index_add(0, owners, scored)
    losses, _ = preference_loss(answers[::2], answers[1::2], reference, 0.01)
    losses.mean().backward()  # type: ignore[no-untyped-call]

    every = torch.log_softmax(theirs @ head.t(), -1)[torch.arange(1300), targets]
    whole = torch.stack([every[owners == number].sum() for number in range(6)])
    ratios = (whole[::2] - reference[:, 0]) - (whole[1::2] - reference[:, 1])
    naive = -torch.log(torch.sigmoid(0.01 * ratios)).mean()
    naive.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(losses.mean(), naive, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-15)
    assert theirs.grad is not None
    assert float(theirs.grad.abs().max()) > 1e-5


def _learning(folder: Path, seed: int) -> tuple[BaseNetwork, LearnedAdapter, Preferences]:
    network = load_base(folder, torch.float32)
    learned = LearnedAdapter.over(network, seed=0, start_from=random_adapter(folder, seed))
    return network, learned, Preferences(network, BETA)


def _plain_score(model: Any, example: Example) -> Tensor:
    """Return log p of an answer, run alone under plain autograd."""
    logits = model(torch.tensor([example.token_ids])).logits[0, :-1]
    every = -F.cross_entropy(logits, torch.tensor(example.token_ids[1:]), reduction="none")
    return every[torch.tensor(example.supervised[1:], dtype=torch.bool)].sum()


@pytest.mark.filterwarnings(PEFT_WARNING)
def test_loss_rewards_and_gradients_equal_those_of_peft(tiny_model: Path, tmp_path: Path) -> None:
    _, learned, method = _learning(tiny_model, 1)
    pairs = _read(method.examples(_cached(tmp_path, ANSWERS)))
    # As if training had begun at other weights than these.
    reference = [(-31.0, -25.0), (-6.0, -170.0)]
    method.take_up({"reference.log_probabilities": torch.tensor(reference).double()})
    found = _loss(method, pairs)
    model = peft_model(tiny_model, random_adapter(tiny_model, 1))
    scores = [
        (_plain_score(model, pair.chosen), _plain_score(model, pair.rejected)) for pair in pairs
    ]
    rewards = [
        [BETA * (score - before) for score, before in zip(both, known, strict=True)]
        for both, known in zip(scores, reference, strict=True)
    ]
    wanted = torch.stack([-F.logsigmoid(chosen - other) for chosen, other in rewards]).mean()
    torch.testing.assert_close(found.mean.float(), wanted, rtol=1e-4, atol=1e-5)
    values = [[float(reward.detach()) for reward in pair] for pair in rewards]
    sums = found.sums
    assert (sums.units, sums.pairs, sums.tokens) == (2, 2, 8 + 1)
    assert sums.loss == pytest.approx(2 * float(wanted.detach()), rel=1e-4)
    assert sums.nll == pytest.approx(-sum(float(c.detach()) for c, _ in scores), rel=1e-4)
    assert sums.chosen_reward == pytest.approx(values[0][0] + values[1][0], rel=1e-3)
    assert sums.rejected_reward == pytest.approx(values[0][1] + values[1][1], rel=1e-3)
    assert sums.won == sum(chosen > other for chosen, other in values)
    found.mean.backward()  # type: ignore[no-untyped-call]
    wanted.backward()  # type: ignore[no-untyped-call]
    assert_gradients_alike(learned, model, rtol=2e-3, share=1e-3)


@pytest.mark.filterwarnings(PEFT_WARNING)
def test_the_reference_is_what_training_starts_from(tiny_model: Path, tmp_path: Path) -> None:
    _, learned, method = _learning(tiny_model, 2)
    cached = _cached(tmp_path, ANSWERS)
    pairs = _read(method.examples(cached))
    method.prepare(pairs[::-1])
    at_start = method.kept()
    start = peft_model(tiny_model, random_adapter(tiny_model, 2))
    wanted = [
        [float(_plain_score(start, one).detach()) for one in (pair.chosen, pair.rejected)]
        for pair in pairs
    ]
    torch.testing.assert_close(
        at_start["reference.log_probabilities"], torch.tensor(wanted).double(), atol=1e-3, rtol=0
    )
    first = _loss(method, pairs)
    assert float(first.mean.detach()) == pytest.approx(math.log(2), abs=1e-5)
    assert first.sums.metrics("train")["train_reward_margin"] == pytest.approx(0, abs=1e-5)
    first.mean.backward()  # type: ignore[no-untyped-call]
    learned.step(1e-2)
    assert float(_loss(method, pairs).mean.detach()) < 0.6  # so the reference did not move along
    _, _, other = _learning(tiny_model, 3)
    again = _read(other.examples(cached))
    other.take_up(at_start)
    by_hand = _loss_by_hand(tiny_model, 3, again, wanted)
    assert _loss(other, again).sums.loss == pytest.approx(by_hand, 1e-3)


def _loss_by_hand(
    folder: Path, seed: int, pairs: Sequence[Pair], reference: list[list[float]]
) -> float:
    model = peft_model(folder, random_adapter(folder, seed))
    total = 0.0
    for pair, (chosen, rejected) in zip(pairs, reference, strict=True):
        scores = [float(_plain_score(model, one).detach()) for one in (pair.chosen, pair.rejected)]
        margin = BETA * ((scores[0] - chosen) - (scores[1] - rejected))
        total += math.log(1 + math.exp(-margin))
    return total


def test_a_pair_that_was_not_prepared_has_no_loss(tiny_model: Path, tmp_path: Path) -> None:
    method = Preferences(load_base(tiny_model, torch.float32), BETA)
    pairs = _read(method.examples(_cached(tmp_path, ANSWERS)))
    method.prepare(pairs[:1])
    assert method.loss(pairs[:1]) is not None
    with pytest.raises(ValueError, match="not prepared"):
        method.loss(pairs)


def test_references_are_kept_of_all_files_and_taken_up_by_their_order(
    tiny_model: Path, tmp_path: Path
) -> None:
    method = Preferences(load_base(tiny_model, torch.float32), BETA)
    method.examples(_cached(tmp_path / "one", ANSWERS))
    held_out = _read(method.examples(_cached(tmp_path / "other", ANSWERS[:2])))
    references = torch.arange(6).double().view(3, 2)
    method.take_up({"reference.log_probabilities": references})
    assert torch.equal(held_out[0].reference, references[2])
    assert torch.equal(method.kept()["reference.log_probabilities"], references)


def test_a_pair_of_which_an_answer_was_cut_off_whole_is_not_learned(
    tiny_model: Path, tmp_path: Path
) -> None:
    method = Preferences(load_base(tiny_model, torch.float32), BETA)
    nothing = Example(tokens(30, 4), [False] * 30)
    answers = [*ANSWERS[:2], nothing, nothing, ANSWERS[2], nothing]
    file = method.examples(_cached(tmp_path, answers))
    pairs = _read(file)
    method.prepare(pairs)
    assert (method.units(pairs), method.units(pairs[1:])) == (1, 0)
    assert method.loss(pairs[1:]) is None
    assert _loss(method, pairs).sums.pairs == 1
    assert list(file.lengths) == [12 + 9, 30 + 30, 5 + 30]
    # What was cut off is not billed, nor a conversation twice.
    assert method.billed_tokens(file) == (12 + 9 - 4) + 30 + 5


def test_the_conversation_of_a_pair_is_computed_once_and_its_answers_as_if_alone(
    tiny_model: Path,
) -> None:
    network = load_base(tiny_model, torch.float32)
    conversation = tokens(50, 5)
    examples = [
        Example([*conversation, *tokens(size, size)], [n >= 50 for n in range(50 + size)])
        for size in (6, 11)
    ]
    packed = pack(examples, network.dtype)
    assert packed is not None
    assert len(packed.token_ids) < 2 * 50
    together = score_answers(network, examples)
    for number, example in enumerate(examples):
        alone = score_answers(network, [example])
        wanted = float(alone.log_probabilities[0])
        assert float(together.log_probabilities[number]) == pytest.approx(wanted, rel=1e-4)


def test_answers_are_scored_by_their_own_tokens_whatever_stands_beside_them(
    tiny_model: Path,
) -> None:
    network, model = load_base(tiny_model, torch.float32), plain_model(tiny_model)
    together = score_answers(network, ANSWERS)
    for number, example in enumerate(ANSWERS):
        every = log_probabilities(model, example.token_ids)
        pairs = zip(every, example.supervised[1:], strict=True)
        wanted = sum(score for score, learned in pairs if learned)
        assert float(together.log_probabilities[number]) == pytest.approx(wanted, rel=1e-3)
        alone = score_answers(network, [example])
        assert int(alone.correct[0]) == int(together.correct[number])


def test_a_line_becomes_two_answers_of_which_nothing_else_is_learned(
    tiny_model: Path, tmp_path: Path
) -> None:
    method = Preferences(load_base(tiny_model, torch.float32), BETA)
    line = {
        "input": {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "bcd"},
                {"role": "user", "content": "e"},
            ]
        },
        "preferred_completion": [{"role": "assistant", "content": "fine"}],
        "non_preferred_output": [{"role": "assistant", "content": "no"}],
    }
    read = load_examples(
        lambda: [orjson.dumps(line)],
        ChatRenderer.load(tiny_model),
        500,
        base_digest="b" * 64,
        folder=tmp_path,
        make_room=lambda _: None,
    )
    file = method.examples(read.examples)
    (pair,) = _read(file)
    # A turn is its role, its content, two marks and two newlines; an answer's mark is learned too.
    before = 2 * (len("user") + 1 + 4) + len("assistant") + len("bcd") + 4
    chosen, rejected = before + len("assistant") + 8, before + len("assistant") + 6
    assert [len(pair.chosen.token_ids), len(pair.rejected.token_ids)] == [chosen, rejected]
    start = before + 1 + len("assistant\n")
    assert pair.chosen.supervised == [start <= n < start + 5 for n in range(chosen)]
    assert pair.rejected.supervised == [start <= n < start + 3 for n in range(rejected)]
    assert method.computed_tokens(pair) == chosen + rejected
    assert list(file.lengths) == [chosen + rejected]
    assert method.billed_tokens(file) == chosen + rejected - start  # the conversation counts once
