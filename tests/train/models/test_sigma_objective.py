"""SIGMA: its loss and gradients by definition, its two kinds of target, what a run keeps of it."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES, input_and_masks, shaken, small
from sinkhorn_definition import defined

from smnm_kernels.train.data.modality import InputFormat
from smnm_kernels.train.data.picture_rows import film_strips
from smnm_kernels.train.models.encoder_file import load_encoder
from smnm_kernels.train.models.settings import MAE
from smnm_kernels.train.models.sigma import Sigma, assignment_losses
from smnm_kernels.train.models.sigma_target import FrozenEncoder, FrozenSettings
from smnm_kernels.train.models.vit import Encoder

VIDEO, SIZE = FAMILIES["videomae"]
GRID = VIDEO.encoder.grid(SIZE)
INPUT = InputFormat(SIZE, (0.5,) * 3, (0.2,) * 3, film_strips)
SMALL = Sigma(VIDEO, projection=(20, 16), dim=8, prototypes=6)
# Of pictures with as many patches as the video has in a frame, and with others.
PICTURES = replace(small("mae").settings.encoder, patch=(1, 4, 4))
FINER = replace(PICTURES, patch=(1, 2, 2))
SAME = {"scale": (1.0,) * 3, "shift": (0.0,) * 3}


def frozen(encoder, **statistics):
    size = (3, 1, *SIZE[2:]) if encoder.patch[0] == 1 else SIZE
    return FrozenSettings(encoder, size, **(SAME | statistics))


SIGMAS = {
    "projection": SMALL,
    "pictures": replace(SMALL, frozen=frozen(PICTURES)),
    "finer pictures": replace(SMALL, frozen=frozen(FINER)),
    "video": replace(SMALL, frozen=frozen(small("videomae").settings.encoder)),
}


def built(name="projection"):
    model = SIGMAS[name].build({"video": INPUT}, seed=0)
    shaken(model)
    model.normalise_prototypes()
    return model.train()


def inputs(model):
    torch.manual_seed(1)
    return input_and_masks(model)


def slow_loss(target, predicted, prototypes, settings):
    """Token by token, with assignments as the method's code makes them."""
    c = torch.stack([row / row.norm() for row in prototypes])
    z = torch.stack([row / row.norm() for row in target])
    x = torch.stack([row / row.norm() for row in predicted])
    scores_z, scores_x = z @ c.T, x @ c.detach().T
    q_z, q_x = (
        defined(s.detach(), settings.epsilon, settings.iterations) for s in (scores_z, scores_x)
    )
    loss = 0
    for m in range(len(z)):
        for scores, q in ((scores_z, q_x), (scores_x, q_z)):
            logits = scores[m] / settings.temperature
            log_p = logits - logits.exp().sum().log()
            loss = loss - log_p[q[m].argmax()]
    return loss / len(z)


