#!/usr/bin/env python3
"""Draws icon.png: one microVM, branched while it runs. Needs Python 3 alone; run it only to change the icon."""
import math
import pathlib
import struct
import zlib

SIZE = 256
BACKGROUND, EDGE = (14, 22, 42), (38, 52, 88)
TRUNK, MIDDLE, TOP = (90, 209, 255), (122, 146, 255), (197, 140, 255)

# Shapes in drawing order: a signed distance in pixels (negative inside) and a colour.
shapes = []


def box(x, y, half_width, half_height, radius, colour):
    def distance(px, py):
        dx, dy = abs(px - x) - half_width + radius, abs(py - y) - half_height + radius
        return math.hypot(max(dx, 0), max(dy, 0)) + min(max(dx, dy), 0) - radius
    shapes.append((distance, colour))


def line(points, width, colours):
    """A polyline whose colour goes from the first to the second along its way."""
    segments = list(zip(points, points[1:]))

    def nearest(px, py):
        best = (math.inf, 0.0)
        for index, ((ax, ay), (bx, by)) in enumerate(segments):
            dx, dy = bx - ax, by - ay
            t = min(1.0, max(0.0, ((px - ax) * dx + (py - ay) * dy) / (dx * dx + dy * dy)))
            best = min(best, (math.hypot(px - ax - t * dx, py - ay - t * dy), (index + t) / len(segments)))
        return best

    def distance(px, py):
        return nearest(px, py)[0] - width / 2

    def colour(px, py):
        t = nearest(px, py)[1]
        return tuple(a + (b - a) * t for a, b in zip(*colours))
    shapes.append((distance, colour))


def curve(start, first, second, end):
    def at(t):
        u = 1 - t
        return tuple(u**3 * a + 3 * u * u * t * b + 3 * u * t * t * c + t**3 * d for a, b, c, d in zip(start, first, second, end))
    return [at(i / 24) for i in range(25)]


def chip(x, y, half, colour):
    """A microVM: a chip with pins and a core."""
    for offset in (-half * 0.45, half * 0.45):
        box(x + offset, y, 2.6, half + 7, 2.6, colour)
        box(x, y + offset, half + 7, 2.6, 2.6, colour)
    box(x, y, half + 1.8, half + 1.8, 6.5, colour)
    box(x, y, half - 2.2, half - 2.2, 3.5, BACKGROUND)
    box(x, y, half * 0.42, half * 0.42, 2, colour)


box(128, 128, 124, 124, 54, EDGE)
box(128, 128, 121, 121, 51, BACKGROUND)
line([(72, 196), (72, 62)], 6, (TRUNK, TRUNK))
line(curve((72, 170), (72, 132), (100, 128), (130, 128)) + [(186, 128)], 6, (TRUNK, MIDDLE))
line(curve((72, 104), (72, 66), (100, 62), (130, 62)) + [(186, 62)], 6, (TRUNK, TOP))
chip(72, 192, 21, TRUNK)
chip(186, 62, 21, TOP)
chip(186, 128, 21, MIDDLE)
box(72, 62, 10, 10, 10, TRUNK)
box(72, 62, 5, 5, 5, BACKGROUND)


def pixel(x, y):
    red = green = blue = alpha = 0.0
    for distance, paint in shapes:
        cover = min(1.0, max(0.0, 0.5 - distance(x, y)))
        if cover > 0:
            colour = paint(x, y) if callable(paint) else paint
            red, green, blue = (old + (new - old) * (cover if alpha else 1) for old, new in zip((red, green, blue), colour))
            alpha = alpha + (1 - alpha) * cover
    return bytes(round(v) for v in (red, green, blue, alpha * 255))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


rows = b"".join(b"\0" + b"".join(pixel(x + 0.5, y + 0.5) for x in range(SIZE)) for y in range(SIZE))
png = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, 8, 6, 0, 0, 0))
       + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))
pathlib.Path(__file__).parent.parent.joinpath("icon.png").write_bytes(png)
