"""A Ray cluster on this machine: a head and a second node, one CPU each."""

import contextlib
import gc
import logging
import os

import pytest

from mtbench import clusters

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
posix = pytest.mark.skipif(os.name != "posix", reason="Ray's local clusters")

STORE = 80 * 2**20  # bytes of each node's object store, about the least that Ray takes


@contextlib.contextmanager
def two_nodes():
    logging.getLogger("ray").setLevel(logging.ERROR)
    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=1, object_store_memory=STORE)
    try:
        yield made
    finally:
        made.shutdown()
        _free_clients()


def _free_clients():
    """Free the clients of nodes that have ended, which Ray's exit handlers keep.

    From Python 3.13 on, a process that multiprocessing forks drops the exit handlers that it inherits. Freeing a client
    there hangs or ends that process, and later tests fork.
    """
    for each in gc.get_objects():
        if type(each) is ray._private.node.Node:
            each._gcs_client = None


@contextlib.contextmanager
def joining(made):
    """What connects this process to a cluster, unless it is, until the end. Ray may crash where it begins often."""
    with contextlib.ExitStack() as stack:

        def join():
            if not ray.is_initialized():
                stack.enter_context(clusters.joined(made.address))

        yield join
