import importlib.util
import sys

from tests.paths import ROOT


def example(name):
    """A file of ``examples/``, imported by its path: packages of others are called ``examples`` too."""
    spec = importlib.util.spec_from_file_location(f"mtbench_example_{name}", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
