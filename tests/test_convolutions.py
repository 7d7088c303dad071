"""Convolutions over voxels: kept where images bend, left out where they do not."""
import numpy as np
import pandas as pd
import pytest
import torch

import normfuse as nf
from normfuse.evidence import log_likelihood
from normfuse.fusion import Given, Learned, WassersteinBarycenter
from normfuse.inference import Energy, Refined, shared_slopes
from normfuse.kinds import Focal, LeaveModalityOut
from normfuse.models import Batch, Convolutional, Ladder, OneLatent
from normfuse.networks import ConvDecoder, ConvEncoder, Grid
from normfuse.space import Space
from normfuse.stages import Stages, rebuilt
from normfuse.training import TrainingPlan

MASK = np.zeros((10, 10, 4), bool)
MASK[1:9, 1:9, 1:3] = True
SPACE = Space(MASK, np.diag([8.0, 8, 8, 1]), "MNI152NLin2009aSym")
MODALITIES = [nf.Modality(name, SPACE.features, space=SPACE) for name in ("t1", "pet")]
AT = torch.tensor(np.argwhere(MASK)).double()
NETWORKS = Convolutional(channels=(8, 16), epochs=20)


def people(n: int, seed: int, *, moving: bool, noise: float = 1.0) -> Batch:
    """A bump whose place is the latent, mirrored in the other modality; or a linear model."""
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 2, generator=draw).double()
    x = []
    for m, side in enumerate((1, -1)):
        if moving:
            center = torch.stack([4.5 + 2 * z[:, 0], 4.5 + 2 * side * z[:, 1],
                                  torch.full((n,), 1.5)], 1)
            mean = 3 * torch.exp(-(AT - center[:, None]).square().sum(-1) / 8)
        else:
            loadings = torch.randn(2, len(AT), generator=torch.Generator().manual_seed(m))
            mean = 0.3 * z @ loadings.double()
        x.append(mean + noise * torch.randn(n, len(AT), generator=draw))
    return Batch(tuple(x), (None, None), torch.ones(2, n, dtype=torch.bool),
                 torch.zeros(n, 0).double())


def learned(recipe, *, moving, fusion=WassersteinBarycenter()):
    groups = [people(n, seed, moving=moving) for n, seed in ((110, 1), (30, 2), (50, 3))]
    means = [x.mean(0) for x in groups[0].x]
    training, early_stop, others = (
        Batch(tuple(x - mean for x, mean in zip(b.x, means)), b.measured, b.present, b.design)
        for b in groups)
    plan = TrainingPlan(max_epochs=60, progress=False)
    vae, _ = Stages(MODALITIES, training, early_stop, plan, Refined(), 0).learn(
        recipe, fusion)
    return vae, others


@pytest.fixture(scope="module")
def moving():
    return learned(OneLatent(n_latent=4, hidden=(32,), voxels=NETWORKS), moving=True)


def test_convolutions_are_kept_where_they_pay(moving):
    vae, others = moving
    assert vae.bends_images
    straight, _ = learned(OneLatent(n_latent=4, hidden=(32,)), moving=True)
    gain = log_likelihood(vae, others, Refined(), 10) - log_likelihood(straight, others, Refined())
    assert gain.mean() > 2 * gain.std() / len(gain) ** 0.5


def test_convolutions_are_left_out_where_images_are_linear():
    vae, _ = learned(OneLatent(n_latent=3, hidden=(32,), voxels=NETWORKS), moving=False)
    assert not vae.bends_images and vae.is_affine


@pytest.mark.parametrize("weights", [Given([2, 1]), Learned()])
def test_weights_of_a_fusion_go_through_both_stages(weights):
    few = Convolutional(channels=(4,), epochs=2)
    vae, _ = learned(OneLatent(n_latent=2, hidden=(8,), voxels=few), moving=False,
                     fusion=WassersteinBarycenter(weights=weights))
    found = vae.fusion.weights()
    assert found.dtype == torch.float64
    if isinstance(weights, Given):
        assert torch.equal(found, torch.tensor([2.0, 1.0]).double() / 3)


@pytest.mark.slow
def test_a_ladder_takes_them_too():
    recipe = Ladder(levels=(4, 2), hidden=(32,), voxels=NETWORKS)
    vae, others = learned(recipe, moving=True)
    assert vae.bends_images
    q = Refined().posterior(vae, others)
    assert q.mean.shape == (50, 6) and torch.isfinite(q.mean).all()


def test_refined_posteriors_sit_where_the_gradient_vanishes(moving):
    vae, others = moving
    part = others.take(torch.arange(20))
    with torch.no_grad():
        energy = Energy(vae, part)
        start = vae.posterior(part).mean
        mode = Refined(steps=15).posterior(vae, part).mean
        before, after = energy.downhill(start).norm(dim=-1), energy.downhill(mode).norm(dim=-1)
    assert after.max() < 1e-6 * before.median()
    at = mode.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(at).sum(), at)
    torch.testing.assert_close(-gradient, energy.downhill(mode))


def test_shared_slopes_are_those_of_everybody_if_affine():
    vae, others = learned(OneLatent(n_latent=3, hidden=()), moving=False)
    for m, found in enumerate(shared_slopes(vae)):
        expected = vae.decoders[m].affine()[:, :3].mT
        torch.testing.assert_close(found[:, 0], expected)


