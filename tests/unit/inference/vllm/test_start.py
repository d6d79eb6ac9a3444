"""How a vLLM server is started: nothing that a tenant or the network could turn against it."""

from pathlib import Path

import pytest

from support.vllm import tiny_base
from tunery.inference.vllm.start import arguments, environment, linear_names

LINEARS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def _arguments(model: Path, adapters: int = 64, max_rank: int = 32) -> list[str]:
    return arguments(
        tiny_base(model),
        model="tiny@b",
        host="127.0.0.1",
        port=8,
        context_tokens=512,
        adapters=adapters,
        max_rank=max_rank,
        more=("--dtype", "float32"),
    )


def _value(given: list[str], option: str) -> str:
    return given[given.index(option) + 1]


def test_the_output_layer_takes_no_adapter(tiny_model: Path) -> None:
    assert linear_names(tiny_model) == LINEARS
    given = _arguments(tiny_model)
    start = given.index("--lora-target-modules") + 1
    assert given[start : start + len(LINEARS)] == LINEARS
    assert given[start + len(LINEARS)].startswith("--")


def test_the_server_takes_nothing_from_the_models_own_defaults(tiny_model: Path) -> None:
    given = _arguments(tiny_model)
    assert given[:2] == ["serve", str(tiny_model)]
    assert _value(given, "--generation-config") == "vllm"
    assert _value(given, "--structured-outputs-config") == '{"backend": "guidance"}'
    assert _value(given, "--served-model-name") == "tiny@b"
    assert "--no-enable-log-requests" in given
    assert given[-2:] == ["--dtype", "float32"]  # the operator's own come last, and win


@pytest.mark.parametrize(("ours", "theirs"), [(1, "8"), (8, "8"), (9, "16"), (256, "256")])
def test_the_rank_is_one_that_vllm_takes(tiny_model: Path, ours: int, theirs: str) -> None:
    assert _value(_arguments(tiny_model, max_rank=ours), "--max-lora-rank") == theirs


def test_no_more_adapters_are_batched_than_are_kept(tiny_model: Path) -> None:
    given = _arguments(tiny_model, adapters=3)
    assert _value(given, "--max-loras") == _value(given, "--max-cpu-loras") == "3"


def test_the_environment_has_the_key_and_opens_no_other_door() -> None:
    told = environment({"PATH": "/bin", "VLLM_SERVER_DEV_MODE": "1", "VLLM_API_KEY": "old"}, "new")
    assert told["PATH"] == "/bin"
    assert told["VLLM_API_KEY"] == "new"
    assert told["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert told["VLLM_NO_USAGE_STATS"] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in told
