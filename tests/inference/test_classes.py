import pytest
import torch
import torch.nn.functional as F

from segearth.errors import ConfigError
from segearth.inference import scoring as module
from segearth.inference.scoring import classify
from segearth.inference.settings import InferenceSettings


def reference(logits, query_to_class, num_classes, scale, size):
    logits = F.interpolate(logits[None], size=size, mode='bilinear', align_corners=False)[0]
    probabilities = (logits * scale).softmax(dim=0)
    return torch.stack([probabilities[query_to_class == index].amax(dim=0) for index in range(num_classes)])


def test_best_word_of_a_class_counts_by_hand():
    probabilities = torch.tensor([0.30, 0.25, 0.45])  # two words of class 0, one of class 1
    logits = probabilities.log()[:, None, None]
    scores, labels = classify(logits, torch.tensor([0, 0, 1]), 2, logit_scale=1)
    torch.testing.assert_close(scores.flatten(), torch.tensor([0.30, 0.45]))
    assert labels.item() == 1


@pytest.mark.parametrize('size', [(9, 11), (30, 25), (4, 50), (1, 1)])
@pytest.mark.parametrize('strip_bytes', [1, 5000, 2**30])
def test_strips_change_nothing(monkeypatch, size, strip_bytes):
    monkeypatch.setattr(module, 'STRIP_BYTES', strip_bytes)
    torch.manual_seed(0)
    logits, query_to_class = torch.randn(6, 9, 11), torch.tensor([2, 0, 1, 1, 0, 3])
    scores, labels = classify(logits, query_to_class, 4, 10, size=size)
    expected = reference(logits, query_to_class, 4, 10, size)
    torch.testing.assert_close(scores, expected)
    assert torch.equal(labels, expected.argmax(dim=0, keepdim=True))


def test_pixels_below_the_threshold_become_background():
    logits = torch.tensor([[[5.0, 0.1]], [[0.0, 0.0]], [[0.0, 0.0]]])
    _, labels = classify(logits, torch.arange(3), 3, 1, prob_threshold=0.5, background_index=2)
    assert labels.flatten().tolist() == [0, 2]


def test_a_threshold_of_each_class():
    logits = torch.tensor([[[5.0, 0.0, 0.6]], [[0.0, 0.5, 0.0]], [[0.0, 0.0, 0.0]]])
    _, labels = classify(logits, torch.arange(3), 3, 1, prob_threshold=(0.9, 0.3, 0.0), background_index=2)
    assert labels.flatten().tolist() == [0, 1, 2]
    same = classify(logits, torch.arange(3), 3, 1, prob_threshold=(0.5, 0.5, 0.5), background_index=2)[1]
    assert torch.equal(same, classify(logits, torch.arange(3), 3, 1, 0.5, 2)[1])


@pytest.mark.parametrize('given', [(), (0.1, 2), (0.1, 'a'), '0.1,0.2', (True, 0.1)])
def test_thresholds_that_cannot_be_are_refused(given):
    with pytest.raises(ConfigError, match='prob_thd.*allowed: 0 to 1, for all or each class'):
        InferenceSettings(prob_threshold=given)
