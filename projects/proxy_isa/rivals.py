"""The losses that Proxy-ISA is compared with, by name, and a cross-batch memory for any of them.

All come from pytorch-metric-learning, but for ProxyGML, which it has not (2.9): written here after Zhu et al. (NeurIPS
2020) as released. Names and what they are:

    proxy_nca         Movshovitz-Attias et al. (2017) as in the library: softmax over all proxies, its own among them
    proxy_nca_pp      Teh et al. (2020): the same with scale 9 (temperature 1/9); its pooling is the trunk's matter
    proxy_anchor      Kim et al. (2020)
    soft_triple       Qian et al. (2019), with its pull between a class's centres, `tau`
    proxy_gml         Zhu et al. (2020)
    multi_similarity  Wang et al. (2019) with its miner, `epsilon`
    triplet           Schroff et al. (2015): semi-hard triplets, or `mine` = hard, easy, all

The library writes its proxies over in the embeddings' dtype, and bfloat16 embeddings would spoil them for good: a rival
sees embeddings in at least float32, outside autocast.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64
from pytorch_metric_learning import losses, miners, regularizers
from pytorch_metric_learning.utils import loss_and_miner_utils as lmu
from torch import Tensor, nn
from torch.nn import functional

from common.errors import unknown
from projects.proxy_isa.loss import check
from projects.proxy_isa.memory import Ring, precise

library: Any = losses  # its types are inferred from defaults: int where a float is meant
MINES = ("all", "hard", "semihard", "easy")


class Rival(nn.Module):
    """A loss with its miner, called as `rival(embeddings, labels)`.

    Attributes:
        proxies: whether the loss holds proxies: they need an optimiser group.
    """

    def __init__(self, loss: nn.Module, classes: int, dim: int, miner: nn.Module | None = None) -> None:
        super().__init__()
        self.loss, self.miner = loss, miner
        self.classes, self.dim = classes, dim
        self.proxies = any(True for _ in loss.parameters())

    def forward(self, embeddings: Float[Tensor, "b d"], labels: Int64[Tensor, " b"]) -> Float[Tensor, ""]:
        """The loss, in at least float32.

        Raises:
            BadInputError, NonFiniteError: what `loss.check` refuses.
        """
        check(embeddings, labels, self.classes, self.dim)
        with torch.autocast(embeddings.device.type, enabled=False):
            x = precise(embeddings)
            return self.loss(x, labels, self.miner(x, labels) if self.miner else None)

    def across(self, x: Tensor, labels: Tensor, memory: Tensor, memory_labels: Tensor) -> Float[Tensor, ""]:
        """The loss of a batch with remembered samples; float32 or float64, no gradient to `memory`.

        With proxies they are further samples: their gradient is the proxies'. Without, they are references only: every
        anchor is of the batch, and no sample is its own reference.
        """
        every, classes = torch.cat([x, memory.to(x.dtype)]), torch.cat([labels, memory_labels])
        if self.proxies:
            return self.loss(every, classes)
        found = (
            self.miner(x, labels, every, classes)
            if self.miner
            else lmu.get_all_pairs_indices(labels, classes)
        )
        a, p, *rest = found
        other = a != p  # the batch stands first among the references
        triplets = len(rest) == 1
        pairs = (a[other], p[other], *(part[other] if triplets else part for part in rest))
        return self.loss(x, labels, pairs, every, classes)


class CrossBatch(nn.Module):
    """A rival that also sees the last features (Wang et al. 2020, XBM); called as `loss(embeddings, labels)`.

    The library's refuses losses with proxies and forgets its position across a `state_dict`; here position, contents
    and warm-up are buffers. A step uses the memory from before it, and adds to it in training mode.

    Args:
        rival: the loss.
        capacity: features remembered, as unit vectors.
        start: training batches before the memory is used (it fills from the first): early features age fast.
    """

    step: Int64[Tensor, ""]

    def __init__(self, rival: Rival, capacity: int, start: int = 0) -> None:
        super().__init__()
        self.rival, self.start = rival, start
        self.ring = Ring(capacity, rival.dim)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, embeddings: Float[Tensor, "b d"], labels: Int64[Tensor, " b"]) -> Float[Tensor, ""]:
        """As `Rival.forward`."""
        memory, remembered = self.ring.contents()
        if bool(self.step < self.start) or not len(remembered):
            loss = self.rival(embeddings, labels)
        else:
            check(embeddings, labels, self.rival.classes, self.rival.dim)
            with torch.autocast(embeddings.device.type, enabled=False):
                loss = self.rival.across(precise(embeddings), labels, memory, remembered)
        if self.training:
            self.ring.push(functional.normalize(precise(embeddings.detach())), labels)
            self.step += 1
        return loss


class ProxyGML(losses.BaseMetricLossFunction):
    """Several proxies a class; each sample is classified over the sub-graph of its most similar proxies.

    With S = cosines (b, C N) and A the `ratio` C N largest of each row, its own class's N always among them:
    logits Z_ic = Σ_{j of c} A_ij S_ij, softmax over the classes that A reaches, cross-entropy; plus `weight` times the
    cross-entropy of the proxies themselves, classified by the sums of their cosines.

    Args:
        num_classes: C.
        embedding_size: of the embeddings.
        per_class: N.
        ratio: r, the share of proxies kept.
        weight: lambda of the proxies' term.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        per_class: int = 12,
        ratio: float = 0.05,
        weight: float = 0.3,
    ) -> None:
        super().__init__()
        self.classes, self.per_class, self.weight = num_classes, per_class, weight
        total = num_classes * per_class
        self.kept = min(total, max(per_class, math.ceil(ratio * total)))
        self.proxies = nn.Parameter(torch.empty(total, embedding_size))
        nn.init.kaiming_uniform_(self.proxies, a=math.sqrt(5))

    def compute_loss(
        self, embeddings: Tensor, labels: Tensor, indices_tuple: Any, ref_emb: Tensor, ref_labels: Tensor
    ) -> dict[str, dict[str, Any]]:
        """See the class."""
        p = functional.normalize(self.proxies)
        s = functional.normalize(embeddings) @ p.to(embeddings.dtype).T
        owner = torch.arange(len(p), device=s.device) // self.per_class
        rank = s.detach() + 4.0 * (labels[:, None] == owner)  # above every cosine
        keep = torch.zeros_like(s).scatter_(1, rank.topk(self.kept, dim=1).indices, 1.0)
        z = (keep * s).view(len(s), self.classes, self.per_class).sum(2)
        reached = keep.view(len(s), self.classes, self.per_class).amax(2) > 0
        each = functional.cross_entropy(z.masked_fill(~reached, -torch.inf), labels, reduction="none")
        own = (p @ p.T).view(len(p), self.classes, self.per_class).sum(2)
        each = each + self.weight * functional.cross_entropy(own, owner)
        indices = torch.arange(len(s), device=s.device)
        return {"loss": {"losses": each, "indices": indices, "reduction_type": "element"}}


