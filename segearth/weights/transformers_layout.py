"""The config of transformers' CLIP in open_clip's words; :mod:`segearth.models.checkpoints` renames the weights.

open_clip has one activation for both towers and one tokenizer of its own, CLIP's: what differs is refused.

Source: the layout and the defaults that transformers documents for its CLIP.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from segearth.errors import ConfigError

TEXT = {
    'vocab_size': 49408, 'hidden_size': 512, 'intermediate_size': 2048, 'num_hidden_layers': 12,
    'num_attention_heads': 8, 'max_position_embeddings': 77,
}  # fmt: skip
VISION = {
    'hidden_size': 768, 'intermediate_size': 3072, 'num_hidden_layers': 12, 'num_attention_heads': 12,
    'image_size': 224, 'patch_size': 32, 'num_channels': 3,
}  # fmt: skip
USUAL = {'hidden_act': 'quick_gelu', 'layer_norm_eps': 1e-5}  # of both
PROJECTION_DIM = 512
ACTIVATIONS = {'quick_gelu': True, 'gelu': False}  # transformers' name -> quick_gelu of open_clip


def from_transformers(
    content: Mapping[str, Any], images: Mapping[str, Any], words: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """``model_cfg`` and ``preprocess_cfg`` as open_clip has them.

    From the contents of config.json, of preprocessor_config.json or processor_config.json, and of vocab.json or
    tokenizer.json, the last two empty where there is none, of a model with a name for messages. A ConfigError says what
    is no CLIP or not to be had in open_clip.
    """
    if content.get('model_type') != 'clip':
        raise ConfigError(
            f"{name} is a model of type {content.get('model_type')!r}; of transformers' models only 'clip' is read, a "
            'whole CLIP with both towers. Look for a copy in the layout of open_clip'
        )
    text, vision = _part(content, 'text', TEXT, name), _part(content, 'vision', VISION, name)
    acts = {str(part['hidden_act']) for part in (text, vision)}
    if len(acts) > 1 or not acts <= set(ACTIVATIONS):
        have = ' and '.join(sorted(acts))
        raise ConfigError(f'{name} has the activation {have}; expected {" or ".join(ACTIVATIONS)}, one for both towers')
    if vision['num_channels'] != 3:
        raise ConfigError(f'{name} is for images of {vision["num_channels"]} channels; expected 3, RGB')
    _check_tokenizer(text['vocab_size'], _inside(_inside(words, 'model'), 'vocab'), name)
    towers = [
        {
            'width': part['hidden_size'],
            'layers': part['num_hidden_layers'],
            # half a unit more, since open_clip cuts the product of both to a whole number
            'mlp_ratio': (part['intermediate_size'] + 0.5) / part['hidden_size'],
            'norm_kwargs': {'eps': part['layer_norm_eps']},
        }
        for part in (vision, text)
    ]
    towers[0] |= {'image_size': vision['image_size'], 'patch_size': vision['patch_size']}
    towers[0]['head_width'] = vision['hidden_size'] // vision['num_attention_heads']
    towers[1] |= {'context_length': text['max_position_embeddings'], 'vocab_size': text['vocab_size']}
    towers[1]['heads'] = text['num_attention_heads']
    config = {'embed_dim': content.get('projection_dim', PROJECTION_DIM), 'quick_gelu': ACTIVATIONS[acts.pop()]}
    images = _inside(images, 'image_processor')
    how = {'mean': images.get('image_mean'), 'std': images.get('image_std')}
    if not images.get('do_normalize', True):
        how = {'mean': [0.0] * 3, 'std': [1.0] * 3}
    factor = images.get('rescale_factor', 1 / 255) if images.get('do_rescale', True) else 1.0
    if not _is_number(factor):
        raise ConfigError(f'{name}: rescale_factor of the images is {factor!r}; expected a number above 0')
    if abs(255 * factor - 1) > 1e-6:  # (f x - mean) / std of x up to 255, in the terms of x / 255
        from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD  # late: takes seconds

        given = how['mean'] or OPENAI_DATASET_MEAN, how['std'] or OPENAI_DATASET_STD
        if not all(isinstance(values, list | tuple) and all(map(_is_real, values)) for values in given):
            raise ConfigError(f'{name}: image_mean and image_std are {given}; expected three numbers each')
        how = {key: [value / (255 * factor) for value in values] for key, values in zip(how, given, strict=True)}
    return {'model_cfg': {**config, 'vision_cfg': towers[0], 'text_cfg': towers[1]}, 'preprocess_cfg': how}


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_real(value) and 0 < float(str(value)) < float('inf')


def _inside(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What newer files have one level deeper than older ones, of other names."""
    inner = content.get(key)
    return inner if isinstance(inner, dict) else content


def _part(content: Mapping[str, Any], key: str, usual: Mapping[str, int], name: str) -> dict[str, Any]:
    """A tower's half of a config, with what it leaves out; old files say it twice, the second time with _dict.

    The second one counts, and what it leaves out is as usual, whatever the first one says.
    """
    part: dict[str, Any] = {}
    for said in (content.get(f'{key}_config') or {}, content.get(f'{key}_config_dict')):
        part |= {**USUAL, **usual, **said} if isinstance(said, dict) else {}
    if not _is_number(part['layer_norm_eps']):
        raise ConfigError(f'{name}: layer_norm_eps of {key}_config is {part["layer_norm_eps"]!r}; expected a number')
    wrong = [f'{field} {part[field]!r}' for field in usual if not (type(part[field]) is int and part[field] > 0)]
    if not wrong and part['hidden_size'] % part['num_attention_heads']:
        wrong = [f'hidden_size {part["hidden_size"]} for {part["num_attention_heads"]} heads']
    if wrong:
        raise ConfigError(f'{name}: {key}_config is none of a CLIP: {", ".join(wrong)}')
    return part


@cache
def _stock_words() -> dict[str, int]:
    from open_clip.tokenizer import SimpleTokenizer  # late: takes seconds

    return SimpleTokenizer().encoder


def _check_tokenizer(size: int, words: Mapping[str, Any], name: str) -> None:
    stock = _stock_words()
    plain = list(stock.items())[:-2]  # the last two mark beginning and end, and are spelt otherwise
    if size != len(stock) or (words and any(words.get(word) != index for word, index in plain)):
        raise ConfigError(f"{name} has another tokenizer than CLIP's of {len(stock)} words, the only one that is known")
