"""InfoNCE against its definition, and gradients over processes."""

import itertools
import math
import threading

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from smnm_kernels.train.models import exchange
from smnm_kernels.train.models.contrast import (
    accuracy,
    cosines,
    info_nce,
    related_of_all,
    sharing,
)
from smnm_kernels.train.models.exchange import everyones

DIRECTIONS = ["a_to_b", "both"]


def pair(n=5, d=7, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, dtype=dtype, generator=generator) for _ in range(2))


def one_direction(a, b, temperature, files=None):
    """Of each row of a: minus the log of its own row's share of the exponentials over all of b, but
    for others that have a file in common with it."""
    files = files or [{i} for i in range(len(a))]
    total = 0.0
    for i in range(len(a)):
        likeness = {
            j: float(a[i] @ b[j] / (a[i].norm() * b[j].norm())) / temperature
            for j in range(len(b))
            if j == i or not files[i] & files[j]
        }
        largest = max(likeness.values())
        exponentials = (math.exp(x - largest) for x in likeness.values())
        total -= likeness[i] - largest - math.log(sum(exponentials))
    return total / len(a)


@pytest.mark.parametrize("temperature", [1e-3, 0.05, 1.0, 1e3])
def test_the_loss_is_its_definition(temperature):
    a, b = pair()
    there, back = one_direction(a, b, temperature), one_direction(b, a, temperature)
    assert info_nce(a, b, temperature, "a_to_b").item() == pytest.approx(there, rel=1e-9)
    assert info_nce(a, b, temperature).item() == pytest.approx((there + back) / 2, rel=1e-9)
    assert there != pytest.approx(back, rel=1e-9)


# Of five samples: a file twice; mixtures of two; one that has something in common with all.
FILES = {
    "twice": [[4], [2], [4], [0], [1]],
    "mixed": [[0, 1], [1, 0], [2, 3], [3, 2], [1, 4]],
    "with all": [[0, 1], [0, 2], [1, 3], [0, 4], [1, 5]],
    "one": [[7]] * 5,
}


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_samples_of_one_file_are_no_negatives(files):
    a, b = pair()
    of_each, related = [set(one) for one in files], sharing(torch.tensor(files))
    for i, j in itertools.product(range(5), repeat=2):
        assert related[i, j] == bool(of_each[i] & of_each[j])
    there, back = one_direction(a, b, 0.2, of_each), one_direction(b, a, 0.2, of_each)
    found = info_nce(a, b, 0.2, "a_to_b", related)
    assert found.item() == pytest.approx(there, rel=1e-9)
    assert info_nce(a, b, 0.2, related=related).item() == pytest.approx((there + back) / 2)
    if files == FILES["one"]:
        assert found == 0  # there is no negative
        assert accuracy(a, b, related) == 0  # of none


@pytest.mark.parametrize("related", [None, [[0], [0], [1]], [[0], [0], [0]]])
@pytest.mark.parametrize("directions", DIRECTIONS)
def test_the_gradient_is_that_of_the_loss(directions, related):
    a, b = (x.requires_grad_() for x in pair(3, 4))
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    related = related and sharing(torch.tensor(related))
    assert torch.autograd.gradcheck(
        lambda *x: info_nce(*x, directions, related), (a, b, temperature)
    )


@pytest.mark.parametrize("temperature", [1e-3, 0.05, 1e3])
@pytest.mark.parametrize("case", ["drawn", "identical", "all the same", "zero", "opposite"])
def test_it_is_finite_at_the_extremes(case, temperature):
    a, b = pair(dtype=torch.float32)
    a, b = {
        "drawn": (a, b),
        "identical": (a, a.clone()),
        "all the same": (a[:1].repeat(5, 1), a[:1].repeat(5, 1)),
        "zero": (torch.zeros(5, 7), torch.cat([b[:2], torch.zeros(3, 7)])),
        "opposite": (a, -a),
    }[case]
    a.requires_grad_(), b.requires_grad_()
    loss = info_nce(a, b, temperature)
    loss.backward()
    assert loss.isfinite()
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()
    if case in ("all the same", "zero"):
        assert a.grad.abs().max() <= 2 / temperature
        if case == "all the same":
            assert loss.item() == pytest.approx(math.log(5), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_under_autocast_it_is_computed_in_float32(dtype):
    a, b = (x.to(dtype) for x in pair(32, 64))
    with torch.autocast("cpu", torch.bfloat16):
        inside = info_nce(a, b, 0.05)
        shares = accuracy(a, b)
    assert inside.dtype == shares.dtype == torch.float32
    assert inside == info_nce(a.float(), b.float(), 0.05)


def test_the_accuracy_is_the_share_of_rows_that_find_their_own():
    a = torch.eye(4)
    assert accuracy(a, a) == 1
    assert accuracy(a, a[[0, 1, 3, 2]]) == 0.5
    assert accuracy(torch.ones(4, 3), torch.ones(4, 3)) == 0.25  # chance
    assert accuracy(torch.zeros(4, 3), a[:, :3]) == 0.25
    alone = torch.eye(4, dtype=torch.bool)
    alone[0] = alone[:, 0] = True  # the first has no other, the second and third have each other
    alone[3] = alone[:, 3] = True
    assert accuracy(a, a[[3, 1, 2, 0]], alone) == 1  # of the two that count
    assert accuracy(a, a, torch.ones(4, 4, dtype=torch.bool)) == 0
    one_file = sharing(torch.tensor([[0], [1], [2], [2]]))
    third = 1 / 3  # three of four rows are compared, and none is near
    assert accuracy(a, a[[0, 1, 3, 2]], one_file).item() == pytest.approx((2 + 2 * third) / 4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((torch.ones(2, 3), torch.ones(2, 4), 1.0), r"of one D, got \(2, 3\) and \(2, 4\)"),
        ((torch.ones(2, 3), torch.ones(2, 3), 0.0), r"temperature must be above 0, got 0\.0"),
        ((torch.ones(2, 3), torch.ones(2, 3), math.nan), "temperature must be above 0, got nan"),
        ((torch.ones(2, 3), torch.ones(2, 3), 1.0, "a"), "must be a_to_b or both, got 'a'"),
    ],
)
def test_what_does_not_fit_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        info_nce(*given)


