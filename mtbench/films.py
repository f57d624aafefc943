"""Films of one meta-rollout: its frames, over a strip that shows what the policy expects as it adapts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mtbench.suite import Frame

if TYPE_CHECKING:
    from PIL import ImageDraw

    from mtbench.play import Playthrough

_HEIGHT = 96  # of the strip, pixels; even, as MP4 wants
_LEAST_WIDTH = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 8, 20, 8  # margins of its plot
_FINE = 3  # drawn this many times larger and then scaled down, which smooths lines
_BACKGROUND = (24, 26, 29)
_NOW = (230, 232, 235)
# Colours that the colour-blind tell apart; what is yet to come is the same picture, darker.
_VALUE, _GAIN, _LOSS, _FRAME_LINE = (86, 180, 233), (0, 158, 115), (213, 94, 0), (120, 124, 130)
_TO_COME = 0.35

_Colour = tuple[int, int, int]
_Scale = Callable[[float], float]  # from steps, or shares of the plot's height, to pixels


@dataclass(slots=True)
class Trace:
    """What is drawn of a meta-rollout of T steps.

    Attributes:
        values: T numbers: before each step, the return that the policy expects from there on.
        rewards: T numbers: what each step paid, on the agent's scale.
        starts: At which steps attempts began.
        returns: Of each attempt, on the default scale, once the rollout is over.
    """

    values: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)


def film(played: Playthrough, every: int = 1) -> Iterator[Frame]:
    """The frames of a meta-rollout; over a strip of values if the policy knows them.

    The strip shows the whole rollout, so the rollout is played twice, the first time without drawing.

    Args:
        played: What to play.
        every: Show every `every`-th step, and the last one.
    """
    if not played.values_known:
        yield from played.frames(every)
        return
    played.run()
    trace, strip = played.trace, None
    for frame in played.frames(every):
        strip = strip or ValueStrip(trace, max(frame.shape[1], _LEAST_WIDTH))
        yield _stacked(frame, strip.at(played.steps))


def _stacked(frame: Frame, strip: Frame) -> Frame:
    """A frame over a strip that is at least as wide."""
    above = np.full((frame.shape[0], strip.shape[1], 3), _BACKGROUND, dtype=np.uint8)
    left = (strip.shape[1] - frame.shape[1]) // 2
    above[:, left : left + frame.shape[1]] = frame
    return np.concatenate([above, strip])


class ValueStrip:
    """A plot of a finished rollout: the policy's values as a line, rewards as bars, attempts and their returns.

    Args:
        trace: Of the rollout.
        width: In pixels.
    """

    def __init__(self, trace: Trace, width: int) -> None:
        self._steps, self._width = len(trace.values), width
        self._past = _drawn(trace, width)
        self._future = (self._past * _TO_COME + np.array(_BACKGROUND) * (1 - _TO_COME)).astype(np.uint8)

    def at(self, step: int) -> Frame:
        """The strip ``(96, width, 3)`` after `step` steps: what is yet to come is dark."""
        column = round(_column(step, self._steps, self._width))
        strip = self._future.copy()
        strip[:, : column + 1] = self._past[:, : column + 1]
        strip[_TOP:-_BOTTOM, column] = _NOW
        return np.asarray(strip)


def _column(step: float, steps: int, width: int) -> float:
    return _LEFT + (width - _LEFT - _RIGHT - 1) * step / max(steps, 1)


def _drawn(trace: Trace, width: int) -> Frame:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (width * _FINE, _HEIGHT * _FINE), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    steps = len(trace.values)
    low, high = min(0.0, *trace.values), max(0.0, *trace.values)
    high = high if high > low else low + 1

    def x(step: float) -> float:
        return _FINE * _column(step, steps, width)

    def y(share: float) -> float:
        return _FINE * (_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM))

    def text(at: tuple[float, float], content: str, anchor: str, room: float, colour: _Colour = _NOW) -> None:
        size = float(11 * _FINE)
        fitting = size * _FINE * room / ImageFont.load_default(size).getlength(content)
        draw.text(at, content, colour, ImageFont.load_default(max(1.0, min(size, fitting))), anchor)

    zero = (0 - low) / (high - low)
    draw.line([x(0), y(zero), x(steps), y(zero)], _FRAME_LINE, _FINE)
    _draw_rewards(draw, trace.rewards, x, y)
    ends = [*trace.starts[1:], steps]
    for number, (start, end) in enumerate(zip(trace.starts, ends, strict=True)):
        draw.line([x(start), y(0), x(start), y(1)], _FRAME_LINE, _FINE)
        label = f"attempt {number + 1}: {trace.returns[number]:.3g}"
        text((x(end) - 2 * _FINE, _FINE * _TOP / 2), label, "rm", (x(end) - x(start)) / _FINE - 4)
    draw.line([(x(t), y((v - low) / (high - low))) for t, v in enumerate(trace.values)], _VALUE, 2 * _FINE, "curve")
    for share, value in ((0.0, low), (1.0, high)):
        text((_FINE * (_LEFT - 4), y(share)), f"{value:.3g}", "rs" if share == 0 else "rt", _LEFT - 8)
    text((_FINE * (_LEFT - 4), _FINE * _TOP / 2), "value", "rm", _LEFT - 8, _VALUE)
    text((_FINE * (_LEFT - 4), y(0.3)), "reward", "rm", _LEFT - 8, _GAIN)
    return np.asarray(image.resize((width, _HEIGHT), Image.Resampling.LANCZOS))


def _draw_rewards(draw: ImageDraw.ImageDraw, rewards: list[float], x: _Scale, y: _Scale) -> None:
    """Bars from the bottom, the largest reward a third of the plot high; losses in another colour."""
    largest = max((abs(reward) for reward in rewards), default=0.0)
    for step, reward in enumerate(rewards):
        if reward:
            box = [x(step), y(abs(reward) / largest / 3), max(x(step + 1), x(step) + 1), y(0.0)]
            draw.rectangle(box, _GAIN if reward > 0 else _LOSS)
