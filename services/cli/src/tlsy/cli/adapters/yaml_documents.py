"""YAML documents with the lines they are at; all that is wrong with a text is told at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Beside PyYAML's own errors, those of a value: a 13th month, no number, what is nested too deep.
_NOT_YAML: Final = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)


class _Loader(yaml.SafeLoader):
    """Notes keys that are in one mapping twice: of these PyYAML, silently, takes the last one.

    They are looked for before `<<` brings a mapping the keys of others, which its own may replace.
    """

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self.repeated: list[tuple[int, str]] = []

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line, same = _line(key.start_mark), (key.tag, key.value)
                if same in lines:
                    self.repeated.append((line, f"{key.value!r} is there since line {lines[same]}"))
                lines.setdefault(same, line)
        return node


def documents_in(text: bytes, source: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Each document with its place, `source:line`; what is wrong goes to `problems`, with its place too."""
    line = 1
    try:
        loader = _Loader(text)
        while loader.check_node() and (node := loader.get_node()):
            line = _line(node.start_mark)
            problems += [f"{source}:{at}: {what}" for at, what in loader.repeated]
            if not loader.repeated:
                yield f"{source}:{line}", loader.construct_document(node)
            loader.repeated.clear()
    except _NOT_YAML as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        why = error.problem if isinstance(error, yaml.MarkedYAMLError) else " ".join(str(error).split())
        problems.append(f"{source}:{_line(mark) if mark else line}: is not YAML: {why}")


def _line(mark: yaml.Mark) -> int:
    return mark.line + 1
