"""Which device computes, and what is free there."""

from pathlib import Path

import pytest
import torch

from tunery.domain.errors import Unavailable
from tunery.model import device
from tunery.model.device import CPU, Wanted, choose, free_bytes


@pytest.mark.parametrize(
    ("wanted", "has_gpu", "chosen"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_a_gpu_computes_where_there_is_one_and_the_setting_lets_it(
    monkeypatch: pytest.MonkeyPatch, wanted: Wanted, has_gpu: bool, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert choose(wanted).type == chosen


def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Unavailable, match=r"TUNERY_TRAINING__DEVICE is cuda.*set auto"):
        choose("cuda")


def test_what_is_free_is_no_more_than_what_a_container_has_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("9000000\n")
    on_machine = free_bytes(CPU)
    assert on_machine is not None
    assert on_machine > 2**20
    (tmp_path / "memory.max").write_text("10000000\n")
    assert free_bytes(CPU) == 1_000_000
