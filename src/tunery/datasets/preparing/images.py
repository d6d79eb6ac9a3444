"""Images in a line's messages, and whether they are as OpenAI takes them. Looks at no pixel.

No base of this service reads images, so a line that has some cannot be trained on here; it is told
apart from one that would be wrong anywhere.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_IMAGES = 10
MAX_IMAGE_BYTES = 10 * 2**20
_DATA_URL = re.compile(r"data:image/(png|jpeg|jpg|webp);base64,")
_DETAILS = ("auto", "low", "high")


def parts_of(line: Mapping[str, Any]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield each image part of a chat line with its message's number, from 1, and its role."""
    messages = line.get("messages")
    for number, message in enumerate(messages if isinstance(messages, list) else (), 1):
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "image_url":
                yield number, str(message.get("role")), part


def image_fault(line: Mapping[str, Any]) -> str | None:
    """Return what OpenAI would refuse of a line's images, or None."""
    found = list(parts_of(line))
    if len(found) > MAX_IMAGES:
        return f"has {len(found)} images; at most {MAX_IMAGES} are taken"
    for number, role, part in found:
        if role == "assistant":
            return f"message {number} is from 'assistant' and has an image"
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(image, dict) or not isinstance(url, str):
            return f"message {number} has an image without a URL"
        if image.get("detail", "auto") not in _DETAILS:
            return f"message {number} has an image whose detail is none of {', '.join(_DETAILS)}"
        if url.startswith("data:"):
            match = _DATA_URL.match(url)
            if match is None:
                return f"message {number} has an image that is no PNG, JPEG or WEBP in base64"
            if (len(url) - match.end()) * 3 // 4 > MAX_IMAGE_BYTES:
                return f"message {number} has an image of more than {MAX_IMAGE_BYTES // 2**20} MiB"
        elif not url.startswith(("http://", "https://")):
            return f"message {number} has an image whose URL is neither HTTP nor data"
    return None


def without_images(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line whose image parts are texts, so that all else of it can be checked."""
    messages = []
    for message in line["messages"]:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            content = [
                {"type": "text", "text": "image"}
                if isinstance(part, dict) and part.get("type") == "image_url"
                else part
                for part in content
            ]
            message = {**message, "content": content}  # noqa: PLW2901 - the line is not ours
        messages.append(message)
    return {**line, "messages": messages}
