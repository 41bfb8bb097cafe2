import hashlib
import logging
import os
from dataclasses import dataclass, field

import open_clip
import pytest
import torch
import torch.nn.functional as F

from segearth.errors import ConfigError
from segearth.models.build import build_encoder
from segearth.text.bank import TEMPLATES, embed_queries


@dataclass
class CountingEncoder:
    """Embeds a text by its hash, and remembers what it was asked."""

    fingerprint: str = 'first'
    asked: list = field(default_factory=list)
    max_tokens: int = 20

    def tokenize(self, text):
        return [-1, *(hash(word) for word in text.split()), -2]

    @property
    def text(self):
        return self

    def __call__(self, phrases):
        self.asked.append(list(phrases))
        seeds = [int(hashlib.sha256(f'{self.fingerprint}{text}'.encode()).hexdigest()[:8], 16) for text in phrases]
        return 7 * torch.stack([torch.randn(12, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    @property
    def num_asked(self):
        return sum(len(phrases) for phrases in self.asked)


def test_the_mean_over_the_80_templates_of_open_clip(tmp_path):
    encoder = CountingEncoder()
    embeddings = embed_queries(encoder, ['road', 'water'], cache_folder=tmp_path)
    assert len(TEMPLATES) == 80
    for query, embedding in zip(['road', 'water'], embeddings, strict=True):
        prompts = [template(query) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
        mean = F.normalize(encoder.text(prompts), dim=-1).mean(0)
        torch.testing.assert_close(embedding, mean / mean.norm())
    assert encoder.asked[0][0] == 'a bad photo of a road.'
    assert embeddings.dtype == torch.float32


def test_order_and_repetition(tmp_path):
    encoder = CountingEncoder()
    embeddings = embed_queries(encoder, ['b', 'a', 'b'], cache_folder=tmp_path)
    assert torch.equal(embeddings[0], embeddings[2])
    assert encoder.num_asked == 160, 'a repeated query is embedded once'


def test_many_queries_are_embedded_in_batches(tmp_path):
    encoder = CountingEncoder()
    embeddings = embed_queries(encoder, [f'class {number}' for number in range(11)], cache_folder=tmp_path)
    assert embeddings.shape == (11, 12)
    assert max(len(phrases) for phrases in encoder.asked) <= 320
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(11))


def test_the_cache_is_used_and_follows_weights_templates_and_words(tmp_path):
    first = CountingEncoder()
    expected = embed_queries(first, ['road', 'water'], cache_folder=tmp_path)
    again = CountingEncoder()
    assert torch.equal(embed_queries(again, ['water', 'road'], cache_folder=tmp_path), expected.flip(0))
    assert again.num_asked == 0
    embed_queries(again, ['road', 'tree'], cache_folder=tmp_path)
    assert again.num_asked == 80, 'one new word is one embedding'
    assert not torch.equal(embed_queries(CountingEncoder('second'), ['road', 'water'], cache_folder=tmp_path), expected)
    one = embed_queries(again, ['road'], ['a photo of {}.'], cache_folder=tmp_path)
    assert again.asked[-1] == ['a photo of road.']
    assert not torch.allclose(one, expected[:1])


def test_string_templates_and_functions_are_the_same(tmp_path):
    encoder = CountingEncoder()
    strings = embed_queries(encoder, ['road'], ['a {}.'], cache_folder=tmp_path)
    functions = embed_queries(encoder, ['road'], [lambda word: f'a {word}.'], cache_folder=tmp_path)
    assert torch.equal(strings, functions)
    assert encoder.num_asked == 1


@pytest.mark.parametrize('damage', [b'', b'nonsense', None, 'zero'])
def test_a_damaged_cache_file_is_computed_again(tmp_path, caplog, damage):
    from safetensors.torch import save_file

    expected = embed_queries(CountingEncoder(), ['road'], cache_folder=tmp_path)
    (file,) = (tmp_path / 'text').glob('*.safetensors')
    if damage == 'zero':
        save_file({'embedding': torch.zeros(12)}, file)
    else:
        file.write_bytes(file.read_bytes()[:-9] if damage is None else damage)
    encoder = CountingEncoder()
    with caplog.at_level(logging.WARNING):
        assert torch.equal(embed_queries(encoder, ['road'], cache_folder=tmp_path), expected)
    assert encoder.num_asked == 80
    assert 'damaged' in caplog.text
    assert torch.equal(embed_queries(CountingEncoder(), ['road'], cache_folder=tmp_path), expected)


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch, caplog):
    def full_disk(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full_disk)
    with caplog.at_level(logging.WARNING):
        assert embed_queries(CountingEncoder(), ['road'], cache_folder=tmp_path).shape == (1, 12)
    assert 'No space left' in caplog.text
    assert not list((tmp_path / 'text').iterdir()), 'nothing half-written stays'


def test_the_default_cache_and_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SEGEARTH_CACHE', str(tmp_path))
    embed_queries(CountingEncoder(), ['road'], use_cache=False)
    assert not list(tmp_path.rglob('*.safetensors'))
    embed_queries(CountingEncoder(), ['road'])
    assert len(list(tmp_path.rglob('*.safetensors'))) == 1


@pytest.mark.parametrize(
    ('queries', 'templates', 'message'),
    [([], TEMPLATES, 'at least one query'), (['a'], [], 'one template'), (['a'], ['no place'], 'exactly one {}')],
)
def test_faults(queries, templates, message):
    with pytest.raises(ConfigError, match=message):
        embed_queries(CountingEncoder(), queries, templates)


def test_the_tokenizer_works_offline_with_a_short_context():
    tokenizer = open_clip.get_tokenizer('ViT-B-16', context_length=32)
    tokens = tokenizer(['a photo of a road.', 'road ' * 60])
    assert tokens.shape == (2, 32)
    assert (tokens[:, 0] == 49406).all()
    assert tokens[1, -1] == 49407, 'cut, with its end mark'


def phrase(count, last='end'):
    return ' '.join([*(f'w{number}' for number in range(count - 1)), last])


@pytest.mark.parametrize(('count', 'is_cut'), [(14, False), (15, True), (40, True)])
def test_a_phrase_that_is_cut_is_told_with_where(tmp_path, caplog, count, is_cut):
    # of 20 tokens two are marks; 'a photo of a {}' takes four, so 14 words are read
    templates = ['{}', 'a photo of a {}']
    embed_queries(CountingEncoder(), ['road', phrase(count)], templates, cache_folder=tmp_path)
    assert ('cut off' in caplog.text) == is_cut
    if is_cut:
        assert 'reads 20 tokens' in caplog.text
        assert ('w17' if count == 40 else 'end') in caplog.text.partition('behind')[2]


def test_phrases_that_are_the_same_to_the_encoder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"reads 20 tokens.* roof'.* lake'.*the same is left: 'w0 .*Shorten"):
        embed_queries(CountingEncoder(), [phrase(40, 'roof'), phrase(40, 'lake')], cache_folder=tmp_path)


def test_phrases_that_differ_in_what_is_read_are_told_only(tmp_path, caplog):
    phrases = [f'{first} {phrase(40)}' for first in ('red', 'blue', 'green', 'grey', 'brown')]
    embed_queries(CountingEncoder(), phrases, ['{}'], cache_folder=tmp_path)
    assert caplog.text.count('cut off are') == 1
    assert 'and 2 more' in caplog.text


def test_phrases_without_spaces_are_compared_by_their_tokens(tiny_clip, caplog):
    encoder = build_encoder('Demo', clip_path=str(tiny_clip))
    embed_queries(encoder, ['\u8239' * 50, '\u6751' * 50], use_cache=False)
    assert 'a part of the first word' in caplog.text
    with pytest.raises(ConfigError, match='the same is left'):
        embed_queries(encoder, ['\u8239' * 50, '\u8239' * 51], use_cache=False)


def test_the_encoders_own_tokens_decide(tiny_clip):
    """What the text tower gets of a phrase is what was counted."""
    encoder = build_encoder('Demo', clip_path=str(tiny_clip))
    tower = encoder.text
    assert tower.max_tokens == 32
    for text in ('road', 'a road, seen from above.', phrase(50), 'H\u00e4user \U0001f3e0 \u05d1\u05ea'):
        ids = tower.tokenize(text)
        padded = tower.tokenizer([text])[0].tolist()
        assert padded[: min(len(ids), 31)] == ids[:31]
        assert len(ids) > 32 or padded[len(ids) :] == [0] * (32 - len(ids))


@pytest.mark.parametrize('pair', [('trees/shrubs', 'trees / shrubs'), ('non-road', 'non - road'), ('<b>', '< b >')])
def test_spellings_that_the_encoder_reads_alike_are_refused(tiny_clip, pair):
    encoder = build_encoder('Demo', clip_path=str(tiny_clip))
    with pytest.raises(ConfigError, match='alike'):
        embed_queries(encoder, pair, use_cache=False)
