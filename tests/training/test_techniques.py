"""Each technique changes what its formula says, and nothing else; with all of them off a step is the plain one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gan_fast import data, losses, models, recipes
from gan_fast.augment import DiffAugment
from gan_fast.ops import minibatch_stddev
from gan_fast.training import AdversarialStep, Latents, Trainer
from gan_fast.training.distributed import World
from gan_fast.training.step import Penalties
from gan_fast.training.techniques import Applied, LeCam, Techniques
from gan_fast.training.unroll import unrolled
from training.adversarial_steps import CPU, LR, MACHINE, batch, check_descent, make_step, networks, stream

# ---- with everything off


@pytest.mark.parametrize("name", ["dcgan", "mlp"])
def test_without_techniques_a_step_is_the_plain_one_bit_for_bit(name):
    config = {"dcgan": {"resolution": 8, "channels": 1, "base_channels": 4, "critic_norm": "spectral"}, "mlp": {}}[name]
    pair = models.build(name, latent_dim=4, seed=3, **config)
    mine, theirs = (tuple(map(copy.deepcopy, pair)) for _ in range(2))
    real = torch.rand(8, *((1, 8, 8) if name == "dcgan" else (2,)))
    loss, draws = losses.HingeLoss(), Latents(4, 7, CPU, World())
    optimizers = [
        tuple(torch.optim.Adam(net.parameters(), 1e-3, (0.5, 0.99)) for net in nets) for nets in (mine, theirs)
    ]
    shared = {"generator_period": 1, "machine": MACHINE, "world": World()}
    step = AdversarialStep(*mine, loss, optimizers[0], Latents(4, 7, CPU, World()), **shared)
    (generator, critic), (of_generator, of_critic) = theirs, optimizers[1]
    for number in (1, 2, 3):
        step(real, number)
        with torch.no_grad():
            fake = generator(draws.draw(8))
        of_critic.zero_grad()
        real_logits, fake_logits = critic(torch.cat([real, fake])).chunk(2)
        loss.discriminator(real=real_logits, fake=fake_logits).backward()
        of_critic.step()
        of_generator.zero_grad()
        loss.generator(fake=critic(generator(draws.draw(8)))).backward()
        of_generator.step()
    for ours, by_hand in zip(mine, theirs, strict=True):
        other = by_hand.state_dict()
        assert all(torch.equal(value, other[key]) for key, value in ours.state_dict().items())
    assert step.streams == {}


# ---- what the critic is shown


def test_instance_noise_falls_linearly_and_belongs_to_the_sample():
    settings = Techniques(instance_noise=0.5, instance_noise_images=1000.0)
    x = torch.zeros(6, 3)
    one = Applied(settings, losses.HingeLoss(), MACHINE, World(), 5)
    n = stream(2)
    for images, left in ((0, 1.0), (250, 0.75), (1000, 0.0), (9999, 0.0)):
        one.follow(images)
        torch.testing.assert_close(one.show(x), 0.5 * left * torch.randn(6, 3, generator=n))
    ranks = [Applied(settings, losses.HingeLoss(), MACHINE, World(rank, 2), 5).show(x[:3]) for rank in (0, 1)]
    assert torch.equal(torch.cat(ranks), Applied(settings, losses.HingeLoss(), MACHINE, World(), 5).show(x))


@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_packing_scores_samples_together_along_channels(updates):
    generator, critic = networks((1, 4, 4), packing=2)
    before = copy.deepcopy((generator, critic))
    real, z = batch((1, 4, 4))
    make_step(generator, critic, z, techniques={"packing": 2}, updates=updates, penalties=Penalties(r1=0.3))(real, 1)
    g, d = before

    def pack(x):
        return torch.cat([x[0::2], x[1::2]], 1)

    loss = losses.NonSaturatingLoss()
    fake = g(z[0])
    x = pack(real).requires_grad_()
    logits = d(x)
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    value = (
        loss.discriminator(real=logits, fake=d(pack(fake.detach()))) + 0.15 * slope.square().flatten(1).sum(1).mean()
    )
    if updates == "simultaneous":
        check_descent(generator, g, loss.generator(fake=d(pack(fake))))
    check_descent(critic, d, value)
    if updates == "alternating":
        check_descent(generator, g, loss.generator(fake=critic(pack(g(z[1])))))


# ---- the critic's loss


@pytest.mark.parametrize("r1", [0.0, 0.3])
def test_lecam_pulls_logits_to_the_other_sides_average(r1):
    """Three steps; with R1 the gradient comes from `critic_backward`, through the loss's own derivative."""
    generator, critic = networks()
    own = {"lecam": 0.7, "lecam_decay": 0.9}
    step = make_step(generator, critic, [], techniques=own, penalties=Penalties(r1=r1), loss=losses.HingeLoss())
    sums = torch.zeros(3, dtype=torch.float64)
    for seed in range(3):
        d = copy.deepcopy(critic)
        real, z = batch(seed=seed)
        step.latents.batches = list(z)
        step.train_critic(real)
        x = real.clone().requires_grad_()
        r, f = d(x), d(generator(z[0]).detach())
        value = losses.HingeLoss().discriminator(real=r, fake=f)
        if sums[2]:
            a_real, a_fake = (sums[:2] / sums[2]).tolist()
            value = value + 0.7 * ((r - a_fake).square().mean() + (f - a_real).square().mean())
        if r1:
            (slope,) = torch.autograd.grad(r.sum(), x, create_graph=True)
            value = value + r1 / 2 * slope.square().sum(1).mean()
        wanted = torch.autograd.grad(value, list(d.parameters()))
        for p, q, g in zip(critic.parameters(), d.parameters(), wanted, strict=True):
            # The averages are kept in float32.
            torch.testing.assert_close(p, q - LR * g, rtol=1e-6, atol=1e-7)
        sums = 0.9 * sums + 0.1 * torch.stack([r.mean(), f.mean(), torch.ones_like(r[0])]).detach()
    torch.testing.assert_close(step.state()["lecam_moments"].double(), sums, rtol=1e-6, atol=1e-7)
    assert float(step.techniques.lecam.moments[2]) == pytest.approx(1 - 0.9**3)


