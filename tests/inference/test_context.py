import pytest
import torch
import torch.nn.functional as F

from segearth.inference.context import NUM_FIRST, TEMPERATURE, TEXT_SCALE, fit_posteriors, refine_in_context


def clusters(count=40, channels=6, spread=0.05, seed=0):
    """Unit features (2 N, C) around two directions, and two texts that lean to one of them each."""
    generator = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(2, channels, generator=generator), dim=1)
    points = centres.repeat_interleave(count, 0) + spread * torch.randn(2 * count, channels, generator=generator)
    return F.normalize(points, dim=1), centres


def fit_by_the_definition(features, log_prior):
    """The rounds as they are written down, word by word, in float64."""
    features, prior = features.double(), log_prior.double().exp()
    means = []
    for word in prior.T:
        first = word.topk(min(NUM_FIRST, len(word))).indices
        means.append(F.normalize((word[first, None] * features[first]).sum(0), dim=0))
    variance = torch.full((features.shape[1],), 1 / features.shape[1], dtype=torch.float64)
    for _ in range(10):
        gaussians = [torch.distributions.Normal(mean, variance.sqrt()).log_prob(features).sum(1) for mean in means]
        likelihood = torch.stack(gaussians, 1)
        shares = prior * ((likelihood - likelihood.amax(1, keepdim=True)) / (TEMPERATURE * features.shape[1])).exp()
        shares = shares / shares.sum(1, keepdim=True)
        means = [F.normalize((share[:, None] * features).sum(0), dim=0) for share in shares.T]
        spread = [(share[:, None] * (features - mean) ** 2).sum(0) for share, mean in zip(shares.T, means, strict=True)]
        variance = sum(spread) / shares.sum()
    return shares.log()


@pytest.mark.parametrize('count', [40, 2])
def test_the_rounds_are_those_of_the_definition(count):
    features, centres = clusters(count, spread=0.3)
    log_prior = (5 * features @ centres.T).log_softmax(1)
    expected = fit_by_the_definition(features, log_prior)
    torch.testing.assert_close(fit_posteriors(features, log_prior).double(), expected, atol=1e-4, rtol=1e-4)


def test_patches_that_lie_together_get_one_word():
    features, centres = clusters(channels=64, spread=0.02)
    tilted = F.normalize(centres + 0.9 * centres.flip(0), dim=1)  # texts that hardly tell the clusters apart
    scores = features @ tilted.T + 0.01 * torch.randn(80, 2, generator=torch.Generator().manual_seed(3))
    log_prior = (TEXT_SCALE * scores).log_softmax(1)
    truth = torch.tensor([0, 1]).repeat_interleave(40)
    before = log_prior.softmax(1).gather(1, truth[:, None]).mean()
    after = fit_posteriors(features, log_prior).softmax(1).gather(1, truth[:, None]).mean()
    assert after > before


def test_the_softmax_at_the_logit_scale_gives_the_posteriors():
    features, scores = torch.randn(3, 16, 4, 5), 0.1 * torch.randn(3, 4, 4, 5)
    (refined,) = refine_in_context([scores], [features], 50.0)
    assert refined.shape == scores.shape
    tokens = F.normalize(features, dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    log_prior = (TEXT_SCALE * scores).permute(0, 2, 3, 1).flatten(0, 2).log_softmax(1)
    expected = fit_posteriors(tokens, log_prior).exp().unflatten(0, (3, 4, 5)).permute(0, 3, 1, 2)
    torch.testing.assert_close((50 * refined).softmax(1), expected, atol=1e-5, rtol=1e-4)


def test_a_group_may_be_cut_in_any_way_and_have_any_shapes():
    features, scores = torch.randn(4, 16, 3, 5), 0.1 * torch.randn(4, 3, 3, 5)
    (whole,) = refine_in_context([scores], [features], 50.0)
    parts = refine_in_context(scores.split((1, 3)), features.split((1, 3)), 50.0)
    torch.testing.assert_close(torch.cat(parts), whole)
    turned = refine_in_context([scores[:1].mT, scores[1:]], [features[:1].mT, features[1:]], 50.0)
    torch.testing.assert_close(turned[0].mT, whole[:1], atol=1e-4, rtol=1e-4)
    alone = refine_in_context([scores[:1]], [features[:1]], 50.0)[0]
    assert not torch.allclose(alone, whole[:1], atol=1e-4)


@pytest.mark.parametrize('seed', range(10))
def test_the_order_of_the_group_does_not_matter(seed):
    """Patches that the texts are sure of, whose posteriors float32 cannot tell apart."""
    torch.manual_seed(seed)
    features, scores = torch.randn(4, 16, 3, 5), torch.randn(4, 3, 3, 5)
    (there,) = refine_in_context([scores], [features], 50.0)
    (back,) = refine_in_context([scores.flip(0)], [features.flip(0)], 50.0)
    assert (TEXT_SCALE * scores).log_softmax(1).eq(0).sum() > NUM_FIRST
    torch.testing.assert_close(back.flip(0), there, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('shape', [(1, 1, 1), (1, 2, 2)])
def test_few_or_equal_patches_and_hopeless_words(shape):
    scores = torch.tensor([1.0, 0.0, -1.0])[None, :, None, None].expand(shape[0], 3, *shape[1:])
    (refined,) = refine_in_context([scores], [torch.ones(shape[0], 8, *shape[1:])], 50.0)
    assert refined.isfinite().all()
    assert refined.argmax(1).eq(0).all()
