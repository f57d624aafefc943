"""Upstream's skills with steps at half the cost and bit-identical results.

An upstream step spends most of its time outside MuJoCo: in loops over contacts as Python objects, in looking up bodies
by name, and in rotations, norms and reward helpers that are made for arrays. :func:`faster` makes a subclass of a
skill's class that replaces these parts. The reward functions themselves keep upstream's code and only call faster
helpers of the same names; one of them, shared by most skills, is rewritten (:data:`_REWRITTEN`).
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


_HAND_DOWN = np.array([1, 0, 1, 0])
_clip = np.clip if not hasattr(np, "_core") else np._core.umath.clip  # np.clip without its checks


def _norm(x: Any, *arguments: Any, **options: Any) -> Any:
    """``np.linalg.norm`` of a vector of floats by the same formula, without its checks."""
    if arguments or options or type(x) is not np.ndarray or x.ndim != 1 or x.dtype != np.float64:
        return np.linalg.norm(x, *arguments, **options)
    return np.sqrt(x.dot(x))


def _tolerance_of(upstream: Callable[..., Any]) -> Callable[..., Any]:
    def tolerance(
        x: Any,
        bounds: tuple[float, float] = (0.0, 0.0),
        margin: Any = 0.0,
        sigmoid: str = "gaussian",
        value_at_margin: float = 0.1,
    ) -> Any:
        if sigmoid != "long_tail" or not isinstance(x, float) or not margin > 0 or bounds[0] > bounds[1]:
            return upstream(x, bounds, margin, sigmoid, value_at_margin)
        lower, upper = bounds
        if lower <= x <= upper:
            return 1.0
        distance = float((lower - x if x < lower else x - upper) / margin)
        scaled = distance * float(np.sqrt(1 / value_at_margin - 1)) if value_at_margin != 0.1 else distance * 3.0
        return 1 / (scaled**2 + 1)

    return tolerance


class _Rotations:
    """``Rotation.from_matrix(m).as_quat()`` by scipy's own compiled functions, without the object between them.

    MuJoCo computes its matrices from unit quaternions, so they are valid and are not checked.
    """

    def __init__(self, upstream: Any) -> None:
        self._upstream = upstream
        try:
            from scipy.spatial.transform import _rotation_cy

            self._compiled: Any = _rotation_cy
            turned = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
            known = np.array_equal(self._quaternion(turned), upstream.from_matrix(turned).as_quat())
        except (ImportError, AttributeError, TypeError, ValueError):
            known = False
        if not known:
            self._compiled = None

    def _quaternion(self, matrix: Vector) -> Vector:
        turned: Vector = self._compiled.as_quat(self._compiled.from_matrix(matrix[None], assume_valid=True))[0]
        return turned

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upstream, name)

    def from_matrix(self, matrix: Vector) -> Any:
        if self._compiled is None or matrix.shape != (3, 3):
            return self._upstream.from_matrix(matrix)
        return _Quaternion(self._quaternion(matrix))


class _Quaternion:
    def __init__(self, quaternion: Vector) -> None:
        self._quaternion = quaternion

    def as_quat(self) -> Vector:
        return self._quaternion


@lru_cache(maxsize=1)
def _helpers() -> dict[str, Any]:
    """Faster helpers, by the names that upstream's modules use."""
    from metaworld.utils import reward_utils
    from scipy.spatial.transform import Rotation

    numpy = types.SimpleNamespace(**{name: getattr(np, name) for name in dir(np) if not name.startswith("__")})
    numpy.linalg = types.SimpleNamespace(norm=_norm)
    rewards = types.SimpleNamespace(**vars(reward_utils))
    rewards.tolerance = _tolerance_of(reward_utils.tolerance)
    return {"np": numpy, "reward_utils": rewards, "Rotation": _Rotations(Rotation)}


