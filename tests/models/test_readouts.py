import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP

from segearth.errors import ConfigError
from segearth.models.attention import ATTENTIONS, nearest_rotation
from segearth.models.dense_clip import DenseCLIP
from segearth.models.readouts import (
    LAYERS,
    READOUTS,
    average_alike,
    mend,
    most_decided,
    outliers,
    scale_layers,
    turn_back,
)


@pytest.fixture(scope='module')
def visual():
    torch.manual_seed(0)
    vision = {'image_size': 32, 'layers': 4, 'width': 32, 'head_width': 16, 'patch_size': 8}
    text = {'context_length': 8, 'vocab_size': 10, 'width': 8, 'heads': 1, 'layers': 1}
    return CLIP(16, vision, text).visual.eval()


def seen_by(visual, attention, monkeypatch, images, **options):
    """The attention weights that the last block applies to its values, and the pass."""
    caught = {}
    import segearth.models.readouts as module

    def catch(block, attended):
        caught.setdefault('attended', attended)
        return project(block, attended)

    project = module.project_attended
    monkeypatch.setattr(module, 'project_attended', catch)
    readout = READOUTS[attention]
    import segearth.models.dense_clip as dense

    def keep(seen):
        caught['pass'] = seen
        return readout(seen)

    monkeypatch.setitem(dense.READOUTS, attention, keep)
    with torch.inference_mode():
        DenseCLIP(visual, attention, **options)(images)
    return caught


def test_layers_scale_with_the_depth_and_stay_before_the_last_block():
    assert scale_layers('ReAttn', 12) == LAYERS['ReAttn']
    assert scale_layers('ReAttn', 24) == {'affinity': (18, 20, 22), 'middle': (12, 14, 16, 18)}
    assert all(1 <= number <= 2 for numbers in scale_layers('SC', 3).values() for number in numbers)
    assert scale_layers('SegEarth', 12) == {}


def test_layers_may_be_named_and_what_cannot_be_is_refused(visual):
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        default = DenseCLIP(visual, 'Res')(images)[1]
        named = DenseCLIP(visual, 'Res', readout_layers={'middle': [1]})(images)[1]
    assert not torch.allclose(default, named)
    for attention, layers in (
        ('Res', {'affinity': (1,)}), ('Res', {'middle': (4,)}), ('Res', {'middle': ()}), ('SC', {'detail': (1, 2)}),
        ('SCLIP', {'middle': (1,)}), ('Res', 3), ('Res', {'middle': 2}), ('Res', {'middle': 'ab'}),
        ('Res', {'middle': [1.5]}),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match='readout_layers'):
            DenseCLIP(visual, attention, readout_layers=layers)
    with pytest.raises(ConfigError, match='reads out no residual'):
        DenseCLIP(visual, 'SC', ignore_residual=False)
    with pytest.raises(ConfigError, match='sums no blocks'):
        DenseCLIP(visual, 'Res', num_readout_blocks=2)


@pytest.mark.parametrize('attention', ['ReAttn', 'Res'])
def test_attention_of_ones_stays_ones(visual, attention, monkeypatch):
    """Rows of weights sum to 1: values that are all alike come out as they are."""
    values = torch.ones(1, 2, 17, 16)
    monkeypatch.setattr('segearth.models.readouts.Pass.last_qkv', property(
        lambda seen: (torch.randn(1, 2, 17, 16), torch.randn(1, 2, 17, 16), values)
    ))  # fmt: skip
    caught = seen_by(visual, attention, monkeypatch, torch.randn(1, 3, 32, 32))
    torch.testing.assert_close(caught['attended'], values)


def test_no_patch_of_reattn_looks_at_the_class_token(visual, monkeypatch):
    values = torch.zeros(1, 2, 17, 16)
    values[:, :, 0] = 1
    monkeypatch.setattr('segearth.models.readouts.Pass.last_qkv', property(lambda seen: (None, None, values)))
    attended = seen_by(visual, 'ReAttn', monkeypatch, torch.randn(1, 3, 32, 32))['attended']
    assert attended[:, :, 1:].abs().max() == 0
    assert (attended[:, :, 0] > 0).all()


def test_patches_of_a_turned_image_return_to_their_places():
    grid = torch.arange(6.0).reshape(1, 2, 3)
    for quarters in range(4):
        turned = torch.rot90(grid, quarters, (1, 2)).flatten(1)[..., None]
        assert torch.equal(turn_back(turned, (2, 3), quarters), grid.flatten(1)[..., None])


