"""transformers' run_mae.py: a collate function of its own, and an evaluation set."""

import pytest
import torch
from small_models import VIT
from testing import assert_same, need_packages

from smnm_kernels.adapters import epoch_callback, hf_sampler
from smnm_kernels.loading import MaskCollator, WithSampleIds

need_packages("transformers", "accelerate")


class Images(list):
    """As a dataset of Hugging Face with ``set_transform``: rows have columns that the model does
    not take."""

    def __getitem__(self, index):
        return {"pixel_values": super().__getitem__(index), "label": index, "name": f"{index}.jpg"}


def collate_fn(examples):
    """As in the script."""
    return {"pixel_values": torch.stack([example["pixel_values"] for example in examples])}


def trainer(out, evaluation, seen):
    from transformers import Trainer, TrainingArguments, ViTMAEConfig, ViTMAEForPreTraining

    torch.manual_seed(0)
    config = ViTMAEConfig(**VIT, image_size=32)
    model = ViTMAEForPreTraining(config)
    model.register_forward_pre_hook(
        lambda _, args, given: seen.append((model.training, given["noise"])), with_kwargs=True
    )
    arguments = TrainingArguments(
        out,
        num_train_epochs=2,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,  # as the script's own CustomTrainingArguments
        label_names=["pixel_values"],
    )
    collator = MaskCollator(
        hf_sampler(config, "green2d"), view="vitmae_noise", key="noise", collate=collate_fn
    )
    images = Images(torch.randn(8, 3, 32, 32))
    return Trainer(
        model,
        arguments,
        data_collator=collator,
        train_dataset=WithSampleIds(images),
        eval_dataset=evaluation(images),
        callbacks=[epoch_callback()],
    )


@pytest.mark.slow
def test_it_trains_and_evaluates_with_masks_that_stay(tmp_path):
    seen = []
    run = trainer(tmp_path, lambda images: WithSampleIds(images, fixed=True), seen)
    run.train()
    assert torch.isfinite(torch.tensor(run.evaluate()["eval_loss"]))
    trained = torch.cat([noise for training, noise in seen if training])
    assert len(trained.unique(dim=0)) == 16
    evaluated = torch.cat([noise for training, noise in seen if not training])
    stays = run.data_collator.sampler.masks(torch.arange(8)).vitmae_noise
    assert_same(evaluated, stays.repeat(3, 1))


@pytest.mark.slow
def test_an_evaluation_set_without_ids_is_an_error_that_says_what_to_do(tmp_path):
    run = trainer(tmp_path, lambda images: images, [])
    with pytest.raises(KeyError, match=r"evaluation, too: WithSampleIds\(dataset, fixed=True\)"):
        run.evaluate()
