"""The report as one HTML page: no script, nothing that is loaded from elsewhere.

What comes out of the file is escaped by the template engine, all of it, always.
"""

import datetime

import jinja2
from markupsafe import Markup

import tunery
from tunery.datasets.preparing.findings import Severity
from tunery.datasets.preparing.plots import histogram, ranking
from tunery.datasets.preparing.printable import printable
from tunery.datasets.preparing.report import Report

_TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'"/>
<title>{{ report.files[0].name }}: what is in it</title>
<style>
:root { color-scheme: light dark; --ink: #1c2430; --paper: #fff; --soft: #667085; --line: #d9dee7;
  --bar: #3b6ea8; --necessary: #b42318; --recommended: #9a6700; --notice: #3b6ea8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ef; --paper: #14181f; --soft: #98a2b3;
  --line: #313a48; --bar: #6ea3de; --necessary: #f97066; --recommended: #e0b04a;
  --notice: #6ea3de } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem } h3 { font-size: 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.soft { color: var(--soft) } .tag { font-weight: 600; white-space: nowrap }
.necessary { color: var(--necessary) } .recommended { color: var(--recommended) }
.notice { color: var(--notice) }
details { margin: .3rem 0 } summary { cursor: pointer; color: var(--soft) }
.plot { width: 100%; height: auto } .plot rect { fill: var(--bar) }
.plot line { stroke: var(--line) }
.plot text { fill: var(--soft); font: 12px system-ui, sans-serif }
.plot .end { text-anchor: end }
</style>
</head>
<body>
<h1>{{ report.files[0].name }}</h1>
<p class="soft">Read by tunery {{ version }} on {{ day }}.</p>
<table>
<tr><th>file</th><th>format</th><th>holds</th><th class="n">bytes</th><th class="n">read</th>\
<th class="n">fit</th></tr>
{% for file in report.files -%}
<tr><td>{{ file.name }}<span class="soft"> ({{ file.role }})</span></td><td>{{ file.format }}</td>\
<td>{{ file.holds }}</td><td class="n">{{ file.size_bytes | n }}</td>\
<td class="n">{{ file.lines | n }}</td><td class="n">{{ file.fit | n }}</td></tr>
{% endfor -%}
</table>
<p>The task is <b>{{ report.task }}</b>.
{%- if report.base %} Tokens are those of {{ report.base }}, which cuts a line at \
{{ report.max_tokens | n }}.{% else %} Tokens were not counted.{% endif %}</p>

<h2>What was found</h2>
{% if not report.findings %}<p>Nothing that needs a word.</p>{% endif %}
{% for finding in report.findings -%}
<section>
<p><span class="tag {{ finding.severity }}">{{ names[finding.severity] }}</span> \
{{ finding.message }}
{%- if finding.fix %} <span class="soft">{{ "Done" if finding.fixed else "Not done" }}: \
{{ finding.fix }}.</span>{% endif %}</p>
{% if finding.places -%}
<details><summary>{{ "The first " if finding.count > finding.places | length }}\
{{ finding.places | length }} of {{ finding.count | n }}</summary>
<table>
{% for place in finding.places -%}
<tr><td class="n">{{ place.line }}</td><td>{{ place.file if report.files | length > 1 }}</td>\
<td>{{ place.detail }}</td></tr>
{% endfor -%}
</table>
</details>
{% endif -%}
</section>
{% endfor %}
<h2>What becomes of it</h2>
<table>
<tr><th>file</th><th class="n">examples</th><th class="n">tokens</th><th class="n">learned</th></tr>
{% for one in report.written -%}
<tr><td>{{ one.name or one.role }}</td><td class="n">{{ one.examples | n }}</td>\
<td class="n">{{ "-" if one.tokens is none else one.tokens | n }}</td>\
<td class="n">{{ "-" if one.learned_tokens is none else one.learned_tokens | n }}</td></tr>
{% endfor -%}
</table>
{% if report.estimate -%}
<p>With automatic hyperparameters, {{ report.estimate.base }} is trained by \
{{ report.estimate.method }} for {{ report.estimate.epochs }} epochs of \
{{ report.estimate.batch_size }} examples a batch, {{ report.estimate.steps | n }} steps:\
 {{ report.estimate.billed_tokens | n }} tokens, ${{ report.estimate.price_usd }}.</p>
{% endif %}
<h2>How it is spread</h2>
{% for one, plot in spreads -%}
<h3>{{ one.name }}</h3>
{{ plot }}
<p class="soft">least {{ one.least | n }}, median {{ one.median | n }}, mean \
{{ one.mean | n }}, a twentieth above {{ one.high | n }}, most \
{{ one.most | n }}, all together {{ one.total | n }}</p>
{% endfor -%}
{% if labels %}<h2>Labels</h2>
{{ labels }}{% endif %}
{% if languages %}<h2>Languages, of the question → of the answer</h2>
{{ languages }}{% endif %}
</body>
</html>
"""
_NAMES = {
    Severity.NECESSARY: "[Necessary]",
    Severity.RECOMMENDED: "[Recommended]",
    Severity.NOTICE: "[Notice]",
}


def page_of(report: Report, day: datetime.date) -> str:
    """Return the report's page."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_printable
    )
    environment.filters["n"] = "{:,}".format
    # The plots are ours, and escape what they show.
    spreads = [(one, Markup(histogram(one.name, one.bars))) for one in report.distributions]  # noqa: S704
    return environment.from_string(_TEMPLATE).render(
        report=report,
        names=_NAMES,
        version=tunery.__version__,
        day=day.isoformat(),
        spreads=spreads,
        labels=Markup(ranking("labels", list(report.labels.items()))),  # noqa: S704
        languages=Markup(ranking("languages", list(report.languages.items()))),  # noqa: S704
    )


def _printable(value: object) -> object:
    is_ours = isinstance(value, Markup)
    return printable(value) if isinstance(value, str) and not is_ours else value
