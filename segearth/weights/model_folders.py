"""Models of other people, by open_clip's names: ``local-dir:PATH``, ``hf-hub:ORG/NAME``, ``hf-hub:ORG/NAME@REVISION``.

A folder, or a repository on the Hugging Face Hub, holds weights and a config that describes them: open_clip's, or that
of transformers' CLIP (transformers_layout.py). Files of repositories lie in the cache of the Hub's client, which serves
where there is no network. Reading any of them runs no code.
"""

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from segearth.errors import ConfigError, MissingFileError, did_you_mean, shorten
from segearth.weights.transfer import DownloadError
from segearth.weights.transformers_layout import from_transformers

LOCAL, HUB = 'local-dir:', 'hf-hub:'
OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG = 'open_clip_config.json', 'config.json'
WEIGHTS = (
    'open_clip_model.safetensors', 'open_clip_pytorch_model.safetensors', 'open_clip_pytorch_model.bin',
    'model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin',
)  # fmt: skip
"""Names of weight files, in the order in which they are looked for."""
IMAGES, WORDS = ('preprocessor_config.json', 'processor_config.json'), ('vocab.json', 'tokenizer.json')
UPSAMPLER_CONFIG, UPSAMPLER_WEIGHTS = 'upsampler_config.json', 'upsampler.safetensors'
LARGEST = 1e6  # number of a normalisation
LOGIN = 'log in with "hf auth login", or set HF_TOKEN'
REPOSITORY, REVISION = r'[\w.-]+/[\w.-]+', r'(?!.*\.\.)[\w./-]+'
"""What names look like, as patterns."""
REFUSALS: dict[type[Exception], str] = {
    GatedRepoError: f'its owner gives it to those who ask: do so on its page, then {LOGIN}',
    RevisionNotFoundError: 'the repository has no such revision',
    RepositoryNotFoundError: f'it does not exist, or is private: check the spelling; if it is yours, {LOGIN}',
    HFValidationError: 'that is no name of a repository',
    PermissionError: 'the cache cannot be written: set HF_HOME to a folder of yours',
}
"""Error of the Hub's client -> what it means; the first that fits."""


def is_folder_name(name: object) -> bool:
    """Whether a name means a folder or repository."""
    return isinstance(name, str) and name.startswith((LOCAL, HUB))


