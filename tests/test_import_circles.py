"""No file of the five rooms imports itself, directly or through other files.

An import inside a function counts, as it is a dependency all the same; one under
``if TYPE_CHECKING`` does not, as it never runs.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("pipelines", "model", "tokenizer", "dataprep", "orchestration")


def modules() -> dict[str, Path]:
    """File of every module by its dotted name; a package is its ``__init__.py``."""
    found = {}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield every import statement below a node, except those under ``if TYPE_CHECKING``."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for child in node.orelse:
            yield from imports(child)
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from imports(child)


def imported(path: Path, names: dict[str, Path]) -> set[str]:
    """Modules among ``names`` that a file imports."""
    found = set()
    for statement in imports(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
            continue
        assert statement.level == 0 and statement.module, f"{path}: a relative import"
        for alias in statement.names:
            inner = f"{statement.module}.{alias.name}"
            found.add(inner if inner in names else statement.module)
    return found & names.keys()


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the names along one circle of the graph, or an empty list if it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_file_imports_itself_through_others():
    names = modules()
    graph = {name: imported(path, names) - {name} for name, path in names.items()}
    assert sum(map(len, graph.values())) > len(graph)  # the imports were found
    assert not circle(graph), " -> ".join(circle(graph))


def test_a_circle_inside_functions_is_found_and_one_for_types_is_not(tmp_path):
    names = {name: tmp_path / f"{name}.py" for name in ("a", "b", "c")}
    names["a"].write_text("def f():\n    from b import x\n")
    names["b"].write_text("import c\n")
    names["c"].write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\n")
    graph = {name: imported(path, names) for name, path in names.items()}
    assert graph == {"a": {"b"}, "b": {"c"}, "c": set()} and not circle(graph)
    names["c"].write_text("try:\n    pass\nfinally:\n    import a\n")
    graph["c"] = imported(names["c"], names)
    assert set(circle(graph)) == {"a", "b", "c"}
