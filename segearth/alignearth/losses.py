"""What "the student sees in the SAR image what the teacher sees in the optical one" means: four losses.

All take features that are not L2-normalised, and none has parameters. Teacher features carry no gradient.

Sources: InfoNCE, van den Oord et al. (arXiv 1807.03748), as CLIP uses it (arXiv 2103.00020) and MM-OVSeg between
modalities; relations, Park et al. (arXiv 1904.05068); the soft window is our own: a smooth maximum with a prior,
as in soft alignment by log-sum-exp.
"""

import torch
from mmengine.dist import all_gather, get_rank
from torch import Tensor
from torch.nn import functional as F

CONTRAST_TEMPERATURE = 0.07  # CLIP's first value
MATCH_TEMPERATURE = 0.05  # of cosines: neighbours less alike by this much count e times less


def global_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean(1 - cos)`` of [CLS] tokens (B, C)."""
    return 1 - F.cosine_similarity(student, teacher.detach(), dim=-1).mean()


def info_nce(student: Tensor, teacher: Tensor) -> Tensor:
    """Symmetric cross-entropy of matching pairs in a batch of [CLS] tokens (B, C), all processes' together.

    Gradients flow through a process's own students only, which averaged over the processes is the gradient of the
    whole batch up to the factor of the number of processes.
    """
    student, teacher = F.normalize(student, dim=-1), F.normalize(teacher.detach(), dim=-1)
    students = all_gather(student.detach().contiguous())
    students[get_rank()] = student
    logits = torch.cat(students) @ torch.cat(all_gather(teacher.contiguous())).T / CONTRAST_TEMPERATURE
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def dense_alignment(student: Tensor, teacher: Tensor, valid: Tensor | None = None, radius: int = 0) -> Tensor:
    """``mean(1 - cos)`` of patch tokens; within a window, the best match counts, softly.

    A student token i is compared with the teacher tokens j at most ``radius`` cells away:
    ``1 - tau log(sum_j p_j exp(cos_ij / tau))``, tau :data:`MATCH_TEMPERATURE`, p a Gaussian of the distance with
    deviation (radius + 1) / 2 that sums to 1 over the valid j. Without a window, or where all j are alike, that is
    ``1 - cos``; pairs that are shifted or changed are not forced together.

    Args:
        student: (B, C, h, w).
        teacher: (B, C, h, w).
        valid: (B, h, w) bool, cells that show ground in both images; None for all. Without any the loss is 0.
        radius: Of the window in cells.
    """
    student, teacher = F.normalize(student, dim=1), F.normalize(teacher.detach(), dim=1)
    if valid is None:
        valid = torch.ones_like(student[:, 0], dtype=torch.bool)
    height, width = student.shape[2:]
    teacher, is_inside = F.pad(teacher, [radius] * 4), F.pad(valid, [radius] * 4)
    cosines, priors = [], []
    for i in range(2 * radius + 1):
        for j in range(2 * radius + 1):
            distance = (i - radius) ** 2 + (j - radius) ** 2
            rows, columns = slice(i, i + height), slice(j, j + width)
            cosines.append((student * teacher[:, :, rows, columns]).sum(1))
            nearness = -2 * distance / (radius + 1) ** 2
            priors.append(torch.where(is_inside[:, rows, columns], nearness, -torch.inf))
    cosine, prior = torch.stack(cosines, 1), torch.stack(priors, 1).to(student.dtype)  # (B, T^2, h, w)
    usable = valid & prior.isfinite().any(1)
    # cells without a valid neighbour are left out below; their infinities must not reach the gradient
    prior = torch.where(usable[:, None], prior, 0.0).log_softmax(1)
    losses = 1 - MATCH_TEMPERATURE * torch.logsumexp(cosine / MATCH_TEMPERATURE + prior, 1)
    return losses[usable].sum() / usable.sum().clamp_min(1)


def relational(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean squared difference of the token-token cosines within each image, over valid cells (B, h, w).

    Student (B, C, h, w) and teacher (B, D, h, w) may have unlike numbers of channels.
    """
    relations = [
        torch.einsum('bcn,bcm->bnm', tokens, tokens)
        for tokens in (F.normalize(features.flatten(2), dim=1) for features in (student, teacher.detach()))
    ]
    squared = (relations[0] - relations[1]).square()
    if valid is None:
        return squared.mean()
    cells = valid.flatten(1).to(squared.dtype)
    weights = cells[:, :, None] * cells[:, None]
    return (squared * weights).sum() / weights.sum().clamp_min(1)


def valid_cells(valid: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cells of which half the pixels or more are valid: (B, H, W) bool -> (B, h, w) bool."""
    return F.adaptive_avg_pool2d(valid.float()[:, None], grid)[:, 0] >= 0.5