def test_affinities_of_a_turned_image_are_those_of_the_image_turned(visual, monkeypatch):
    """With all four turns weighted alike, S_rot of a turned image is S_rot with rows and columns turned."""
    monkeypatch.setattr('segearth.models.readouts.TURNED_WEIGHT', 1.0)
    monkeypatch.setattr('segearth.models.readouts.AFFINITY_WEIGHT', 1.0)
    image, identity = torch.randn(1, 3, 24, 40), torch.eye(16)[None, None].repeat(1, 2, 1, 1)
    values = F.pad(identity[:, :, :15], (0, 0, 1, 0))  # 15 patches, each with a number of its own
    monkeypatch.setattr('segearth.models.readouts.Pass.last_qkv', property(lambda seen: (None, None, values)))
    upright = seen_by(visual, 'ReAttn', monkeypatch, image)['attended'][0, 0, 1:, :15]
    monkeypatch.undo()
    monkeypatch.setattr('segearth.models.readouts.TURNED_WEIGHT', 1.0)
    monkeypatch.setattr('segearth.models.readouts.AFFINITY_WEIGHT', 1.0)
    monkeypatch.setattr('segearth.models.readouts.Pass.last_qkv', property(lambda seen: (None, None, values)))
    turned = seen_by(visual, 'ReAttn', monkeypatch, torch.rot90(image, 1, (2, 3)))['attended'][0, 0, 1:, :15]
    rows = turn_back(turned[None], (3, 5), 1)[0]
    columns = turn_back(rows.T[None], (3, 5), 1)[0].T
    torch.testing.assert_close(columns, upright, atol=1e-5, rtol=1e-4)


def test_outliers_lie_apart_and_become_the_mean_of_their_neighbours():
    torch.manual_seed(0)
    patches = torch.randn(1, 36, 8) * 0.1
    patches[0, 14] += 50
    apart = outliers(patches)
    assert apart.sum() == 1 and apart[0, 14]  # 5 % of 36
    mended = mend(patches, apart, (6, 6))
    around = [7, 8, 9, 13, 15, 19, 20, 21]
    torch.testing.assert_close(mended[0, 14], patches[0, around].mean(dim=0))
    others = [index for index in range(36) if index != 14]
    assert torch.equal(mended[0, others], patches[0, others])
    assert torch.equal(mend(patches, torch.zeros_like(apart), (6, 6)), patches)
    assert torch.equal(mend(patches, torch.ones_like(apart), (6, 6)), patches), 'without a neighbour it stays'


def test_few_patches_have_no_outliers():
    assert not outliers(torch.randn(2, 1, 8)).any()
    assert not outliers(torch.randn(2, 9, 8)).any()


def test_patches_are_averaged_with_those_alike_only():
    tokens = torch.tensor([[[1.0], [3.0], [10.0]]])
    cosines = torch.tensor([[[1.0, 0.5, 0.3], [0.5, 1.0, 0.0], [0.3, 0.0, 1.0]]])
    expected = torch.tensor([[[(1 + 0.5 * 3) / 1.5], [(0.5 * 1 + 3) / 1.5], [10.0]]])
    torch.testing.assert_close(average_alike(tokens, cosines), expected)


def test_the_most_decided_heads_are_kept():
    even, sharp = torch.full((4, 4), 0.25), torch.eye(4)
    kept = most_decided(torch.stack([even, sharp, (even + sharp) / 2])[None], 2)
    assert torch.equal(kept[0], torch.stack([sharp, (even + sharp) / 2]))
    assert most_decided(even[None, None], 4).shape == (1, 1, 4, 4)


def test_pearl_finds_the_rotation_between_keys_and_queries():
    torch.manual_seed(0)
    turn = nearest_rotation(torch.randn(1, 1, 8, 8))
    torch.testing.assert_close(turn @ turn.transpose(-2, -1), torch.eye(8)[None, None], atol=1e-5, rtol=0)
    key = torch.randn(1, 1, 30, 8)
    torch.testing.assert_close(nearest_rotation(key.transpose(-2, -1) @ (key @ turn)), turn, atol=1e-4, rtol=0)


def test_pearl_by_hand():
    """Two patches of one number each: R is 1 or -1, so the logits can be written down."""
    query = torch.tensor([0.0, 1.0, -3.0]).reshape(1, 1, 3, 1)
    key = torch.tensor([5.0, 2.0, -2.0]).reshape(1, 1, 3, 1)
    value = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 1, 3, 1)
    weights = torch.tensor([0.0, 0.25, 0.75])
    centred_key = key.flatten() - (weights * key.flatten()).sum()
    centred_query = query.flatten() - (weights * query.flatten()).sum()
    sign = torch.sign((centred_key * centred_query).sum())
    logits = query.flatten()[:, None] * key.flatten() * sign + 0.08 * centred_key[:, None] * centred_key
    expected = logits.softmax(dim=1)[:, 0]
    found = ATTENTIONS['PEARL'](query, key, value, (1, 2))
    torch.testing.assert_close(found.flatten(), expected)


def test_res_by_hand(visual):
    """The middle blocks' attention has 0.3 of the say."""
    from segearth.models.residual_block import project_attended, project_qkv

    images = torch.randn(1, 3, 32, 32)
    encoder = DenseCLIP(visual, 'Res', readout_layers={'middle': (2,)})
    blocks = visual.transformer.resblocks
    with torch.inference_mode():
        first = blocks[0](encoder.embed(images))
        last = blocks[2](blocks[1](first))
        query, key, _ = project_qkv(blocks[1], blocks[1].ln_1(first))
        middle = (query @ key.transpose(-2, -1) / 4).softmax(dim=-1)
        _, key, value = project_qkv(blocks[3], blocks[3].ln_1(last))
        own = (key @ key.transpose(-2, -1) / 4).softmax(dim=-1)
        expected = encoder.project(project_attended(blocks[3], (0.7 * own + 0.3 * middle) @ value))
        found = encoder(images)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
