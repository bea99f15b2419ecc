"""pyarrow without pandas, which the local engine's package brings along.

The first list that pyarrow turns into an array makes it import pandas, if that is installed, to see
whether the list is one of its kinds: 0.4 s and 55 MiB for each process. Whoever imports this module
has that question answered with no. What asks for pandas by name still gets it.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    """Finds that pandas is not installed."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pyarrow is to do without pandas", name=fullname)
        return None


def _answer() -> None:
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(finder)


_answer()
