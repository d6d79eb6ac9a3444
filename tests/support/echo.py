"""How likely a served model finds an answer: from the tokens that it echoes."""

from openai import OpenAI

from tunery.datasets.rendering import ChatRenderer


def answer_log_probabilities(
    client: OpenAI, renderer: ChatRenderer, model: str, question: str, answer: str
) -> list[float]:
    """Return log p of each token of an answer, its end among them, in nats."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    rendered = renderer.example(turns)
    echoed = client.completions.create(
        model=model, prompt=[rendered.token_ids], echo=True, logprobs=0, max_tokens=0
    )
    logprobs = echoed.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    pairs = zip(logprobs.token_logprobs, rendered.supervised, strict=True)
    return [value for value, learned in pairs if learned]
