"""Where tests keep compiled operations: built once a machine."""

from pathlib import Path

import pytest

from tunery.model import native

FOLDER = Path("~/.cache/tunery/native").expanduser()


def needs(library: native.Library) -> None:
    """Skip where this processor cannot run them; elsewhere they have to be built."""
    if missing := native.missing_features(library):
        pytest.skip(f"this processor has no {', '.join(missing)}")
    if native.built(FOLDER, library) is None:
        native.build(FOLDER, library)
