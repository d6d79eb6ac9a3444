"""What a base is asked before it is entered into the catalogue; needs torch."""

from pathlib import Path

from tunery.domain.errors import InvalidRequest
from tunery.model.base import Unmapped
from tunery.model.mapping import check_base


def refuse_unmapped(folder: Path) -> None:
    """Raise InvalidRequest for a base that cannot be tuned and served here."""
    try:
        check_base(folder)
    except Unmapped as error:
        raise InvalidRequest(str(error)) from None
