"""Classes in words: which phrases are looked for, and which label each of them means.

A *query* is one phrase, a *class* one label id; a class has one query or several synonyms. The vocabulary comes from a
class-name file (one class a line, commas between synonyms) or from Python values, and goes to the text bank (queries)
and to the segmentor (query_to_class). What would silently make a class unreachable - a blank line that shifts all
labels, one word in two classes - is an error that names the line.

Source: SegEarth-OV-2 (arXiv 2508.18067), its class-name files, which all read unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from segearth.errors import ConfigError
from segearth.paths import config_folders, find_file

SYNONYM_SEPARATOR = ','
CLASS_SEPARATOR = ';'  # between classes that are given as one string, on a command line


@dataclass(frozen=True)
class Vocabulary:
    """Queries and the classes they stand for.

    Attributes:
        queries: Q phrases, class by class.
        query_to_class: Label id of each query, 0 to K-1, in ascending order.
        class_names: K names to show: the first word of each class.
    """

    queries: tuple[str, ...]
    query_to_class: tuple[int, ...]
    class_names: tuple[str, ...]

    @property
    def num_queries(self) -> int:
        """Number of phrases Q."""
        return len(self.queries)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    @classmethod
    def from_classes(
        cls, classes: str | Sequence[str | Sequence[str]] | Mapping[str, str | Sequence[str]]
    ) -> Vocabulary:
        """Makes a vocabulary of Python values.

        Args:
            classes: One of: "building; road; water,river"; ``['building', 'water,river', ['tree', 'forest']]``;
                ``{'water': ['river', 'lake']}``, where the key is the first word of its class.

        Raises:
            ConfigError: No classes, a class without words, or a word that is given twice.
        """
        if isinstance(classes, str):
            entries = classes.split(CLASS_SEPARATOR)
            if not entries[-1].strip():  # a closing semicolon begins no class
                entries = entries[:-1]
        elif isinstance(classes, Mapping):
            entries = [_with_name(name, words) for name, words in classes.items()]
        elif isinstance(classes, Sequence):
            entries = list(classes)
        else:
            raise ConfigError(f'classes must be a string, a list or a dict, not {type(classes).__name__}')
        return _build(
            [(f'classes, entry {number}', _words(entry)) for number, entry in enumerate(entries, 1)], 'classes'
        )


def read_vocabulary(path: str | os.PathLike[str], num_classes: int | None = None) -> Vocabulary:
    """Reads a class-name file.

    Args:
        path: Text file in UTF-8: one class a line in the order of the label ids, commas between synonyms. A name
            that is no path from here is looked for beside the configs.
        num_classes: Number of classes of the data set, which the number of lines must equal; None accepts any.

    Raises:
        MissingFileError: There is no such file.
        ConfigError: A blank line, an empty synonym, a word given twice, or another number of lines; the message names
            file and line.
    """
    file = find_file(path, config_folders(), 'class-name file', 'Write one class a line, commas between synonyms.')
    try:
        lines = file.read_text(encoding='utf-8-sig').removesuffix('\n').split('\n')
    except UnicodeDecodeError as error:
        raise ConfigError(f'{file} is no text in UTF-8 ({error}); save it as UTF-8') from error
    vocabulary = _build([(f'{file}, line {number}', _words(line)) for number, line in enumerate(lines, 1)], file)
    if num_classes is not None and vocabulary.num_classes != num_classes:
        found = vocabulary.num_classes
        where = f'line {found + 1} is missing' if found < num_classes else f'line {num_classes + 1} is one too many'
        raise ConfigError(
            f'{file} has {found} lines, but the data set has {num_classes} classes: {where}. '
            'Write one line a class, in the order of the label ids'
        )
    return vocabulary


def _words(entry: str | Iterable[str]) -> list[str]:
    items = [entry] if isinstance(entry, str) else entry
    return [' '.join(word.split()) for item in items for word in str(item).split(SYNONYM_SEPARATOR)]


def _with_name(name: str, words: str | Iterable[str]) -> list[str]:
    others = _words(words) if words else []
    return [str(name), *(word for word in others if word.casefold() != str(name).strip().casefold())]


def _build(entries: Sequence[tuple[str, list[str]]], source: object) -> Vocabulary:
    if not any(word for _, words in entries for word in words):
        raise ConfigError(f'{source}: no classes; name at least one')
    seen: dict[str, tuple[int, str]] = {}
    queries, query_to_class = [], []
    for index, (where, words) in enumerate(entries):
        if not any(words):
            raise ConfigError(f'{where} is blank; every class needs a word (a blank line would shift all labels)')
        for word in words:
            if not word:
                raise ConfigError(f'{where}: empty synonym (two commas in a row, or one at an end)')
            if word.casefold() in seen:
                other, place = seen[word.casefold()]
                kind = 'twice in one class' if other == index else f'already a word of another class ({place})'
                raise ConfigError(f'{where}: {word!r} is {kind}; give each word once')
            seen[word.casefold()] = index, where
            queries.append(word)
            query_to_class.append(index)
    return Vocabulary(tuple(queries), tuple(query_to_class), tuple(words[0] for _, words in entries))
