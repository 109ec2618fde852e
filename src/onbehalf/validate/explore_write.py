"""One SELECT of a model's, written anew from the few kinds of words that may stand in one.

sqlglot only reads; not a character of what was sent is passed on. Each kind of node has a function here that says which
of its parts it knows and writes them; a kind without one, and a part that is not known, is refused by name. Names are
lower case and always quoted, texts are bound and never written, whole numbers and decimals are written again from their
digits. Tables are those that the caller gives, under names of ours. Must not know policies or tenants.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from sqlglot import exp

from onbehalf.validate.explore_values import WRITE
from onbehalf.validate.explore_words import kind, known, refused
from onbehalf.validate.pushdown_sql import Dialect

__all__ = ["Writer"]

_SETS: Mapping[type[exp.Expression], str] = {exp.Union: "UNION", exp.Intersect: "INTERSECT", exp.Except: "EXCEPT"}

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_MAX_NODES = 600
_MAX_DEPTH = 60
_MAX_JOINED = 8
_JOINS = {("", ""): "JOIN", ("", "INNER"): "JOIN", ("", "CROSS"): "CROSS JOIN"} | {
    (side, kind): f"{side} JOIN" for side in ("LEFT", "RIGHT", "FULL") for kind in ("", "OUTER")
}


class Writer:
    """Writes one statement. `tables` are the known ones with their columns; `used` those that were named."""

    def __init__(self, dialect: Dialect, tables: Mapping[str, tuple[str, ...]]) -> None:
        self.dialect = dialect
        self.tables = tables
        self.used: dict[str, None] = {}
        self.parameters: dict[str, str] = {}
        self._common: dict[str, str] = {}
        self._columns: set[str] = {column for columns in tables.values() for column in columns}
        self._nodes = self._depth = self._joined = 0

    def statement(self, tree: exp.Expression) -> tuple[list[str], str]:
        """The common table expressions, each as it stands in a WITH, and the query. Raises ArgumentsRefused."""
        self._columns |= {self.name(each.args.get("alias")) for each in tree.find_all(exp.Alias)}
        found = tree.args.get("with_")
        common: list[str] = []
        if found is not None:
            known(found, "expressions")
            for each in found.args["expressions"]:
                common.append(self._one_common(each))
        return common, self.query(tree, top=True)

    def _one_common(self, node: exp.Expression) -> str:
        known(node, "this", "alias")
        alias = node.args.get("alias")
        known(alias, "this")
        name = self.name(alias.args.get("this") if alias is not None else None)
        if name in self.tables or name in self._common:
            raise refused(f"`{name}` stands for two things")
        written = self.query(node.args["this"])  # before its name is known: none may name itself
        self._common[name] = f"onbehalf_with_{len(self._common)}"
        return f'"{self._common[name]}" AS ({written})'

    # --- queries ---------------------------------------------------------------------------

    def query(self, node: exp.Expression | None, *, top: bool = False) -> str:
        """A SELECT, or several put together."""
        self._count(node)
        with_ = ("with_",) if top else ()
        if isinstance(node, exp.Select):
            return self._select(node, with_)
        if isinstance(node, exp.Subquery) and not node.args.get("alias"):
            known(node, "this")
            return self.query(node.args["this"])
        word = None if node is None else _SETS.get(type(node))
        if node is None or word is None:
            raise refused(f"{kind(node)} is not a SELECT")
        known(node, "this", "expression", "distinct", "order", "limit", "offset", *with_)
        if word != "UNION" and node.args.get("distinct") is False:
            raise refused(f"{word} ALL may not stand here")
        whole = "" if node.args.get("distinct") else " ALL"
        one, other = self.query(node.args["this"]), self.query(node.args["expression"])
        # SQLite has no brackets around the parts of a UNION
        parts = f'SELECT * FROM ({one}) AS "onbehalf_one" {word}{whole} SELECT * FROM ({other}) AS "onbehalf_other"'  # noqa: S608
        return parts + self._tail(node)

    def _select(self, node: exp.Select, with_: tuple[str, ...]) -> str:
        known(
            node, "expressions", "distinct", "from_", "joins", "where", "group", "having", "order", "limit", "offset",
            *with_,
        )  # fmt: skip
        distinct = node.args.get("distinct")
        if distinct is not None:
            known(distinct)
        text = f"SELECT {'DISTINCT ' if distinct is not None else ''}{self.all(node.args['expressions'], self.item)}"
        if (found := node.args.get("from_")) is not None:
            known(found, "this")
            text += f" FROM {self.source(found.args['this'])}"
        for join in node.args.get("joins") or ():
            text += self._join(join)
        for word, name in (("WHERE", "where"), ("HAVING", "having")):
            if name == "having" and (group := node.args.get("group")) is not None:
                known(group, "expressions")
                text += f" GROUP BY {self.all(group.args.get('expressions') or (), self.expression)}"
            if (found := node.args.get(name)) is not None:
                known(found, "this")
                text += f" {word} {self.expression(found.args['this'])}"
        return text + self._tail(node)

    def _tail(self, node: exp.Expression) -> str:
        text = ""
        if (order := node.args.get("order")) is not None:
            known(order, "expressions")
            text += f" ORDER BY {self.all(order.args['expressions'], self._ordered)}"
        for word, name in (("LIMIT", "limit"), ("OFFSET", "offset")):
            if (found := node.args.get(name)) is not None:
                known(found, "expression")
                text += f" {word} {_whole(found.args['expression'], word)}"
        if " OFFSET " in text and " LIMIT " not in text:
            raise refused("an OFFSET needs a LIMIT")
        return text

    def _ordered(self, node: exp.Expression) -> str:
        known(node, "this", "desc", "nulls_first")
        where = "FIRST" if node.args.get("nulls_first") else "LAST"
        return f"{self.expression(node.args['this'])} {'DESC' if node.args.get('desc') else 'ASC'} NULLS {where}"

    def _join(self, node: exp.Expression) -> str:
        known(node, "this", "side", "kind", "on", "using")
        how = _JOINS.get((str(node.args.get("side") or "").upper(), str(node.args.get("kind") or "").upper()))
        if how is None:
            raise refused("this kind of join may not stand here")
        text = f" {how} {self.source(node.args['this'])}"
        on, using = node.args.get("on"), node.args.get("using")
        if on is not None:
            return f"{text.replace(' CROSS JOIN', ' JOIN', 1)} ON {self.expression(on)}"
        if using:
            return f"{text} USING ({', '.join(self.column(self.name(each)) for each in using)})"
        return text.replace(" JOIN", " CROSS JOIN", 1) if how == "JOIN" else text

    def source(self, node: exp.Expression | None) -> str:
        """What stands in a FROM: a known table, a common one, or a query of its own."""
        self._count(node)
        if isinstance(node, exp.Subquery):
            known(node, "this", "alias")
            alias = self._alias(node)
            if not alias:
                raise refused("a query in FROM needs a name")
            return f'({self.query(node.args["this"])}) AS "{alias}"'
        if not isinstance(node, exp.Table):
            raise refused(f"{kind(node)} may not stand in FROM")
        known(node, "this", "alias")
        name = self.name(node.args.get("this"))
        alias = self._alias(node) or name
        if name in self._common:
            return f'"{self._common[name]}" AS "{alias}"'
        if name not in self.tables:
            raise refused(f"there is no table `{name}`", f"there are {', '.join(f'`{each}`' for each in self.tables)}")
        self.used[name] = None
        return f'"onbehalf_{name}" AS "{alias}"'

    def _alias(self, node: exp.Expression) -> str:
        alias = node.args.get("alias")
        if alias is None:
            return ""
        known(alias, "this")
        return self.name(alias.args.get("this"))

    # --- expressions -----------------------------------------------------------------------

    def item(self, node: exp.Expression | None) -> str:
        """One of what a SELECT gives."""
        if isinstance(node, exp.Star):
            known(node)
            return "*"
        if isinstance(node, exp.Column) and isinstance(node.args.get("this"), exp.Star):
            known(node, "this", "table")
            known(node.args["this"])
            return f'"{self.name(node.args.get("table"))}".*'
        if isinstance(node, exp.Alias):
            self._count(node)
            known(node, "this", "alias")
            return f'{self.expression(node.args["this"])} AS "{self.name(node.args["alias"])}"'
        return self.expression(node)

    def expression(self, node: exp.Expression | None) -> str:
        """A value."""
        self._count(node)
        write = WRITE.get(type(node)) if node is not None else None
        if node is None or write is None:
            raise refused(f"{kind(node)} may not stand here")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise refused("it is nested too deep")
        text = write(self, node)
        self._depth -= 1
        return text

    def name(self, node: object) -> str:
        """A name as we write it, without its quotes."""
        if not isinstance(node, exp.Identifier):
            raise refused("a name is missing, or is no plain name")
        known(node, "this", "quoted")
        text = str(node.args["this"])
        if not _NAME.fullmatch(text) or text.lower().startswith("onbehalf"):
            raise refused("a name is not of letters, digits and `_`")
        return text.lower()

    def column(self, name: str) -> str:
        """A column, quoted. Raises ArgumentsRefused for one that nothing here has."""
        if name not in self._columns:
            raise refused(f"there is no column `{name}`")
        # what stands in double quotes and is no column is a text to SQLite
        return f"`{name}`" if self.dialect == "sqlite" else f'"{name}"'

    def bind(self, text: str) -> str:
        """The place of a text in the statement."""
        name = f"query_{len(self.parameters)}"
        self.parameters[name] = text
        return f":{name}"

    def joined(self) -> None:
        """A text made of two: texts that double at each step would fill the memory."""
        self._joined += 1
        if self._joined > _MAX_JOINED:
            raise refused(f"more than {_MAX_JOINED} texts are joined")

    def all(self, nodes: object, write: Callable[[exp.Expression], str]) -> str:
        """Several of a kind, of which there must be one."""
        if not isinstance(nodes, list | tuple) or not nodes:
            raise refused("something is missing")
        return ", ".join(map(write, nodes))

    def _count(self, node: exp.Expression | None) -> None:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise refused("it is too long")


def _whole(node: exp.Expression, word: str) -> int:
    if not isinstance(node, exp.Literal) or node.args.get("is_string") or not str(node.args["this"]).isdigit():
        raise refused(f"{word} takes a whole number")
    return int(str(node.args["this"])[:9])