def test_what_was_learned_survives_a_file(moving):
    vae, others = moving
    again = rebuilt(vae.recipe, WassersteinBarycenter(), MODALITIES, 0, vae.state_dict())
    with torch.no_grad():
        z, design = torch.ones(2, 4).double(), others.design[:2]
        for old, new in zip(vae.decode(z, design), again.decode(z, design)):
            assert torch.equal(old, new)


def test_a_person_without_an_image_is_scored_by_the_other(moving):
    vae, others = moving
    part = others.take(torch.arange(12))
    alone = part.hide(torch.tensor([False, True]))
    with torch.no_grad():
        found = Refined().posterior(vae, alone).mean
        mean, sd = LeaveModalityOut().predicted(vae, part, Refined()).mean[0], \
            LeaveModalityOut().predicted(vae, part, Refined()).sd[0]
        torch.testing.assert_close(mean, vae.decode(found, part.design)[0])
    u = (part.x[0] - mean) / sd
    assert 0.8 < u.std() < 1.3


def test_everybody_depends_on_themselves_alone(moving):
    vae, others = moving
    for kind in (Focal(), LeaveModalityOut()):
        with torch.no_grad():
            many = kind.predicted(vae, others, Refined())
            few = kind.predicted(vae, others.take(torch.tensor([7])), Refined())
        for a, b in zip(many.mean, few.mean):
            torch.testing.assert_close(a[7:8], b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sides", [(8, 16), (8, 8, 16)])
@pytest.mark.parametrize("options", [{}, {"bf16": True}, {"channels_last": True}])
def test_networks_of_slices_and_volumes(sides, options):
    networks = Convolutional(channels=(4, 8), **options)
    encode, decode = ConvEncoder(sides, 2, 1, 5, networks), ConvDecoder(5, sides, 2, networks)
    images = torch.randn(3, 2, *sides)
    z = encode(images, torch.zeros(3, 1))
    assert z.shape == (3, 5) and decode(z).shape == images.shape and decode(z).dtype == z.dtype
    decode(z).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encode.parameters())


def test_scoring_never_uses_half_precision():
    networks = Convolutional(channels=(4, 8), bf16=True)
    encode = ConvEncoder((8, 8), 1, 0, 3, networks).eval()
    full = ConvEncoder((8, 8), 1, 0, 3, Convolutional(channels=(4, 8))).eval()
    full.load_state_dict(encode.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(encode(x, x.new_zeros(2, 0)), full(x, x.new_zeros(2, 0)))
    encode.train()
    assert not torch.equal(encode(x, x.new_zeros(2, 0)), full(x, x.new_zeros(2, 0)))


def test_grids_put_voxels_where_the_mask_has_them():
    grid = Grid(torch.tensor(MASK), 2)
    values = torch.arange(float(MASK.sum()))[None]
    image = grid.image(values)
    assert grid.sides == (8, 8, 4) and torch.equal(grid.values(image), values)
    expected = np.zeros(MASK.shape)
    expected[MASK] = values[0]
    np.testing.assert_array_equal(image[0, 0, :, :, :2], expected[1:9, 1:9, 1:3])


@pytest.mark.parametrize("options, said", [
    ({"channels": ()}, "channels"), ({"channels": (6,)}, "4 divides"), ({"epochs": 0}, "epochs")])
def test_convolutions_refuse_nonsense(options, said):
    with pytest.raises(ValueError, match=said):
        Convolutional(**options)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="pad the images"):
        ConvEncoder((8, 6), 1, 0, 3, Convolutional(channels=(4, 8)))


@pytest.mark.slow
def test_the_verbs_know_them(tmp_path):
    """Covariates, missing images, held-out calibration, a file: as with any other model."""
    batch = people(260, 5, moving=True, noise=0.4)
    ids = [f"sub-{i:03d}" for i in range(260)]
    rng = np.random.default_rng(0)
    subjects = pd.DataFrame({"age": rng.uniform(20, 80, 260), "dx": ["CN"] * 230 + ["AD"] * 30},
                            index=ids)
    blocks = {m.name: pd.DataFrame(x.numpy() + 0.02 * subjects[["age"]].to_numpy(), ids,
                                   m.features) for m, x in zip(MODALITIES, batch.x)}
    blocks["pet"] = blocks["pet"].drop(index=ids[5:60:5] + ids[235:240])
    cohort = nf.Cohort.from_frames(subjects, blocks, covariates={"age": "continuous"},
                                   reference="dx == 'CN'",
                                   spaces={m.name: SPACE for m in MODALITIES})
    model = nf.NormativeModel(model=OneLatent(n_latent=4, voxels=NETWORKS), seed=0,
                              calibration=nf.HeldOut(),
                              plan=TrainingPlan(max_epochs=60, progress=False))
    model.fit(cohort.reference_subjects())
    assert model.fitted.vae.bends_images and any("convolutions bend" in note for note
                                                 in model.fitted.reference.notes)
    found = model.deviations(cohort)
    new = found.subjects["normfuse_role"] == "new"
    share = (found.z[new].abs() > 1.96).to_numpy()[found.z[new].notna().to_numpy()].mean()
    assert new.sum() == 30 and 0.03 < share < 0.08
    again = nf.NormativeModel.load(model.save(tmp_path / "model"))
    pd.testing.assert_frame_equal(again.deviations(cohort).z, found.z, rtol=0, atol=1e-9)
