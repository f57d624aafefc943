"""Our writers against Gymnasium's own flattening."""

import numpy as np
import pytest
from gymnasium import error, spaces
from gymnasium.spaces.utils import flatdim, flatten

from mtbench.spaces import WithVector, action_index, box_action, native_actions, observation_writer, stack

WRITABLE = [
    spaces.Discrete(5),
    spaces.Discrete(3, start=2),
    spaces.MultiDiscrete([3, 4, 2]),
    spaces.MultiDiscrete([3, 4], start=[1, -1]),
    spaces.Tuple((spaces.Discrete(2), spaces.Discrete(4))),
    spaces.Box(-1, 1, (3,), dtype=np.float32),
    spaces.Box(-1, 1, (2, 3), dtype=np.float64),
]


@pytest.mark.parametrize("space", WRITABLE, ids=str)
def test_written_rows_equal_gymnasiums(space):
    space.seed(0)
    write = observation_writer(space)
    assert write.size == flatdim(space)
    for _ in range(50):
        observation = space.sample()
        row = np.zeros(write.size + 3, dtype=np.float32)
        write(row, observation)
        np.testing.assert_array_equal(row[: write.size], flatten(space, observation).astype(np.float32))
        assert not row[write.size :].any()


def test_actions_of_a_box_are_numbers_within_it():
    box = spaces.Box(-1, np.array([1, 2], dtype=np.float32))
    for given in ([0, 2], np.array([0.0, 2.0]), np.array([0, 2], dtype=np.int8)):
        taken = box_action(given, box)
        assert (taken.dtype, taken.tolist()) == (np.float32, [0, 2])
    for refused in ([0, 2.5], [np.nan, 0], [0], [[0, 1]], 0.5, "left", None, {}):
        with pytest.raises(error.InvalidAction, match=r"numbers from -1.0 to 2.0 of shape \(2,\)"):
            box_action(refused, box)
    batch = spaces.Box(-1, 1, (3, 2))
    actions = np.array([[0, 1], [9, 9], [1, 1]])
    assert box_action(actions, batch, np.array([True, False, True])).tolist() == actions.tolist()
    with pytest.raises(error.InvalidAction):
        box_action(actions, batch, np.array([True, True, False]))


def test_the_bounds_of_a_box_are_actions():
    box = spaces.Box(np.array([-1, 0], dtype=np.float32), np.array([1, 2], dtype=np.float32))
    for bound in (box.low, box.high):
        assert np.array_equal(box_action(bound, box), bound)
        for step in (-1, 1):
            outside = np.nextafter(bound, step * np.float32(9))
            if not box.contains(outside):
                with pytest.raises(error.InvalidAction):
                    box_action(outside, box)


def test_other_spaces_have_no_writer():
    with pytest.raises(TypeError, match="No one-hot flattening"):
        observation_writer(spaces.Dict({"a": spaces.Discrete(2)}))


def test_native_actions_count_through_the_space():
    space = spaces.MultiDiscrete([4, 3])
    actions = native_actions(space)
    assert actions == [tuple(np.unravel_index(i, (4, 3))) for i in range(12)]
    assert native_actions(spaces.Discrete(3, start=5)) == [5, 6, 7]
    with pytest.raises(TypeError, match="cannot be flattened"):
        native_actions(spaces.Box(0, 1))
    with pytest.raises(TypeError, match="cannot be flattened"):
        native_actions(spaces.MultiDiscrete([[2, 3], [4, 5]]))


@pytest.mark.parametrize("action", [3, np.int64(3), np.array(3), np.uint8(3)])
def test_any_integer_is_an_action(action):
    index = action_index(action, 4)
    assert index == 3
    assert type(index) is int


@pytest.mark.parametrize("action", [4, -1, 1.0, "1", None, np.array([1])])
def test_nothing_else_is(action):
    with pytest.raises(error.InvalidAction, match="integer from 0 to 3"):
        action_index(action, 4)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3,), dtype=np.float32),
        spaces.Box(0, 255, (4, 4, 3), dtype=np.uint8),
        spaces.Dict({"image": spaces.Box(0, 255, (2, 2), dtype=np.uint8)}),
    ],
    ids=["vector", "image", "dict"],
)
def test_a_joined_vector_is_in_the_enlarged_space_and_can_be_split_off(space):
    space.seed(0)
    both = WithVector(space, "task", spaces.Box(0.0, 1.0, (2,), dtype=np.float32))
    observations = [space.sample() for _ in range(3)]
    labels = np.array([[0, 1], [1, 0], [0, 0]], dtype=np.float32)
    joined = [both.join(observation, label) for observation, label in zip(observations, labels, strict=True)]
    assert all(both.space.contains(each) for each in joined)
    batch = stack(both.space, joined)
    rest, split_off = both.split(batch)
    assert np.array_equal(split_off, labels)
    split_off[:] = 0.5  # both are views: engines write into them
    again = batch if isinstance(batch, np.ndarray) else batch["task"]
    assert (again[..., -2:] == 0.5).all()
    expected = stack(space, observations)
    pairs = [(rest[name], expected[name]) for name in expected] if isinstance(rest, dict) else [(rest, expected)]
    assert all(np.array_equal(one, other) for one, other in pairs)


def test_the_key_of_what_becomes_a_dict_can_be_chosen():
    image = spaces.Box(0, 255, (4, 4, 3), dtype=np.uint8)
    part = spaces.Box(0.0, 1.0, (2,), dtype=np.float32)
    assert set(WithVector(image, "task", part).space.keys()) == {"observation", "task"}
    assert set(WithVector(image, "reward", part, key="image").space.keys()) == {"image", "reward"}


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (3,), dtype=np.float64), spaces.Box(-1, 1, (3, 1))], ids=str)
def test_only_float32_vectors_are_lengthened(space):
    """Joined to another dtype, the observations would no longer be those of the space."""
    part = spaces.Box(0.0, 1.0, (2,), dtype=np.float32)
    longer = WithVector(space, "task", part)
    assert longer.space == spaces.Dict({"observation": space, "task": part})
    space.seed(0)
    assert longer.space.contains(longer.join(space.sample(), np.zeros(2, dtype=np.float32)))


def test_a_name_cannot_be_joined_twice():
    space = spaces.Dict({"task": spaces.Box(0, 1, (2,), dtype=np.float32)})
    with pytest.raises(ValueError, match="already has a key"):
        WithVector(space, "task", space["task"])


def test_stack_copies():
    space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(0, 1, (2,), dtype=np.float32)})
    rows = [{"a": i, "b": np.full(2, i / 2, dtype=np.float32)} for i in range(3)]
    batch = stack(space, rows)
    assert batch["a"].tolist() == [0, 1, 2]
    batch["b"][0] = 9
    assert rows[0]["b"].tolist() == [0, 0]