def _proxy_nca_pp(classes: int, dim: int, scale: float = 9.0) -> tuple[nn.Module, None]:
    return library.ProxyNCALoss(classes, dim, softmax_scale=scale), None


def _proxy_nca(classes: int, dim: int, scale: float = 1.0) -> tuple[nn.Module, None]:
    return _proxy_nca_pp(classes, dim, scale)


def _proxy_anchor(classes: int, dim: int, alpha: float = 32.0, delta: float = 0.1) -> tuple[nn.Module, None]:
    return library.ProxyAnchorLoss(classes, dim, margin=delta, alpha=alpha), None


def _soft_triple(
    classes: int,
    dim: int,
    centers: int = 10,
    scale: float = 20.0,
    gamma: float = 0.1,
    margin: float = 0.01,
    tau: float = 0.2,
) -> tuple[nn.Module, None]:
    pull = regularizers.SparseCentersRegularizer(classes, centers) if tau and centers > 1 else None
    loss = library.SoftTripleLoss(
        classes, dim, centers, la=scale, gamma=gamma, margin=margin,
        weight_regularizer=pull, weight_reg_weight=tau,
    )  # fmt: skip
    return loss, None


def _proxy_gml(
    classes: int, dim: int, per_class: int = 12, ratio: float = 0.05, weight: float = 0.3
) -> tuple[nn.Module, None]:
    return ProxyGML(classes, dim, per_class, ratio, weight), None


def _multi_similarity(
    classes: int, dim: int, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, epsilon: float = 0.1
) -> tuple[nn.Module, nn.Module]:
    return library.MultiSimilarityLoss(alpha, beta, base), miners.MultiSimilarityMiner(epsilon)


def _triplet(
    classes: int, dim: int, margin: float = 0.2, mine: str = "semihard"
) -> tuple[nn.Module, nn.Module]:
    if mine not in MINES:
        raise unknown("mine of triplet", mine, MINES)
    return library.TripletMarginLoss(margin), miners.TripletMarginMiner(margin, type_of_triplets=mine)


RIVALS: Mapping[str, Callable[..., tuple[nn.Module, nn.Module | None]]] = {
    "proxy_nca": _proxy_nca,
    "proxy_nca_pp": _proxy_nca_pp,
    "proxy_anchor": _proxy_anchor,
    "soft_triple": _soft_triple,
    "proxy_gml": _proxy_gml,
    "multi_similarity": _multi_similarity,
    "triplet": _triplet,
}


def build(options: Mapping[str, Any], classes: int, dim: int) -> Rival | CrossBatch:
    """The rival of a config section: `name`, its options, and `memory` (features, 0 for none) with `memory_start`.

    Raises:
        BadInputError: an unknown name or option.
    """
    given = dict(options)
    name = str(given.pop("name", ""))
    memory, start = int(given.pop("memory", 0)), int(given.pop("memory_start", 0))
    if name not in RIVALS:
        raise unknown("rival", name, RIVALS)
    valid = list(inspect.signature(RIVALS[name]).parameters)[2:]
    for option in given:
        if option not in valid:
            raise unknown(f"option of {name}", option, [*valid, "memory", "memory_start"])
    loss, miner = RIVALS[name](classes, dim, **given)
    rival = Rival(loss, classes, dim, miner)
    return CrossBatch(rival, memory, start) if memory else rival
