"""Proxy-ISA as a loss of pytorch-metric-learning, vectorised over the classes.

With s_ic the cosine of embedding i and proxy c, P_c and N_c the samples of the batch in class c and in others, and
m_ic the weights of `weights`, constants (no gradient) from the state before the batch:

    (8)  L = L+ / W+  +  L− / W−
         L+ = Σ_c log(1 + Σ_{i∈P_c} e^{alpha m_ic (delta − s_ic)}),  W+ = Σ_{c in the batch} mean_{i∈P_c} m_ic
    (9)  L− = Σ_c log(1 + Σ_{i∈N_c} e^{alpha m_ic (s_ic + delta)}),  W− = Σ_c mean_{i∈N_c} m_ic

As coefficient, m e^{alpha (…)} stands for e^{alpha m (…)}: log m is added to the exponent. With m = 1, (8) is
Proxy-Anchor. Then, in training mode, of each class in the batch:

    (10) n_c += its samples, but for the hard ones (s < t_c) once the filter is open
    (11) h_c = hardness · mean <p_c, f> over the features f of class c in the memory, to which the same samples were
         added; once the memory is open, and where it holds any
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import BaseMetricLossFunction
from pytorch_metric_learning.losses.mixins import WeightRegularizerMixin
from pytorch_metric_learning.reducers import DivisorReducer
from pytorch_metric_learning.utils.common_functions import TorchInitWrapper
from torch import Tensor, nn
from torch.nn.functional import normalize

from common.errors import BadInputError, NonFiniteError
from common.processes.gather import gathered
from common.training.seeds import generator
from projects.proxy_isa.memory import ClassMemory
from projects.proxy_isa.terms import Cosines, grouped_log1p_sum_exp, log1p_sum_exp
from projects.proxy_isa.weights import Rule, Schedule, negative_weights, permuted, positive_weights, schedule

HALVES = (torch.float16, torch.bfloat16)


class Pairs(NamedTuple):
    """The pairs of a batch: its own proxies' (positive), and all with those columns void (negative).

    In `negative_weights` the void pairs are 0.
    """

    labels: Int64[Tensor, " b"]
    positive: Float[Tensor, " b"]
    negative: Float[Tensor, "b c"]
    positive_weights: Float[Tensor, " b"]
    negative_weights: Float[Tensor, "b c"]
    hard: Bool[Tensor, " b"]
    schedule: Schedule


class ProxyISA(WeightRegularizerMixin, BaseMetricLossFunction):
    """The loss, called as `loss(embeddings, labels)`; proxies stay float32 (or float64) whatever the embeddings are.

    State is in buffers: `step` (training batches seen), `counted` (n_c, from which E_c follows), `level` (h_c) and the
    memory. It moves in training mode only: an optimiser that evaluates a step's loss more than once does all but
    the first with the loss in eval mode. Where torch.distributed is initialised, training gathers the ranks'
    embeddings (the same number each), so that every rank has the loss and the state of the whole batch, and the
    gradients' mean over the ranks, which DistributedDataParallel takes, is the one of a single process.

    Args:
        num_classes: C, at least 2.
        embedding_size: D.
        rule: see `Rule`.
        seed: of the permutations of `rule.control`.
        kwargs: of pytorch-metric-learning: weight_init_func, weight_regularizer, reducer, embedding_regularizer, …

    Raises:
        BadInputError: fewer than two classes; from a call, what `check` refuses.
        NonFiniteError: from a call, NaN or infinite embeddings.
    """

    step: Int64[Tensor, ""]
    counted: Int64[Tensor, " c"]
    level: Float[Tensor, " c"]

    def __init__(
        self, num_classes: int, embedding_size: int, rule: Rule | None = None, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_classes < 2:
            raise BadInputError(f"num_classes = {num_classes}: a proxy loss needs at least 2.")
        self.rule = rule or Rule()
        self.seed = seed
        self.num_classes = num_classes
        self.proxies = nn.Parameter(torch.empty(num_classes, embedding_size))
        init: Callable[[Tensor], None] = self.weight_init_func  # pyright: ignore[reportAssignmentType]
        init(self.proxies)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("counted", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("level", torch.ones(num_classes))
        held = self.rule.capacity
        self.memory = ClassMemory(held, num_classes, embedding_size) if held else None

    def forward(self, embeddings: Tensor, labels: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The loss in at least float32: the library's reducers would round it to the embeddings' dtype."""
        return super().forward(self._wide(embeddings), labels, *args, **kwargs)

    def compute_loss(
        self, embeddings: Tensor, labels: Tensor, indices_tuple: Any, ref_emb: Tensor, ref_labels: Tensor
    ) -> dict[str, dict[str, Any]]:
        """Equation (8) as pytorch-metric-learning's dictionary, then (10) and (11)."""
        if indices_tuple is not None or ref_emb is not embeddings or ref_labels is not labels:
            raise BadInputError("Proxy-ISA compares embeddings with proxies: leave out miner and references.")
        if self.training:
            embeddings, labels = gathered(embeddings), gathered(labels)
        check(embeddings, labels, *self.proxies.shape)
        with torch.autocast(embeddings.device.type, enabled=False):
            x = normalize(embeddings)
            pairs = self._pairs(self._cosines(x), labels)
            terms = self._terms(pairs)
            if self.training:
                self._advance(x.detach(), pairs)
        self.add_weight_regularization_to_loss_dict(terms, self.proxies)
        return terms

    def schedule(self) -> Schedule:
        """Equations (1)-(5) of the present state."""
        return schedule(self.rule, self.counted, self.level)

    @torch.no_grad()
    def pairs(self, embeddings: Float[Tensor, "b d"], labels: Int64[Tensor, " b"]) -> Pairs:
        """The pairs of a batch under the present state, which stays as it is: for diagnostics."""
        check(embeddings, labels, *self.proxies.shape)
        return self._pairs(self._cosines(normalize(self._wide(embeddings))), labels)

    def _wide(self, embeddings: Tensor) -> Tensor:
        return embeddings.to(torch.promote_types(embeddings.dtype, self.proxies.dtype))

    def _cosines(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        s: Tensor = Cosines.apply(x, self.proxies.to(x.dtype))  # pyright: ignore[reportAssignmentType]
        return s

    def _pairs(self, s: Float[Tensor, "b c"], labels: Int64[Tensor, " b"]) -> Pairs:
        rule, state, own = self.rule, self.schedule(), labels[:, None]
        positive = s.gather(1, own).squeeze(1)
        with torch.no_grad():
            filtering = int(self.step) >= rule.filter
            weigh = filtering and rule.weighting in ("both", "positives")
            mp = positive_weights(positive, labels, state, rule.down) if weigh else torch.ones_like(positive)
            weigh = rule.weighting in ("both", "negatives")
            mn = negative_weights(s, state, rule.down) if weigh else torch.ones_like(s)
            mp, mn = self._controlled(mp.to(s.dtype), mn.to(s.dtype).scatter_(1, own, 0.0), labels)
            limit = state.threshold.index_select(0, labels) if filtering else -torch.inf
            hard = positive < limit
        return Pairs(labels, positive, s, mp, mn, hard, state)

    def _controlled(self, mp: Tensor, mn: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        own = labels[:, None]
        if self.rule.control == "permuted":
            draw = generator(self.seed, "permuted weights", int(self.step))
            mixed = permuted(mn.scatter(1, own, mp[:, None]), labels, draw)
            return mixed.gather(1, own).squeeze(1), mixed.scatter(1, own, 0.0)
        if self.rule.control == "mean":
            mean = mn.sum() / (mn.numel() - len(mn))
            return mp.mean().expand_as(mp), mean.repeat(mn.shape).scatter_(1, own, 0.0)
        return mp, mn

    def _terms(self, pairs: Pairs) -> dict[str, dict[str, Any]]:
        rule, mp, mn = self.rule, pairs.positive_weights, pairs.negative_weights
        present, place, count = torch.unique(pairs.labels, return_inverse=True, return_counts=True)
        exponent = rule.weight == "exponent"
        up = rule.alpha * (rule.delta - pairs.positive)
        up = up * mp if exponent else up + mp.log()
        wp = (mp / count[place]).sum()
        down = rule.alpha * pairs.negative  # from here in place: (b, c) is the large one
        down = down.add_(rule.alpha * rule.delta)
        down = down.mul_(mn) if exponent else down.add_(mn.log())
        down = down.scatter_(1, pairs.labels[:, None], -torch.inf)
        wn = (mn.sum(0) / (len(mp) - torch.bincount(pairs.labels, minlength=self.num_classes))).sum()
        classes = torch.arange(self.num_classes, device=mn.device)
        pos = {"losses": grouped_log1p_sum_exp(up, place, len(present)), "indices": present, "divisor": wp}
        neg = {"losses": log1p_sum_exp(down), "indices": classes, "divisor": wn}
        element = {"reduction_type": "element"}
        return {"pos_loss": pos | element, "neg_loss": neg | element}

    @torch.no_grad()
    def _advance(self, x: Float[Tensor, "b d"], pairs: Pairs) -> None:
        kept = ~pairs.hard
        self.counted.index_add_(0, pairs.labels, kept.long())
        if self.memory is not None and bool(self.step >= self.rule.start):
            present = torch.unique(pairs.labels)
            if bool(kept.all()):  # as a rule: spares copies
                self.memory.push(x, pairs.labels)
            else:
                self.memory.push(x[kept], pairs.labels[kept])
            present = present[self.memory.held.index_select(0, present) > 0]
            own = normalize(self.proxies.index_select(0, present))
            self.level[present] = self.rule.hardness * self.memory.similarity(own, present)
        self.step += 1

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ProxyISA:
        """Moves and widens as any module does, but `.half()` or `.to(bfloat16)` leaves proxies and state precise."""

        def precise(tensor: Tensor) -> Tensor:
            out = fn(tensor)
            return tensor.to(out.device) if out.dtype in HALVES else out

        return super()._apply(precise, recurse)

    def get_default_reducer(self) -> DivisorReducer:
        """Sums over classes, divided by W+ and W−."""
        return DivisorReducer()

    def get_default_distance(self) -> CosineSimilarity:
        """What `Cosines` computes; no other is used."""
        return CosineSimilarity()

    def get_default_weight_init_func(self) -> TorchInitWrapper:
        """Proxy-Anchor's and the released one."""
        return TorchInitWrapper(nn.init.kaiming_normal_, mode="fan_out")

    def _sub_loss_names(self) -> list[str]:
        return ["pos_loss", "neg_loss"]


def check(embeddings: Tensor, labels: Tensor | None, classes: int, dim: int) -> None:
    """Refuse a batch that has no loss.

    Raises:
        BadInputError: no or misshapen embeddings, labels that are missing, not integers or without a proxy, or a batch
            of one class: it has nothing to be told apart from.
        NonFiniteError: NaN or infinite embeddings.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] != dim:
        raise BadInputError(f"embeddings of shape {tuple(embeddings.shape)}: give (batch, {dim}).")
    if not len(embeddings):
        raise BadInputError("no embeddings: the batch is empty. Drop it, or look at the sampler.")
    if labels is None or labels.shape != embeddings.shape[:1] or labels.dtype != torch.int64:
        given = None if labels is None else (tuple(labels.shape), labels.dtype)
        raise BadInputError(f"labels {given}: give ({len(embeddings)},) classes in int64.")
    if not math.isfinite(embeddings.detach().sum(dtype=torch.float64).item()):  # cheaper than each of them
        rows = torch.nonzero(~torch.isfinite(embeddings).all(1)).flatten().tolist()[:8]
        raise NonFiniteError(
            f"embeddings of samples {rows} are NaN or infinite: see those inputs, or lower the rate."
        )
    low, high = (int(end) for end in torch.aminmax(labels))
    if low < 0 or high >= classes:
        wrong = sorted({int(y) for y in labels if not 0 <= int(y) < classes})
        raise BadInputError(f"labels {wrong[:8]} have no proxy: classes are 0 to {classes - 1}.")
    if low == high:
        raise BadInputError(
            f"all {len(labels)} samples are of class {low}: a batch needs two; use the class-balanced sampler."
        )
