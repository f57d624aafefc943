"""NumPy's random generator, compiled: one random stream per environment.

A stream is a ``numpy.random.Generator`` over ``PCG64`` (O'Neill 2014), held in a record so that compiled loops can draw
from it. It gives bit for bit the numbers that NumPy gives for the same seed. So a variant gives the same attempt, and a
seed the same rollout, as in a single environment. Streams do not depend on each other or on the number of environments
or threads.

Only the methods that the engines need are implemented, with the names of ``Generator``'s. NumPy may change its streams
between releases (NEP 19), so ``tests/vector/test_streams.py`` compares every method with the installed NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtbench.vector.compiled import compiled
from mtbench.vector.resuming import FIELDS, state_of

#: ``state`` and ``increment`` are 128-bit numbers; `spare` is the unused upper half of a 64-bit draw.
STREAM = np.dtype(
    [
        *(("state_high", "u8"), ("state_low", "u8"), ("increment_high", "u8"), ("increment_low", "u8")),
        *(("spare", "u4"), ("has_spare", "u4")),
    ]
)

_MULTIPLIER_HIGH = np.uint64(0x2360ED051FC65DA4)
_MULTIPLIER_LOW = np.uint64(0x4385DF649FCCF645)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_ONE = np.uint64(1)


def set_state(stream: Any, generator: np.random.Generator) -> None:
    """Copy the state of a NumPy generator into a record."""
    for name, number in zip(FIELDS, state_of(generator), strict=True):
        stream[name] = number


# ---- the generator (PCG-XSL-RR 128/64) ----


@compiled
def _step(stream: Any) -> None:
    # 128-bit state * multiplier + increment, from 64-bit halves; the low product needs its upper half too.
    low, high = stream.state_low, stream.state_high
    a, b = low & _LOW_HALF, low >> _HALF
    c, d = _MULTIPLIER_LOW & _LOW_HALF, _MULTIPLIER_LOW >> _HALF
    middle = b * c + ((a * c) >> _HALF)
    other = a * d + (middle & _LOW_HALF)
    carried = b * d + (middle >> _HALF) + (other >> _HALF)
    product = low * _MULTIPLIER_LOW
    total = product + stream.increment_low
    carry = _ONE if total < product else np.uint64(0)
    stream.state_high = carried + high * _MULTIPLIER_LOW + low * _MULTIPLIER_HIGH + stream.increment_high + carry
    stream.state_low = total


@compiled
def next_uint64(stream: Any) -> np.uint64:
    """64 random bits."""
    _step(stream)
    mixed = stream.state_high ^ stream.state_low
    turn = stream.state_high >> np.uint64(58)
    return (mixed >> turn) | (mixed << ((np.uint64(64) - turn) & np.uint64(63)))


@compiled
def next_uint32(stream: Any) -> np.uint64:
    """32 random bits: the lower half of a draw, then its upper half."""
    if stream.has_spare:
        stream.has_spare = 0
        return np.uint64(stream.spare)
    drawn = next_uint64(stream)
    stream.has_spare = 1
    stream.spare = drawn >> _HALF
    return drawn & _LOW_HALF


# ---- seeding (numpy.random.SeedSequence, one word of entropy) ----

_POOL = 4


@compiled
def _hashed(value: np.uint32, factor: np.uint32, multiplier: np.uint32) -> np.uint32:
    value = np.uint32(value ^ factor)
    value = np.uint32(value * np.uint32(factor * multiplier))
    return np.uint32(value ^ (value >> np.uint32(16)))


@compiled
def seed(stream: Any, number: int) -> None:
    """Seed as ``np.random.default_rng(number)`` does; `number` has at most 32 bits."""
    # Hash the entropy into a pool of four words, and mix every word with every other.
    multiplier = np.uint32(0x931E8875)
    factor = np.uint32(0x43B0D7E5)
    pool = np.zeros(_POOL, dtype=np.uint32)
    for i in range(_POOL):
        pool[i] = _hashed(np.uint32(number) if i == 0 else np.uint32(0), factor, multiplier)
        factor = np.uint32(factor * multiplier)
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                mixed = np.uint32(
                    np.uint32(np.uint32(0xCA01F9DD) * pool[target])
                    - np.uint32(np.uint32(0x4973F715) * _hashed(pool[source], factor, multiplier))
                )
                factor = np.uint32(factor * multiplier)
                pool[target] = np.uint32(mixed ^ (mixed >> np.uint32(16)))
    # Hash the pool into eight words: the initial state and the increment.
    multiplier = np.uint32(0x58F38DED)
    factor = np.uint32(0x8B51F9DD)
    words = np.zeros(4, dtype=np.uint64)
    for i in range(8):
        word = np.uint64(_hashed(pool[i % _POOL], factor, multiplier))
        factor = np.uint32(factor * multiplier)
        words[i // 2] |= word << (_HALF if i % 2 else np.uint64(0))
    stream.increment_high = (words[2] << _ONE) | (words[3] >> np.uint64(63))
    stream.increment_low = (words[3] << _ONE) | _ONE
    stream.state_high = np.uint64(0)
    stream.state_low = np.uint64(0)
    _step(stream)
    low = stream.state_low + words[1]
    stream.state_high += words[0] + (_ONE if low < words[1] else np.uint64(0))
    stream.state_low = low
    _step(stream)
    stream.has_spare = 0
    stream.spare = 0


# ---- draws ----


@compiled
def random(stream: Any) -> float:
    """``Generator.random()``: uniform in [0, 1), 53 bits."""
    return np.float64(next_uint64(stream) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@compiled
def random_float32(stream: Any) -> np.float32:
    """``Generator.random(dtype=np.float32)``: 24 bits."""
    return np.float32(next_uint32(stream) >> np.uint64(8)) * np.float32(1.0 / 16777216.0)


@compiled
def below(stream: Any, count: int) -> int:
    """``Generator.integers(count)`` for 1 <= count < 2**32 (Lemire 2019): uniform in [0, count)."""
    if count == 1:
        return 0  # NumPy draws nothing here
    size = np.uint64(count)
    product = next_uint32(stream) * size
    rest = product & _LOW_HALF
    if rest < size:
        threshold = (np.uint64(0x100000000) - size) % size
        while rest < threshold:
            product = next_uint32(stream) * size
            rest = product & _LOW_HALF
    return int(np.int64(product >> _HALF))  # unsigned, Numba would make floats of this and 0


@compiled
def shuffle(stream: Any, values: npt.NDArray[Any], count: int) -> None:
    """``Generator.shuffle`` of the first `count` values."""
    mask = np.uint64(1)
    while mask < np.uint64(count):
        mask = (mask << _ONE) | _ONE
    for i in range(count - 1, 0, -1):
        largest = np.uint64(i)
        while mask >> _ONE >= largest:
            mask >>= _ONE
        drawn = next_uint32(stream) & mask
        while drawn > largest:  # NumPy's shuffle rejects draws; it does not use the method of `below`
            drawn = next_uint32(stream) & mask
        values[i], values[drawn] = values[drawn], values[i]


# ---- the normal distribution (Marsaglia and Tsang 2000: 256 layers of equal area under exp(-x**2 / 2)) ----

_DRAWS = 2.0**52  # a layer is cut into this many steps


def _layer_steps() -> npt.NDArray[np.float64]:
    """The width of a step in each layer, read off NumPy's own generator.

    PCG64's state can be set so that its next output is any given 64 bits. For the bits that encode layer i and step 1,
    ``standard_normal`` returns exactly the width of one step of layer i.
    """
    bits = np.random.PCG64(0)
    state = bits.state
    multiplier = (int(_MULTIPLIER_HIGH) << 64) | int(_MULTIPLIER_LOW)
    backwards, modulus = pow(multiplier, -1, 2**128), 2**128
    widths = np.empty(256)
    for layer in range(256):
        wanted = (1 << 9) | layer  # a state below 2**64 outputs itself
        state["state"]["state"] = (wanted - state["state"]["inc"]) * backwards % modulus
        bits.state = state
        widths[layer] = np.random.Generator(bits).standard_normal()
    return widths


_WIDTH = _layer_steps()
_EDGE = _WIDTH * _DRAWS
_TAIL = float(_EDGE[255])
_PER_TAIL = 1 / _TAIL
# A step below this bound is inside the next layer's edge, so its x is accepted at once. Layer 0 includes the tail.
_INSIDE = np.append(_WIDTH[255], np.append(0.0, _WIDTH[1:255])) / _WIDTH * _DRAWS
_HEIGHT = np.append(1.0, np.exp(-0.5 * _EDGE[1:] ** 2))


@compiled
def standard_normal(stream: Any) -> float:
    """``Generator.standard_normal()``."""
    while True:
        bits = next_uint64(stream)
        layer = np.int64(bits & np.uint64(0xFF))
        negative = (bits >> np.uint64(8)) & _ONE
        step = np.float64((bits >> np.uint64(9)) & np.uint64(0x000FFFFFFFFFFFFF))
        x = step * _WIDTH[layer]
        if negative:
            x = -x
        if step < _INSIDE[layer]:
            return x
        if layer == 0:
            while True:
                beyond = -_PER_TAIL * np.log1p(-random(stream))
                height = -np.log1p(-random(stream))
                if height + height > beyond * beyond:
                    # NumPy takes the sign of the tail from another bit of the draw.
                    return -(_TAIL + beyond) if (bits >> np.uint64(17)) & _ONE else _TAIL + beyond
        below_edge = (_HEIGHT[layer - 1] - _HEIGHT[layer]) * random(stream) + _HEIGHT[layer]
        if below_edge < np.exp(-0.5 * x * x):
            return x
