"""TRL for the training benchmark, run by an interpreter of its own that has trl, peft and datasets.

The trainer is made as TRL's documentation makes it for a chat data set: SFTTrainer, a model's name,
SFTConfig, LoraConfig. Set are only what the comparison needs: the processor, batch size, rate and
schedule, steps, rank and layers, and where nothing is to be written. Prints one line of JSON.
"""

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false")

from training_work import Step, peak_bytes

# What each row sets besides. SFTConfig's own defaults, since TRL 0.20, are bf16 autocast over fp32
# weights and gradient checkpointing.
VARIANTS: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl-assistant": {"assistant_only_loss": True},
    "trl-bf16": {"bf16": True, "gradient_checkpointing": False},
    "trl-bf16-assistant": {
        "bf16": True,
        "gradient_checkpointing": False,
        "assistant_only_loss": True,
    },
    "trl-fp32": {"bf16": False},
}
# The default base's template with the marks that TRL's assistant_only_loss asks for.
MARKED = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train, and return what each step took and computed."""
    import datasets
    import peft
    import torch
    import transformers
    import trl

    datasets.disable_progress_bars()
    lines = [json.loads(line) for line in options.data.read_text().splitlines()]
    config = trl.SFTConfig(
        output_dir=str(options.out),
        use_cpu=True,
        per_device_train_batch_size=options.batch,
        num_train_epochs=1,
        learning_rate=options.rate,
        warmup_steps=options.warmup_steps,
        seed=options.seed,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **VARIANTS[options.variant],
    )
    steps: list[Step] = []
    shown: list[Step] = []  # the batches that were made: perhaps one more than were trained on

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]  # untyped
        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.last, self.used = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            now, used = time.perf_counter(), time.process_time()
            step = shown[len(steps)]
            step.seconds, self.last = now - self.last, now
            step.processor_s, self.used = used - self.used, used
            steps.append(step)
            control.should_training_stop = len(steps) >= options.steps

    tokenizer = transformers.AutoTokenizer.from_pretrained(options.base)
    if config.assistant_only_loss:
        plain = tokenizer.apply_chat_template(lines[0]["messages"], tokenize=False)
        tokenizer.chat_template = MARKED
        if tokenizer.apply_chat_template(lines[0]["messages"], tokenize=False) != plain:
            raise SystemExit(
                f"training_peer: {options.base} has another template than the one that is marked"
                " here; mark its assistant turns too, or leave the assistant rows out."
            )
    trainer = trl.SFTTrainer(
        model=str(options.base),
        args=config,
        train_dataset=datasets.Dataset.from_list(lines),
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(
            r=options.rank, lora_alpha=options.alpha, target_modules="all-linear"
        ),
        callbacks=[Clock()],
    )
    collate = trainer.data_collator

    def watched(examples: list[dict[str, Any]]) -> Any:
        batch = collate(examples)
        rows, longest = batch["input_ids"].shape
        shown.append(
            Step(
                tokens=int(batch["attention_mask"].sum()),
                supervised=int((batch["labels"][:, 1:] != -100).sum()),
                computed=rows * longest,
                squares=rows * longest**2,
                # Off a GPU, TRL makes logits of all places, whatever their labels, and makes them
                # again for the backward pass (trl.kernels.chunked_logprob).
                logits=rows * (longest - 1),
                again=config.gradient_checkpointing,
                logits_again=True,
            )
        )
        return batch

    trainer.data_collator = watched
    trainer.train()
    most = peak_bytes()
    trainer.save_model(str(options.out))
    return {
        "steps": [asdict(step) for step in steps],
        "peak_bytes": most,
        "threads": torch.get_num_threads(),
        "versions": {one.__name__: one.__version__ for one in (torch, transformers, peft, trl)},
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where the adapter goes")
    for name in ("--batch", "--steps", "--warmup-steps", "--rank", "--alpha", "--seed"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
