"""Graders, as clients write them: what scores an answer. Their shapes only; nothing is graded."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StrictFloat, StrictInt, Tag

from tunery.protocol.base import Request

Name = Annotated[str, Field(min_length=1)]
Source = Annotated[str, Field(min_length=1, max_length=256 * 1024)]
Number = Annotated[StrictFloat | StrictInt, Field(allow_inf_nan=False)]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class StringCheckGrader(Request):
    """Compares two texts."""

    type: Literal["string_check"]
    name: Name
    input: str
    reference: str
    operation: Literal["eq", "ne", "like", "ilike"]


class TextSimilarityGrader(Request):
    """Measures how alike two texts are."""

    type: Literal["text_similarity"]
    name: Name
    input: str
    reference: str
    evaluation_metric: Literal[
        "cosine",
        "fuzzy_match",
        "bleu",
        "gleu",
        "meteor",
        "rouge_1",
        "rouge_2",
        "rouge_3",
        "rouge_4",
        "rouge_5",
        "rouge_l",
    ]


class PythonGrader(Request):
    """Runs a function `grade(sample, item)`."""

    type: Literal["python"]
    name: Name
    source: Source
    image_tag: str | None = None


class InputText(Request):
    """A piece of text."""

    type: Literal["input_text", "output_text"]
    text: str


class InputImage(Request):
    """An image by its address."""

    type: Literal["input_image"]
    image_url: str
    detail: str | None = None


class InputSound(Request):
    """Sound as base64."""

    data: str
    format: Literal["mp3", "wav"]


class InputAudio(Request):
    """A piece of sound."""

    type: Literal["input_audio"]
    input_audio: InputSound


def _part_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "[str]"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "[input_text]" if kind == "output_text" else f"[{kind}]"


InputPart = Annotated[
    Annotated[str, Tag("[str]")]
    | Annotated[InputText, Tag("[input_text]")]
    | Annotated[InputImage, Tag("[input_image]")]
    | Annotated[InputAudio, Tag("[input_audio]")],
    Discriminator(
        _part_kind,
        custom_error_type="part_type",
        custom_error_message=(
            "A part is a text, or has type 'input_text', 'output_text', 'input_image' or"
            " 'input_audio'"
        ),
    ),
]


def _content_kind(value: Any) -> str:
    return "[list]" if isinstance(value, list) else "[part]"


class InputMessage(Request):
    """A message of a grading model's prompt."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[
        Annotated[list[InputPart], Tag("[list]")] | Annotated[InputPart, Tag("[part]")],
        Discriminator(_content_kind),
    ]


class GraderSampling(Request):
    """How a grading model is sampled; OpenAI spells it so."""

    max_completions_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    reasoning_effort: ReasoningEffort | None = None
    seed: StrictInt | None = None
    temperature: Number | None = None
    top_p: Number | None = None


class ScoreModelGrader(Request):
    """Has a model give a number."""

    type: Literal["score_model"]
    name: Name
    model: Name
    input: list[InputMessage]
    range: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    sampling_params: GraderSampling | None = None


class LabelModelGrader(Request):
    """Has a model choose a label."""

    type: Literal["label_model"]
    name: Name
    model: Name
    input: list[InputMessage]
    labels: list[str]
    passing_labels: list[str]


def _grader_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"[{kind}]"


_SINGLE = "'string_check', 'text_similarity', 'python', 'score_model'"

SingleGrader = Annotated[
    Annotated[StringCheckGrader, Tag("[string_check]")]
    | Annotated[TextSimilarityGrader, Tag("[text_similarity]")]
    | Annotated[PythonGrader, Tag("[python]")]
    | Annotated[ScoreModelGrader, Tag("[score_model]")]
    | Annotated[LabelModelGrader, Tag("[label_model]")],
    Discriminator(
        _grader_kind,
        custom_error_type="grader_type",
        custom_error_message=f"Its type should be {_SINGLE} or 'label_model'",
    ),
]


def _graders_kind(value: Any) -> str:
    is_map = isinstance(value, dict) and not isinstance(value.get("type"), str)
    return "[map]" if is_map else "[one]"


class MultiGrader(Request):
    """Combines graders by a formula. The reference names one grader, the guides a map of them."""

    type: Literal["multi"]
    name: Name
    graders: Annotated[
        Annotated[SingleGrader, Tag("[one]")]
        | Annotated[dict[str, SingleGrader], Field(min_length=1), Tag("[map]")],
        Discriminator(_graders_kind),
    ]
    calculate_output: Name


Grader = Annotated[
    Annotated[StringCheckGrader, Tag("[string_check]")]
    | Annotated[TextSimilarityGrader, Tag("[text_similarity]")]
    | Annotated[PythonGrader, Tag("[python]")]
    | Annotated[ScoreModelGrader, Tag("[score_model]")]
    | Annotated[MultiGrader, Tag("[multi]")],
    Discriminator(
        _grader_kind,
        custom_error_type="grader_type",
        custom_error_message=f"Its type should be {_SINGLE} or 'multi'",
    ),
]
