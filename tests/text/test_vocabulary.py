import json

import pytest

from segearth.errors import ConfigError, MissingFileError
from segearth.text.vocabulary import Vocabulary, read_vocabulary


@pytest.fixture
def write(tmp_path):
    def write_file(content, encoding='utf-8'):
        path = tmp_path / 'cls_some.txt'
        path.write_bytes(content.encode(encoding))
        return path

    return write_file


@pytest.mark.parametrize('ending', ['', '\n'])
@pytest.mark.parametrize('newline', ['\n', '\r\n'])
def test_synonyms_and_line_ends(write, ending, newline):
    path = write(
        newline.join(['background', 'bareland,barren', ' road ', 'water ,  river']) + ending.replace('\n', newline)
    )
    vocabulary = read_vocabulary(path, num_classes=4)
    assert vocabulary.queries == ('background', 'bareland', 'barren', 'road', 'water', 'river')
    assert vocabulary.query_to_class == (0, 1, 1, 2, 3, 3)
    assert vocabulary.class_names == ('background', 'bareland', 'road', 'water')
    assert (len(vocabulary.queries), vocabulary.num_classes) == (6, 4)


def test_a_byte_order_mark_is_no_part_of_a_word(write):
    assert read_vocabulary(write('road\nwater', 'utf-8-sig')).queries == ('road', 'water')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', 'no classes'),
        ('\n', 'no classes'),
        ('road\n\nwater\n', 'line 2 is blank'),
        ('road\nwater\n\n', 'line 3 is blank'),
        ('road\n   \nwater', 'line 2 is blank'),
        ('road\n,\nwater', 'line 2 is blank'),
        ('road\nwater,,river\n', 'line 2: empty synonym'),
        ('road\nwater,\n', 'line 2: empty synonym'),
        (',road\nwater\n', 'line 1: empty synonym'),
        ('road\nwater,river, Water\n', "line 2: 'Water' is twice in one class"),
        ('road\nwater\nriver,road\n', "line 3: 'road' is already a word of another class .*line 1"),
    ],
)
def test_faults_name_file_and_line(write, content, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_vocabulary(write(content))
    assert 'cls_some.txt' in str(error.value)


@pytest.mark.parametrize(
    ('num_classes', 'message'),
    [(4, 'has 3 lines, but the data set has 4 classes: line 4 is missing'), (2, 'line 3 is one too many')],
)
def test_a_wrong_number_of_lines(write, num_classes, message):
    with pytest.raises(ConfigError, match=message):
        read_vocabulary(write('a\nb\nc\n'), num_classes)


def test_other_encodings_and_missing_files(write):
    with pytest.raises(ConfigError, match='UTF-8'):
        read_vocabulary(write('wasser,straße', 'latin-1'))
    with pytest.raises(MissingFileError, match='cls_nowhere.txt'):
        read_vocabulary('cls_nowhere.txt')


def test_names_are_found_from_any_folder(write, tmp_path, monkeypatch):
    write('road\nwater')
    monkeypatch.chdir(tmp_path)
    assert read_vocabulary('./configs/cls_some.txt').class_names == ('road', 'water')


def test_the_words_of_all_data_sets_are_accepted(shared, write):
    for record in json.loads((shared / 'facts' / 'datasets.json').read_text()).values():
        words = record['class_words']
        vocabulary = read_vocabulary(write('\n'.join(words) + '\n'), len(record.get('classes', words)))
        assert len(vocabulary.queries) == sum(len(entry.split(',')) for entry in words)


@pytest.mark.parametrize(
    'classes',
    [
        'building; road; water,river',
        'building;road;water, river;',
        ['building', 'road', 'water,river'],
        ['building', ('road',), ['water', 'river']],
        {'building': [], 'road': 'road', 'water': ['river']},
        {'building': ['building'], 'road': None, 'water': ['Water', 'river']},
    ],
)
def test_classes_as_python_values(classes):
    vocabulary = Vocabulary.from_classes(classes)
    assert vocabulary.queries == ('building', 'road', 'water', 'river')
    assert vocabulary.query_to_class == (0, 1, 2, 2)
    assert vocabulary.class_names == ('building', 'road', 'water')


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        ('', 'no classes'),
        ([], 'no classes'),
        ({}, 'no classes'),
        (';', 'no classes'),
        ('road;;water', 'entry 2 is blank'),
        (['road', []], 'entry 2 is blank'),
        (['road', 'water', 'road'], "entry 3: 'road' is already a word of another class .*entry 1"),
        ({'water': ['lake'], 'lake': []}, "entry 2: 'lake' is already"),
        (3, 'must be a string, a list or a dict, not int'),
    ],
)
def test_faults_in_python_values(classes, message):
    with pytest.raises(ConfigError, match=message):
        Vocabulary.from_classes(classes)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le-bom', 'utf-16-be-bom'])
