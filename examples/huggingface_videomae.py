"""Hugging Face's VideoMAE and its Trainer, with green noise masks.

Three objects of smnm_kernels are all that is added to an ordinary pretraining script:
`WithSampleIds` numbers the clips, `MaskCollator` adds the mask of each clip to the batch, and
`epoch_callback` tells the dataset its epoch, so that every epoch brings new masks.

    pip install transformers accelerate
    python examples/huggingface_videomae.py
"""

import tempfile

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, VideoMAEConfig, VideoMAEForPreTraining

from smnm_kernels.adapters import epoch_callback, hf_sampler
from smnm_kernels.loading import MaskCollator, WithSampleIds

FRAMES, SIZE = 8, 64


class MovingSquares(Dataset):
    """Generated clips, float32 [frames, 3, height, width] in [0, 1]: a square crosses the frame."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(index)
        start, color = torch.rand(2, generator=random), torch.rand(3, generator=random)
        step = torch.randint(-3, 4, (2,), generator=random)
        clip = torch.full((FRAMES, 3, SIZE, SIZE), 0.2)
        for t in range(FRAMES):
            y, x = ((start * (SIZE - 20)).long() + t * step).clamp(0, SIZE - 20).tolist()
            clip[t, :, y : y + 20, x : x + 20] = color[:, None, None]
        return {"pixel_values": clip}


def main() -> None:
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=SIZE, num_frames=FRAMES, patch_size=8, norm_pix_loss=False,
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        decoder_hidden_size=64, decoder_intermediate_size=128,
        decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        initializer_range=0.1,  # wide, because so small a model trains for so few steps
    )  # fmt: skip
    sampler = hf_sampler(config, "green3d", mask_ratio=0.9, seed=0)  # its grid is the config's
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=5,
            per_device_train_batch_size=16,
            learning_rate=3e-3,
            logging_strategy="epoch",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,  # or the Trainer would drop the sample ids
        )
        trainer = Trainer(
            VideoMAEForPreTraining(config),
            arguments,
            train_dataset=WithSampleIds(MovingSquares()),
            data_collator=MaskCollator(sampler),  # the batch gets "bool_masked_pos"
            callbacks=[epoch_callback()],
        )
        trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    print(f"{sampler.n_keep} of {8 * 8 * FRAMES // 2} tokens visible in every clip")
    print(f"loss {float(losses[0]):.3f} -> {float(losses[-1]):.3f}")


if __name__ == "__main__":
    main()
