"""install finds the method that masks in every wrapper, and says where there is none."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mae_models import (
    AdaMae,
    AudioMae,
    CavMae,
    ColorMae,
    Hiera,
    M2d,
    Mae,
    MaeSt,
    m2d_random_mask,
    sampler,
)
from testing import assert_same, need_packages
from torch import nn

import smnm_kernels as smnm
from smnm_kernels.adapters import install

X = torch.ones(3, 16, 6)


class Wrapper(nn.Module):
    """As DistributedDataParallel, FSDP and accelerate hold a model."""

    def __init__(self, **held):
        super().__init__()
        for name, module in held.items():
            setattr(self, name, module)

    def forward(self, x):
        return next(self.children())(x)


WRAPPERS = {
    "nothing": lambda model: model,
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": lambda model: Wrapper(module=model),
    "FSDP": lambda model: Wrapper(_fsdp_wrapped_module=model),
    "compile": lambda model: torch.compile(model, backend="eager"),
    "compile in DDP": lambda model: Wrapper(module=torch.compile(model, backend="eager")),
    "backbone": lambda model: Wrapper(backbone=model),
    "Runner": lambda model: SimpleNamespace(model=Wrapper(module=Wrapper(backbone=model))),
    "Trainer": lambda model: SimpleNamespace(model=model),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_it_is_found_in(wrapper):
    model, plain = Mae(), Mae()
    wrapped = WRAPPERS[wrapper](model)
    runs = getattr(wrapped, "model", wrapped)
    own = model.random_masking
    installed = install(wrapped, sampler())
    assert installed.module is model
    assert installed.replaced == {"random_masking": own}
    assert str(installed) == "Installed(random_masking of Mae)"
    masks = sampler()
    for _ in range(2):
        visible = masks(3).visible
        tokens = torch.where(visible[..., None], plain.embed(X), plain.mask_token)
        error = ((plain.predict(tokens + plain.positions) - X) ** 2).mean(dim=-1)
        # DataParallel takes its model to a GPU.
        torch.testing.assert_close(runs(X), error[~visible].mean(), check_device=False)
    assert int(model.mask_sampler.next_id) == 6


@pytest.mark.slow
def test_a_model_that_was_compiled_and_used_before():
    torch._dynamo.reset()
    model = Mae()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(X)
    with install(compiled, sampler()):
        compiled(X)
        assert int(model.mask_sampler.next_id) == 3
    compiled(X)
    assert not hasattr(model, "mask_sampler")


def test_undo_gives_back_what_was_there():
    model = Mae()
    names, own = list(model.state_dict()), model.random_masking
    with install(model, sampler()) as first:
        theirs = model.random_masking
        with install(model, sampler(sigma="variant-1")):
            assert model.random_masking is not theirs
            assert model.mask_sampler is not theirs.samplers[16]
        assert model.random_masking is theirs
        assert model.mask_sampler is theirs.samplers[16]
    assert (list(model.state_dict()), model.random_masking) == (names, own)
    first.undo()  # there is nothing left to undo


def test_a_method_of_four_values():
    model = MaeSt()
    state = torch.get_rng_state()
    install(model, sampler())
    assert_same(torch.get_rng_state(), state)
    x = torch.randn(3, 16, 6)
    x_masked, _, _, ids_keep = model.random_masking(x, 0.75)
    assert_same(ids_keep, sampler()(3).ids_keep)
    assert_same(x_masked, x.gather(1, ids_keep[..., None].expand(-1, -1, 6)))
    assert [len(t) for t in model.random_masking(x, 0)] == [3] * 4
    install(model, sampler())  # again
    assert len(model.random_masking(x, 0.75)) == 4


def test_audio_mae():
    model = AudioMae()
    install(model, sampler())
    assert_same(model.random_masking_2d(X, 0.5, 0.5)[1], sampler()(3).masked.float())
    assert model.random_masking(X, 0.75)[0].shape == (3, 4, 6)


def test_cav_mae():
    model = CavMae()
    audio = smnm.MaskSampler("rbn", (64, 8), 0.75, freq_major=True)
    install(nn.DataParallel(model), audio, smnm.MaskSampler("green2d", (14, 14), 0.75))
    a, v = torch.zeros(2, 512, 3), torch.zeros(2, 196, 3)
    assert model.random_masking_unstructured(a, 0.75)[0].shape == (2, 128, 3)
    assert model.random_masking_unstructured(v, 0.75)[0].shape == (2, 49, 3)
    assert model.random_masking_structured(a, 0.75, t=64, f=8, mode="tf")[0].shape == (2, 128, 3)
    assert int(model.mask_sampler.next_id) == 4
    assert int(model.mask_sampler_1.next_id) == 2


def test_color_mae_whichever_method_it_calls():
    runner = SimpleNamespace(model=Wrapper(backbone=ColorMae(), neck=nn.Identity()))
    install(runner, sampler())
    backbone = runner.model.backbone
    assert_same(backbone.color_masking(X)[2], sampler()(3).ids_restore)
    assert backbone.random_masking(X, 0.75)[0].shape == (3, 4, 6)


def test_m2d_keeps_its_method_and_gets_a_function():
    model = M2d()
    made = smnm.MaskSampler("rbn", (4, 4), 0.75, freq_major=True)
    with install(model, made) as installed:
        ids, n_keep = model.random_masking(X, 0.75)
        assert (ids.shape, n_keep) == ((3, 16), 4)
        assert list(installed.replaced) == ["_random_mask_fn"]
        assert int(model.mask_sampler.next_id) == 3
    assert model._random_mask_fn is m2d_random_mask


def test_hiera():
    model = Hiera()
    install(model, smnm.MaskSampler("green2d", model.mask_spatial_shape, 0.75))
    x = torch.zeros(3, 3, 32, 32)
    assert_same(
        model.get_random_mask(x, 0.75), smnm.MaskSampler("green2d", (4, 4), 0.75)(3).visible
    )
    assert bool(model.get_random_mask(x, 0).all())
    with pytest.raises(ValueError, match=r"keeps 8 of 16 tokens, but the sampler 4.*n_keep=8"):
        model.get_random_mask(x, 0.5)


def test_adamae():
    model = Wrapper(encoder=AdaMae())
    install(model, sampler())
    probability, ids, masked = model.encoder.get_mask(X)
    torch.testing.assert_close(probability.sum(1), torch.ones(3))
    assert X[~masked].reshape(3, -1, 6).shape == (3, 4, 6)
    assert_same(ids, sampler()(3).ids_keep)
    with pytest.raises(ValueError, match=r"x must have 16 tokens.*got \[3, 15, 6\]"):
        model.encoder.get_mask(X[:, 1:])


def test_older_and_newer_checkpoints_load_strictly():
    older = Mae().state_dict()
    model = Mae()
    install(model, sampler())
    model(X)
    place = {name: state.clone() for name, state in model.state_dict().items() if "sampler" in name}
    assert place.keys() == {"mask_sampler.seed", "mask_sampler.next_id"}
    model.load_state_dict(older)
    for name, state in place.items():
        assert_same(model.state_dict()[name], state)
    newer = copy.deepcopy(model.state_dict())
    resumed = Mae()
    install(resumed, smnm.MaskSampler("green2d", (4, 4), 0.75))
    resumed.load_state_dict(newer)
    assert_same(resumed.random_masking(X, 0.75), model.random_masking(X, 0.75))
    del newer["mask_sampler.seed"]
    with pytest.raises(RuntimeError, match=r"Missing key.*mask_sampler\.seed"):
        resumed.load_state_dict(newer)
    with pytest.raises(RuntimeError, match="Missing key"):
        sampler().load_state_dict({})
    scheduled = Mae()
    install(scheduled, smnm.ScheduledSampler("random", (4, 4), 0.75))
    scheduled.load_state_dict(older)
    assert list(scheduled.state_dict()) != list(older)


def test_where_there_is_none():
    with pytest.raises(ValueError, match=r"random_masking\(x, mask_ratio\).*color_masking.*Linear"):
        install(nn.Linear(2, 2), sampler())
    with pytest.raises(TypeError, match=r"\.model, \.module or \.backbone, got SimpleN.*\.model$"):
        install(SimpleNamespace(model=3), sampler())
    two = Wrapper(student=Mae(), teacher=Mae())
    with pytest.raises(ValueError, match=r"2 parts.*student \(Mae\), teacher \(Mae\).*the one"):
        install(two, sampler())
    with pytest.raises(TypeError, match="sampler must be a MaskSampler, got str"):
        install(Mae(), "green2d")
    with pytest.raises(ValueError, match="samplers must be one for this model, got 2"):
        install(M2d(), sampler(), smnm.MaskSampler("random", (2, 2), 0.5))
    taken = Mae()
    taken.mask_sampler = nn.Identity()
    with pytest.raises(ValueError, match="Mae has an attribute 'mask_sampler' already"):
        install(taken, sampler())


def test_models_of_transformers_have_an_argument_for_masks():
    need_packages("transformers")
    from small_models import VIT
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    model = ViTMAEForPreTraining(ViTMAEConfig(**VIT, image_size=32))
    with pytest.raises(ValueError, match=r"Embeddings\.random_masking\(self, seq.*noise=masks"):
        install(model, sampler())


@pytest.mark.parametrize("ratio", [0, 0.0])
def test_at_a_ratio_of_0_a_model_sees_everything_in_order(ratio):
    model = Mae()
    theirs = model.random_masking(X, ratio)
    install(model, sampler())
    x = torch.randn(3, 16, 6)
    ours = model.random_masking(x, ratio)
    assert [(t.shape, t.dtype) for t in ours] == [(t.shape, t.dtype) for t in theirs]
    assert_same(ours[0], x)
    assert_same(ours[2], torch.arange(16).expand(3, 16))
    assert not ours[1].any()
    assert int(model.mask_sampler.next_id) == 0
