"""A task, and a kind of data, that take no time: y = a x + b."""

from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import nn

from smnm_kernels.errors import Unusable
from smnm_kernels.train.data.loader import SampleDataset
from smnm_kernels.train.run.loop import Loop
from smnm_kernels.train.run.optimisation import Optimisation
from smnm_kernels.train.run.options import RunOptions
from smnm_kernels.train.run.plan import Recipe, begin

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Numbers:
    """A kind of data with two inputs: files of lines "x y"."""

    noise: float

    name = "numbers"
    suffixes = frozenset([".txt"])
    inputs = {}  # noqa: RUF012

    def probe(self, source):
        try:
            return {"pair": [float(word) for word in source.path.read_text().split()]}
        except ValueError as error:
            raise Unusable("holds no numbers") from error

    def read(self, source, record, randomness):
        x, y = (torch.tensor(v).view(1, 1, 1, 1) for v in record["pair"])
        return {"x": x + self.noise * randomness.uniforms(1)[0], "y": y}

    def read_fixed(self, source, record, view):
        x, y = (torch.tensor(v).view(1, 1, 1, 1) for v in record["pair"])
        return {"x": x + view.clip, "y": y}

    def padded(self, record):
        return {}

    def remarks(self, records):
        return []


class Line:
    """A task: y = a x + b."""

    picture_name = "line.png"
    evaluations = watch = None

    def __init__(self, dataset):
        torch.manual_seed(0)
        self.dataset = dataset
        self.model = nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters())  # unlike Adam, of some scale
        self.seen, self.drawn, self.threads = [], [], set()

    def step(self, forward, batch, clock):
        with clock.measure("think_ms"):
            self.seen += batch.sample_ids.tolist()
            self.drawn.append(torch.rand(()).item())
            self.threads.add(torch.get_num_threads())
        error = forward(batch.inputs["x"].flatten(1).float()) - batch.inputs["y"].flatten(1)
        return {"loss": error.square().mean(), "bias": error.mean()}

    def state(self):
        return {"seen": self.seen}

    def load_state(self, state):
        self.seen = state["seen"]

    @property
    def pictures(self):
        return self

    def read_for_picture(self, report):
        return []

    def picture(self, samples):
        return Image.new("L", (4, 4))

    def export(self, path, step):
        path.write_text(str(step))

    def exported_step(self, path):
        return int(path.read_text()) if path.exists() else None


OPTIMISATION = Optimisation(
    batch_size=4, base_lr=3.2, base_min_lr=0.0, weight_decay=0.0, betas=(0.9, 0.95),
    steps=10, warmup_steps=2, checkpoint_every=3,
)  # fmt: skip


def run_line(
    tmp_path, task=Line, code=0, modality=None, lr=OPTIMISATION.lr, checkpoint_every=3, **options
):
    """Runs it on five files below tmp_path; the task."""
    data = tmp_path / "data"
    data.mkdir(parents=True, exist_ok=True)
    for i in range(5):
        (data / f"{i}.txt").write_text(f"{i} {2 * i + 1}")
    (data / "words.txt").write_text("no numbers")
    modality = modality or Numbers(noise=0.1)
    optimisation = replace(OPTIMISATION, checkpoint_every=checkpoint_every)
    recipe = Recipe(modality, optimisation, lr, {"noise": 0.1})
    options = RunOptions(**({"workers": 0, "threads": 1} | options))
    plan, folder = begin(options, recipe, data, tmp_path / "run", CPU)
    task = task(SampleDataset(data, plan.files, modality, options.seed))
    assert Loop(task, plan, CPU, tmp_path / "run", folder).run() == code
    return task
