"""Drawings of memory against step time as SVG, and theory's curve for a chain of equal layers. Standard library only."""

import functools

LEFT, TOP, WIDTH, HEIGHT = 70, 40, 620, 380


@functools.cache
def forwards(layers, slots):
    """The least layer forwards that serve a chain's backward when `slots` activations fit beside its input (the first forward included): hold the output of one
    of the first layers, serve what lies behind it with one slot less, then what lies before it with all of them."""
    if layers == 0:
        return 0
    if slots == 0:
        return float("inf")
    return min(k + forwards(layers - k, slots - 1) + forwards(k - 1, slots) for k in range(1, layers + 1))


def chain_curve(layers, plain_bytes, activation_bytes, layer_seconds, step_seconds):
    """[(share of plain's bytes, step over plain's)] of the optimal schedules. What a step needs beside activations is taken from plain's peak."""
    beside = plain_bytes - layers * activation_bytes
    out = []
    for slots in range(1, layers + 1):
        extra = forwards(layers, slots) - layers
        out.append(((slots * activation_bytes + beside) / plain_bytes, 1 + extra * layer_seconds / step_seconds))
    return out


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class Drawing:
    def __init__(self, title, highest):
        self.highest, self.parts = max(1.1, highest), []
        self.text(LEFT, 22, title, 15)
        self.axes()

    def x(self, share):
        return LEFT + WIDTH * min(1.15, share) / 1.15

    def y(self, ratio):
        return TOP + HEIGHT * (1 - (min(ratio, self.highest) - 0.98) / (self.highest - 0.98))

    def text(self, x, y, text, size=11, colour="#222", anchor="start"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" font-family="sans-serif">{escaped(text)}</text>')

    def line(self, points, colour, width=1.5, dashes=""):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed}/>')

    def axes(self):
        left, bottom = LEFT, TOP + HEIGHT
        self.line([(left, TOP), (left, bottom), (left + WIDTH, bottom)], "#444")
        for tick in range(0, 120, 20):
            self.text(self.x(tick / 100), bottom + 16, f"{tick} %", anchor="middle")
        step = 0.05 if self.highest < 1.5 else 0.25 if self.highest < 3 else 1
        ratio = 1.0
        while ratio <= self.highest:
            self.line([(left - 4, self.y(ratio)), (left, self.y(ratio))], "#444")
            self.text(left - 8, self.y(ratio) + 4, f"{ratio:.2f}", anchor="end")
            ratio += step
        self.text(left + WIDTH / 2, bottom + 34, "activation bytes, of plain's", anchor="middle")
        self.text(8, TOP - 6, "step over plain's: filled, plain's and the counted added work; hollow, measured CPU time")

    def curve(self, points, colour, name, dashes=""):
        points = [p for p in points if p[1] <= self.highest]
        if points:
            self.line([(self.x(a), self.y(b)) for a, b in points], colour, 2, dashes)
            self.text(self.x(points[0][0]) + 6, self.y(points[0][1]) + 12, name, colour=colour)

    def point(self, share, ratio, name, colour):
        self.parts.append(f'<circle cx="{self.x(share):.1f}" cy="{self.y(ratio):.1f}" r="3.5" fill="{colour}"/>')
        if name:
            self.text(self.x(share) + 6, self.y(ratio) - 4, name + (f" ({ratio:.2f})" if ratio > self.highest else ""), 10, colour)

    def measured(self, share, counted, ratio, name, colour):
        """A step measured at `ratio`, hollow, joined to what is counted of it, filled (None: nothing is)."""
        if counted is None:
            self.text(self.x(share) + 6, self.y(ratio) - 4, name, 10, colour)
        else:
            self.line([(self.x(share), self.y(counted)), (self.x(share), self.y(ratio))], colour, 0.5)
            self.point(share, counted, name, colour)
        self.parts.append(f'<circle cx="{self.x(share):.1f}" cy="{self.y(ratio):.1f}" r="2.5" fill="white" stroke="{colour}"/>')

    def svg(self):
        body = "\n".join(self.parts)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 90}" height="{TOP + HEIGHT + 50}">\n'
                f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n')
