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
    assert (vocabulary.num_queries, vocabulary.num_classes) == (6, 4)


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
        assert vocabulary.num_queries == sum(len(entry.split(',')) for entry in words)


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
