"""Slots are shared between tenants, and tokens computed for one are used again for it alone.

Nothing here is timed: the tokens that were really computed are counted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from support.networks import (
    Answer,
    answer_of,
    ask,
    drain,
    endless_tokenizer,
    log_probabilities,
    logits_of,
    make_scheduler,
    merged_model,
    plain_model,
    random_adapter,
    tokens,
)
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.errors import Overloaded, TuneryError
from tunery.engine import scheduler as scheduler_module
from tunery.engine.row import Row
from tunery.engine.sampling import Sampling
from tunery.engine.scheduler import Scheduler, idle_callback
from tunery.model.cached import CachedLayout, SlotCache


@pytest.fixture
def tokenizer(tiny_model: Path) -> TextTokenizer:
    return endless_tokenizer(tiny_model)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[int]]]:
    """Return what each step computes: how many rows decode, and the lengths of the pieces."""
    seen: list[tuple[int, list[int]]] = []

    def recorded(
        cache: SlotCache,
        decoding: Sequence[int],
        pieces: Sequence[tuple[int, int]],
        *others: Any,
    ) -> CachedLayout:
        seen.append((len(decoding), [count for _, count in pieces]))
        return CachedLayout(cache, decoding, pieces, *others)

    monkeypatch.setattr(scheduler_module, "CachedLayout", recorded)
    return seen


def _prompt_tokens(steps: list[tuple[int, list[int]]]) -> int:
    count = sum(sum(pieces) for _, pieces in steps)
    steps.clear()
    return count


def _bytes(scheduler: Scheduler, count: int) -> int:
    """Return the memory of a text: key and value of each layer and head, in whole 32 tokens."""
    network = scheduler._network
    each = 2 * network.layers * network.key_value_heads * network.head_size * 4
    return -(-count // 32) * 32 * each


# ---- texts that begin alike


def test_a_text_that_begins_like_one_before_computes_the_rest_only(
    tiny_model: Path, tokenizer: TextTokenizer, steps: list[tuple[int, list[int]]]
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)
    model = plain_model(tiny_model)
    first = ask(scheduler, tokenizer, tokens(50, 0), 10, tenant="a")
    drain(scheduler)
    assert _prompt_tokens(steps) == 50
    follow_up = tokens(50, 0) + first.made + tokens(20, 1)
    other = tokens(40, 0) + tokens(30, 2)
    again = ask(scheduler, tokenizer, follow_up, 10, tenant="a")
    drain(scheduler)
    assert _prompt_tokens(steps) == 80 - 59  # the last token made was not computed
    branch = ask(scheduler, tokenizer, other, 10, tenant="a")
    drain(scheduler)
    assert _prompt_tokens(steps) == 70 - 40
    same = ask(scheduler, tokenizer, other, 10, tenant="a")
    drain(scheduler)
    assert _prompt_tokens(steps) == 1  # its logits are wanted
    assert [one.row.cached for one in (first, again, branch, same)] == [0, 59, 40, 69]
    for answer, prompt in ((again, follow_up), (branch, other), (same, other)):
        assert answer.made == answer_of(model, prompt, 10)


def test_log_probabilities_over_tokens_used_again_are_those_of_transformers(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)
    prompt = tokens(100, 0)
    ask(scheduler, tokenizer, prompt[:90], 3, tenant="a")
    drain(scheduler)
    found = []
    for tenant in ("a", "b"):
        settings = Sampling(0, 1, None, top_logprobs=0)
        answer = ask(scheduler, tokenizer, prompt, 20, sampling=settings, tenant=tenant)
        drain(scheduler)
        found.append([one.logprob for delta in answer.deltas for one in delta.logprobs])
    assert answer.row.cached == 0
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    table = torch.log_softmax(logits_of(plain_model(tiny_model), prompt + answer.made), -1)
    wanted = [float(table[99 + place, token]) for place, token in enumerate(answer.made)]
    assert found[0] == pytest.approx(wanted, abs=1e-3)


def test_no_tenant_and_no_model_uses_what_was_computed_for_another(
    tiny_model: Path, tokenizer: TextTokenizer, steps: list[tuple[int, list[int]]]
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, rows=8)
    weights = [random_adapter(tiny_model, seed) for seed in (1, 2)]
    for name, one in zip("xy", weights, strict=True):
        scheduler.adapters.load(name, one)
    prompt = tokens(60, 0)
    owners = [("a", None), ("b", None), ("a", "x"), ("a", "y"), ("b", "x"), ("", None), ("", None)]
    together = [
        ask(scheduler, tokenizer, prompt, 5, tenant=tenant, adapter=adapter)
        for tenant, adapter in owners
    ]
    drain(scheduler)
    assert _prompt_tokens(steps) == 7 * 60
    models = {
        None: plain_model(tiny_model),
        "x": merged_model(tiny_model, weights[0]),
        "y": merged_model(tiny_model, weights[1]),
    }
    for (_, adapter), answer in zip(owners, together, strict=True):
        assert answer.made == answer_of(models[adapter], prompt, 5)
    for tenant, adapter in [*owners[:5], ("c", None), ("b", "y")]:  # one after another
        ask(scheduler, tokenizer, prompt, 5, tenant=tenant, adapter=adapter)
        drain(scheduler)
    assert _prompt_tokens(steps) == 5 + 2 * 60


def test_texts_that_come_together_have_their_beginning_computed_once(
    tiny_model: Path, tokenizer: TextTokenizer, steps: list[tuple[int, list[int]]]
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, rows=8)
    prompts = [tokens(100, 0) + tokens(10, number) for number in range(1, 9)]
    answers = [ask(scheduler, tokenizer, prompt, 6, tenant="a") for prompt in prompts]
    drain(scheduler)
    assert _prompt_tokens(steps) == 100 + 8 * 10
    model = plain_model(tiny_model)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.made == answer_of(model, prompt, 6)


@pytest.mark.parametrize("steps_before", [1, 2])
def test_texts_that_wait_for_one_that_is_cancelled_go_on_from_where_it_was(
    tiny_model: Path,
    tokenizer: TextTokenizer,
    steps: list[tuple[int, list[int]]],
    steps_before: int,
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, rows=4)  # 64 tokens a step
    prompts = [tokens(150, 0) + tokens(10, number) for number in range(1, 4)]
    answers = [ask(scheduler, tokenizer, prompt, 6, tenant="a") for prompt in prompts]
    for _ in range(steps_before):
        scheduler.step()
    answers[0].row.cancelled = True
    drain(scheduler)
    assert answers[0].made == []
    assert _prompt_tokens(steps) == 150 + 2 * 10
    model = plain_model(tiny_model)
    for prompt, answer in zip(prompts[1:], answers[1:], strict=True):
        assert answer.made == answer_of(model, prompt, 6)


def test_a_step_that_fails_leaves_nothing_behind_that_is_used_again(
    tiny_model: Path, tokenizer: TextTokenizer, steps: list[tuple[int, list[int]]]
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)
    prompt = tokens(60, 0)
    waiting = ask(scheduler, tokenizer, prompt, 5, tenant="a")
    broken = ask(scheduler, tokenizer, [*prompt, 10**6], 5, tenant="a")  # no such token
    drain(scheduler)
    assert [type(end) for end in broken.ends] == [TuneryError]
    assert waiting.ends
    steps.clear()
    answer = ask(scheduler, tokenizer, prompt, 5, tenant="a")
    drain(scheduler)
    assert answer.made == answer_of(plain_model(tiny_model), prompt, 5)


def test_scored_texts_compute_every_token_and_are_used_again(
    tiny_model: Path, tokenizer: TextTokenizer, steps: list[tuple[int, list[int]]]
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)
    ids = tokens(50, 0)
    for tenant in ("a", "a"):
        scores: list[float] = []
        sampling = Sampling(0, 1, None)
        row = Row(ids, None, 0, sampling, None, idle_callback, idle_callback, scores, tenant)
        scheduler.submit(row)
        drain(scheduler)
        assert scores == pytest.approx(log_probabilities(plain_model(tiny_model), ids), abs=1e-3)
    assert _prompt_tokens(steps) == 100
    ask(scheduler, tokenizer, ids, 3, tenant="a")
    drain(scheduler)
    assert _prompt_tokens(steps) == 1


# ---- turns


def test_a_flood_of_one_tenant_does_not_keep_another_from_its_turn(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, rows=2, queue=64)
    flood = [ask(scheduler, tokenizer, tokens(20, n), 60, tenant="a") for n in range(20)]
    for _ in range(5):
        scheduler.step()
    assert scheduler.active == 2
    late = ask(scheduler, tokenizer, tokens(20, 99), 5, tenant="b")
    for _ in range(8):  # a step for the prompt and one for each token: no answer of 60 has to end
        scheduler.step()
    assert late.ends == [None]
    assert not any(answer.ends for answer in flood)
    drain(scheduler)
    model = plain_model(tiny_model)
    for number in (0, 1, 19):  # one of the first two had to wait again
        assert flood[number].made == answer_of(model, tokens(20, number), 60)


def test_two_tenants_with_long_and_short_texts_get_the_same_work_done(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, rows=1, queue=64)
    ended: list[str] = []
    for number in range(3):
        _note(ended, "long", ask(scheduler, tokenizer, tokens(90, number), 10, tenant="a"))
    for number in range(12):
        _note(ended, "short", ask(scheduler, tokenizer, tokens(20, number), 5, tenant="b"))
    drain(scheduler)
    # A long one is 100 tokens of work, a short one 25: four short ones to a long one.
    assert ended == ["long", *["short"] * 4] * 3


def _note(ended: list[str], name: str, answer: Answer) -> None:
    answer.row.on_end = lambda _: ended.append(name)


def test_a_short_prompt_is_computed_beside_another_tenants_long_ones(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)  # 64 prompt tokens a step
    long = [ask(scheduler, tokenizer, tokens(400, n), 5, tenant="a") for n in range(2)]
    short = ask(scheduler, tokenizer, tokens(30, 9), 5, tenant="b")
    scheduler.step()
    assert len(short.made) == 1
    assert [answer.row.computed for answer in long] == [34, 0]


def test_a_full_queue_gives_up_the_newest_of_who_has_most(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, rows=1, queue=4)
    scheduler.adapters.load("x", random_adapter(tiny_model, 1))
    flood = [ask(scheduler, tokenizer, tokens(9, n), 4, adapter="x", tenant="a") for n in range(4)]
    late = ask(scheduler, tokenizer, tokens(9, 9), 4, tenant="b")
    assert [len(answer.ends) for answer in flood] == [0, 0, 0, 1]
    assert isinstance(flood[3].ends[0], Overloaded)
    with pytest.raises(Overloaded):
        ask(scheduler, tokenizer, tokens(9, 9), 4, adapter="x", tenant="a")
    drain(scheduler)
    assert late.ends == [None]
    assert [answer.ends for answer in flood[:3]] == [[None]] * 3
    assert scheduler.adapters.unload("x")  # those that were refused hold nothing


# ---- memory


def test_a_bound_that_holds_no_text_of_the_longest_length_is_refused(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    needed = _bytes(make_scheduler(tiny_model, tokenizer), 512)
    make_scheduler(tiny_model, tokenizer, cache_bytes=needed)
    with pytest.raises(TuneryError, match=f"cache_bytes {needed - 1};.* takes {needed}"):
        make_scheduler(tiny_model, tokenizer, cache_bytes=needed - 1)


def test_answers_that_grow_beyond_the_bound_wait_again_and_are_whole_in_the_end(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    bound = _bytes(make_scheduler(tiny_model, tokenizer), 256)
    scheduler = make_scheduler(tiny_model, tokenizer, context=256, cache_bytes=bound)
    prompts = [tokens(40, number) for number in range(4)]
    answers = [
        ask(scheduler, tokenizer, prompt, 80, tenant=tenant, sampling=Sampling(1, 1, 7))
        for prompt, tenant in zip(prompts, "aab ", strict=True)
    ]
    most = 0
    while scheduler.active or scheduler.waiting:
        scheduler.step()
        held = sum(_bytes(scheduler, place) for place in _written(scheduler))
        assert held <= bound
        most = max(most, scheduler.active)
    assert most == 4  # 4 x 64 tokens fit, 4 x 120 do not
    model = plain_model(tiny_model)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.made == answer_of(model, prompt, 80, seed=7)
        assert [delta.completion_tokens for delta in answer.deltas] == list(range(1, 81))


def _written(scheduler: Scheduler) -> list[int]:
    """Return how many tokens stand in each slot, kept ones too: numbers that are not zero."""
    keys = scheduler._cache.keys[0][:-1, 0].abs().sum(-1) > 0
    return [int(row.nonzero().max()) + 1 if row.any() else 0 for row in keys]


def test_what_is_kept_makes_room_for_what_is_asked(
    tiny_model: Path, tokenizer: TextTokenizer, steps: list[tuple[int, list[int]]]
) -> None:
    bound = _bytes(make_scheduler(tiny_model, tokenizer), 256)
    scheduler = make_scheduler(tiny_model, tokenizer, context=256, cache_bytes=bound)
    for number in range(2):
        ask(scheduler, tokenizer, tokens(60, number), 4, tenant="a")
        drain(scheduler)
    ask(scheduler, tokenizer, tokens(150, 2), 10, tenant="b")  # 160 and 64 + 64 are above 256
    drain(scheduler)
    steps.clear()
    for number, computed in ((1, 1), (0, 60)):  # the longer unused one is gone
        ask(scheduler, tokenizer, tokens(60, number), 1, tenant="a")
        drain(scheduler)
        assert _prompt_tokens(steps) == computed


def test_another_tenants_slot_holds_nothing_of_the_text_before(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, rows=1)  # two slots
    for number in range(3):
        ask(scheduler, tokenizer, tokens(100, number), 1, tenant="a")
        drain(scheduler)
    assert _written(scheduler) == [100, 100]
    for number in range(2):
        ask(scheduler, tokenizer, tokens(20, number), 1, tenant="b")
        drain(scheduler)
    assert _written(scheduler) == [20, 20]
