"""Pictures of the POPGym games for people: what the agent sees, and the hidden state.

Drawing only reads the base environment and uses no random numbers, so equal states give equal pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mtbench.suite import Progress, Task

_Colour = tuple[int, int, int]
_Point = tuple[float, float]
_Box = tuple[float, float, float, float]  # x, y, width, height

_PAPER: _Colour = (246, 246, 243)
_STRIP: _Colour = (233, 234, 232)
_CARD: _Colour = (255, 255, 255)
_INK: _Colour = (38, 43, 49)
_MUTED: _Colour = (112, 119, 127)
_LINE: _Colour = (196, 200, 204)
_FADED: _Colour = (214, 217, 220)
_BLUE: _Colour = (47, 111, 171)
_RED: _Colour = (196, 54, 48)
_GREEN: _Colour = (44, 134, 82)
_GOLD: _Colour = (240, 173, 42)
_GLOW: _Colour = (255, 239, 204)

_WIDTH, _HEIGHT = 480, 320  # every coordinate below is in these units
_SCALE = 2  # drawn this much larger, so that shrinking smooths the edges
_RANKS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
_INKS = (_INK, _RED)  # by colour index; suits alternate: spade, diamond, club, heart
_font = lru_cache(maxsize=64)(ImageFont.load_default)


class _Canvas:
    """A Pillow drawing in layout units."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), _PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def box(self, box: _Box, fill: _Colour | None, outline: _Colour | None = None, radius: float = 0) -> None:
        x, y, w, h = (_SCALE * v for v in box)
        right, bottom = round(x + w) - 1, round(y + h) - 1
        if right >= round(x) and bottom >= round(y):  # Pillow refuses empty boxes
            self._draw.rounded_rectangle((round(x), round(y), right, bottom), radius * _SCALE, fill, outline, _SCALE)

    def disc(self, x: float, y: float, radius: float, fill: _Colour) -> None:
        self._draw.ellipse([_SCALE * v for v in (x - radius, y - radius, x + radius, y + radius)], fill)

    def line(self, points: Sequence[_Point], fill: _Colour, width: float = 1) -> None:
        self._draw.line([(_SCALE * x, _SCALE * y) for x, y in points], fill, round(_SCALE * width))

    def polygon(self, points: Sequence[_Point], fill: _Colour) -> None:
        self._draw.polygon([(_SCALE * x, _SCALE * y) for x, y in points], fill)

    def text(self, x: float, y: float, text: str, size: float, fill: _Colour = _INK, anchor: str = "mm") -> None:
        mask, left, top = _text_mask(text, _SCALE * size, anchor)
        self._draw.bitmap((round(_SCALE * x) + left, round(_SCALE * y) + top), mask, fill)

    def suit(self, x: float, y: float, suit: int, size: float, fill: _Colour | None = None) -> None:
        mask = _suit_mask(suit, round(_SCALE * size))
        corner = (round(_SCALE * x - mask.width / 2), round(_SCALE * y - mask.height / 2))
        self._draw.bitmap(corner, mask, fill or _INKS[suit % 2])


@lru_cache(maxsize=1024)  # rendering text takes most of a frame's time
def _text_mask(text: str, size: float, anchor: str) -> tuple[Image.Image, int, int]:
    """The shape of a text, and its left and top edge from the anchor."""
    left, top, right, bottom = (round(v) for v in _font(size).getbbox(text, anchor=anchor))
    mask = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(mask).text((-left, -top), text, 255, _font(size), anchor)
    return mask, left, top


