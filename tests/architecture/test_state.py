"""No module keeps state: what a module holds at its top level can never change.

A top-level name may hold
- a literal, a tuple, a frozenset, a MappingProxyType, or an expression of such;
- what `IMMUTABLE_RESULTS` makes (types, patterns, dates, paths …), an enum member, a frozen dataclass or
  immutable msgspec structure or NewType of ours, a method of these (`re.compile(…).fullmatch`);
- anything whose annotation makes the type checker refuse a change: `Final[Mapping[…]]`, `Final[Sequence[…]]`,
  `Final[str]` … (see `READ_ONLY`); `Final` alone promises only that the name stays, not its content;
- a `ContextVar`: its value belongs to the running task, not to the module; a logger: a name in the process's
  registry, configured by `libs/runtime`.
`libs/runtime` is where a process keeps what it has once; the test kit's fixtures are plugins of pytest.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

import pytest

from tests.architecture.tree import at, distributions, dotted, parse, python_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

IMMUTABLE_RESULTS: Final = frozenset(
    """
    tuple frozenset MappingProxyType bytes str int float bool object min max len sum abs ord
    NewType TypeVar ParamSpec TypeVarTuple NamedTuple namedtuple Annotated get_args Field
    compile Struct Decimal Fraction UUID timedelta timezone datetime date time ZoneInfo
    Path PurePath PurePosixPath ip_network ip_address
    ContextVar itemgetter attrgetter methodcaller partial
    Encoder Decoder TypeAdapter SettingsConfigDict ConfigDict
    getLogger get_logger
    replace format join encode decode removeprefix union intersection difference
    """.split()  # noqa: SIM905 - a list of words is read more easily than a list of strings
)
READ_ONLY: Final = frozenset(  # i32Timedelta is the broker codec's timedelta
    """
    str int float bool bytes complex UUID Decimal datetime date time timedelta i32Timedelta Path PurePath
    tuple frozenset Mapping Sequence Set AbstractSet Collection Iterable Callable type TypeAlias
    """.split()  # noqa: SIM905 - a list of words is read more easily than a list of strings
)
_MUTABLE_DISPLAYS: Final = (
    ast.List,
    ast.Dict,
    ast.Set,
    ast.ListComp,
    ast.DictComp,
    ast.SetComp,
    ast.GeneratorExp,
)


def frozen_classes(paths: Iterator[Path]) -> frozenset[str]:
    """Names of the types whose values cannot change: frozen dataclasses and structures, enums, NewTypes."""
    return frozenset(
        name
        for path in paths
        for node in ast.walk(parse(path))
        for name in (_class_name(node), _new_type_name(node))
        if name
    )


def _class_name(node: ast.AST) -> str:
    return node.name if isinstance(node, ast.ClassDef) and (_is_frozen(node) or _is_value(node)) else ""


def _new_type_name(node: ast.AST) -> str:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id="NewType"))):
            return name
    return ""


def _is_frozen(node: ast.ClassDef) -> bool:
    calls = [each for each in node.decorator_list if isinstance(each, ast.Call)]
    keywords = [keyword for call in calls for keyword in call.keywords] + node.keywords
    return any(
        keyword.arg == "frozen" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        for keyword in keywords
    )


def _is_value(node: ast.ClassDef) -> bool:
    return any(
        dotted(base).split(".")[-1] in {"Enum", "StrEnum", "IntEnum", "NamedTuple"} for base in node.bases
    )


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for field in ("body", "orelse", "finalbody"):
                yield from _top_level(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _top_level(handler.body)


def _is_read_only(annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Subscript):
        name = dotted(annotation.value).split(".")[-1]
        return _is_read_only(annotation.slice) if name in {"Final", "ClassVar"} else name in READ_ONLY
    if isinstance(annotation, ast.BinOp):
        return _is_read_only(annotation.left) and _is_read_only(annotation.right)
    if isinstance(annotation, ast.Constant):
        return annotation.value is None
    return dotted(annotation).split(".")[-1] in READ_ONLY


def _can_change(value: ast.expr, frozen: Collection[str]) -> bool:
    """Whether an expression makes something with content that can change."""
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else dotted(value.func)
        if name not in IMMUTABLE_RESULTS and name not in frozen:
            return True
    return isinstance(value, _MUTABLE_DISPLAYS) or any(_can_change(part, frozen) for part in _parts(value))


def _parts(value: ast.expr) -> Sequence[ast.expr]:
    """The expressions whose content an expression's own is; arguments of a call are not among them."""
    match value:
        case ast.Call(func=ast.Attribute(value=inner)) | ast.Attribute(value=inner):
            return (inner,)
        case ast.Tuple(elts=parts) | ast.BoolOp(values=parts):
            return parts
        case ast.IfExp(body=left, orelse=right):
            return (left, right)
        case ast.BinOp(left=left):  # frozenset | set is a frozenset: the left one decides
            return (left,)
    return ()


