"""Continuous batching: every row answers as it would alone, and lets go of what it held."""

import threading
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
    until,
)
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.errors import Overloaded, TuneryError
from tunery.domain.ports.engine import TokenLogprob
from tunery.engine.row import Row
from tunery.engine.sampling import Sampling
from tunery.engine.scheduler import NotResident, Scheduler, idle_callback
from tunery.engine.server import start_thread
from tunery.model import adapter_file
from tunery.model.adapter_file import AdapterWeights, BadAdapter


@pytest.fixture
def tokenizer(tiny_model: Path) -> TextTokenizer:
    return endless_tokenizer(tiny_model)


@pytest.fixture(scope="module")
def adapters(tiny_model: Path) -> list[AdapterWeights]:
    return [random_adapter(tiny_model, 1, rank=4), random_adapter(tiny_model, 2, rank=7)]


def _sampling(seed: int | None) -> Sampling:
    return Sampling(0 if seed is None else 1, 1, seed)


def _score(scheduler: Scheduler, ids: Sequence[int], adapter: str | None) -> list[float]:
    scores: list[float] = []
    row = Row(
        prompt_ids=ids,
        adapter=adapter,
        max_tokens=0,
        sampling=Sampling(0, 1, None),
        text=None,
        on_delta=idle_callback,
        on_end=idle_callback,
        scores=scores,
    )
    scheduler.submit(row)
    return scores


def _finished(answer: Answer) -> bool:
    return answer.ends == [None] and answer.deltas[-1].finish_reason is not None


def test_base_and_two_adapters_in_one_batch_give_what_transformers_gives_each_alone(
    tiny_model: Path, tokenizer: TextTokenizer, adapters: list[AdapterWeights]
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, rows=4)
    for name, weights in zip("ab", adapters, strict=True):
        scheduler.adapters.load(name, weights)
    references = {
        None: plain_model(tiny_model),
        "a": merged_model(tiny_model, adapters[0]),
        "b": merged_model(tiny_model, adapters[1]),
    }
    # Ten rows for four slots, some sampled; prompts longer than a step takes.
    asked: list[tuple[str | None, list[int], int, int | None]] = []
    for number, (length, count) in enumerate(
        [(5, 12), (90, 6), (1, 25), (20, 1), (33, 9), (7, 30), (150, 4), (2, 8), (17, 17), (64, 3)]
    ):
        seed = number if number % 4 else None
        asked.append(((None, "a", "b")[number % 3], tokens(length, number), count, seed))
    answers = [
        ask(scheduler, tokenizer, ids, n, adapter=which, sampling=_sampling(seed))
        for which, ids, n, seed in asked
    ]
    most = 0
    while scheduler.active or scheduler.waiting:
        scheduler.step()
        most = max(most, scheduler.active)
    assert most == 4
    for (which, ids, count, seed), answer in zip(asked, answers, strict=True):
        assert answer.made == answer_of(references[which], ids, count, seed)
        assert answer.text == tokenizer.decode(answer.made)
        assert [delta.completion_tokens for delta in answer.deltas] == list(range(1, count + 1))
        assert [delta.finish_reason for delta in answer.deltas] == [None] * (count - 1) + ["length"]
        assert answer.ends == [None]


def test_sampled_rows_draw_the_same_alone_and_among_others(
    tiny_model: Path, tokenizer: TextTokenizer, adapters: list[AdapterWeights]
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)
    scheduler.adapters.load("a", adapters[0])

    def sampled(seed: int) -> Answer:
        settings = Sampling(0.9, 0.95, seed)
        return ask(scheduler, tokenizer, tokens(9, 0), 20, adapter="a", sampling=settings)

    alone = sampled(5)
    drain(scheduler)
    others = [ask(scheduler, tokenizer, tokens(30, n), 15) for n in range(2)]
    among, different = sampled(5), sampled(6)
    drain(scheduler)
    assert among.made == alone.made != different.made
    assert all(map(_finished, others))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_are_the_log_probabilities_of_the_adapter(
    tiny_model: Path, tokenizer: TextTokenizer, adapters: list[AdapterWeights], dtype: torch.dtype
) -> None:
    small = random_adapter(tiny_model, 3, size=0.05)
    scheduler = make_scheduler(tiny_model, tokenizer, dtype=dtype, prefill=16)
    scheduler.adapters.load("a", small)
    texts = [(tokens(50, 0), "a"), (tokens(2, 1), "a"), (tokens(33, 2), None)]
    busy = ask(scheduler, tokenizer, tokens(4, 9), 12, adapter="a")
    found = [_score(scheduler, ids, name) for ids, name in texts]
    drain(scheduler)
    assert _finished(busy)
    for (ids, name), scores in zip(texts, found, strict=True):
        wanted = log_probabilities(merged_model(tiny_model, small if name else None), ids)
        assert len(scores) == len(ids) - 1
        assert scores == pytest.approx(wanted, abs=1e-3 if dtype == torch.float32 else 0.2)


