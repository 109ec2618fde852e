"""Mutation testing of the verifier and of recovery: small faults put into their source, each of which a test must see.

    PYTHONPATH=src:tests python tests/faults/mutants.py [--sample N] [--seed N] [FILE ...]

Comparisons are turned, conditions and arithmetic exchanged, numbers moved by one, bytes changed, statements left out.
What only words a message is left alone: names, strings and what stands in a `raise`. Each mutant runs in a forked
process with the tests that TARGETS names, until the first of them fails: with its function changed (mutants_run.py),
or, where that is not seen, with the changed module imported instead of the file. A mutant that runs out of time counts
as seen: it never ends. Survivors are printed as a place and a change. Those that are known to do the same as the file
are left out (mutants_same.py, with the reasons).
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from faults.mutants_run import PATIENCE, collected, waited
from faults.mutants_same import SAME

ROOT = Path(__file__).parents[2]
_DOORS = ("tests/doors/test_ledger_settled.py", "tests/doors/test_ledger_sqlite.py")
_BUNDLE = ("tests/verifier/test_check.py", "tests/verifier/test_hostile.py")
TARGETS: dict[str, tuple[str, ...]] = {
    "verifier/merkle.py": (
        "tests/verifier/test_edges.py",
        "tests/verifier/test_edges_joined.py",
        "tests/verifier/test_merkle.py",
    ),
    "verifier/note.py": ("tests/verifier/test_edges.py", "tests/verifier/test_receipts.py"),
    "verifier/leaves.py": (
        "tests/verifier/test_edges_read.py",
        "tests/verifier/test_edges_joined.py",
        "tests/verifier/test_leaves.py",
    ),
    "verifier/strict.py": (
        "tests/verifier/test_edges_read.py",
        "tests/verifier/test_edges_words.py",
        "tests/verifier/test_strict.py",
    ),
    "verifier/manifest.py": ("tests/verifier/test_edges_read.py",),
    "verifier/opened.py": (
        "tests/verifier/test_edges_read.py",
        "tests/verifier/test_edges_words.py",
        "tests/verifier/test_opened.py",
    ),
    "verifier/receipts.py": ("tests/verifier/test_edges_read.py", "tests/verifier/test_receipts.py"),
    "verifier/cosign.py": ("tests/verifier/test_cosign.py", "tests/verifier/test_edges.py"),
    "verifier/ed25519.py": ("tests/verifier/test_ed25519.py",),
    "verifier/archive.py": (
        "tests/verifier/test_edges_joined.py",
        "tests/verifier/test_edges_words.py",
        "tests/verifier/test_archive.py",
    ),
    "verifier/check.py": ("tests/verifier/test_edges_check.py", *_BUNDLE, "tests/verifier/test_sample.py"),
    "verifier/report.py": ("tests/verifier/test_edges_told.py", "tests/verifier/test_edges_words.py"),
    "verifier/command.py": ("tests/verifier/test_edges_told.py", "tests/verifier/test_edges_words.py"),
    "verifier/sample.py": ("tests/verifier/test_edges_count.py",),
    "verifier/channels.py": ("tests/verifier/test_edges_count.py", "tests/verifier/test_edges_joined.py"),
    "verifier/silence.py": ("tests/verifier/test_edges_count.py", "tests/verifier/test_edges_joined.py"),
    "verifier/erasures.py": ("tests/verifier/test_edges_count.py",),
    "verifier/demands.py": ("tests/verifier/test_edges_count.py",),
    "verifier/backend_rows.py": ("tests/verifier/test_edges_count.py", "tests/verifier/test_edges_words.py"),
    "verifier/signers.py": ("tests/verifier/test_edges_signers.py", "tests/verifier/test_signers.py"),
    "verifier/handovers.py": ("tests/verifier/test_edges_signers.py", "tests/verifier/test_handovers.py"),
    "verifier/past_heads.py": ("tests/verifier/test_edges_past.py", "tests/verifier/test_past_heads.py"),
    "verifier/policy.py": ("tests/verifier/test_policy.py", "tests/verifier/test_signers.py"),
    "verifier/besides.py": ("tests/verifier/test_edges_besides.py",),
    "verifier/witnessed.py": ("tests/verifier/test_edges_besides.py",),
    "verifier/complete.py": ("tests/verifier/test_edges_complete.py", "tests/verifier/test_complete.py"),
    "verifier/policies.py": ("tests/verifier/test_edges_policies.py",),
    "verifier/replay.py": ("tests/verifier/test_edges_replay.py", "tests/verifier/test_edges_policies.py"),
    "verifier/tokens.py": ("tests/verifier/test_edges_tokens.py",),
    "verifier/runs.py": ("tests/verifier/test_edges_runs.py", "tests/verifier/test_runs.py"),
    "verifier/walk.py": (
        "tests/verifier/test_edges_walk.py",
        "tests/verifier/test_edges_runs.py",
        "tests/verifier/test_edges_check.py",
        "tests/verifier/test_check.py",
        "tests/verifier/test_runs.py",
    ),
    "verifier/crew.py": ("tests/verifier/test_edges_crew.py", "tests/verifier/test_crew.py"),
    "doors/ledger_settled.py": ("tests/doors/test_ledger_settled.py",),
    "doors/ledger_scan.py": ("tests/doors/test_ledger_scan.py", *_DOORS[1:], "tests/doors/test_ledger_handover.py"),
    "doors/ledger_file.py": ("tests/doors/test_ledger_file.py", *_DOORS[1:]),
    "doors/ledger_sqlite.py": ("tests/doors/test_ledger_opened.py", *_DOORS[1:], "tests/ports/test_ledger_contract.py"),
}
"""Of each file the tests that are to see its mutants: few and quick ones, though others would see some of them too."""
WITHIN: dict[str, frozenset[str]] = {
    "doors/ledger_sqlite.py": frozenset({"open", "_recover", "_commit", "_fail", "_at_least", "_entering"}),
    "doors/ledger_file.py": frozenset({"checked", "signed", "connect"}),
}
"""Of these files only recovery: the functions that check and mend a ledger at its start, and that end it."""
SLOW = "not 200_000 and not bomb and not random_files and not standard_library and not nothing_else"
_SLOWER = 4
"""So many times the processor time of the unchanged tests, and a mutant is taken never to end."""
_EXAMPLES = 40
"""Of each property: what more would see is not needed, and each mutant waits for them."""
_COMPARED = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_REACHED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Mod: ast.Mult, ast.BitXor: ast.BitOr,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: where, what, and the tree that has it."""

    line: int
    what: str
    tree: ast.Module

    def same(self, file: str, lines: Sequence[str]) -> bool:
        """Whether it is known to do what the file does, so that no test could see it."""
        return (file, lines[self.line - 1].strip(), self.what) in SAME


