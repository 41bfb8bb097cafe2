from __future__ import annotations

import pytest
import torch

from segearth.alignearth.losses import dense_alignment, global_cosine, info_nce, relational, valid_cells


@pytest.fixture
def features():
    torch.manual_seed(0)
    return torch.randn(2, 6, 5, 4)


def test_equal_features_cost_nothing(features):
    cls_token = features.mean((2, 3))
    assert global_cosine(cls_token, cls_token).item() == pytest.approx(0, abs=1e-6)
    assert dense_alignment(features, 3 * features).item() == pytest.approx(0, abs=1e-6)
    assert relational(features, 3 * features).item() == pytest.approx(0, abs=1e-6)
    assert info_nce(torch.eye(4), torch.eye(4)).item() < 1e-5
    assert info_nce(torch.eye(4), torch.eye(4).flip(0)).item() > 5


def test_dense_without_window_is_the_mean_cosine(features):
    other = torch.randn_like(features)
    expected = 1 - torch.nn.functional.cosine_similarity(features, other).mean()
    torch.testing.assert_close(dense_alignment(features, other), expected)


def test_a_window_forgives_a_shift(features):
    shifted = features.roll(1, 3)
    strict, tolerant = dense_alignment(features, shifted), dense_alignment(features, shifted, radius=1)
    assert tolerant < 0.6 * strict


def test_a_window_on_alike_tokens_changes_nothing():
    constant = torch.ones(1, 3, 4, 4)
    other = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    torch.testing.assert_close(dense_alignment(constant, other, radius=2), dense_alignment(constant, other))


def test_invalid_cells_have_no_say(features):
    teacher = torch.randn_like(features)
    valid = torch.ones(2, 5, 4, dtype=torch.bool)
    valid[:, :, 2:] = False
    for loss in (lambda s, t: dense_alignment(s, t, valid, 1), lambda s, t: relational(s, t, valid)):
        student = features.clone().requires_grad_()
        value = loss(student, teacher)
        value.backward()
        assert student.grad[..., 2:].abs().max() == 0
        assert student.grad[..., :2].abs().max() > 0
        changed = torch.where(valid[:, None], teacher, teacher.new_tensor(7.0))
        torch.testing.assert_close(loss(features, changed), value.detach())


def test_nothing_valid_is_no_loss(features):
    student = features.clone().requires_grad_()
    valid = torch.zeros(2, 5, 4, dtype=torch.bool)
    value = dense_alignment(student, features, valid, 1) + relational(student, features, valid)
    value.backward()
    assert value.item() == 0
    assert student.grad.isfinite().all()


@pytest.mark.parametrize('radius', [0, 1])
def test_gradients(radius):
    torch.manual_seed(0)
    student = torch.randn(1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    teacher, valid = torch.randn(1, 3, 3, 3, dtype=torch.float64), torch.ones(1, 3, 3, dtype=torch.bool)
    valid[0, 0, 0] = False
    assert torch.autograd.gradcheck(lambda s: dense_alignment(s, teacher, valid, radius), student)
    assert torch.autograd.gradcheck(lambda s: relational(s, teacher, valid), student)
    assert torch.autograd.gradcheck(lambda s: info_nce(s.mean((2, 3)), teacher.mean((2, 3))), student)


def test_cells():
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    valid[:, :2, :2] = valid[:, 2, 2] = True
    assert valid_cells(valid, (2, 2)).tolist() == [[[True, False], [False, False]]]
