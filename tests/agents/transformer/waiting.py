"""Find operations that make a GPU wait for the host, on a machine without one."""

import torch
from mtbench_agents.transformer.throughput import VIEWS
from torch.utils._python_dispatch import TorchDispatchMode

# They return numbers to Python, or tensors whose size depends on values.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero", "item"}


class NothingWaits(TorchDispatchMode):
    """Raises at an operation that waits; counts the others, views aside."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        assert name not in WAITING, f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{name} by a mask waits for the device"
        self.operations += name not in VIEWS
        return function(*args, **(kwargs or {}))