class ModelFolder:
    """The files of a folder or repository.

    A UserError says that the name means none, or that there is no such folder. What is wrong with a repository shows
    when a file is looked for: it is not there, private, or neither reachable nor in the cache.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        place = name.partition(':')[2]
        self.folder = _existing_folder(place, name) if name.startswith(LOCAL) else None
        found = re.fullmatch(f'({REPOSITORY})(?:@({REVISION}))?', place)
        if self.folder is None and not found:
            raise ConfigError(f'{name!r} names no repository; write hf-hub:ORG/NAME or hf-hub:ORG/NAME@REVISION')
        self.repository: str = found[1] if found else ''
        self.revision: str | None = found[2] if found else None
        self.silence: BaseException | None = None  # set once the Hub does not answer: asking takes its time

    def find(self, *names: str) -> Path | None:
        """The first of some files that there is, on this machine; fetched if need be."""
        if self.folder:
            return next((self.folder / name for name in names if (self.folder / name).is_file()), None)
        unknown = []
        is_commit = re.fullmatch('[0-9a-f]{40}', self.revision or '') is not None
        for name in names:
            is_silent = self.silence is not None
            try:
                if is_silent or is_commit or constants.HF_HUB_OFFLINE:
                    cached = try_to_load_from_cache(self.repository, name, revision=self.revision)
                    if cached is not None and not isinstance(cached, str):
                        continue  # the commit in the cache is known to have no such file
                found = hf_hub_download(self.repository, name, revision=self.revision, local_files_only=is_silent)
                return Path(found)
            except LocalEntryNotFoundError as error:
                self.silence = self.silence or error.__cause__ or error
                unknown.append(name)
            except EntryNotFoundError:
                continue
            except Exception as error:  # the client and its HTTP client have no base class in common
                raise self._refusal(error) from error
        if self.silence and unknown:
            raise self._refusal(self.silence, f' ({" or ".join(unknown)})') from self.silence
        return None

    def need(self, what: str, *names: str) -> Path:
        """As :meth:`find`; a MissingFileError where there is none of them."""
        if path := self.find(*names):
            return path
        files = sorted(path.name for path in self.folder.iterdir()) if self.folder else []
        has = f'; it has {shorten(files, 6) or "no files"}' if self.folder else ''
        raise MissingFileError(f'{self.name} holds no {what} ({", ".join(names)}){has}')

    def weights(self) -> Path:
        """The weight file, or the index of several, which are fetched too."""
        path = self.need('weights', *WEIGHTS)
        for name in shard_names(path) if path.suffix == '.json' else ():
            self.need('part of the weights', name)
        return path

    def _refusal(self, error: BaseException, files: str = '') -> Exception:
        page = f'{constants.ENDPOINT}/{self.repository}'
        kinds = [kind for kind in REFUSALS if isinstance(error, kind)]
        if not kinds and getattr(getattr(error, 'response', None), 'status_code', None) in (401, 403):
            kinds = [RepositoryNotFoundError]
        if kinds:
            return MissingFileError(f'{self.name} cannot be had from {page}: {REFUSALS[kinds[0]]}')
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        remedy = 'unset HF_HUB_OFFLINE' if constants.HF_HUB_OFFLINE else 'check the network and HF_ENDPOINT'
        return DownloadError(
            f'{self.name}{files} is not in the cache ({constants.HF_HUB_CACHE}) and cannot be had from {page} '
            f'({reason}): {remedy}, or give a folder as local-dir:PATH'
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; a UserError where it holds something else, or cannot be read."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f'{path} is no JSON file: {error}') from error
    except OSError as error:
        raise MissingFileError(f'{path} cannot be read: {error.strerror}') from error
    if not isinstance(content, dict):
        raise ConfigError(f'{path} holds no JSON object, but a {type(content).__name__}')
    return content


def check_model_config(config: object, path: Path) -> None:
    """Refuses what is no model config of open_clip."""
    if not isinstance(config, dict):
        raise ConfigError(f'{path} is no model config of open_clip: it holds {config!r:.60}')
    wrong = [key for key in ('vision_cfg', 'text_cfg') if not isinstance(config.get(key), dict)]
    wrong += [key for key in ('embed_dim',) if key not in config]
    if wrong:
        raise ConfigError(f'{path} is no model config of open_clip: it lacks {", ".join(wrong)}')


def shard_names(index: Path) -> list[str]:
    """Names of the files that share the weights, beside an index."""
    names = read_json(index).get('weight_map')
    names = sorted(set(map(str, names.values()))) if isinstance(names, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise ConfigError(f'{index} is no index of weight files beside it')
    return names


def describe(name: str) -> dict[str, Any]:
    """What a folder or repository says of its model, in open_clip's form.

    ``model_cfg`` is open_clip's model config; ``preprocess_cfg`` has ``mean`` and ``std`` of images with numbers in
    [0, 1], unless they are OpenAI's. A UserError says what cannot be read or is no CLIP.
    """
    folder = ModelFolder(name)
    path = folder.need('config of a CLIP', OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG)
    content = read_json(path)
    if path.name == TRANSFORMERS_CONFIG:
        images, words = (read_json(found) if (found := folder.find(*names)) else {} for names in (IMAGES, WORDS))
        content = from_transformers(content, images, words, name)
    config, images = content.get('model_cfg', content), content.get('preprocess_cfg') or {}
    check_model_config(config, path)
    if not isinstance(images, dict):
        raise ConfigError(f'{path}: preprocess_cfg is {images!r:.60}; expected an object')
    given = {key: images[key] for key in ('mean', 'std') if images.get(key) is not None}
    for key, value in given.items():
        numbers = value if isinstance(value, list | tuple) else []
        good = [one for one in numbers if isinstance(one, int | float) and abs(one) <= LARGEST]
        if len(numbers) != 3 or good != list(numbers) or (key == 'std' and min(good) <= 0):
            raise ConfigError(f'{path}: {key} of the images is {value!r}; expected three numbers, of std above 0')
    return {'model_cfg': config, 'preprocess_cfg': given}


def _existing_folder(place: str, name: str) -> Path:
    try:
        folder = Path(place).expanduser()
        if place and folder.is_dir():
            list(folder.iterdir())
            return folder.resolve()
        if folder.is_file():
            raise MissingFileError(f'{name!r}: that is a file; name its folder, or give it as clip_path (--weights)')
        beside = [path.name for path in folder.parent.iterdir() if path.exists()] if folder.parent.is_dir() else []
    except (OSError, RuntimeError) as error:  # no right to look, too long a name, no such user
        raise MissingFileError(f'{name[:200]!r}: the folder cannot be read ({str(error)[:200]})') from error
    raise MissingFileError(f'{name!r}: there is no folder {folder.absolute()}.{did_you_mean(folder.name, beside)}')
