"""The source files that a function of yours consists of, found without running any of them.

The driver needs them for a stage's fingerprint, and importing a module that loads a model would take seconds and memory
there.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.edge import ConfigError
from data_pipeline import fingerprint

_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))


def version(entry: str, folder: str) -> list[Any]:
    """What tells one version of a function from another, as plain data.

    The sources of its module and of all local modules that these import; the version of the distribution where the module
    is installed. Other files, such as a model, do not count: a constant `VERSION` in the module is there to be raised.

    Raises:
        ConfigError: there is no such module.
    """
    module = entry.partition(":")[0]
    top = module.partition(".")[0]
    distributions = importlib.metadata.packages_distributions().get(top, [])
    installed = {d: importlib.metadata.version(d) for d in sorted(set(distributions))}
    hashes = {name: fingerprint.of_content(file) for name, file in local_files(module, entry, folder).items()}
    return [entry, hashes, installed]


def local_files(module: str, entry: str, folder: str) -> dict[str, Path]:
    """Dotted name → source file of a module, of the packages around it, and of local modules that any of them import.

    Local is what lies beside the module or in the working folder; of an installed package, the package itself.
    """
    top = module.partition(".")[0]
    first = _top(top, entry, folder)
    roots = [first] if first == Path(folder) else [first, Path(folder)]
    only = top if any(first.resolve().is_relative_to(p) for p in _INSTALLED) else None
    if only is not None:
        roots = [first]
    if not _files(module, roots) or module not in _files(module, roots):
        raise ConfigError(f"`signals.functions`: there is no module `{module}` (of `{entry}`) below {first}")
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        for name, file in _files(waiting.pop(), roots).items():
            if name in found or (only is not None and name.partition(".")[0] != only):
                continue
            found[name] = file
            waiting += _imports(name, file)
    return dict(sorted(found.items()))


def _top(top: str, entry: str, folder: str) -> Path:
    """The folder that a top-level module lies in."""
    spec = importlib.util.find_spec(top) if top not in sys.modules else sys.modules[top].__spec__
    if spec is None:
        spec = importlib.machinery.PathFinder.find_spec(top, [folder])
    if spec is None:
        raise ConfigError(
            f"`signals.functions`: there is no module `{top}` (of `{entry}`); searched Python's path and {folder}"
        )
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).parent
    if spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"`signals.functions`: `{top}` (of `{entry}`) is no module with a file")
    return Path(spec.origin).parent


def _files(module: str, roots: list[Path]) -> dict[str, Path]:
    """The files of a dotted name and of the packages that it lies in; none for what is not local."""
    parts = module.split(".")
    for root in roots:
        found: dict[str, Path] = {}
        for n in range(1, len(parts) + 1):
            base = root.joinpath(*parts[:n])
            for file in (base / "__init__.py", base.with_name(base.name + ".py"), *_compiled(base)):
                if file.is_file():
                    found[".".join(parts[:n])] = file
                    break
            else:
                if not base.is_dir():  # not a module but a name inside one
                    break
        if found:
            return found
    return {}


def _compiled(base: Path) -> Iterator[Path]:
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        yield base.with_name(base.name + suffix)


def _imports(name: str, file: Path) -> Iterator[str]:
    """Absolute names of what a module imports, in functions too."""
    if file.suffix != ".py":
        return
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return  # importing it will say so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" if module else alias.name for alias in node.names)
