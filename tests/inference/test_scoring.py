import pytest
import torch
import torch.nn.functional as F

from segearth.inference.scoring import (
    EncodedWindows,
    encode_windows,
    global_bias,
    score_encoded,
    similarity,
    upsample_scores,
)
from simfeatup import build_upsampler
from simfeatup.scoring import upsample_maps
from simfeatup.upsamplers.base import Bilinear


class PatchMeans(torch.nn.Module):
    """Encoder whose tokens are the mean colours of 8 x 8 patches, and whose [CLS] is the mean colour."""

    def grid_size(self, height, width):
        return height // 8, width // 8

    def forward(self, images):
        return images.mean(dim=(2, 3)), F.avg_pool2d(images, 8).flatten(2).transpose(1, 2)


def test_similarity_is_the_cosine():
    features, text = torch.randn(2, 5, 4, 6), F.normalize(torch.randn(3, 5), dim=-1)
    expected = F.cosine_similarity(features[:, None], text[None, :, :, None, None], dim=2)
    torch.testing.assert_close(similarity(features, text), expected)


def test_similarity_of_empty_features_is_zero():
    assert similarity(torch.zeros(1, 5, 2, 2), torch.ones(1, 5)).eq(0).all()


def test_global_bias_is_the_weighted_cosine_of_cls():
    cls_token, text = torch.randn(2, 5), F.normalize(torch.randn(3, 5), dim=-1)
    expected = -0.3 * F.cosine_similarity(cls_token[:, None], text[None], dim=2)
    torch.testing.assert_close(global_bias(cls_token, text, -0.3)[..., 0, 0], expected)


def test_uniform_image_scores_one_everywhere_and_bias_is_taken_off():
    colour = F.normalize(torch.tensor([[1.0, 2.0, 3.0]]), dim=-1)
    windows = colour[:, :, None, None].expand(1, 3, 16, 24)
    encoded = encode_windows(PatchMeans(), windows, torch.float32)
    scores = score_encoded(encoded, colour, 0.0)
    torch.testing.assert_close(scores, torch.ones(1, 1, 16, 24))
    torch.testing.assert_close(score_encoded(encoded, colour, -0.3), torch.full((1, 1, 16, 24), 0.7))


def test_upsampler_gets_the_window_as_guidance_and_features_are_normalised_after_it():
    windows, text = torch.randn(2, 3, 16, 24), F.normalize(torch.randn(4, 3), dim=-1)
    encoded = encode_windows(PatchMeans(), windows, torch.float32)
    scores = score_encoded(encoded, text, 0.0, upsampler=lambda features, guidance: guidance)
    torch.testing.assert_close(scores, similarity(windows, text))


@pytest.mark.parametrize('name', ['joint_bilateral', 'bilinear', None])
def test_patch_scores_are_upsampled_as_features_are(name):
    scores, guidance = torch.randn(2, 5, 3, 4), torch.rand(2, 3, 24, 32)
    upsampler = name and build_upsampler(name, 5).eval()
    encoded = EncodedWindows(torch.zeros(2, 7), torch.zeros(2, 7, 3, 4), guidance)
    upsampled = upsample_scores(encoded, scores, upsampler)
    expected = F.interpolate(scores, (24, 32), mode='bilinear') if name is None else upsampler(scores, guidance)
    torch.testing.assert_close(upsampled, expected, atol=1e-5, rtol=1e-5)
    per_patch = encoded._replace(guidance=None)
    assert upsample_scores(per_patch, scores, upsampler) is scores


def test_kernels_of_groups_of_channels_are_averaged_for_scores():
    class InGroups(Bilinear):
        """Each image once upsampled as it is, and once by nothing but zeros."""

        def stages(self, guidance, grid, reuse=None):
            (stage,) = super().stages(guidance, grid, reuse)
            return [stage._replace(kernels=torch.stack([stage.kernels, 0 * stage.kernels], 1).flatten(0, 1))]

    scores, guidance = torch.randn(2, 5, 3, 4), torch.rand(2, 3, 24, 32)
    whole = upsample_maps(Bilinear(5), scores, guidance)
    torch.testing.assert_close(upsample_maps(InGroups(5), scores, guidance), whole / 2)
