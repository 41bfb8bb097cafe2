"""Puts a folder with a model on the Hugging Face Hub, such as work_dirs/NAME/model_STEP of a training.

    segearth push work_dirs/alignearth_demo/model_800 ORG/NAME --private

Wanted are weights, and README.md, the model card, with the licence filled in. The token is that of "hf auth login", or
HF_TOKEN. Afterwards hf-hub:ORG/NAME names the model wherever an encoder, or the weights of an upsampler, are named.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub import HfApi, ModelCard, constants, get_token

from segearth.errors import ConfigError, MissingFileError, ResultsError, UserError, shorten
from segearth.weights.model_folders import (
    HUB,
    LOGIN,
    OPEN_CLIP_CONFIG,
    REPOSITORY,
    REVISION,
    TRANSFORMERS_CONFIG,
    UPSAMPLER_CONFIG,
    WEIGHTS,
)
from segearth.weights.model_folders import UPSAMPLER_WEIGHTS as UPSAMPLER

CONFIGS = OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG
LEFT_OUT = ['.*', '**/.*']  # hidden files, which may hold anything
ANSWERS = {
    401: f'the token is not accepted: {LOGIN}',
    403: 'it is not yours, or your token may not write there: name your user name or an organisation of yours before '
    'the slash, and see to the rights of the token (settings/tokens)',
    404: 'there is no such user or organisation: check the name before the slash',
}
"""Status of the Hub's answer -> what it means."""


def run(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Runs the program, under another name for its usage line; a UserError says why nothing was uploaded."""
    parser = argparse.ArgumentParser(
        prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, metavar='FOLDER', help='what is uploaded, but for hidden files')
    parser.add_argument('repository', metavar='ORG/NAME', help='repository on the Hub, made if there is none')
    parser.add_argument('--private', action='store_true', help='only you, or your organisation, can see it')
    parser.add_argument('--revision', help='branch to upload to, made if there is none; default: main')
    options = parser.parse_args(arguments)
    print(push(options.folder.expanduser(), options.repository, options.private, options.revision))
    return 0


def push(folder: Path, repository: str, private: bool = False, revision: str | None = None) -> str:
    """Uploads a folder to ORG/NAME and says where it is, by address and by the name that loads it."""
    check_folder(folder)
    if not re.fullmatch(REPOSITORY, repository.removeprefix(HUB)):
        raise ConfigError(f'{repository!r} names no repository; write ORG/NAME, ORG your user name or an organisation')
    if revision is not None and not re.fullmatch(REVISION, revision):
        raise ConfigError(f'--revision is {revision!r}; allowed are letters, digits and . / _ -')
    repository = repository.removeprefix(HUB)
    if constants.HF_HUB_OFFLINE:
        raise ConfigError('nothing is uploaded in offline mode: unset HF_HUB_OFFLINE')
    if get_token() is None:
        raise ConfigError(f'the Hub wants to know who you are: {LOGIN}, with a token that may write')
    api, page = HfApi(), f'{constants.ENDPOINT}/{repository}'
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise ConfigError(f'{page} is there and public: make it private in its settings, or leave --private out')
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, revision=revision, commit_message='Upload of segearth',
            ignore_patterns=LEFT_OUT,
        )  # fmt: skip
    except UserError:
        raise
    except Exception as error:  # the client and its HTTP client have no base class in common
        status = getattr(getattr(error, 'response', None), 'status_code', None)
        said = f'{str(error).strip()[:300] or type(error).__name__}: check the network and HF_ENDPOINT'
        reason = ANSWERS.get(status or 0) or said
        raise ResultsError(f'{folder} was not uploaded to {page}: {reason}') from error
    return f'{page}\n{HUB}{repository}{f"@{revision}" if revision else ""}'


def check_folder(folder: Path) -> None:
    """Refuses a folder without weights, or without a model card that names a licence."""
    if not folder.is_dir():
        raise MissingFileError(f'there is no folder {folder}')
    try:
        files = sorted(path.name for path in folder.iterdir() if path.is_file() and path.stat().st_size)
    except OSError as error:
        raise MissingFileError(f'{folder} cannot be read: {error.strerror}') from error
    readme = folder / 'README.md'
    weights, configs = (WEIGHTS, CONFIGS) if set(files) & set(WEIGHTS) else ((UPSAMPLER,), (UPSAMPLER_CONFIG,))
    if not (set(files) & set(weights) and set(files) & set(configs) and 'README.md' in files):
        inside = sorted(path.name for path in folder.glob('model_*/'))
        hint = f' Do you mean {folder / inside[-1]}?' if inside else ' A training writes one as WORK_DIR/model_STEP.'
        raise MissingFileError(
            f'{folder} holds no model: wanted are weights ({WEIGHTS[0]}, {UPSAMPLER} ...), their config '
            f'({", ".join((*CONFIGS, UPSAMPLER_CONFIG))}) and README.md; files that are not empty: '
            f'{shorten(files, 6) or "none"}.{hint}'
        )
    try:
        card = ModelCard.load(readme)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OSError) as error:
        raise ConfigError(f'the head of {readme}, between its lines ---, is none of a model card: {error}') from error
    if not str(card.data.license or '').strip():
        raise ConfigError(
            f'{readme} names no licence: fill in "license:" in its head, such as apache-2.0 or cc-by-nc-4.0, or '
            '"license: other" with license_name and license_link'
        )
