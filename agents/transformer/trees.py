"""Observations as trees: an array, or a dict of trees by name. Batches of them are trees of batched arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """The tree of what `function` makes of each leaf, and of the leaves at its place in other trees."""
    if isinstance(tree, dict):
        return {name: tree_map(function, branch, *(other[name] for other in others)) for name, branch in tree.items()}
    return function(tree, *others)


def flat(name: str, tree: Any) -> dict[str, Any]:
    """The leaves by name, in the order of their names: of a dict called ``obs``, ``obs.image`` and so on."""
    if not isinstance(tree, dict):
        return {name: tree}
    return {path: leaf for key in sorted(tree) for path, leaf in flat(f"{name}.{key}", tree[key]).items()}


def named_map(function: Callable[[str, Any], Any], name: str, tree: Any) -> Any:
    """The tree of what `function` makes of each leaf's name, as :func:`flat` gives it, and the leaf."""
    return unflat(name, tree, {path: function(path, leaf) for path, leaf in flat(name, tree).items()})


def unflat(name: str, like: Any, leaves: Mapping[str, Any]) -> Any:
    """The tree of the form of `like` with these leaves; the reverse of :func:`flat`."""
    if not isinstance(like, dict):
        return leaves[name]
    return {key: unflat(f"{name}.{key}", branch, leaves) for key, branch in like.items()}


def leaves(tree: Any) -> list[Any]:
    """The leaves, in the order of their names."""
    return list(flat("", tree).values())