@pytest.mark.parametrize('newline', ['\n', '\r\n', '\r'])
def test_encodings_and_line_ends(tmp_path, encoding, newline):
    lines = ['stra\u00dfe,road', '\u6c34', '\U0001f3e0 house', '\u05d1\u05d9\u05ea', "children's  playground", '"tree"']
    data = newline.join(lines)
    mark = '\ufeff' if encoding.endswith('-bom') else ''
    path = tmp_path / 'cls.txt'
    path.write_bytes((mark + data).encode(encoding.removesuffix('-bom')))
    assert read_vocabulary(path).class_names == (
        'stra\u00dfe', '\u6c34', '\U0001f3e0 house', '\u05d1\u05d9\u05ea', "children's playground", '"tree"',
    )  # fmt: skip


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'\x89PNG\r\n\x1a\n\x00\x00', 'no text in UTF-8'),
        (b'road\nwa\x00ter', r'line 2: .*U\+0000'),
        (b'\xff\xfea', 'no text in UTF-8'),
        (b'road\nesc\x1b[31m', r'line 2: .*U\+001B'),
        (b'road\nwater; lake', "line 2: .*holds ';'"),
        (b'road\n' + b'x' * 1001, 'line 2: a phrase of 1001 characters, .x+[.]{3}.; at most 1000'),
        (b'a' * 5_000_000, 'larger than 4 MB'),
        (b'\n'.join(b'w%d' % number for number in range(10_001)), '10001 words; at most 10000'),
        ('caf\u00e9\ncafe\u0301'.encode(), 'line 2: .*already a word of another class'),
        ('road\n\uff52\uff4f\uff41\uff44'.encode(), 'line 2: .*already a word of another class'),
    ],
)
def test_contents_that_are_no_classes(tmp_path, content, message):
    path = tmp_path / 'cls.txt'
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        read_vocabulary(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 600


def test_a_folder_is_no_class_name_file(tmp_path):
    (tmp_path / 'cls.txt').write_text('road')
    with pytest.raises(MissingFileError, match='is a folder; give the file in it .cls.txt'):
        read_vocabulary(tmp_path)


def test_white_space_of_any_kind_is_one_space():
    assert Vocabulary.from_classes([' bare\tland\u00a0\u2003 x\n']).queries == ('bare land x',)


def test_equal_in_either_normal_form():
    composed, taken_apart = (Vocabulary.from_classes([text]).queries for text in ('caf\u00e9', 'cafe\u0301'))
    assert composed == taken_apart


def test_a_name_with_synonyms_in_a_dict():
    assert Vocabulary.from_classes({'water, river': ['lake', 'Water']}).queries == ('water', 'river', 'lake')


@pytest.mark.parametrize('count', [1, 255, 256, 257, 3000])
def test_any_number_of_classes(count):
    assert Vocabulary.from_classes([f'class {number}' for number in range(count)]).num_classes == count


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (['road', 3], 'entry 2 is 3; expected words'),
        ([None], 'entry 1 is None; expected words'),
        ([b'road'], "entry 1 is b'road'"),
        ([['road', None]], r"entry 1 is \['road', None\]"),
        ([{'water': 'river'}], 'entry 1 is {'),
        ({1: ['road']}, 'entry 1 is 1'),
        ({'road': 2.5}, 'entry 1 is 2.5'),
        ({'road': {'a': 'b'}}, 'entry 1 is {'),
        ({'road', 'water'}, 'not set'),
        (b'road;water', 'entry 1 is'),
        ((name for name in ['road']), 'not generator'),
        (['a' * 1_000_000], 'a phrase of 1000000 characters'),
        ('a' * 1_000_000, 'a phrase of 1000000 characters'),
        (['road; water'], "holds ';'"),
        (['ro\udce4d'], r'U\+DCE4'),
        (['road', 'ro\u200bad'], r'U\+200B'),
        (['\u202eroad'], r'U\+202E'),
        (['a', '\ufeffb'], r'U\+FEFF'),
        (['\u200d'], 'joiners only'),
    ],
)
def test_values_that_are_no_words(classes, message):
    with pytest.raises(ConfigError, match=message) as error:
        Vocabulary.from_classes(classes)
    assert len(str(error.value)) < 400


def test_joiners_inside_of_words_stay():
    word = '\U0001f469\u200d\U0001f33e field'
    assert Vocabulary.from_classes([word]).queries == (word,)