def test_lecams_derivative_is_that_of_its_loss():
    lecam = LeCam(losses.NonSaturatingLoss(), 0.4, 0.9, CPU)
    real, fake = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    lecam.update(lecam.discriminator(real=real, fake=fake, with_stats=True)[1], World())
    wanted = torch.autograd.grad(lecam.discriminator(real=real, fake=fake), [real, fake])
    for mine, theirs in zip(lecam.logit_gradients(real=real.detach(), fake=fake.detach()), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_consistency_of_the_critic(updates):
    shape = (1, 8, 8)
    generator, critic = networks(shape)
    g, d = copy.deepcopy((generator, critic))
    real, z = batch(shape)
    own = {"bcr": 3.0, "zcr_critic": 2.0, "zcr_noise": 0.5}
    step = make_step(generator, critic, z, techniques=own, updates=updates, loss=losses.WassersteinLoss())
    step(real, 1)
    fake = g(z[0]).detach()
    augment, T = DiffAugment("translation"), stream(3)
    moved_fake, moved_real = augment(fake, generator=T), augment(real, generator=T)
    near = g(z[0] + 0.5 * torch.randn(8, 4, generator=stream(4))).detach()
    value = d(fake).mean() - d(real).mean()
    value = value + 3 * ((d(real) - d(moved_real)).square().mean() + (d(fake) - d(moved_fake)).square().mean())
    check_descent(critic, d, value + 2 * (d(fake) - d(near)).square().mean())
    assert not torch.equal(moved_real, real)


# ---- the generator's loss


@pytest.mark.parametrize("adversarial", [0.0, 1.0])
@pytest.mark.parametrize("loss", [losses.HingeLoss(), losses.RelativisticLoss()], ids=["hinge", "relativistic"])
def test_feature_matching_matches_the_means_of_what_enters_the_last_layer(adversarial, loss):
    generator, critic = networks()
    g = copy.deepcopy(generator)
    real, z = batch()
    own = {"feature_matching": 2.0, "adversarial": adversarial}
    make_step(generator, critic, z, techniques=own, loss=loss).train_generator(real)
    f = critic.layers[:-1]
    fake = g(z[0])
    value = 2 * (f(real).mean(0) - f(fake).mean(0)).square().sum()
    check_descent(generator, g, value + adversarial * loss.generator(fake=critic(fake), real=critic(real)))
    assert not critic.layers[-1]._forward_pre_hooks


def test_near_latents_are_driven_apart():
    generator, critic = networks()
    g = copy.deepcopy(generator)
    real, z = batch()
    make_step(generator, critic, z, techniques={"zcr_generator": 0.5, "zcr_noise": 0.2}).train_generator(real)
    near = g(z[0] + 0.2 * torch.randn(8, 4, generator=stream(4)))
    apart = (g(z[0]) - near).square().sum(1).mean()
    check_descent(generator, g, losses.NonSaturatingLoss().generator(fake=critic(g(z[0]))) - 0.5 * apart)


@pytest.mark.parametrize("loss", [losses.NonSaturatingLoss(), losses.RelativisticLoss()], ids=["alone", "pairs"])
def test_top_k_learns_from_what_the_critic_likes_best(loss):
    generator, critic = networks()
    real, z = batch()
    step = make_step(generator, critic, [], techniques={"top_k": 0.25, "top_k_images": 100.0}, loss=loss)
    for images, k in ((0, 8), (50, 4), (100, 2), (1000, 2)):
        g = copy.deepcopy(generator)
        step.techniques.follow(images)
        step.latents.batches = list(z)
        step.train_generator(real)
        fake = critic(g(z[0]))
        best = fake.topk(k).indices
        check_descent(generator, g, loss.generator(fake=fake[best], real=critic(real)[best]))


# ---- unrolling

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "adam": lambda p: torch.optim.Adam(p, 0.02, (0.5, 0.9), fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.02, foreach=True),
}