def _caging_reward(
    self: Any,
    action: npt.NDArray[np.float32],
    obj_pos: Vector,
    obj_radius: float,
    pad_success_thresh: float,
    object_reach_radius: float,
    xz_thresh: float,
    desired_gripper_effort: float = 1.0,
    high_density: bool = False,
    medium_density: bool = False,
) -> Any:
    """Upstream's ``_gripper_caging_reward``, the reward of most skills for grasping, computed with scalars."""
    if high_density and medium_density:
        raise ValueError("Can only be either high_density or medium_density")
    rewards = _helpers()["reward_utils"]
    begun, tip = self.obj_init_pos, self.tcp_center
    sides = []
    for name in ("leftpad", "rightpad"):
        pad = self.get_body_com(name)[1]
        margin = abs(abs(pad - begun[1]) - pad_success_thresh)
        bounds = obj_radius, pad_success_thresh
        sides.append(rewards.tolerance(abs(pad - obj_pos[1]), bounds=bounds, margin=margin, sigmoid="long_tail"))
    margin = _apart_in_x_and_z(begun, self.init_tcp) - xz_thresh
    near = rewards.tolerance(_apart_in_x_and_z(tip, obj_pos), bounds=(0, xz_thresh), margin=margin, sigmoid="long_tail")
    closed = min(max(0, action[-1]), desired_gripper_effort) / desired_gripper_effort
    caging = rewards.hamacher_product(rewards.hamacher_product(*sides), float(near))
    reward = rewards.hamacher_product(caging, closed if caging > 0.97 else 0.0)
    if high_density:
        reward = (reward + caging) / 2
    if medium_density:
        margin = abs(_norm(begun - self.init_tcp) - object_reach_radius)
        bounds = 0, object_reach_radius
        reach = rewards.tolerance(_norm(obj_pos - tip), bounds=bounds, margin=margin, sigmoid="long_tail")
        reward = (reward + float(reach)) / 2
    return reward


def _apart_in_x_and_z(one: Vector, other: Vector) -> Any:
    apart = np.empty(2)
    apart[0], apart[1] = one[0] - other[0], one[2] - other[2]
    return _norm(apart)


#: Rewritten methods of the skills' base class, by name. Skills that override one keep their own.
_REWRITTEN = {"_gripper_caging_reward": _caging_reward}


