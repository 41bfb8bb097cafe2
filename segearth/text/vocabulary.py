"""Classes in words: which phrases are looked for, and which label each of them means.

A *query* is one phrase, a *class* one label id; a class has one query or several synonyms. The vocabulary comes from a
class-name file (one class a line, commas between synonyms) or from Python values, and goes to the text bank (queries)
and to the segmentor (query_to_class). What would silently make a class unreachable - a blank line that shifts all
labels, one word in two classes - is an error that names the line.

Source: SegEarth-OV-2 (arXiv 2508.18067), its class-name files, which all read unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import category, normalize

from segearth.errors import ConfigError, cut, did_you_mean, shorten
from segearth.paths import config_folders, find_file

SYNONYM_SEPARATOR = ','
CLASS_SEPARATOR = ';'  # between classes that are given as one string, on a command line
CLASS_SIGN = '='  # between a class and words that are to be tried for it
MAX_TOLD = 12  # classes in a message
MAX_WORD_LENGTH = 1000  # characters of a phrase; encoders read less than half of it
MAX_WORDS = 10_000  # of all classes together
MAX_FILE_SIZE = 4 << 20  # bytes of a class-name file
BYTE_ORDER_MARKS = {b'\xef\xbb\xbf': 'utf-8-sig', b'\xff\xfe': 'utf-16', b'\xfe\xff': 'utf-16'}
UNSEEN = ('Cc', 'Cf', 'Cs', 'Co', 'Cn')  # Unicode's categories: control and format characters, halves, no characters
JOINERS = '\u200c\u200d'  # format characters that emoji and some scripts are written with


@dataclass(frozen=True)
class Vocabulary:
    """Queries and the classes they stand for."""

    queries: tuple[str, ...]  # Q phrases, class by class
    query_to_class: tuple[int, ...]  # label id of each query, 0 to K-1, in ascending order
    class_names: tuple[str, ...]  # K names to show: the first word of each class

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    @classmethod
    def from_classes(
        cls, classes: str | Sequence[str | Sequence[str]] | Mapping[str, str | Sequence[str]]
    ) -> Vocabulary:
        """Makes a vocabulary of "building; road; water,river", of ``['building', 'water,river', ['tree', 'forest']]``
        or of ``{'water': ['river', 'lake']}``, where the key is the first word of its class.

        A ConfigError refuses no classes, a class without words, and a word that is given twice, too long or no text.
        """
        entries: list[Any]
        if isinstance(classes, str):
            entries = classes.split(CLASS_SEPARATOR)
            if not entries[-1].strip():  # a closing semicolon begins no class
                entries = entries[:-1]
        elif isinstance(classes, Mapping):
            entries = [
                _with_name(name, words, f'classes, entry {number}')
                for number, (name, words) in enumerate(classes.items(), 1)
            ]
        elif isinstance(classes, Sequence):
            entries = list(classes)
        else:
            raise ConfigError(f'classes must be a string, a list or a dict, not {type(classes).__name__}')
        places = [f'classes, entry {number}' for number in range(1, len(entries) + 1)]
        return _build([(where, _words(entry, where)) for where, entry in zip(places, entries, strict=True)], 'classes')

    def with_tried(self, tried: str | Mapping[str, str | Sequence[str]]) -> tuple[Vocabulary, tuple[int, ...]]:
        """Adds words that are to be tried, of "water=lake,pond; road=street" or ``{'water': ['lake', 'pond']}``.

        Returns the vocabulary with them, each behind the words of its class, and their places among its queries. A
        ConfigError refuses an unknown class, no word, and one that is there already, too long or no text.
        """
        if isinstance(tried, str):
            texts = tried.split(CLASS_SEPARATOR)
            parts = [text.partition(CLASS_SIGN) for text in (texts if texts[-1].strip() else texts[:-1])]
            if not parts or not all(sign for _, sign, _ in parts):
                raise ConfigError(f'--try is {cut(tried)!r}; give CLASS=WORDS, as in "water=lake,pond; road=street"')
            pairs: list[tuple[str, Any]] = [(name, words) for name, _, words in parts]
        else:
            pairs = list(tried.items())
        names = {_key(name): index for index, name in enumerate(self.class_names)}
        owners = {_key(word): index for word, index in zip(self.queries, self.query_to_class, strict=True)}
        words = [(index, word, False) for word, index in zip(self.queries, self.query_to_class, strict=True)]
        new: set[str] = set()
        for name, entry in pairs:
            name = ' '.join(str(name).split())
            index = names.get(_key(name))
            if index is None:
                hint = did_you_mean(name, self.class_names) or f' Known: {shorten(self.class_names, MAX_TOLD)}'
                raise ConfigError(f'--try names a class {cut(name)!r}, which is none.{hint}')
            for word in _words(entry, f'--try, class {name}'):
                if not word:
                    raise ConfigError(f'--try has an empty word for the class {name}; give words, commas between them')
                if _key(word) in owners:
                    owner = self.class_names[owners[_key(word)]]
                    if _key(word) in new:
                        raise ConfigError(f'--try has {word!r} twice, for the class {owner}; give it once')
                    raise ConfigError(f'--try: {word!r} is a word of the class {owner} already')
                owners[_key(word)] = index
                new.add(_key(word))
                words.append((index, word, True))
        words.sort(key=lambda item: item[0])  # those to be tried behind the others
        if len(words) > MAX_WORDS:
            raise ConfigError(f'{len(words)} words with those of --try; at most {MAX_WORDS} are allowed')
        places = tuple(place for place, (*_, is_tried) in enumerate(words) if is_tried)
        indices, queries, _ = zip(*words, strict=True)
        return Vocabulary(queries, indices, self.class_names), places


def read_vocabulary(path: str | os.PathLike[str], num_classes: int | None = None) -> Vocabulary:
    """Reads a class-name file: one class a line in the order of the label ids, commas between synonyms.

    The file is text in UTF-8, or UTF-16 with a byte order mark; a name that is no path from here is looked for beside
    the configs, and a MissingFileError says that there is none. A ConfigError names file and line of a blank line, an
    empty synonym, or a word given twice, too long or no text, and refuses another number of lines than the data set has
    classes (None accepts any).
    """
    file = find_file(path, config_folders(), 'class-name file', 'Write one class a line, commas between synonyms.')
    lines = read_class_text(file).removesuffix('\n').split('\n')
    places = [f'{file}, line {number}' for number in range(1, len(lines) + 1)]
    vocabulary = _build([(where, _words(line, where)) for where, line in zip(places, lines, strict=True)], file)
    if num_classes is not None and vocabulary.num_classes != num_classes:
        found = vocabulary.num_classes
        where = f'line {found + 1} is missing' if found < num_classes else f'line {num_classes + 1} is one too many'
        raise ConfigError(
            f'{file} has {found} lines, but the data set has {num_classes} classes: {where}. '
            'Write one line a class, in the order of the label ids'
        )
    return vocabulary


def read_class_text(file: Path) -> str:
    """The text of a class-name file, its lines ended by line feeds, without a byte order mark.

    A ConfigError says that it cannot be read, is very large, or is no text.
    """
    try:
        with file.open('rb') as stream:
            data = stream.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise ConfigError(f'{file} cannot be read: {error.strerror}') from error
    if len(data) > MAX_FILE_SIZE:
        raise ConfigError(f'{file} is no class-name file: it is larger than {MAX_FILE_SIZE >> 20} MB')
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), 'utf-8')
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(f'{file} is no text in UTF-8 ({error}); save it as UTF-8') from error
    return text.replace('\r\n', '\n').replace('\r', '\n')


def _words(entry: object, where: str) -> list[str]:
    """The words of one class, checked: composed (NFC), with single spaces."""
    items = [entry] if isinstance(entry, str) else entry
    if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
        raise ConfigError(f'{where} is {cut(repr(entry))}; expected words: a text, or a list of texts')
    words = [' '.join(normalize('NFC', word).split()) for item in items for word in item.split(SYNONYM_SEPARATOR)]
    for word in words:
        if len(word) > MAX_WORD_LENGTH:
            raise ConfigError(
                f'{where}: a phrase of {len(word)} characters, {cut(word)!r}; at most {MAX_WORD_LENGTH} are allowed'
            )
        unseen = sorted({f'U+{ord(char):04X}' for char in word if category(char) in UNSEEN and char not in JOINERS})
        if unseen or (word and not word.strip(JOINERS)):
            raise ConfigError(
                f'{where}: {cut(word)!r} holds {", ".join(unseen[:4]) or "joiners only"}: no text; remove it'
            )
        if CLASS_SEPARATOR in word:
            raise ConfigError(
                f'{where}: {cut(word)!r} holds {CLASS_SEPARATOR!r}; give each class an entry of its own'
            )
    return words


def _with_name(name: object, words: object, where: str) -> list[str]:
    names = _words(name, where)
    others = _words(words, where) if words else []
    return [*names, *(word for word in others if _key(word) != _key(names[0]))]


def _key(word: str) -> str:
    """What two spellings of one word have in common: letters, not their case or width."""
    return normalize('NFKC', word).casefold()


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
            if _key(word) in seen:
                other, place = seen[_key(word)]
                kind = 'twice in one class' if other == index else f'already a word of another class ({place})'
                raise ConfigError(f'{where}: {word!r} is {kind}; give each word once')
            seen[_key(word)] = index, where
            queries.append(word)
            query_to_class.append(index)
    if len(queries) > MAX_WORDS:
        raise ConfigError(f'{source}: {len(queries)} words; at most {MAX_WORDS} are allowed')
    return Vocabulary(tuple(queries), tuple(query_to_class), tuple(words[0] for _, words in entries))