def test_an_adapter_that_was_pushed_out_and_loaded_again_answers_the_same(
    tiny_model: Path, tokenizer: TextTokenizer, adapters: list[AdapterWeights]
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, places=1)
    answers = []
    for index in (0, 1, 0):
        name = f"adapter-{index}"
        with pytest.raises(NotResident):
            ask(scheduler, tokenizer, tokens(6, 0), 10, adapter=name)
        scheduler.adapters.load(name, adapters[index])
        answers.append(
            ask(scheduler, tokenizer, tokens(6, 0), 10, adapter=name, sampling=_sampling(1))
        )
        drain(scheduler)
    first, second, again = (answer.made for answer in answers)
    assert first == again == answer_of(merged_model(tiny_model, adapters[0]), tokens(6, 0), 10, 1)
    assert second == answer_of(merged_model(tiny_model, adapters[1]), tokens(6, 0), 10, 1)
    assert second != first


def test_an_adapter_that_a_row_uses_or_waits_for_is_not_pushed_out(
    tiny_model: Path, tokenizer: TextTokenizer, adapters: list[AdapterWeights]
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, places=1, rows=1)
    scheduler.adapters.load("a", adapters[0])
    rows = [ask(scheduler, tokenizer, tokens(3, n), 2, adapter="a") for n in range(2)]
    while scheduler.active or scheduler.waiting:
        with pytest.raises(Overloaded):
            scheduler.adapters.load("b", adapters[1])
        scheduler.step()
    assert all(map(_finished, rows))
    scheduler.adapters.load("b", adapters[1])


def test_a_cancelled_row_makes_room_and_a_cancelled_waiting_row_never_starts(
    tiny_model: Path, tokenizer: TextTokenizer, adapters: list[AdapterWeights]
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, rows=1, places=1)
    scheduler.adapters.load("a", adapters[0])
    running = ask(scheduler, tokenizer, tokens(3, 0), 400, adapter="a")
    waiting = ask(scheduler, tokenizer, tokens(3, 1), 400, adapter="a")
    last = ask(scheduler, tokenizer, tokens(3, 2), 5)
    for _ in range(3):
        scheduler.step()
    assert (scheduler.active, scheduler.waiting) == (1, 2)
    running.row.cancelled = waiting.row.cancelled = True
    scheduler.step()
    assert (scheduler.active, scheduler.waiting) == (1, 0)
    assert (running.ends, waiting.ends) == ([None], [None])
    drain(scheduler)
    assert (len(running.made), waiting.made) == (3, [])
    assert last.made == answer_of(plain_model(tiny_model), tokens(3, 2), 5)
    assert scheduler.adapters.unload("a")  # nobody uses it any more


def test_a_full_queue_refuses_and_takes_again_when_it_has_moved(
    tiny_model: Path, tokenizer: TextTokenizer, adapters: list[AdapterWeights]
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, rows=1, queue=2)
    scheduler.adapters.load("a", adapters[0])
    rows = [ask(scheduler, tokenizer, tokens(3, n), 2) for n in range(2)]
    with pytest.raises(Overloaded):
        ask(scheduler, tokenizer, tokens(3, 2), 2, adapter="a")
    assert scheduler.adapters.unload("a")  # the refused row holds nothing
    scheduler.step()
    rows.append(ask(scheduler, tokenizer, tokens(3, 3), 2))
    drain(scheduler)
    assert all(map(_finished, rows))