def _with_helpers(function: Any) -> Any:
    """A copy of an upstream function that calls the faster helpers; None if it calls none of them."""
    if isinstance(function, types.FunctionType) and function.__name__ == "inner" and function.__closure__:
        # Unwrap the decorator `assert_task_is_set`: here tasks are always set.
        cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
        function = cells["func"].cell_contents
    if not isinstance(function, types.FunctionType) or not set(function.__code__.co_names) & set(_helpers()):
        return None
    bound = types.FunctionType(
        function.__code__,
        {**function.__globals__, **_helpers()},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    bound.__kwdefaults__ = function.__kwdefaults__
    return bound


class _Faster:
    """Methods of the skills' base class (``sawyer_xyz_env.py``) that look up names only once."""

    model: Any
    data: Any
    curr_path_length: int
    max_path_length: int
    action_scale: float
    frame_skip: int
    mocap_low: Vector
    mocap_high: Vector
    sawyer_observation_space: Any
    _target_site_config: list[tuple[str, Vector]]
    _partially_observable: bool
    _prev_obs: Vector
    _get_pos_goal: Callable[[], Vector]
    _get_pos_objects: Callable[[], Vector]
    _get_quat_objects: Callable[[], Vector]
    evaluate_state: Callable[..., tuple[Any, dict[str, Any]]]

    @cached_property
    def _ids(self) -> dict[str, Any]:
        model = self.model
        ids = {name: model.body(name).id for name in ("hand", "rightclaw", "leftclaw")}
        ids |= {name: model.site(name).id for name in ("rightEndEffector", "leftEndEffector")}
        ids |= {name: model.geom(name).id for name in ("leftpad_geom", "rightpad_geom")}
        return {**ids, "body": {}, "site": {}}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Vector, Any, bool, bool, dict[str, Any]]:
        if self.curr_path_length >= self.max_path_length:
            raise ValueError("You must reset the env manually once truncate==True")
        moved = self.data.mocap_pos + (_clip(action[:3], -1, 1) * self.action_scale)[None]
        moved[0, :] = _clip(moved[0, :], self.mocap_low, self.mocap_high)
        self.data.mocap_pos = moved
        self.data.mocap_quat = _HAND_DOWN
        self.do_simulation([action[-1], -action[-1]], n_frames=self.frame_skip)
        self.curr_path_length += 1
        for site in self._target_site_config:
            self._set_pos_site(*site)
        mujoco.mj_forward(self.model, self.data)
        space = self.sawyer_observation_space
        self._last_stable_obs = _clip(self._get_obs(), space.low, space.high)
        reward, info = self.evaluate_state(self._last_stable_obs, action)
        return self._last_stable_obs.copy(), reward, False, self.curr_path_length == self.max_path_length, info

    def _get_obs(self) -> Vector:
        observation = np.zeros(39)
        now = self._get_curr_obs_combined_no_goal()
        observation[:18], observation[18:36] = now, self._prev_obs
        if not self._partially_observable:
            observation[36:] = self._get_pos_goal()
        self._prev_obs = now
        return observation

    def _get_curr_obs_combined_no_goal(self) -> Vector:
        ids, positions = self._ids, self.data.xpos
        now = np.zeros(18)
        now[:3] = self.get_endeff_pos()
        apart = _norm(positions[ids["rightclaw"]] - positions[ids["leftclaw"]])
        now[3] = min(max(apart / 0.1, 0.0), 1.0)
        objects, turns = self._get_pos_objects(), self._get_quat_objects()
        for i in range(len(objects) // 3):
            now[4 + 7 * i : 7 + 7 * i] = objects[3 * i : 3 * i + 3]
            now[7 + 7 * i : 11 + 7 * i] = turns[4 * i : 4 * i + 4]
        return now

    def get_body_com(self, body_name: str) -> Vector:
        bodies = self._ids["body"]
        if body_name not in bodies:
            bodies[body_name] = self.model.body(body_name).id
        position: Vector = self.data.xpos[bodies[body_name]]
        return position

    def get_endeff_pos(self) -> Vector:
        position: Vector = self.data.xpos[self._ids["hand"]]
        return position

    @property
    def tcp_center(self) -> Vector:
        ids, positions = self._ids, self.data.site_xpos
        center: Vector = (positions[ids["rightEndEffector"]] + positions[ids["leftEndEffector"]]) / 2.0
        return center

    def _set_pos_site(self, name: str, pos: Vector) -> None:
        sites = self._ids["site"]
        if name not in sites:
            sites[name] = self.model.site(name).id
        self.data.site_xpos[sites[name]] = pos[:3]

    def touching_object(self, object_geom_id: int) -> bool:
        contact = self.data.contact
        first, second = contact.geom1.tolist(), contact.geom2.tolist()
        pads = self._ids["leftpad_geom"], self._ids["rightpad_geom"]
        forces: tuple[list[Any], list[Any]] = [], []
        for row, pair in enumerate(zip(first, second, strict=True)):
            if object_geom_id in pair:
                for pad, found in zip(pads, forces, strict=True):
                    if pad in pair:
                        found.append(self.data.efc_force[contact.efc_address[row]])
        return bool(sum(forces[0]) > 0 and sum(forces[1]) > 0)

    def do_simulation(self, ctrl: Any, n_frames: int) -> None:
        """As upstream, but without ``mj_rnePostConstraint``, whose results nothing here reads."""
        self.data.ctrl[:] = ctrl
        mujoco.mj_step(self.model, self.data, nstep=n_frames)


@lru_cache
def faster(skill: type) -> type:
    """A subclass of an upstream skill's class that does the same in less time."""
    methods: dict[str, Any] = {}
    for base in reversed(skill.__mro__):
        if base.__module__.startswith("metaworld."):
            for name, function in vars(base).items():
                if base.__module__ == "metaworld.sawyer_xyz_env" and name in _REWRITTEN:
                    methods[name] = _REWRITTEN[name]
                elif name not in vars(_Faster) and (bound := _with_helpers(function)) is not None:
                    methods[name] = bound
                else:
                    methods.pop(name, None)  # overridden by a method that calls no helper
    return type(f"Faster{skill.__name__}", (_Faster, skill), methods)
