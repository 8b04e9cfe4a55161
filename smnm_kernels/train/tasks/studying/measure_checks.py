"""What is wrong with a plan's measures: options that their commands would refuse, after hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smnm_kernels.errors import UsageError
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.sigma import Sigma
from smnm_kernels.train.run.options import need_at_least
from smnm_kernels.train.tasks import finetune_options, probe_options, retrieve, segment
from smnm_kernels.train.tasks.probing.layers import layer_numbers

from .heldout_loss import HeldOutLoss, common_masks
from .plan import Measure, StudyPlan
from .reading import Wrong


def check_measures(plan: StudyPlan) -> None:
    """Raises Wrong, with the place in the plan's file."""
    checks = {
        "loss": _check_loss,
        "probe": _check_probe,
        "finetune": _check_finetune,
        "segment": _check_segment,
        "retrieve": _check_retrieve,
    }
    for measure in plan.measures.values():
        try:
            checks[measure.command](plan, measure)
        except UsageError as error:
            raise Wrong(f"{plan.file}.measures.{measure.name}", str(error)) from error


def _check_loss(plan: StudyPlan, measure: Measure) -> None:
    settings = HeldOutLoss(**measure.options)
    for name in ("clips", "masks", "compared"):
        need_at_least(settings, name, 1)
    for setup in plan.setups.values():
        common_masks(setup, settings)


def _check_probe(plan: StudyPlan, measure: Measure) -> None:
    options = probe_options.Probe(modality=plan.modality, **_given(measure))
    probe_options.check(options)
    for run in measure.runs:
        objective = plan.setups[run].preset.objective
        assert isinstance(objective, MaskedAutoencoding | Sigma)
        layer_numbers(options.layer, objective.model.encoder.depth, f"run {run}")


def _check_finetune(plan: StudyPlan, measure: Measure) -> None:
    options = finetune_options.Finetune(modality=plan.modality, **_given(measure))
    finetune_options.check(options)
    finetune_options.preset_of(options)


def _check_segment(plan: StudyPlan, measure: Measure) -> None:
    segment.check(segment.Segment(**_given(measure)))


def _check_retrieve(plan: StudyPlan, measure: Measure) -> None:
    retrieve.check(retrieve.Retrieve(**_given(measure)))


def _given(measure: Measure) -> dict[str, Any]:
    """With what a cell sets, by names alone."""
    return {"data": Path("DATA"), "encoder": "RUN", "out": Path("OUT"), **measure.options}
