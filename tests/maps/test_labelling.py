from dataclasses import replace

import numpy as np
import pytest
import torch

from segearth.inference.sliding_window import slide
from segearth.maps.labelling import NO_DATA, SegmenterModel, WindowGrid, label_block
from tests.maps.conftest import smooth_picture
from tests.maps.stand_in import StandInModel


def label_in_blocks(model, picture, valid, block_side, is_smooth=False):
    """Labels and scores of (3, h, w), computed block by block."""
    grid = WindowGrid(picture.shape[1:], model.crop_size, model.stride, is_smooth)
    labels, scores = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.float32)
    for box in grid.blocks(block_side):
        y1, x1, y2, x2 = grid.region(box)
        region = picture[:, y1:y2, x1:x2].transpose(1, 2, 0)
        block = label_block(model, region, valid[y1:y2, x1:x2], box, grid, with_scores=True)
        place = slice(box[0], box[2]), slice(box[1], box[3])
        labels[place], scores[place] = block['labels'], block['scores']
    return labels, scores


@pytest.mark.parametrize('shape', [(150, 170), (20, 25), (33, 200)])
@pytest.mark.parametrize('block_side', [16, 48, 1000])
@pytest.mark.parametrize('is_smooth', [False, True])
def test_equals_the_scene_in_one_piece(model, shape, block_side, is_smooth):
    picture = smooth_picture(*shape)
    labels, scores = label_in_blocks(model, picture, np.ones(shape, bool), block_side, is_smooth)
    whole = slide(torch.from_numpy(picture)[None], model.score, model.crop_size, model.stride, 4, is_smooth)[0]
    probabilities, expected = model.classify(whole)
    assert (labels == expected[0].numpy()).mean() >= 0.9999
    np.testing.assert_allclose(scores, probabilities.amax(0).numpy(), atol=1e-3)


def test_no_data_stays_and_costs_nothing(model):
    picture, valid = smooth_picture(160, 160), np.ones((160, 160), bool)
    valid[:, :100] = False
    labels, scores = label_in_blocks(model, picture, valid, 64)
    assert ((labels == NO_DATA) == ~valid).all()
    assert (np.isnan(scores) == ~valid).all()
    num_scored = model.num_scored
    complete = StandInModel()
    expected, _ = label_in_blocks(complete, picture, np.ones_like(valid), 64)
    assert (labels[valid] == expected[valid]).all()
    assert num_scored < 0.7 * complete.num_scored


def test_reports_every_window(model):
    picture, valid = smooth_picture(100, 100).transpose(1, 2, 0), np.ones((100, 100), bool)
    valid[:50] = False
    grid, told = WindowGrid((100, 100), model.crop_size, model.stride), []
    label_block(model, picture, valid, (0, 0, 100, 100), grid, on_windows=lambda *counts: told.append(counts))
    done, scored = map(sum, zip(*told, strict=True))
    assert done == grid.num_windows([(0, 0, 100, 100)]) and scored == model.num_scored < done


@pytest.fixture
def segmentor():
    from open_clip.model import CLIP

    from segearth.models.dense_clip import DenseCLIP
    from segearth.models.segmentor import SegEarthSegmentation

    torch.manual_seed(0)
    vision = {'image_size': 32, 'layers': 2, 'width': 32, 'head_width': 16, 'patch_size': 8}
    text = {'context_length': 8, 'vocab_size': 10, 'width': 8, 'heads': 1, 'layers': 1}
    encoder = DenseCLIP(CLIP(16, vision, text).visual.eval())
    embeddings = torch.nn.functional.normalize(torch.randn(5, 16), dim=-1)
    return SegEarthSegmentation.from_parts(
        encoder, embeddings, torch.tensor([0, 1, 1, 2, 2]), slide_crop=32, slide_stride=16, prob_thd=0.3
    )


@pytest.mark.parametrize('refine', [None, 'propagation'])
def test_segmentor_in_blocks_equals_the_segmentor(segmentor, refine):
    segmentor.core.settings = replace(segmentor.core.settings, refine=refine)
    picture = smooth_picture(90, 120)
    labels, scores = label_in_blocks(SegmenterModel(segmentor.core), picture, np.ones((90, 120), bool), 48)
    sample = segmentor.test_step({'inputs': [torch.from_numpy(picture[::-1].copy())]})[0]
    assert (labels == sample.pred_sem_seg.data[0].numpy()).mean() >= 0.999
    chosen = sample.seg_logits.data.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
    np.testing.assert_allclose(scores, chosen.numpy(), atol=2e-3)


def test_description_knows_the_words_and_the_settings(segmentor):
    model = SegmenterModel(segmentor.core)
    before = model.describe()
    assert before == SegmenterModel(segmentor.core).describe()
    core = segmentor.core
    core.set_vocabulary(core.text_embeddings.flip(0), core.query_to_class)
    changed_words = model.describe()
    core.settings = replace(core.settings, prob_threshold=0.0)
    changed_threshold = model.describe()
    core.settings = replace(core.settings, refine='propagation')
    assert len({str(before), str(changed_words), str(changed_threshold), str(model.describe())}) == 4


def test_whole_image_setting_becomes_windows(segmentor):
    segmentor.core.settings = replace(segmentor.core.settings, crop_size=0)
    assert SegmenterModel(segmentor.core).crop_size == (224, 224)
