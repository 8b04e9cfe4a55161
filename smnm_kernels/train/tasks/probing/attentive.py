"""The attentive probe: one block of cross-attention from a learned query to a frozen encoder's
tokens, then a linear layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smnm_kernels.train.models.vit import Mlp, init_xavier

from .targets import Task, quality


@dataclass(frozen=True)
class AttentiveSettings:
    """Ours: small, and the same for every encoder."""

    heads: int
    epochs: int = 50
    least_steps: int = 500  # of few files more epochs
    rounds: int = 20  # after which the choosing files are looked at
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1  # share of the steps
    seed: int = 0


class AttentiveProbe(nn.Module):
    """forward(tokens [B, n, dim] standardised, there bool [B, n]) -> [B, outputs]."""

    def __init__(self, dim: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(dim))
        self.norm1 = nn.LayerNorm(dim)
        self.q = nn.Linear(dim, dim)
        # A bias of keys would move all logits of the one query alike.
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)
        self.norm3 = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, outputs)
        init_xavier([self.q, self.k, self.v, self.proj, self.mlp])
        nn.init.normal_(self.query, std=0.02)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, there: Tensor) -> Tensor:
        """There is one query, so keys and values of single tokens are never made: the query goes
        through the keys' matrix, and what it has pooled through the values'."""
        dim = self.query.shape[0]
        width = dim // self.heads
        x = self.norm1(tokens)
        query = self.q(self.query).view(self.heads, width)
        directions = torch.einsum("hw,hwd->hd", query, self.k.weight.view(self.heads, width, dim))
        logits = (x @ directions.T) * width**-0.5  # [B, n, heads]
        shares = logits.masked_fill(~there[..., None], -torch.inf).softmax(1)
        pooled = shares.transpose(1, 2) @ x  # [B, heads, dim]
        matrices = self.v.weight.view(self.heads, width, dim)
        values = torch.einsum("bhd,hwd->bhw", pooled, matrices).flatten(1) + self.v.bias
        out = self.query + self.proj(values)
        out = out + self.mlp(self.norm2(out))
        return self.head(self.norm3(out))


class AttentiveFit:
    """Training of the probe on some files' tokens.

    tokens: [n, dim] of each file, as many as it has; on the CPU, at any precision.
    """

    def __init__(
        self,
        task: Task,
        tokens: Sequence[Tensor],
        values: np.ndarray,
        settings: AttentiveSettings,
        device: torch.device,
    ) -> None:
        self.task, self.tokens, self.settings, self.device = task, tokens, settings, device
        self.values = torch.from_numpy(np.asarray(values))
        self.mean, self.scale = _statistics(tokens)
        # Numbers are learnt at mean 0 and deviation 1.
        self.shift = float(self.values.mean()) if task.kind == "number" else 0.0
        self.unit = (float(self.values.std(correction=0)) or 1.0) if task.kind == "number" else 1.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = AttentiveProbe(tokens[0].shape[1], settings.heads, task.n_classes or 1)
        self.model = model.to(device)
        steps = max(settings.epochs * -(-len(tokens) // settings.batch_size), settings.least_steps)
        self.steps_a_round = -(-steps // settings.rounds)

    def rounds(self, count: int) -> Iterator[int]:
        """Train the first `count` rounds of the schedule, giving each one's number when done."""
        s = self.settings
        named = list(self.model.named_parameters())
        # Matrices decay; biases, norms and the query do not.
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for _, p in named if p.ndim > 1], "weight_decay": s.weight_decay},
                {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=s.lr,
        )
        total = s.rounds * self.steps_a_round
        batches = self._batches()
        for number in range(count):
            self.model.train()
            for step in range(number * self.steps_a_round, (number + 1) * self.steps_a_round):
                for group in optimizer.param_groups:
                    group["lr"] = s.lr * _schedule(step, total, s.warmup)
                places = next(batches)
                outputs = self.model(*self._batch([self.tokens[i] for i in places.tolist()]))
                loss = self._loss(outputs, self.values[places].to(self.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            yield number + 1

    def _batches(self) -> Iterator[Tensor]:
        """Places, one pass in random order after the other."""
        order = torch.Generator().manual_seed(self.settings.seed)
        while True:
            yield from torch.randperm(len(self.tokens), generator=order).split(
                self.settings.batch_size
            )

    @torch.no_grad()
    def predict(self, tokens: Sequence[Tensor]) -> np.ndarray:
        """Probabilities float64 [m, classes], or numbers [m]."""
        self.model.eval()
        found = []
        for begin in range(0, len(tokens), self.settings.batch_size):
            batch = self._batch(tokens[begin : begin + self.settings.batch_size])
            outputs = self.model(*batch).double().cpu()
            if self.task.kind == "class":
                found.append(outputs.softmax(1))
            elif self.task.kind == "classes":
                found.append(outputs.sigmoid())
            else:
                found.append(outputs[:, 0] * self.unit + self.shift)
        shape = (0,) if self.task.kind == "number" else (0, self.task.n_classes)
        return (torch.cat(found) if found else torch.zeros(shape)).numpy()

    def _batch(self, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(standardised and padded tokens, which of them are there)"""
        longest = max(len(t) for t in tokens)
        x = torch.zeros(len(tokens), longest, tokens[0].shape[1])
        there = torch.zeros(len(tokens), longest, dtype=torch.bool)
        for row, t in enumerate(tokens):
            x[row, : len(t)] = (t.float() - self.mean) / self.scale
            there[row, : len(t)] = True
        return x.to(self.device), there.to(self.device)

    def _loss(self, outputs: Tensor, values: Tensor) -> Tensor:
        if self.task.kind == "class":
            return F.cross_entropy(outputs, values)
        if self.task.kind == "classes":
            return F.binary_cross_entropy_with_logits(outputs, values.float())
        return F.mse_loss(outputs[:, 0], ((values - self.shift) / self.unit).float())


def attentive(
    task: Task,
    tokens: Sequence[Tensor],
    values: np.ndarray,
    fit: np.ndarray,
    choose: np.ndarray,
    train: np.ndarray,
    given: Sequence[Tensor],
    settings: AttentiveSettings,
    device: torch.device,
) -> tuple[np.ndarray, int]:
    """(scores of `given`, steps): trained on the places `fit`, whose number of rounds is the one
    that is best on the places `choose` (of equals the last), and then anew on the places `train`
    for so many. Without files to choose on the whole schedule is trained."""

    def begin(places: np.ndarray) -> AttentiveFit:
        return AttentiveFit(task, [tokens[i] for i in places], values[places], settings, device)

    rounds = settings.rounds
    if len(choose):
        trial, looked_at = begin(fit), [tokens[i] for i in choose]
        rounds = max(
            (quality(task, trial.predict(looked_at), values[choose]), number)
            for number in trial.rounds(settings.rounds)
        )[1]
    final = begin(train)
    for _ in final.rounds(rounds):
        pass
    return final.predict(given), rounds * final.steps_a_round


def _schedule(step: int, total: int, warmup: float) -> float:
    """Linear warmup, then half a cosine to 0."""
    first = max(1, int(total * warmup))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, total - first)))


def _statistics(tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all tokens, float32 [dim]."""
    dim = tokens[0].shape[1]
    count, total, squares = 0, torch.zeros(dim).double(), torch.zeros(dim).double()
    for t in tokens:
        x = t.double()
        count, total, squares = count + len(x), total + x.sum(0), squares + (x**2).sum(0)
    mean = total / count
    variance = (squares / count - mean**2).clamp(min=0)
    scale = variance.sqrt()
    return mean.float(), torch.where(scale > 1e-6, scale, torch.ones(())).float()