def critics(kind):
    if kind == "mlp":
        return networks()[1], (2,)
    config = {"resolution": 8, "channels": 1, "latent_dim": 4, "base_channels": 2}
    return models.build("dcgan", **config, critic_norm=kind, seed=3)[1].double(), (1, 8, 8)


@pytest.mark.parametrize("kind", ["mlp", "spectral", "batch"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_unrolled_critic_is_the_one_its_optimiser_makes(kind, name):
    """After a first real step, so that there are moments; k = 3 more on one batch, in a copy and unrolled."""
    critic, shape = critics(kind)
    real, _ = batch(shape)
    fake = real.flip(0) * 0.5 + 0.1
    loss = losses.NonSaturatingLoss()

    def value(score):
        return loss.discriminator(real=score(real), fake=score(fake))

    optimizer = OPTIMIZERS[name](list(critic.parameters()))

    def descend(network, its_optimizer):
        its_optimizer.zero_grad()
        value(network).backward()
        its_optimizer.step()

    descend(critic, optimizer)
    twin = copy.deepcopy(critic)
    its = OPTIMIZERS[name](list(twin.parameters()))
    its.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = copy.deepcopy((critic.state_dict(), optimizer.state_dict()["state"]))
    score = unrolled(critic, optimizer, 3, value, World())
    for _ in range(3):
        descend(twin, its)
    # `fused` Adam takes the root of its bias in float32.
    torch.testing.assert_close(score(real), twin(real), rtol=1e-6, atol=1e-8)
    after = (critic.state_dict(), optimizer.state_dict()["state"])
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0]), "the critic itself is as it was"
    assert all(torch.equal(before[1][i][key], after[1][i][key]) for i in before[1] for key in before[1][i])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_generators_gradient_goes_through_the_unrolled_steps(name):
    """Against central differences in one direction; the surrogate, with the unrolled critic a constant, is far off."""
    critic, _ = critics("mlp")
    generator = networks()[0]
    real, z = batch()
    optimizer = OPTIMIZERS[name](list(critic.parameters()))
    loss = losses.NonSaturatingLoss()

    def value(weight):
        w = {**dict(generator.named_parameters()), "layers.2.weight": weight}
        fake = torch.func.functional_call(generator, w, (z[0],))
        score = unrolled(critic, optimizer, 2, lambda s: loss.discriminator(real=s(real), fake=s(fake)), World())
        return loss.generator(fake=score(fake)), score

    weight = generator.layers[2].weight.detach().requires_grad_()
    toward = torch.randn(weight.shape, generator=stream(0), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(value(weight)[0], weight)
    with torch.no_grad():
        h = 1e-5
        slope = (value(weight + h * toward)[0] - value(weight - h * toward)[0]) / (2 * h)
    torch.testing.assert_close((gradient * toward).sum(), slope, rtol=1e-4, atol=1e-8)
    score = value(weight.detach())[1]
    w = {**dict(generator.named_parameters()), "layers.2.weight": weight}
    surrogate = loss.generator(fake=score(torch.func.functional_call(generator, w, (z[0],))))
    (other,) = torch.autograd.grad(surrogate, weight)
    assert abs(float((other * toward).sum()) / float(slope) - 1) > 1e-3


def test_unrolled_steps_train_against_the_critic_to_come():
    """k critic steps with R1 and R2, clipped, by hand; the critic is moved by its own step alone."""
    generator, critic = networks()
    g = copy.deepcopy(generator)
    real, z = batch()
    loss = losses.NonSaturatingLoss()
    step = make_step(
        generator, critic, z, techniques={"unrolled_steps": 2}, penalties=Penalties(r1=0.3, r2=0.7, clip=0.4)
    )
    before = copy.deepcopy(critic.state_dict())
    step.train_generator(real)
    assert all(torch.equal(value, before[key]) for key, value in critic.state_dict().items())
    assert all(p.requires_grad for p in critic.parameters())
    weights = {key: p.detach().requires_grad_() for key, p in critic.named_parameters()}
    fake = g(z[0])
    for _ in range(2):
        x, y = real.clone().requires_grad_(), fake.clone()
        r, f = (torch.func.functional_call(critic, weights, (samples,)) for samples in (x, y))
        value = loss.discriminator(real=r, fake=f)
        for logits, samples, weight in ((r, x, 0.3), (f, y, 0.7)):
            (slope,) = torch.autograd.grad(logits.sum(), samples, create_graph=True)
            value = value + weight / 2 * slope.square().sum(1).mean()
        gradients = torch.autograd.grad(value, list(weights.values()), create_graph=True)
        weights = {key: (w - LR * d).clamp(-0.4, 0.4) for (key, w), d in zip(weights.items(), gradients, strict=True)}
    check_descent(generator, g, loss.generator(fake=torch.func.functional_call(critic, weights, (fake,))))


# ---- what the critic sees of its batch; two time scales; label smoothing


@pytest.mark.parametrize("name", ["dcgan", "mlp", "r3gan"])
def test_critics_see_their_batch(name):
    """The logit layer's input is what came before with the deviation, then the closeness, behind; and they are used."""
    config = {"dcgan": {"resolution": 8, "channels": 1, "base_channels": 4}, "mlp": {"shape": (1, 8, 8)}}
    config["r3gan"] = {"resolution": 8, "channels": 1, "base_channels": 16, "max_channels": 16, "blocks": 1}
    plain = models.build(name, seed=1, **config[name])[1]
    critic = models.build(name, seed=1, minibatch_stddev=4, minibatch_discrimination=3, **config[name])[1]
    entering = []
    for network in (plain, critic):
        network.logit_layer.register_forward_pre_hook(lambda module, args: entering.append(args[0].flatten(1)))
    x = torch.randn(8, 1, 8, 8)
    assert critic(x).shape == (8,)
    features = entering[-1]
    alike = critic(x[:1].expand(8, -1, -1, -1)).detach()
    assert torch.allclose(features[:, -3:].sum(0) > 0, torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(entering[-1][:, -3:], torch.full((8, 3), 7.0))  # all others at distance 0
    torch.testing.assert_close(alike, alike[:1].expand(8))
    if name == "mlp":
        same = {key: value for key, value in plain.state_dict().items() if not key.startswith("layers.6")}
        critic.load_state_dict(same, strict=False)
        critic(x), plain(x)
        features = entering[-2]
        torch.testing.assert_close(features[:, :-3], minibatch_stddev(entering[-1], 4))


def test_critics_that_see_their_batch_score_real_and_fake_apart():
    for seen in ({"minibatch_stddev": 4}, {"minibatch_discrimination": 3}):
        generator, critic = networks(**seen)
        g, d = copy.deepcopy((generator, critic))
        real, z = batch()
        make_step(generator, critic, z).train_critic(real)
        check_descent(critic, d, losses.NonSaturatingLoss().discriminator(real=d(real), fake=d(g(z[0]).detach())))


@pytest.mark.parametrize(("name", "loss"), [("dcgan", "hinge"), ("wgan_gp", None)])
def test_each_network_has_its_own_time_scale(name, loss):
    """Adam's first step is lr in every weight."""
    own = {"loss": loss} if loss else {"critic_steps": 1}
    recipe = recipes.get(name, lr_g=1e-4, lr_d=4e-4, width=8, device="cpu", **own)
    trainer = Trainer(recipe, data=data.load("ring8"))
    before = [copy.deepcopy(net) for net in (trainer.generator, trainer.critic)]
    trainer.step(trainer.feed.next())
    for net, old, lr in zip((trainer.generator, trainer.critic), before, (1e-4, 4e-4), strict=True):
        moved = max(
            float((p - q).detach().abs().max()) for p, q in zip(net.parameters(), old.parameters(), strict=True)
        )
        assert moved == pytest.approx(lr, rel=1e-2)


def test_one_sided_label_smoothing_is_cross_entropy_with_a_softer_real_target():
    generator, critic = networks()
    g, d = copy.deepcopy((generator, critic))
    real, z = batch()
    loss = recipes.get("dcgan", label_smoothing=0.1).loss_function()
    make_step(generator, critic, z, loss=loss).train_critic(real)
    bce = nn.functional.binary_cross_entropy_with_logits
    r, f = d(real), d(g(z[0]).detach())
    check_descent(critic, d, bce(r, torch.full_like(r, 0.9)) + bce(f, torch.zeros_like(f)))
