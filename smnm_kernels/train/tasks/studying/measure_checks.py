"""What is wrong with a plan's measures: options that their commands would refuse, after hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.models.settings import EncoderSettings
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
    if measure.of or measure.list:
        raise UsageError("of, list: a loss is of the files that are held out")
    for run in measure.runs:
        common_masks(plan.setups[run], settings)


def _check_probe(plan: StudyPlan, measure: Measure) -> None:
    options = probe_options.Probe(modality=plan.modality, **_given(measure))
    probe_options.check(options)
    _check_pool(plan, measure, options.pool)
    for run, encoder in _encoders(plan, measure):
        layer_numbers(options.layer, encoder.depth, f"run {run}")


def _check_finetune(plan: StudyPlan, measure: Measure) -> None:
    options = finetune_options.Finetune(modality=plan.modality, **_given(measure))
    finetune_options.check(options)
    preset = finetune_options.preset_of(options)
    if plan.modality == AudioVideo.name:
        return
    finetune_options.clip_of(options, preset, None)
    _check_pool(plan, measure, preset.pool)


def _check_segment(plan: StudyPlan, measure: Measure) -> None:
    if plan.modality != "video":
        raise UsageError(f"segment is for video, not for {plan.modality}")
    options = segment.Segment(**_given(measure))
    segment.check(options)
    for run, encoder in _encoders(plan, measure):
        if options.layer is not None and options.layer > encoder.depth:
            raise UsageError(
                f"--layer must be at most {encoder.depth}, the blocks of run {run}, got "
                f"{options.layer}"
            )


def _check_pool(plan: StudyPlan, measure: Measure, pool: str) -> None:
    for run, encoder in _encoders(plan, measure):
        if pool == "class" and not encoder.class_token:
            raise UsageError(f"--pool class: encoders of run {run} have no class token")


def _encoders(plan: StudyPlan, measure: Measure) -> list[tuple[str, EncoderSettings]]:
    """Of its runs, as far as their objectives tell."""
    found = [(run, plan.setups[run].preset.objective.encoder) for run in measure.runs]
    return [(run, encoder) for run, encoder in found if encoder is not None]


def _check_retrieve(plan: StudyPlan, measure: Measure) -> None:
    retrieve.check(retrieve.Retrieve(**_given(measure)))


def _given(measure: Measure) -> dict[str, Any]:
    """With what a cell sets, by names alone."""
    return {"data": Path("DATA"), "encoder": "RUN", "out": Path("OUT"), **measure.options}