def mutants(source: str, within: frozenset[str] = frozenset()) -> Iterator[Mutant]:
    """Every mutant of a module, or of the functions `within`."""
    count = len(list(_changes(ast.parse(source), within)))
    for number in range(count):
        tree = ast.parse(source)
        node, what, change = list(_changes(tree, within))[number]
        change()
        yield Mutant(node.lineno, what, ast.fix_missing_locations(tree))


_Change = tuple[ast.expr | ast.stmt, str, Callable[[], None]]


def _changes(tree: ast.Module, within: frozenset[str]) -> Iterator[_Change]:
    for node in _judged(tree):
        if isinstance(node, ast.FunctionDef) and (not within or node.name in within):
            for inner in _judged(node):
                yield from _of(inner)
        elif isinstance(node, ast.Assign) and not within and node in tree.body:
            for inner in ast.walk(node.value):
                yield from _of(inner)


def _judged(node: ast.AST) -> Iterator[ast.AST]:
    """What is worth a change: no annotations, no messages, no functions within functions twice."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "exc", "msg"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.JoinedStr) or not isinstance(child, ast.AST):
                continue
            yield child
            if not (isinstance(node, ast.Module | ast.ClassDef) and isinstance(child, ast.FunctionDef)):
                yield from _judged(child)


def _of(node: ast.AST) -> Iterator[_Change]:
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            other = _COMPARED[type(op)]
            yield node, f"{type(op).__name__} to {other.__name__}", _setting(node.ops, place, other())
    elif isinstance(node, ast.BoolOp):
        other_op: ast.boolop = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield node, f"{type(node.op).__name__} to {type(other_op).__name__}", _having(node, "op", other_op)
    elif isinstance(node, ast.BinOp) and type(node.op) in _REACHED:
        yield node, f"{type(node.op).__name__} to {_REACHED[type(node.op)].__name__}", _having(
            node, "op", _REACHED[type(node.op)]()
        )  # fmt: skip
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, "not left out", _becoming(node, ast.Call(
            func=ast.Name(id="bool", ctx=ast.Load()), args=[node.operand], keywords=[]
        ))  # fmt: skip
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield node, f"{node.value} to {not node.value}", _having(node, "value", not node.value)
        elif isinstance(node.value, int):
            yield node, f"{node.value} to {node.value + 1}", _having(node, "value", node.value + 1)
        elif isinstance(node.value, bytes):
            yield node, "bytes changed", _having(node, "value", node.value + b"X")
    yield from _left_out(node)


def _left_out(node: ast.AST) -> Iterator[_Change]:
    if isinstance(node, ast.Raise | ast.Continue | ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield node, f"left out: {ast.unparse(node)[:60]}", _becoming(node, ast.Pass())
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield node, f"None for: {ast.unparse(node)[:60]}", _having(node, "value", ast.Constant(None))


def _setting(items: list[ast.cmpop], place: int, item: ast.cmpop) -> Callable[[], None]:
    return lambda: items.__setitem__(place, item)


def _having(node: ast.AST, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(node, name, value)


def _becoming(node: ast.expr | ast.stmt, other: ast.AST) -> Callable[[], None]:
    def change() -> None:
        kept = copy.copy(node)
        other_fields = {"lineno": node.lineno, "col_offset": node.col_offset, **other.__dict__}
        node.__class__ = other.__class__
        node.__dict__.clear()
        node.__dict__.update(other_fields)
        del kept

    return change


class _Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module from a changed tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self, origin=str(self._path)) if name == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._path)
        exec(compile(self._tree, str(self._path), "exec"), module.__dict__)


def survives(file: str, tree: ast.Module | None, tests: Sequence[str], *, seconds: int = 300) -> bool:
    """Whether all tests pass with this tree in place of the file, within so many seconds of a processor."""
    status = 0
    for patience in PATIENCE:
        child = os.fork()
        if not child:
            _survive(file, tree, tests, (seconds, patience * seconds))
        status = os.waitpid(child, 0)[1]
        if not waited(status):
            break
    return status == 0


def _survive(file: str, tree: ast.Module | None, tests: Sequence[str], limits: tuple[int, int]) -> None:
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (limits[0], limits[0]))
        signal.alarm(limits[1])  # one that only waits uses no processor
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        if tree is not None:
            name = "onbehalf." + file.removesuffix(".py").replace("/", ".")
            sys.meta_path.insert(0, _Instead(name, ROOT / "src" / "onbehalf" / file, tree))
        code = _tested(tests)
    finally:
        os._exit(code)


def _tested(tests: Sequence[str]) -> int:
    import pytest

    _fewer_examples()
    return int(pytest.main(_options(tests)))


def _fewer_examples() -> None:
    from hypothesis import HealthCheck, Phase, settings

    made = settings.__init__

    def fewer(self: settings, *given: object, **named: object) -> None:
        if isinstance(named.get("max_examples"), int):
            named["max_examples"] = _EXAMPLES
        made(self, *given, **named)  # type: ignore[arg-type]

    settings.__init__ = fewer  # type: ignore[method-assign]
    settings.register_profile(
        "mutants", deadline=None, database=None, max_examples=_EXAMPLES, derandomize=True,
        suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate),
    )  # fmt: skip
    settings.load_profile("mutants")


def _options(tests: Sequence[str]) -> list[str]:
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--timeout", "0", "-k", SLOW]
    return [*options, *(str(ROOT / each) for each in tests)]


def _spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*")
    parser.add_argument("--sample", type=int, default=0, help="so many mutants of each file, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0, help="stop after so long")
    given = parser.parse_args()
    os.chdir(ROOT)
    for name in ("pytest", "hypothesis", "hypothesis.strategies", "nacl.signing", "cryptography", "msgspec", "orjson"):
        importlib.import_module(name)
    until = time.monotonic() + given.minutes * 60 if given.minutes else float("inf")
    _fewer_examples()
    seen = total = 0
    for file in given.files or TARGETS:
        lines = (ROOT / "src" / "onbehalf" / file).read_text(encoding="utf-8").splitlines()
        made = list(mutants("\n".join(lines), WITHIN.get(file, frozenset())))
        every = [each for each in made if not each.same(file, lines)]
        there = {(file, lines[each.line - 1].strip(), each.what) for each in made}
        for _, line, what in (each for each in SAME if each[0] == file and each not in there):
            _say(f"  {file} has no such mutant any more: {what} in `{line}`")
        chosen = random.Random(given.seed).sample(every, min(given.sample or len(every), len(every)))
        here = tried = 0
        for each, killed in _each(file, chosen):
            if killed is None:
                _say(f"{file}: its tests fail without a change, so nothing can be said")
                return 2
            tried, here = tried + 1, here + killed
            if not killed:
                _say(f"  {file}:{each.line} survived: {each.what}")
            if time.monotonic() > until:
                break
        _say(f"{file}: {here} of {tried} seen, of {len(every)} there are, beside {len(made) - len(every)} of no effect")
        seen, total = seen + here, total + tried
        if time.monotonic() > until:
            break
    _say(f"all: {seen} of {total} seen ({seen / max(total, 1):.1%})")
    return 0 if seen >= 0.9 * total else 1


def _each(file: str, chosen: Sequence[Mutant]) -> Iterator[tuple[Mutant, bool | None]]:
    """Each mutant, and whether it was seen; None where the tests fail without one."""
    path = ROOT / "src" / "onbehalf" / file
    codes = [compile(each.tree, str(path), "exec") for each in chosen]
    alone = []
    for place, killed in enumerate(collected(path, _options(TARGETS[file]), codes, slower=_SLOWER)):
        if killed is None:
            yield chosen[0], None
            return
        if killed:
            yield chosen[place], True
        else:
            alone.append(chosen[place])
    spent = _spent()
    if alone and not survives(file, None, TARGETS[file]):
        yield alone[0], None
        return
    seconds = 3 + int(_SLOWER * (_spent() - spent))
    for each in alone:
        yield each, not survives(file, each.tree, TARGETS[file], seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
