"""A screen made smaller, to the last bit as the ALE's vector interface does it: OpenCV's ``INTER_AREA``.

Every pixel of the small picture is the average of the area that it covers, summed in float32 in OpenCV's order: along
rows first, from the left, then down (``modules/imgproc/src/resize.cpp``, ``computeResizeAreaTab``). On a machine whose
OpenCV fuses products and sums (ARM), a value may differ by 1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mtbench.vector.compiled import kernel

Screen = npt.NDArray[np.uint8]


def area_weights(size: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Which N neighbours of `size` make up each of `target` pixels.

    Returns:
        The first of them, ``(target,)``, and their weights, ``(target, N)``: N is the most that any pixel covers.
    """
    scale = size / target
    covered: list[dict[int, float]] = []
    for pixel in range(target):
        begin, end = pixel * scale, (pixel + 1) * scale
        width = min(scale, size - begin)
        inner_end = min(math.floor(end), size - 1)
        inner = min(math.ceil(begin), inner_end)
        shares = dict.fromkeys(range(inner, inner_end), 1 / width)
        if inner - begin > 1e-3:
            shares[inner - 1] = (inner - begin) / width
        if end - inner_end > 1e-3:
            shares[inner_end] = min(end - inner_end, 1.0, width) / width
        covered.append(shares)
    most = max(map(len, covered))
    first = np.array([min(min(shares), size - most) for shares in covered])
    weights = np.zeros((target, most), dtype=np.float32)
    for pixel, shares in enumerate(covered):
        for at, share in shares.items():
            weights[pixel, at - first[pixel]] = share
    return first, weights


@kernel
def shrink(
    screen: Screen,
    out: Screen,
    columns: npt.NDArray[np.int64],
    across: npt.NDArray[np.float32],
    lines: npt.NDArray[np.int64],
    down: npt.NDArray[np.float32],
) -> None:
    """Average `screen` down into `out`.

    Args:
        screen: ``(H, 3 W)`` uint8: rows of pixels of three channels.
        out: ``(h, 3 w)`` uint8, likewise.
        columns: As :func:`area_weights` gives them for W and w.
        across: Likewise.
        lines: For H and h.
        down: Likewise.
    """
    height, width = out.shape
    rows = np.empty((len(screen), width), np.float32)
    line = np.empty(screen.shape[1], np.float32)
    place = np.empty(len(screen), np.int64)
    made = -1
    for y in range(len(screen)):
        same = y > 0
        for x in range(screen.shape[1]):
            if not same or screen[y, x] != screen[y - 1, x]:
                same = False
                break
        if not same:  # a console repeats many rows
            made += 1
            for x in range(screen.shape[1]):
                line[x] = np.float32(screen[y, x])
            rows[made] = 0
            for x in range(len(columns)):
                left = 3 * columns[x]
                for i in range(across.shape[1]):
                    for channel in range(3):
                        rows[made, 3 * x + channel] += line[left + 3 * i + channel] * across[x, i]
        place[y] = made
    total = np.empty(width, np.float32)
    for y in range(height):
        total[:] = 0
        for i in range(down.shape[1]):
            row, weight = place[lines[y] + i], down[y, i]
            for x in range(width):
                total[x] += rows[row, x] * weight
        for x in range(width):
            out[y, x] = np.uint8(np.int32(np.rint(total[x])))
