"""Settings of a :class:`segearth.Segmenter` from a configuration file of a data set."""

from typing import Any

from segearth.errors import ConfigError
from segearth.paths import class_file_folders, find_config, find_file
from segearth.text.vocabulary import Vocabulary, read_vocabulary

NOT_SETTINGS = ('type', 'device', 'data_preprocessor', 'init_cfg', 'name_path', 'classes')
SAR_READER = 'LoadSARImage'


def read_settings(path: str) -> dict[str, Any]:
    """Reads a configuration file, found by :func:`segearth.paths.find_config`, as arguments of a Segmenter.

    The encoder, attention, classes and thresholds are taken, the palette of the data set and its sensor too; the size
    that images are fitted into is not, since maps are made at a scene's own resolution. A file that names no classes
    gives none, and no palette. A MissingFileError or ConfigError says that there is no such file, or no model in it.
    """
    from mmengine.config import Config, ConfigDict  # late: takes seconds, and only configs need it
    from mmseg.registry import DATASETS

    import segearth.datasets  # noqa: F401  (registers the data sets)

    file = find_config(path)
    try:
        config = Config.fromfile(file)
    except Exception as error:  # mmengine passes on whatever the file raises
        raise ConfigError(f'{file} cannot be read as a configuration: {error}') from error
    model = config.get('model')
    if not (model and isinstance(model, ConfigDict)):
        raise ConfigError(f'{file} describes no model; give one of configs/cfg_*.py')
    model = model.to_dict()
    settings = {key: value for key, value in model.items() if key not in NOT_SETTINGS}
    vocabulary = None
    if model.get('name_path'):
        words = find_file(model['name_path'], class_file_folders(file), 'class-name file', 'Write one class a line.')
        vocabulary = read_vocabulary(words)
    elif model.get('classes') is not None:
        vocabulary = Vocabulary.from_classes(model['classes'])
    dataset = (config.get('test_dataloader') or {}).get('dataset') or {}
    if config.get('image_loader') == SAR_READER or any(
        step.get('type') == SAR_READER for step in dataset.get('pipeline') or ()
    ):
        settings['sensor'] = 'sar'
    known = DATASETS.get(dataset['type']) if dataset.get('type') else None
    palette = known.METAINFO.get('palette') if known else None
    if vocabulary is not None:
        settings['classes'] = words_of(vocabulary)
        if palette is not None and len(palette) == vocabulary.num_classes:
            settings['palette'] = palette
    return settings


def words_of(vocabulary: Vocabulary) -> list[list[str]]:
    """The words of each class."""
    words: list[list[str]] = [[] for _ in vocabulary.class_names]
    for query, index in zip(vocabulary.queries, vocabulary.query_to_class, strict=True):
        words[index].append(query)
    return words