def test_the_token_that_ends_an_answer_is_counted_and_not_shown(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    made = answer_of(plain_model(tiny_model), tokens(6, 0), 12, seed=1)
    place = next(n for n in range(2, 12) if made[n] not in made[:n])
    tokenizer.eos_ids = frozenset([made[place]])
    scheduler = make_scheduler(tiny_model, tokenizer)
    answer = ask(scheduler, tokenizer, tokens(6, 0), 12, sampling=_sampling(1))
    drain(scheduler)
    assert answer.made == made[: place + 1]
    assert answer.text == tokenizer.decode(made[:place])
    last = answer.deltas[-1]
    assert (last.completion_tokens, last.finish_reason) == (place + 1, "stop")
    assert _finished(answer)


def _told(answer: Answer) -> list[TokenLogprob]:
    return [one for delta in answer.deltas for one in delta.logprobs]


def test_log_probabilities_of_base_and_adapter_are_those_of_transformers(
    tiny_model: Path, tokenizer: TextTokenizer, adapters: list[AdapterWeights]
) -> None:
    """Reference: one whole forward pass of the answer, log-softmax in float64."""
    scheduler = make_scheduler(tiny_model, tokenizer)
    scheduler.adapters.load("a", adapters[0])
    prompt = tokens(6, 0)
    asked = [(None, None), ("a", None), ("a", 3), (None, 4)]
    answers = [
        ask(
            scheduler,
            tokenizer,
            prompt,
            25,
            adapter=name,
            sampling=Sampling(0 if seed is None else 1.5, 0.9, seed, top_logprobs=4),
        )
        for name, seed in asked
    ]
    silent = ask(scheduler, tokenizer, prompt, 25)
    drain(scheduler)
    assert silent.made == answers[0].made  # asking changes no answer
    assert _told(silent) == []
    for (name, _), answer in zip(asked, answers, strict=True):
        model = merged_model(tiny_model, adapters[0] if name else None)
        table = torch.log_softmax(logits_of(model, prompt + answer.made).double(), -1)
        told = _told(answer)
        assert [one.token_bytes for one in told] == [
            tokenizer.token_id_bytes(token) for token in answer.made
        ]
        for place, (token, one) in enumerate(zip(answer.made, told, strict=True)):
            row = table[len(prompt) - 1 + place]
            assert one.logprob == pytest.approx(float(row[token]), abs=1e-3)
            values, ids = row.topk(4)
            assert [p for _, _, p in one.top] == pytest.approx(values.tolist(), abs=1e-3)
            if float((values[:-1] - values[1:]).min()) > 1e-3:
                wanted = [
                    (tokenizer.token_id_text(i), tokenizer.token_id_bytes(i)) for i in ids.tolist()
                ]
                assert [(text, data) for text, data, _ in one.top] == wanted


def test_bias_and_penalties_are_those_of_the_formula_over_the_answer_alone(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    """Reference: transformers' logits, with the documented formula put in by hand."""
    model, prompt = plain_model(tiny_model), tokens(6, 0) * 3
    presence, frequency, bias = 0.4, 0.6, {5: 1.25, 200: -100.0}
    made: list[int] = []
    logprobs = []
    for _ in range(30):
        mu = logits_of(model, prompt + made)[-1].double()
        for token, value in bias.items():
            mu[token] += value
        for token in set(made):
            mu[token] -= made.count(token) * frequency + presence
        made.append(int(mu.argmax()))
        logprobs.append(float(torch.log_softmax(mu, -1)[made[-1]]))
    scheduler = make_scheduler(tiny_model, tokenizer)
    sampling = Sampling(0, 1, None, presence, frequency, tuple(bias.items()), 0)
    plain = ask(scheduler, tokenizer, prompt, 30)
    answer = ask(scheduler, tokenizer, prompt, 30, sampling=sampling)
    drain(scheduler)
    assert answer.made == made != plain.made
    assert plain.made == answer_of(model, prompt, 30)
    assert [one.logprob for one in _told(answer)] == pytest.approx(logprobs, abs=1e-3)
    assert {one.top for one in _told(answer)} == {()}


def _spell(tokenizer: TextTokenizer, scheduler: Scheduler, text: str, **others: Any) -> Answer:
    """Make an answer of one character that a bias forces: its bytes, again and again."""
    ids = set(tokenizer.text_ids(text))
    bias = tuple((token, 100.0 if token in ids else -100.0) for token in range(256))
    sampling = Sampling(1, 1, 2, frequency_penalty=2, logit_bias=bias, top_logprobs=2)
    return ask(scheduler, tokenizer, tokens(6, 0), 40, sampling=sampling, **others)


def test_the_bytes_of_the_tokens_told_of_are_those_of_the_text(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)
    answer = _spell(tokenizer, scheduler, "aé😀")
    drain(scheduler)
    assert len(_told(answer)) == 40
    data = b"".join(one.token_bytes for one in _told(answer))
    assert data.decode(errors="replace") == answer.text
    assert "é" in answer.text  # with this seed, among broken characters
    early = [d for d in answer.deltas if not d.text]
    assert early
    assert all(not delta.logprobs for delta in early)
    for n in range(1, 41):  # never ahead of the text
        told = [one for delta in answer.deltas[:n] for one in delta.logprobs]
        begun = b"".join(one.token_bytes for one in told).decode(errors="replace")
        assert "".join(delta.text for delta in answer.deltas[:n]) == begun


def test_tokens_after_a_stop_string_and_the_one_that_ends_are_not_told_of(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)
    whole = _spell(tokenizer, scheduler, "abc")
    drain(scheduler)
    stop = whole.text[10:12]
    cut = _spell(tokenizer, scheduler, "abc", stop=(stop,))
    drain(scheduler)
    place = whole.text.index(stop)
    assert cut.text == whole.text[:place]
    assert len(cut.made) == place + 2
    assert _told(cut) == _told(whole)[:place]
    (end,) = tokenizer.text_ids("c")
    tokenizer.eos_ids = frozenset([end])
    ended = _spell(tokenizer, scheduler, "abc")
    drain(scheduler)
    assert ended.made[-1] == end
    assert len(_told(ended)) == len(ended.made) - 1
    assert "".join(one.token for one in _told(ended)) == ended.text


@pytest.mark.parametrize("more", [0, 10])
def test_a_stop_string_ends_the_answer_before_itself(
    tiny_model: Path, tokenizer: TextTokenizer, more: int
) -> None:
    made = answer_of(plain_model(tiny_model), tokens(6, 0), 40, seed=1)
    pairs = [tokenizer.decode(made[n : n + 2]) for n in range(39)]
    place = next(n for n in range(2, 39) if len(pairs[n]) == 2 and pairs[n].isascii())
    stop = pairs[place]
    scheduler = make_scheduler(tiny_model, tokenizer)
    answer = ask(
        scheduler,
        tokenizer,
        tokens(6, 0),
        place + 2 + more,
        sampling=_sampling(1),
        stop=("never", stop),
    )
    drain(scheduler)
    assert answer.made == made[: place + 2]
    assert answer.text == tokenizer.decode(made[:place])
    assert answer.deltas[-1].finish_reason == "stop"
    assert _finished(answer)


def test_a_failing_step_ends_its_rows_with_an_error_and_later_rows_are_answered(
    tiny_model: Path, tokenizer: TextTokenizer, adapters: list[AdapterWeights]
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)
    scheduler.adapters.load("a", adapters[0])
    broken = ask(scheduler, tokenizer, [1, 10**6], 5, adapter="a")  # no such token
    scheduler.step()
    assert [type(end) for end in broken.ends] == [TuneryError]
    assert scheduler.active == 0
    assert scheduler.adapters.unload("a")
    answer = ask(scheduler, tokenizer, tokens(6, 0), 5)
    drain(scheduler)
    assert answer.made == answer_of(plain_model(tiny_model), tokens(6, 0), 5)


@pytest.mark.parametrize("size", [10.0, 1e30, 3e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_of_huge_numbers_is_refused_or_changes_no_other_answer(
    tiny_model: Path, tokenizer: TextTokenizer, dtype: torch.dtype, size: float
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer, dtype=dtype, rows=2)

    def sampled() -> Answer:
        return ask(scheduler, tokenizer, tokens(6, 0), 10, sampling=_sampling(1))

    alone = sampled()
    drain(scheduler)
    shapes = scheduler.adapters.shapes
    layers = {
        n: (torch.full((1, k), size), torch.full((m, 1), size)) for n, (m, k) in shapes.items()
    }
    files = adapter_file.write(AdapterWeights(1, 2.0, layers), "tiny")
    try:
        weights = adapter_file.read(*files, shapes, 8)
    except BadAdapter:
        return
    scheduler.adapters.load("huge", weights)
    ask(scheduler, tokenizer, tokens(30, 1), 20, adapter="huge")
    beside = sampled()
    drain(scheduler)
    after = sampled()  # in the slot that the huge one had
    drain(scheduler)
    assert beside.made == alone.made
    assert after.made == alone.made


def test_a_running_scheduler_takes_commands_between_steps_and_stops(
    tiny_model: Path, tokenizer: TextTokenizer
) -> None:
    scheduler = start_thread(lambda: make_scheduler(tiny_model, tokenizer))
    answers: list[Answer] = []
    names: list[str] = []

    def submit() -> None:
        names.append(threading.current_thread().name)
        answers.append(ask(scheduler, tokenizer, tokens(6, 0), 8))

    for _ in range(3):
        scheduler.call(submit)
    until(lambda: len(answers) == 3 and all(answer.ends for answer in answers))
    wanted = answer_of(plain_model(tiny_model), tokens(6, 0), 8)
    assert [answer.made for answer in answers] == [wanted] * 3
    assert set(names) == {"scheduler"}
    scheduler.stop()
    until(lambda: "scheduler" not in {thread.name for thread in threading.enumerate()})


def test_a_scheduler_that_cannot_be_built_fails_where_it_was_wanted(tmp_path: Path) -> None:
    def build() -> Scheduler:
        raise OSError("no such base")

    with pytest.raises(OSError, match="no such base"):
        start_thread(build)
