"""One run of `tunery data prepare`: reads, tells, asks, writes."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from tunery.cli.console import err, out
from tunery.datasets.preparing.columns import PARTS, ColumnMapping, listed
from tunery.datasets.preparing.findings import Finding, Severity
from tunery.datasets.preparing.page import page_of
from tunery.datasets.preparing.printable import printable
from tunery.datasets.preparing.report import Report, report_of
from tunery.datasets.preparing.shapes import Plan, Shape, plan_for, with_mapping
from tunery.datasets.preparing.sources import open_source
from tunery.datasets.preparing.survey import Reading, Survey, Told, survey
from tunery.datasets.preparing.token_counts import TokenCounts
from tunery.datasets.preparing.writing import Choices, decide, write
from tunery.domain.errors import InvalidRequest
from tunery.domain.files import LineFormat
from tunery.domain.jobs import MIN_EXAMPLES
from tunery.domain.models import BaseModel
from tunery.wiring.storage import renderer_of

_SHOWN_LINES = 5
_LEAST_TO_SPLIT = 2 * MIN_EXAMPLES
_WORDS = {
    "prompt": "what the user says",
    "completion": "the answer",
    "system": "a system message",
    "preferred": "the better answer",
    "non_preferred": "the other answer",
}


class Asker(Protocol):
    """Asks questions."""

    def confirm(self, question: str) -> bool:
        """Return whether the answer is yes."""
        ...

    def choose(self, question: str, options: Sequence[str], default: str | None) -> str | None:
        """Return one of the options, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command was given."""

    file: Path
    valid: Path | None
    folder: Path
    system: str | None
    target: LineFormat | None
    columns: Mapping[str, str | None]
    sheet: str | None
    encoding: str | None
    share: float
    seed: int
    dry_run: bool
    force: bool


class Session:
    """Carries one command out. Without an `asker`, every fix is taken."""

    def __init__(self, asked: Asked, base: BaseModel | None, asker: Asker | None) -> None:
        self._asked = asked
        self._base = base
        self._asker = asker
        stem = asked.folder / f"{asked.file.stem}_prepared"
        self._paths = {
            "only": stem.with_name(f"{stem.name}.jsonl"),
            "train": stem.with_name(f"{stem.name}_train.jsonl"),
            "valid": stem.with_name(f"{stem.name}_valid.jsonl"),
        }
        self._page = stem.with_name(f"{stem.name}_report.html")

    def run(self) -> bool:
        """Return whether the data is ready, or would be."""
        asked = self._asked
        self._refuse_to_replace()
        training = self._reading(asked.file)
        validation = None if asked.valid is None else self._reading(asked.valid)
        with _progress("Reading") as told:
            found = survey(training, validation, counts=self._counts(), seed=asked.seed, told=told)
        for finding in found.findings:
            _tell(finding, training.source.unit)
        accepted = self._ask_for_fixes(found.findings)
        share = self._share(found, accepted)
        decision = decide(found, Choices(accepted, share))
        flaw = self._flaw(found, accepted, decision.outcomes["train"].examples)
        paths = {"train": self._paths["train"], "valid": self._paths["valid"]}
        if not decision.outcomes["valid"].examples:
            paths["train"] = self._paths["only"]
        if flaw is None and not asked.dry_run:
            with _progress("Writing") as told:
                write(found, decision, paths, told)
        report = report_of(found, decision, self._base, () if flaw else sorted(accepted))
        self._tell_end(report, paths, flaw)
        return flaw is None

    def _refuse_to_replace(self) -> None:
        there = [path for path in (*self._paths.values(), self._page) if path.exists()]
        if there and not self._asked.force and not self._asked.dry_run:
            raise InvalidRequest(
                f"{there[0]} is there already; give --force to replace it, or --out."
            )
        if not self._asked.folder.is_dir():
            raise InvalidRequest(f"{self._asked.folder} is no folder.")

    def _counts(self) -> TokenCounts | None:
        base = self._base
        if base is None:
            return None
        return TokenCounts(renderer_of(base), base.name, base.context_tokens)

    def _reading(self, path: Path) -> Reading:
        asked = self._asked
        source = open_source(path, encoding=asked.encoding, sheet=asked.sheet)
        plan = plan_for(source, asked.columns, system=asked.system, target=asked.target)
        size = (
            f"{source.size_bytes / 1e6:,.1f} MB"
            if source.size_bytes > 1e5
            else (f"{source.size_bytes:,} bytes")
        )
        out.print(f"{path.name}: {source.kind}, {size}, holds {plan.shape}", markup=False)
        if plan.shape is Shape.TABLE:
            plan = self._with_columns(path, plan)
        return Reading(path.name, source, plan)

    def _with_columns(self, path: Path, plan: Plan) -> Plan:
        """Return the plan with columns that were given, agreed to, or chosen."""
        mapping = plan.mapping
        if mapping is not None:
            for part, column in mapping.named():
                out.print(f"  {printable(column)!r} is {_WORDS[part]}", markup=False)
            left = mapping.left_out(plan.columns)
            if left:
                out.print(f"  left out: {listed(left)}", markup=False)
            given = any(self._asked.columns.values())
            if given or self._asker is None or self._asker.confirm("Is that right?"):
                return plan
        if self._asker is None:
            raise InvalidRequest(
                f"{path.name} has the columns {listed(plan.columns)}; say with --prompt"
                " and --completion which of them hold what the user says and the answer."
            )
        chosen: dict[str, str | None] = {}
        for part in PARTS:
            if part == "preferred" and "completion" in chosen:
                break
            before = None if mapping is None else getattr(mapping, part)
            question = f"Which column is {_WORDS[part]}? (- for none)"
            answer = self._asker.choose(question, plan.columns, before)
            if answer is not None:
                chosen[part] = answer
        new = ColumnMapping(**chosen)
        if new.completion is None and not new.is_preference:
            raise InvalidRequest("No column holds what is to be learned; nothing can be written.")
        return with_mapping(plan, new)

    def _ask_for_fixes(self, findings: Sequence[Finding]) -> set[str]:
        accepted = set()
        for finding in findings:
            if finding.fix is not None:
                question = f"- [{finding.severity.capitalize()}] {finding.fix}"
                if self._asker is None:
                    out.print(f"{question}: yes", markup=False)
                if self._asker is None or self._asker.confirm(question):
                    accepted.add(finding.kind)
        return accepted

    def _share(self, found: Survey, accepted: set[str]) -> float:
        """Return how much is split off to validate: what was asked for, where it is agreed to."""
        share = self._asked.share
        kept = sum(decide(found, Choices(accepted)).kept)
        if not share or kept < _LEAST_TO_SPLIT:
            return 0.0
        question = f"- [Recommended] Split off {share:.0%} of {kept:,} examples to validate"
        if self._asker is None:
            out.print(f"{question}: yes", markup=False)
            return share
        return share if self._asker.confirm(question) else 0.0

    def _flaw(self, found: Survey, accepted: set[str], examples: int) -> str | None:
        """Return why nothing is to be written, or None."""
        declined = [
            one
            for one in found.findings
            if one.severity is Severity.NECESSARY
            and one.fix is not None
            and one.kind not in accepted
        ]
        if declined:
            return (
                f"the service would refuse the file as long as this is not done: {declined[0].fix}"
            )
        if examples < MIN_EXAMPLES:
            return f"{examples} examples are left to train on, and {MIN_EXAMPLES} are needed"
        return None

    def _tell_end(self, report: Report, paths: Mapping[str, Path], flaw: str | None) -> None:
        out.print()
        dry = self._asked.dry_run
        for one in report.written if flaw is None else ():
            tokens = (
                ""
                if one.tokens is None
                else (f", {one.tokens:,} tokens, {one.learned_tokens:,} of them learned")
            )
            verb = "Would write" if dry else "Wrote"
            out.print(f"{verb} {paths[one.role]}: {one.examples:,} examples{tokens}", markup=False)
        if not dry:
            page = page_of(report, datetime.datetime.now(datetime.UTC).date())
            self._page.write_text(page, encoding="utf-8")
            out.print(f"Report: {self._page}", markup=False)
        if flaw is not None:
            err.print(f"tunery: nothing is written: {flaw}.", markup=False)
            return
        cost = cost_text(report)
        if cost:
            out.print(cost, markup=False)
        if not dry:
            written = {one.role: paths[one.role] for one in report.written}
            out.print(f"\nNext:\n\n{next_command(written, report, self._base)}", markup=False)


def cost_text(report: Report) -> str:
    """Return what training would cost, in a sentence."""
    one = report.estimate
    if one is None:
        return ""
    return (
        f"Training {one.base} ({one.method}, {one.epochs} epochs, {one.steps:,} steps) would bill"
        f" {one.billed_tokens:,} tokens: ${one.price_usd}. How long it takes, the job says after"
        " its first steps (estimated_finish)."
    )


def next_command(written: Mapping[str, Path], report: Report, base: BaseModel | None) -> str:
    """Return a command that uploads the files and creates a job, for a shell."""
    model = "gpt-3.5-turbo" if base is None else (base.aliases or (base.name,))[0]
    lines = ["from openai import OpenAI", "client = OpenAI()"]
    fields = [f"model={model!r}"]
    for role, field in (("train", "training_file"), ("valid", "validation_file")):
        if role in written:
            path = str(written[role])
            lines.append(
                f"{role} = client.files.create(file=open({path!r}, 'rb'), purpose='fine-tune')"
            )
            fields.append(f"{field}={role}.id")
    if report.line_format == LineFormat.PREFERENCE:
        fields.append("method={'type': 'dpo'}")
    lines.append(f"print(client.fine_tuning.jobs.create({', '.join(fields)}).id)")
    return "\n".join(["python - <<'END'", *lines, "END"])


def _tell(finding: Finding, unit: str) -> None:
    names = {Severity.NECESSARY: "Necessary", Severity.RECOMMENDED: "Recommended"}
    tag = names.get(finding.severity, "Notice")
    out.print(f"\n[{tag}] {printable(finding.message)}", markup=False)
    for place in finding.places[:_SHOWN_LINES]:
        file = " of the validation file" if place.file == "validation" else ""
        detail = f": {printable(place.detail)}" if place.detail else ""
        out.print(f"    {unit} {place.line}{file}{detail}"[:240], markup=False)
    hidden = finding.count - len(finding.places[:_SHOWN_LINES])
    if finding.places and hidden > 0:
        out.print(f"    and {hidden:,} more", markup=False)


@contextmanager
def _progress(what: str) -> Iterator[Told]:
    """Show a bar a file on the terminal; where there is none, nothing."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        tasks = {}

        def told(name: str, done: int, size: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(f"{what} {name}", total=size)
            bars.update(tasks[name], completed=done)

        yield told
