"""What RUN gets while a model is trained: checkpoints, pictures, encoders."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from smnm_kernels.errors import RunError
from smnm_kernels.files import replacing
from smnm_kernels.train.data.loader import Failure
from smnm_kernels.train.data.waiting import Background, Stopped, Watch, wait_for

from . import bad_loss
from .failures import Failures
from .folder import CHECKPOINT, ENCODER, MetricsLog, RunFolder
from .plan import Plan
from .stalled import bounded
from .task import Task


class Saving:
    """Writes them in the first process of a run, and says what there is to go on from; in the
    others, whose `folder` is None, it writes nothing."""

    def __init__(
        self,
        task: Task,
        plan: Plan,
        folder: RunFolder | None,
        log: MetricsLog | None,
        failures: Failures,
        at: int | None,
        watch: Watch,
    ) -> None:
        """at: the step of the checkpoint that RUN holds. watch: over the reading for a picture."""
        self.task, self.plan, self.folder, self.log = task, plan, folder, log
        self._failures, self._watch = failures, watch
        self.at = at

    def writing(self, path: Path) -> AbstractContextManager[None]:
        return bounded(path, self.plan.stall_limit)

    def checkpoint(self, step: int, picture: bool = True) -> None:
        """last.pt, and a picture of what the model does by now."""
        if self.at == step:
            return
        bad = bad_loss.bad_weights(self.task.model)
        if bad:
            raise RunError(
                f"the gradients of step {step} were not finite, though its loss was: "
                f"{len(bad)} weights are not any more, the first {bad[0]}. Begin again in another "
                f"--out, with a lower --lr than {self.plan.schedule.peak:g}. {self.before()}"
            )
        if not self.folder or not self.log:
            return
        with self.writing(self.folder.path / CHECKPOINT):
            self.log.sync()
            self.folder.save_checkpoint(
                {
                    "step": step,
                    "model": self.task.model.state_dict(),
                    "optimizer": self.task.optimizer.state_dict(),
                    "task": self.task.state(),
                }
            )
        self.at = step
        if picture and step < self.plan.steps:
            self.picture(step)

    def picture(self, step: int) -> None:
        pictures, failures = self.task.pictures, list[Failure]()
        if not self.folder or pictures is None:
            return
        try:
            work = Background(
                "the reading of some samples for a picture",
                lambda _: pictures.read_for_picture(failures.append),
            )
            samples = wait_for(work, self._watch)
        except Stopped:
            return
        except RunError as error:
            raise RunError(f"{error}; {self.to_go_on(step)}") from error
        for failure in failures:
            self._failures.add(failure)
        if samples is not None:
            picture = pictures.picture(samples)
            path = self.folder.path / pictures.picture_name
            with self.writing(path), replacing(path) as file:
                picture.save(file, format="PNG")

    def export(self, step: int) -> None:
        assert self.folder
        self._export(self.folder.path / ENCODER, step)

    def keep(self, step: int) -> None:
        """The encoder of this step, beside those of others."""
        if self.folder:
            self._export(self.folder.kept_encoder(step), step)

    def _export(self, path: Path, step: int) -> None:
        with self.writing(path):
            self.task.export(path, step)

    def to_go_on(self, step: int) -> str:
        """What there is to go on from, after so many steps."""
        if not self.folder:
            return "the first process of the run saves"
        if self.at is None:
            return "nothing is saved yet: give the same command again"
        when = "saved" if self.at == step else "the last checkpoint is whole, from"
        return (
            f"{when} after step {self.at} of {self.plan.steps}; "
            "give the same command again to go on"
        )

    def before(self) -> str:
        """Where a run can begin that must not go on from here."""
        if not self.at:
            return "There is no checkpoint yet"
        return f"The last checkpoint is from before it, after step {self.at}"
