"""/moderations: what is asked is read, and nothing judges it yet."""

from openai.types import ModerationCreateParams

from conformance.fields.probe import Answer, Disclosed, Endpoint, Honoured, echoes

IMAGE = {"type": "image_url", "image_url": {"url": "https://a.example/1.png"}}
SAYS = "every result has `tunery.judged: false`"


def not_judged(answer: Answer) -> bool:
    """Whether each result says that nothing judged it."""
    results = answer.value["results"]
    return len(results) > 0 and not any(one["tunery"]["judged"] for one in results)


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/moderations",
        params=ModerationCreateParams,
        base={"input": [{"type": "text", "text": "hi"}]},
        fields={
            "input": Honoured(
                value=["hi", "ho"],
                other="hi",
                shows=lambda sent, other: (
                    (len(sent.value["results"]), len(other.value["results"])) == (2, 1)
                ),
                wrong=([], 5, ["hi", {"type": "text", "text": "hi"}]),
                values="a text, up to 1024 texts, or a list of parts: a result for each text,"
                " and one for the parts",
            ),
            "input[].type": Honoured(
                value="text",
                other="text",
                shows=lambda sent, other: len(sent.value["results"]) == 1,
                wrong=("sound", 5),
                values="`text`, `image_url`",
            ),
            "input[].text": Disclosed(value="ho", says=not_judged, wrong=(5, None), values=SAYS),
            "input[].image_url.url": Disclosed(
                value="https://a.example/2.png",
                beside={"input": [IMAGE]},
                says=not_judged,
                wrong=("", 5),
                values=SAYS,
            ),
            "model": Honoured(
                value="text-moderation-latest",
                other="omni-moderation-latest",
                shows=echoes("model", value="text-moderation-latest"),
                wrong=(5,),
                values="OpenAI's; those for text alone take no images",
            ),
        },
    ),
)