def module_state(path: Path, frozen: Collection[str]) -> list[str]:
    """Top-level names of a module whose content can change, and functions that rebind a top-level name."""
    tree = parse(path)
    problems = []
    for node in _top_level(tree.body):
        match node:
            case ast.Assign(targets=targets, value=value):
                names = ", ".join(map(dotted, targets))
            case ast.AnnAssign(target=target, value=ast.expr() as value, annotation=annotation):
                names = "" if _is_read_only(annotation) else dotted(target)
            case ast.AugAssign(target=target, value=value):
                names = dotted(target)
            case _:
                continue
        if names not in {"", "__all__"} and _can_change(value, frozen):
            problems.append(at(path, node.lineno, f"{names} is state of the module"))
    problems += [
        at(path, node.lineno, f"rebinds {', '.join(node.names)} of the module")
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ]
    return problems


def _checked_folders() -> list[Path]:
    return [each.package for each in distributions() if each.module not in {"tlsy.runtime", "tlsy.testkit"}]


def test_no_module_keeps_state() -> None:
    frozen = frozen_classes(python_files(*(each.package for each in distributions())))
    paths = python_files(*_checked_folders())
    assert [problem for path in paths for problem in module_state(path, frozen)] == []


@pytest.mark.parametrize(
    "sample",
    [
        "cache = {}",
        "seen: Final = set()",
        "rows: list[int] = []",
        "pool = connect()",
        "if True:\n    waiting = deque()",
        "try:\n    a = 1\nexcept E:\n    names = [1]",
        "pair = (1, [])",
        "app = Typer()",
        "count = itertools.count()",
        "handle = Pool().acquire",
        "names = set().union('a')",
        "count = 0\ndef f():\n    global count\n    count += 1",
    ],
)
def test_state_of_a_module_is_found(tmp_path: Path, sample: str) -> None:
    (tmp_path / "sample.py").write_text(sample)
    assert len(module_state(tmp_path / "sample.py", frozenset())) == 1


@pytest.mark.parametrize(
    "sample",
    [
        "LIMIT: Final = 3",
        "NAMES = frozenset({'a'})",
        "MORE: Final = NAMES | {'b'}",
        "ALL: Final = frozenset().union(*TABLE.values())",
        "TABLE: Final = MappingProxyType({'a': 1})",
        "BY_NAME: Final[Mapping[str, int]] = {'a': 1}",
        "TYPE: Final[str] = audit_recorded('billing')",
        "_matches = re.compile('a').fullmatch",
        "Row = tuple[int, dict[str, int]]",
        "__all__ = ['a']",
        "def f():\n    rows = []",
        "_call: ContextVar[str] = ContextVar('call')",
        "ORIGIN: Final = Point(0, 0)",
    ],
)
def test_a_constant_is_no_state(tmp_path: Path, sample: str) -> None:
    (tmp_path / "sample.py").write_text(sample)
    assert module_state(tmp_path / "sample.py", frozenset({"Point"})) == []


def test_frozen_classes_are_told_from_others(tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text(
        "@dataclass(frozen=True, slots=True)\nclass A: ...\n@dataclass\nclass B: ...\n"
        "class C(msgspec.Struct, frozen=True): ...\nclass D(StrEnum): ...\nclass E: ...\n"
        "F = NewType('F', str)\n"
    )
    assert frozen_classes(iter([tmp_path / "sample.py"])) == {"A", "C", "D", "F"}