# Over processes. Weights w give the views x w[0] and x w[1]; one process has all of x.


# Of the six samples; two are of one file, in different processes.
NUMBERS = torch.tensor([[3], [1], [2], [0], [1], [5]])


def gradients(x, all_in_full, numbers=NUMBERS):
    """Of the weights after averaging over processes, as DDP averages."""
    w = torch.tensor([[1.0, 2, -1], [0.5, -1, 3]], dtype=torch.float64, requires_grad=True)
    a, b = x * w[0], (x + 0.3) * w[1]
    if all_in_full:
        related = related_of_all(numbers, x.device)
        loss = info_nce(everyones(a), everyones(b), 0.2, related=related)
    else:  # each process has the rows of its own samples
        n, first = len(a), (exchange.dist.get_rank() * len(a) if len(a) < 6 else 0)
        everything = cosines(a, everyones(b)) / 0.2
        loss = torch.nn.functional.cross_entropy(everything, first + torch.arange(n))
    loss.backward()
    return loss.detach(), w.grad


class Threads:
    """The part of torch.distributed that `everyones` uses, between threads of this process."""

    def __init__(self, world):
        self.barrier, self.given, self.local = threading.Barrier(world), [None] * world, {}
        self.world = world

    is_available = is_initialized = staticmethod(lambda: True)

    def get_world_size(self):
        return self.world

    def get_rank(self):
        return self.local[threading.get_ident()]

    def _exchange(self, x):
        self.given[self.get_rank()] = x.clone()
        self.barrier.wait(60)
        everything = [x.clone() for x in self.given]
        self.barrier.wait(60)
        return everything

    def all_gather(self, parts, x):
        for part, given in zip(parts, self._exchange(x), strict=True):
            part.copy_(given)

    def all_reduce(self, x):
        x.copy_(sum(self._exchange(x)))


@pytest.mark.parametrize("all_in_full", [True, False])
@pytest.mark.parametrize("world", [2, 3])
def test_gradients_over_processes_are_those_of_one(world, all_in_full, monkeypatch):
    x, _ = pair(6, 3)
    loss, expected = gradients(x, all_in_full)
    threads, found = Threads(world), {}
    monkeypatch.setattr(exchange, "dist", threads)

    def run(rank):
        threads.local[threading.get_ident()] = rank
        found[rank] = gradients(x.chunk(world)[rank], all_in_full, NUMBERS.chunk(world)[rank])

    workers = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(found) == world
    losses, grads = zip(*found.values(), strict=True)
    torch.testing.assert_close(sum(losses) / world, loss)
    torch.testing.assert_close(sum(grads) / world, expected)


def test_without_gradients_nothing_is_exchanged(monkeypatch):
    monkeypatch.setattr(exchange, "dist", Threads(2))  # whose barrier would wait for another
    x = torch.ones(2, 3)
    with torch.no_grad():
        assert everyones(x) is x


def _process(rank, folder, x, all_in_full):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    loss, grad = gradients(x.chunk(2)[rank], all_in_full, NUMBERS.chunk(2)[rank])
    for value in (loss, grad):
        dist.all_reduce(value)
    if rank == 0:
        torch.save((loss / 2, grad / 2), folder / "found.pt")
    dist.destroy_process_group()


@pytest.mark.exhaustive
@pytest.mark.parametrize("all_in_full", [True, False])
def test_gradients_over_gloo_are_those_of_one_process(all_in_full, tmp_path):
    x, _ = pair(6, 3)
    mp.spawn(_process, (tmp_path, x, all_in_full), nprocs=2)
    found = torch.load(tmp_path / "found.pt")
    torch.testing.assert_close(found, gradients(x, all_in_full))