@lru_cache(maxsize=256)
def _suit_mask(suit: int, size: int) -> Image.Image:
    """The shape of suit 0..3 (spade, diamond, club, heart): the default font has no glyphs for them."""
    turns = np.linspace(0, math.tau, 96)
    circle = np.stack([np.sin(turns), np.cos(turns)], axis=1)
    height = (13 * np.cos(turns) - 5 * np.cos(2 * turns) - 2 * np.cos(3 * turns) - np.cos(4 * turns)) / 16
    heart = np.stack([np.sin(turns) ** 3, height], axis=1)
    stem = np.array([(0.5, 0.5), (0.56, 0.8), (0.69, 0.96), (0.31, 0.96), (0.44, 0.8)])
    leaves = [(0.5, 0.26, 0.225), (0.27, 0.59, 0.225), (0.73, 0.59, 0.225), (0.5, 0.5, 0.12)]
    shapes = (
        [stem, heart * (0.43, 0.42) + (0.5, 0.48)],
        [np.array([(0.5, 0.03), (0.87, 0.5), (0.5, 0.97), (0.13, 0.5)])],
        [stem, *(circle * radius + (x, y) for x, y, radius in leaves)],
        [heart * (0.46, -0.5) + (0.5, 0.42)],
    )
    mask = Image.new("L", (4 * size, 4 * size))
    for shape in shapes[suit]:
        ImageDraw.Draw(mask).polygon((4 * size * shape).ravel().tolist(), 255)
    return mask.reduce(4)


