"""Bar charts as SVG text. Every text that goes in is escaped."""

from collections.abc import Sequence
from html import escape

from tunery.datasets.preparing.printable import printable

_WIDTH, _HEIGHT = 640, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 18, 24
_ROW = 20
_MAX_ROWS = 24
_NAME_CHARACTERS = 34


def histogram(title: str, bars: Sequence[tuple[int, int, int]]) -> str:
    """Return upright bars (from, to, count), each as wide as the next."""
    if not bars:
        return ""
    most = max(count for _, _, count in bars) or 1
    width = (_WIDTH - _LEFT - _RIGHT) / len(bars)
    room = _HEIGHT - _TOP - _BOTTOM
    parts = [
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
        f' aria-label="{_safe(title)}">'
    ]
    base = _HEIGHT - _BOTTOM
    for place, (start, end, count) in enumerate(bars):
        height = room * count / most
        x = _LEFT + place * width
        span = f"{start:,}" if start == end else f"{start:,} to {end:,}"
        parts.append(
            f'<rect x="{x:.1f}" y="{base - height:.1f}" width="{max(1.0, width - 1.5):.1f}"'
            f' height="{height:.1f}"><title>{span}: {count:,}</title></rect>'
        )
    parts.append(f'<line x1="{_LEFT}" y1="{base}" x2="{_WIDTH - _RIGHT}" y2="{base}"/>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 8}">{bars[0][0]:,}</text>')
    parts.append(
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 8}" class="end">{bars[-1][1]:,}</text>'
    )
    parts.append(f'<text x="{_LEFT}" y="12">{most:,} at most in a bar</text></svg>')
    return "".join(parts)


def ranking(title: str, counts: Sequence[tuple[str, int]]) -> str:
    """Return lying bars with a name each, the first ones of `counts`."""
    shown = counts[:_MAX_ROWS]
    if not shown:
        return ""
    most = max(count for _, count in shown) or 1
    height = _ROW * len(shown) + 6
    left = 250
    parts = [
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{_safe(title)}">'
    ]
    for place, (name, count) in enumerate(shown):
        y = place * _ROW + 4
        short = name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 1]}…"
        width = (_WIDTH - left - 70) * count / most
        parts.append(f'<text x="{left - 8}" y="{y + 12}" class="end">{_safe(short)}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{max(1.0, width):.1f}" height="14"/>')
        parts.append(f'<text x="{left + max(1.0, width) + 6:.1f}" y="{y + 12}">{count:,}</text>')
    return "".join([*parts, "</svg>"])


def _safe(text: str) -> str:
    return escape(printable(text))
