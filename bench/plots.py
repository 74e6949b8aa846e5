"""Figures as SVG, readable in light and dark: bars by group, and a line over time. Draws text; touches nothing."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

WIDTH = 760
_LABELS = 150
_FIGURES = 90
BARS_WIDTH = WIDTH - 2 * _LABELS - _FIGURES
_BAR, _GAP, _TOP = 15, 14, 40
_HEIGHT, _LEFT, _BELOW = 300, 60, 40
_COLOURS = ("#2f6fde", "#e08a1e", "#2a9d6f", "#b5489a", "#8a8f98")

Groups = Mapping[str, Mapping[str, float]]
"""Figures by group, and by the name of their bar."""


def bars(title: str, groups: Groups) -> str:
    """Horizontal bars on one scale, each with its figure; a colour for each name."""
    most = max(figure for group in groups.values() for figure in group.values())
    colours = dict(zip(next(iter(groups.values())), _COLOURS, strict=False))
    body, y = [_text(0, 16, title, "title")], _TOP
    for group, figures in groups.items():
        body.append(_text(0, y + _BAR - 3, group, "group"))
        for name, figure in figures.items():
            length = BARS_WIDTH * figure / most
            body.append(_text(_LABELS, y + _BAR - 3, name))
            body.append(
                f'<rect x="{2 * _LABELS}" y="{y}" width="{length:.1f}" height="{_BAR - 3}" fill="{colours[name]}"/>'
            )
            body.append(_text(2 * _LABELS + length + 5, y + _BAR - 3, f"{figure:,g}"))
            y += _BAR
        y += _GAP
    return _svg(body, y)


def line(title: str, points: Sequence[tuple[float, float]], x_name: str, y_name: str) -> str:
    """One line from zero, with the largest figures at the ends of the axes."""
    right, floor = WIDTH - 20, _HEIGHT - _BELOW
    most_x, most_y = (max(values) for values in zip(*points, strict=True))
    scaled = " ".join(f"{x:.1f},{y:.1f}" for x, y in _scaled(points, right, floor))
    axes = f"M{_LEFT},{_TOP} V{floor} H{right}"
    body = [
        _text(0, 16, title, "title"),
        f'<path d="{axes}" class="axis"/>',
        f'<polyline points="{scaled}" fill="none" stroke="{_COLOURS[0]}" stroke-width="2"/>',
        _text(0, _TOP + 4, f"{most_y:,g}"),
        _text(0, floor, f"0 {y_name}"),
        _text(right - 120, floor + 20, f"{most_x:,g} {x_name}"),
    ]
    return _svg(body, _HEIGHT)


def _scaled(points: Sequence[tuple[float, float]], right: int, floor: int) -> Iterator[tuple[float, float]]:
    most_x, most_y = (max(values) for values in zip(*points, strict=True))
    for x, y in points:
        yield _LEFT + (right - _LEFT) * x / most_x, floor - (floor - _TOP) * y / most_y


def _text(x: float, y: float, text: str, style: str = "label") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(text)}</text>'


def _svg(body: Sequence[str], height: int) -> str:
    style = (
        "text{font:12px sans-serif;fill:#24292f}.title{font-size:15px;font-weight:bold}.group{font-weight:bold}"
        ".axis{fill:none;stroke:#8a8f98}"
        "@media (prefers-color-scheme:dark){text{fill:#d7dce2}}"
    )
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{style}</style>", *body, "</svg>", ""]
    )