def draw(base: gym.Env[Any, Any], task: Task, progress: Progress, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Draw the state of one game.

    Args:
        base: The base environment playing `task`; only read.
        task: One of the suite's 27 tasks.
        progress: How far the rollout is.
        shape: The picture's height, width and 3.

    Returns:
        A new array of `shape`, equal for equal states.
    """
    canvas = _Canvas()
    body, sees = _FAMILIES[task.family]
    body(canvas, base)

    canvas.box((0, 0, _WIDTH, 40), _STRIP)
    canvas.text(16, 18, task.name, 15, anchor="lm")
    canvas.text(_WIDTH - 16, 18, f"step {progress.attempt_steps}", 12, anchor="rm")
    canvas.text(_WIDTH - 86, 18, f"attempt {progress.attempt + 1}/{progress.k}", 12, anchor="rm")
    canvas.box((0, 36, _WIDTH, 4), _FADED)
    canvas.box((0, 36, _WIDTH * min(1.0, progress.attempt_steps / task.max_steps), 4), _BLUE)

    canvas.box((0, _HEIGHT - 28, _WIDTH, 28), _STRIP)
    canvas.text(16, _HEIGHT - 14, "reward", 12, _MUTED, "lm")
    colour = _GREEN if progress.reward > 0 else _RED if progress.reward < 0 else _MUTED
    canvas.text(62, _HEIGHT - 14, f"{progress.reward:+.4f}" if progress.reward else "0", 13, colour, "lm")
    canvas.text(_WIDTH - 16, _HEIGHT - 14, f"agent sees: {sees}", 12, _MUTED, "rm")
    # The reducing gap halves the drawing before Pillow's slower filter runs.
    return np.array(canvas.image.resize((shape[1], shape[0]), Image.Resampling.LANCZOS, reducing_gap=1.0))


def _symbol(canvas: _Canvas, x: float, y: float, kind: str, value: int, size: float) -> None:
    """What a card shows, centred on (x, y): a suit, a rank, a colour or an arm's number."""
    if kind == "suits":
        canvas.suit(x, y, value, size)
    elif kind == "colors":
        canvas.box((x - size / 2, y - size / 2, size, size), _INKS[value], radius=size / 6)
    else:
        canvas.text(x, y, _RANKS[value] if kind == "ranks" else str(value), size)


def _card(canvas: _Canvas, box: _Box, kind: str, value: int, caption: str, asked: bool = False) -> None:
    """A large card over its caption."""
    x, y, w, h = box
    if asked:
        canvas.box((x - 3, y - 3, w + 6, h + 6), _GOLD, radius=11)
    canvas.box(box, _CARD, None if asked else _LINE, radius=8)
    _symbol(canvas, x + w / 2, y + h / 2, kind, value, 0.6 * w)
    canvas.text(x + w / 2, y + h + 16, caption, 12, _MUTED)


def _cards(canvas: _Canvas, suits: Sequence[int], slots: int, asked: int, live: int) -> None:
    """Small cards in reading order: the first `live` in colour, the others faded, then empty slots."""
    # Use the largest cells that fit into 314 x 196. A single row is at the height of the large card.
    cell, columns = max((min(314 / n, 196 / math.ceil(slots / n), 78), n) for n in range(1, slots + 1))
    top = max(86, 168 - cell * math.ceil(slots / columns) / 2)
    ring, card = min(0.1 * cell, 3), 0.9 * cell
    for i in range(slots):
        x, y = 150 + cell * (i % columns), top + cell * (i // columns)
        if i == asked:
            canvas.box((x - ring, y - ring, card + 2 * ring, card + 2 * ring), _GOLD, radius=0.14 * cell + ring)
        shown = i < len(suits) and i < live
        canvas.box((x, y, card, card), _CARD if shown else None, _LINE if shown else _FADED, 0.14 * cell)
        if i < len(suits):
            canvas.suit(x + card / 2, y + card / 2, suits[i], 0.66 * cell, None if shown else _FADED)


def _chart(canvas: _Canvas, box: _Box, kind: str, heights: list[float], labels: list[str], marked: int) -> None:
    """Bars for heights in [0, 1] with a label above and a symbol below each."""
    x, y, w, h = box
    step = w / len(heights)
    bar = min(0.74 * step, 52)
    for i, (height, label) in enumerate(zip(heights, labels, strict=True)):
        centre = x + step * (i + 0.5)
        canvas.box((centre - bar / 2, y, bar, h), _GLOW if i == marked else _STRIP, radius=2)
        canvas.box((centre - bar / 2, y + h * (1 - height), bar, h * height), _GOLD if i == marked else _BLUE, radius=2)
        canvas.text(centre, y - 9, label, 11, _INK if i == marked else _MUTED)
        _symbol(canvas, centre, y + h + 13, kind, i, 13 if step > 16 else 11)
    canvas.line([(x, y + h), (x + w, y + h)], _MUTED)


def _autoencode(canvas: _Canvas, base: Any) -> None:
    deck = base.deck
    hand, total = len(deck["system"]), deck.num_cards
    watching = base.get_state()[1] == 1
    # Cards leave the deck from its end, and the hand keeps the first ones dealt.
    dealt = [int(s) for s in deck.suits_idx[deck.idx[::-1]][: total - len(deck)]]
    canvas.box((24, 54, 102, 28), _BLUE if watching else _GOLD, radius=14)
    canvas.text(75, 68, "WATCH" if watching else "PLAY", 15, _CARD if watching else _INK)
    # From the first answer on, upstream shows the same suit again and again.
    suit, caption = (dealt[-1], "seen now") if watching or hand == total else (int(deck.suits_idx[0]), "a placeholder")
    _card(canvas, (24, 98, 102, 140), "suits", suit, caption)
    title = f"{hand} of {total} to recite, last one first" if hand else f"all {total} recited"
    if watching:
        title = f"{hand} of {total} shown, newest last"
    canvas.text(150, 68, title, 13, anchor="lm")
    _cards(canvas, dealt, total, -1 if watching else hand - 1, hand)


def _repeat_previous(canvas: _Canvas, base: Any) -> None:
    hand, k = base.deck["player"], base.k
    recent = [int(base.deck.suits_idx[card]) for card in hand[-k:]]
    asked, title = 0, f"next answer: the oldest of the last {k}"
    if len(hand) < k:
        asked, title = -1, f"nothing asked yet: {len(hand)} of the first {k} are out"
    elif len(base.deck) == 0:
        asked, title = -1, "all cards are out"
    _card(canvas, (24, 98, 102, 140), "suits", recent[-1], "seen now")
    canvas.text(150, 68, title, 13, anchor="lm")
    _cards(canvas, recent, k, asked, k)


def _repeat_first(canvas: _Canvas, base: Any) -> None:
    deck = base.deck
    # The hand is emptied after every step, but the card dealt last is the first one past the deck's end.
    now = int(deck.suits_idx[deck.idx[len(deck)]])
    _card(canvas, (96, 72, 120, 162), "suits", int(base.card), "first card: always the answer", asked=True)
    _card(canvas, (264, 72, 120, 162), "suits", now, "seen now")
    canvas.text(240, 274, f"{deck.num_cards - len(deck)} of {deck.num_cards} cards are out", 12, _MUTED)


def _higher_lower(canvas: _Canvas, base: Any) -> None:
    rank = int(base.deck.show("player", ["ranks_idx"])[0, -1])
    copies = 4 * base.num_decks
    seen = [int(n) for n in base.state]
    left = [copies - n for n in seen]
    _card(canvas, (24, 98, 102, 140), "ranks", rank, "seen now")
    canvas.text(150, 68, f"ranks seen so far, of {copies} each", 13, anchor="lm")
    _chart(canvas, (150, 102, 314, 124), "ranks", [n / copies for n in seen], [str(n) for n in seen], rank)
    odds = f"{sum(left[:rank])} lower, {left[rank]} equal, {sum(left[rank + 1 :])} higher"
    canvas.text(150, 268, f"still in the deck: {odds}", 13, anchor="lm")


def _count_recall(canvas: _Canvas, base: Any) -> None:
    kind = {2: "colors", 4: "suits", 13: "ranks"}[base.num_distinct_cards]
    counts, query, limit = [int(n) for n in base.counts], int(base.query), base.max_card_count
    _card(canvas, (20, 64, 72, 100), kind, int(base.value), "dealt")
    _card(canvas, (106, 64, 72, 100), kind, query, "asked", asked=True)
    canvas.text(99, 228, str(counts[query]), 44)
    canvas.text(99, 264, "next answer" if len(base.value_deck) else "all cards are out", 12, _MUTED)
    canvas.text(204, 64, f"dealt so far, of {limit} each", 13, anchor="lm")
    _chart(canvas, (204, 102, 260, 150), kind, [n / limit for n in counts], [str(n) for n in counts], query)


def _bandit(canvas: _Canvas, base: Any) -> None:
    chances = [float(p) for p in base.bandits]
    best = int(np.argmax(base.bandits))
    canvas.text(16, 60, "chance to pay of each arm, in percent", 13, anchor="lm")
    canvas.text(464, 60, f"best arm: {best}", 13, anchor="rm")
    _chart(canvas, (16, 98, 448, 156), "arms", chances, [f"{100 * p:.0f}" for p in chances], best)


def _cart_pole(canvas: _Canvas, base: Any, seen: tuple[int, int]) -> None:
    # In the first observation, upstream's VelocityOnly games also show the position and the angle.
    seen = seen if base.num_steps else (0, 2)
    noise = getattr(base, "noise_sigma", (0.0, 0.0))
    names, units = ("position", "velocity", "angle", "angular velocity"), ("", "", "°", "°/s")
    for i, value in enumerate(base.state):
        middle, on = 69 + 114 * i, i in seen
        factor, digits = (1.0, 2) if i < 2 else (math.degrees(1), 1)
        spread = f" ± {noise[i // 2] * factor:.1f}{units[i]}" if on and noise[i // 2] else ""
        canvas.box((middle - 53, 52, 106, 42), _CARD if on else None, _BLUE if on else _FADED, 6)
        canvas.text(middle, 63, names[i], 11, _BLUE if on else _MUTED)
        canvas.text(middle, 80, f"{value * factor:+.{digits}f}{units[i]}{spread}", 14, _INK if on else _MUTED)

    x, theta, limit = 240 + 70 * float(base.state[0]), float(base.state[2]), base.theta_threshold_radians
    track, axle, length = 258, 234, 120

    def tip(angle: float, size: float = length) -> _Point:
        return x + size * math.sin(angle), axle - size * math.cos(angle)

    canvas.polygon([(x, axle), *(tip(limit * a / 8) for a in range(-8, 9))], _STRIP)
    for side in (-1, 1):
        edge = 240 + 70 * side * base.x_threshold
        canvas.line([(edge, track - 40), (edge, track + 6)], _RED, 2)
        canvas.text(edge, track + 16, f"{side * base.x_threshold:+.1f}", 11, _RED)
        canvas.line([(x, axle), tip(side * limit)], _RED)
        canvas.text(*tip(side * (limit + 0.24)), f"{side * round(math.degrees(limit)):+d}°", 11, _RED)
    canvas.line([(16, track), (464, track)], _MUTED, 2)
    canvas.line([(240, track), (240, track + 6)], _MUTED, 2)
    canvas.box((x - 26, track - 26, 52, 20), _INK, radius=4)
    for wheel in (-15, 15):
        canvas.disc(x + wheel, track - 5, 5, _MUTED)
    canvas.line([(x, axle), tip(theta, length - 8)], _GOLD, 8)
    canvas.disc(*tip(theta, length - 8), 4, _GOLD)
    canvas.disc(x, axle, 5, _BLUE)


def _mine_sweeper(canvas: _Canvas, base: Any) -> None:
    grid = base.hidden_grid  # 0 clear, 1 mine, 2 viewed
    cell = 224 / max(grid.shape)
    for row, column in np.ndindex(*grid.shape):
        x, y = 32 + cell * column, 54 + cell * row
        viewed = grid[row, column] == 2
        canvas.box((x, y, cell - 3, cell - 3), _CARD if viewed else _FADED, _LINE, 5)
        centre = x + (cell - 3) / 2, y + (cell - 3) / 2
        if grid[row, column] == 1:
            spikes = [(0.26 - 0.1 * (i % 2), math.pi * i / 8) for i in range(16)]
            star = [(centre[0] + r * cell * math.cos(t), centre[1] + r * cell * math.sin(t)) for r, t in spikes]
            canvas.polygon(star, _RED)
        elif viewed:
            near = int(base.neighbor_grid[row, column])
            canvas.text(*centre, str(near), 0.45 * cell, (_MUTED, _BLUE, _GREEN)[min(near, 2)])
    mines = int((grid == 1).sum())
    numbers = (f"{int((grid == 2).sum())} of {grid.size - mines}", mines, base.max_episode_length - base.timestep)
    for i, label in enumerate(("squares viewed", "mines, hidden from the agent", "turns left")):
        canvas.text(284, 88 + 70 * i, str(numbers[i]), 26, anchor="lm")
        canvas.text(284, 112 + 70 * i, label, 12, _MUTED, "lm")


# By family: the function that draws its state, and a text that says what the agent sees.
_FAMILIES: dict[str, tuple[Callable[[_Canvas, Any], None], str]] = {
    "Autoencode": (_autoencode, "the mode and a suit"),
    "RepeatPrevious": (_repeat_previous, "the suit dealt now"),
    "RepeatFirst": (_repeat_first, "the suit dealt now"),
    "CountRecall": (_count_recall, "the dealt and the asked card"),
    "PositionOnlyCartPole": (partial(_cart_pole, seen=(0, 2)), "position and angle"),
    "VelocityOnlyCartpole": (partial(_cart_pole, seen=(1, 3)), "both velocities from step 1 on"),
    "NoisyPositionOnlyCartPole": (partial(_cart_pole, seen=(0, 2)), "position and angle with noise"),
    "MultiarmedBandit": (_bandit, "whether the last arm paid"),
    "HigherLower": (_higher_lower, "the rank dealt now"),
    "MineSweeper": (_mine_sweeper, "mines around the last square"),
}