@pytest.mark.parametrize("epsilon", [0.05, 0.03])
def test_the_loss_and_its_gradients_are_those_of_the_definition(epsilon):
    settings = replace(SMALL, epsilon=epsilon)
    torch.manual_seed(0)
    leaves = [torch.randn(n, 8, dtype=torch.float64, requires_grad=True) for n in (17, 17, 6)]
    unit = F.normalize(leaves[2].detach(), dim=1).requires_grad_()
    made = assignment_losses(*leaves[:2], unit, settings, over_ranks=False)["loss"]
    gradients = torch.autograd.grad(made, (*leaves[:2], unit))
    expected = slow_loss(*leaves[:2], unit, settings)
    assert made.item() == pytest.approx(expected.item(), rel=1e-12)
    # The definition divides rows by their length, whose gradient runs along the row; the method
    # sets the length without a gradient.
    along = torch.autograd.grad(expected, (*leaves[:2], unit))
    for ours, theirs in zip(gradients[:2], along[:2], strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    across = gradients[2] - (gradients[2] * unit).sum(1, keepdim=True) * unit
    assert torch.allclose(across, along[2], rtol=1e-9, atol=1e-12)


def test_only_the_targets_scores_move_prototypes():
    torch.manual_seed(0)
    z, x = torch.randn(2, 17, 8)
    prototypes = F.normalize(torch.randn(6, 8), dim=1).requires_grad_()
    assignment_losses(z, x, prototypes, SMALL, over_ranks=False)["loss"].backward()
    c = prototypes.detach().clone().requires_grad_()
    q_x = defined(F.normalize(x, dim=1) @ c.detach().T, 0.05, 10).argmax(1)
    F.cross_entropy(F.normalize(z, dim=1) @ c.T / 0.1, q_x).backward()
    assert torch.allclose(prototypes.grad, c.grad, atol=1e-6)


@pytest.mark.parametrize("name", SIGMAS)
def test_the_model_hands_masked_tokens_to_the_loss(name):
    model = built(name)
    x, masks = inputs(model)
    predicted, target = model.features(x, masks)
    width = 24 if model.frozen else 8
    n = math.prod(GRID) - masks.n_keep
    assert predicted.shape == target.shape == (2, n, width)
    expected = slow_loss(
        target.detach().flatten(0, 1).double(),
        predicted.detach().flatten(0, 1).double(),
        model.prototypes.detach().double(),
        model.settings,
    )
    if model.frozen:
        token = int(masks.ids_masked[1, 3])
        assert torch.equal(target[1, 3], model.frozen(x)[1, token])
    losses = model(x, masks)
    assert list(losses) == ["loss", *model.settings.reported]
    assert losses.keys() == {"loss", "target_entropy", "entropy"}
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    losses["loss"].backward()
    learnt = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learnt == {name for name, _ in model.named_parameters() if "frozen." not in name}
    # Of what is masked the prediction sees nothing.
    patches = model.encoder.patchify(x)
    hidden = ~masks.visible[..., None]
    other = model.encoder.unpatchify(torch.where(hidden, torch.randn_like(patches), patches))
    changed, other_target = model.features(other, masks)
    assert torch.equal(changed, predicted)
    assert not torch.allclose(other_target, target, atol=1e-2)


def test_the_projection_gets_normalised_pixels():
    model = built()
    x, masks = inputs(model)
    _, target = model.features(x, masks)
    linear = [layer for layer in model.projection if isinstance(layer, torch.nn.Linear)]
    assert [layer.weight.shape for layer in linear] == [(20, 96), (16, 20), (8, 16)]
    token = masks.ids_masked[1, 3]
    patch = model.encoder.patchify(x)[1, token].view(3, -1)
    mean, std = (torch.tensor(v)[:, None] for v in (VIDEO.pixel_mean, VIDEO.pixel_std))
    pixels = patch * std + mean
    h = ((pixels - pixels.mean(1, True)) / (pixels.std(1, keepdim=True) + 1e-6)).flatten()
    for i, layer in enumerate(linear):
        h = layer.weight @ h + layer.bias
        h = F.gelu(h) if i < 2 else h
    assert torch.allclose(target[1, 3], h, atol=1e-4)


@pytest.mark.parametrize("name", ["pictures", "finer pictures", "video"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
@torch.no_grad()
def test_frozen_features_by_definition(name, scale):
    """Frame by frame, and channel by channel over the tokens of a clip."""
    settings = SIGMAS[name].frozen
    other = {"scale": (scale, 1.0, 1.0), "shift": (scale - 1, 0.0, 0.0)}
    target = FrozenEncoder(replace(settings, **other), GRID)
    shaken(target)
    x = torch.randn(2, *SIZE)
    given = x.clone()
    given[:, 0] = given[:, 0] * scale + scale - 1
    if name == "video":
        expected = target.encoder(given)
    else:
        frames = [target.encoder(given[:, :, i : i + 1]) for i in (0, 2)]
        if name == "finer pictures":
            pictures = [f.transpose(1, 2).unflatten(2, (6, 8)) for f in frames]
            frames = [
                F.interpolate(p, (3, 4), mode="bilinear").flatten(2).transpose(1, 2)
                for p in pictures
            ]
        expected = torch.cat(frames, 1)
    for clip in expected:
        for channel in range(clip.shape[1]):
            values = clip[:, channel]
            clip[:, channel] = (values - values.mean()) / (values.std() + 1e-6)
    assert torch.allclose(target(x), expected, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["projection", pytest.param("pictures", marks=pytest.mark.exhaustive)]
)
def test_it_compiles_in_one_piece(name):
    model = built(name)
    x, masks = inputs(model)
    whole = torch.compile(model, fullgraph=True, backend="eager")
    for made, expected in zip(whole(x, masks).values(), model(x, masks).values(), strict=True):
        assert torch.allclose(made, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["projection", "pictures"])
def test_in_bfloat16_the_losses_are_nearly_the_same_and_float32(name):
    model = built(name)
    x, masks = inputs(model)
    expected = model(x, masks)
    with torch.autocast("cpu", torch.bfloat16):
        made = model(x, masks)
        predicted, target = (features.flatten(0, 1) for features in model.features(x, masks))
    # Lower precision ends with the features.
    whole = assignment_losses(target, predicted, model.prototypes, model.settings, False)
    assert torch.equal(made["loss"], whole["loss"])
    assert all(value.dtype == torch.float32 for value in made.values())
    assert made["loss"].item() == pytest.approx(expected["loss"].item(), rel=0.05)
    made["loss"].backward()


def test_no_state_holds_the_frozen_encoder():
    model = built("pictures")
    state = model.state_dict()
    assert not [name for name in state if "frozen" in name]
    other = built("pictures")
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    held = other.frozen.encoder.patch_embed.weight.clone()
    other.load_state_dict(state)
    assert torch.equal(other.prototypes, model.prototypes)
    assert torch.equal(other.frozen.encoder.patch_embed.weight, held)
    state.pop("prototypes")
    with pytest.raises(RuntimeError, match="prototypes"):  # other names are missed as ever
        other.load_state_dict(state)


def test_prototypes_are_of_length_1_after_every_update():
    model = built()
    assert torch.allclose(model.prototypes.norm(dim=1), torch.ones(6))
    with torch.no_grad():
        model.prototypes.mul_(torch.linspace(0.5, 2, 6)[:, None])
    before = model.prototypes.detach().clone()
    SMALL.after_update(model)
    assert torch.allclose(model.prototypes, before / before.norm(dim=1, keepdim=True))


def test_the_picture_shows_both_assignments_in_each_masked_patch():
    model = built()
    x, masks = inputs(model)
    shown = model.settings.restore(model.eval(), {"video": x}, {"video": masks}, {})["video"]
    patches = model.encoder.patchify(shown).detach()
    before = model.encoder.patchify(x)
    assert torch.equal((patches == before).all(-1), masks.visible)
    halves = patches.view(2, -1, 3, 2, 4, 4)[~masks.visible].unflatten(2 + 1, (2, 2))
    assert (halves == halves[:, :, :1, :, :1, :1]).all()  # of one colour each
    predicted, target = model.features(x, masks)
    for i, features in ((0, target), (1, predicted)):
        nearest = (F.normalize(features, dim=-1) @ model.prototypes.T).argmax(-1).flatten()
        colours = halves[:, :, 0, i, 0, 0]
        for prototype in nearest.unique():
            assert len(colours[nearest == prototype].unique(dim=0)) == 1
        assert len(colours.unique(dim=0)) == len(nearest.unique())


def test_what_is_exported_is_the_encoder(tmp_path):
    model = built("pictures")
    path = tmp_path / "encoder.safetensors"
    model.settings.export(model, path, {"modality": "video"})
    encoder = load_encoder(path)
    assert isinstance(encoder, Encoder)
    x, _ = inputs(model)
    assert torch.equal(encoder(x), model.encoder(x))


def test_the_methods_sizes_are_the_defaults():
    with torch.device("meta"):
        model = Sigma(replace(VIDEO, encoder=replace(VIDEO.encoder, patch=(2, 16, 16)))).build(
            {"video": replace(INPUT, size=(3, 4, 32, 32))}, 0
        )
    assert [p.shape[0] for n, p in model.projection.named_parameters() if n.endswith("weight")] == [
        1024, 1024, 512, 256,
    ]  # fmt: skip
    assert model.projection[0].weight.shape[1] == 1536
    assert model.prototypes.shape == (3000, 256)
    assert MAE.encoder.patch == (1, 16, 16)
