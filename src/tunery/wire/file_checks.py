"""Reports on training files."""

from tunery.protocol.file_checks import (
    CheckDistribution,
    CheckedFile,
    CheckEstimate,
    CheckFinding,
    CheckSide,
    FileCheck,
)
from tunery.services.file_checks import CheckedContent


def to_wire_check(checked: CheckedContent) -> FileCheck:
    """Return the report as clients get it."""
    report, cost = checked.report, checked.estimate
    files = [
        CheckedFile(
            id=file.id,
            role=read["role"],
            bytes=read["size_bytes"],
            lines=read["lines"],
            fit=read["fit"],
        )
        for file, read in zip(checked.files, report["files"], strict=True)
    ]
    return FileCheck(
        files=files,
        line_format=report["line_format"],
        task=report["task"],
        labels=report["labels"],
        languages=report["languages"],
        findings=[CheckFinding.model_validate(one) for one in report["findings"]],
        distributions=[CheckDistribution.model_validate(one) for one in report["distributions"]],
        sides=[CheckSide.model_validate(one) for one in report["written"]],
        model=report["base"],
        max_tokens=report["max_tokens"],
        estimate=None
        if cost is None
        else CheckEstimate(
            model=cost.base,
            method=cost.method,
            epochs=cost.epochs,
            batch_size=cost.batch_size,
            steps=cost.steps,
            billed_tokens=cost.billed_tokens,
            price_usd=cost.price_usd,
        ),
    )
