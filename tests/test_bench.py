"""The benchmarks: a wrong result is refused, not timed; ratios are those of medians; the report reads both records."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import profile_cuda, report
from gan_fast.bench import Case, Contender, WrongResult, all_cases, critic_step, main, measure
from gan_fast.bench.cases import COPY, Prepared
from gan_fast.bench.measure import jobs_of_a_sample
from gan_fast.bench.observe import observe

CPU = torch.device("cpu")


def case_of(result: float, **options) -> Case:
    """A job whose right result is 1."""

    def build(device):
        right = Contender("eager", "eager", lambda: [torch.ones(64)])
        return Prepared((Contender("gan_fast", "ours", lambda: [torch.full((64,), result)]), right), (torch.ones(64),))

    return Case("toy/64", "toys", 64, 512, ("gan_fast", "eager"), build, **options)


@pytest.mark.parametrize("result", [1.001, float("nan"), float("inf")])
def test_a_wrong_result_is_refused(result):
    with pytest.raises(WrongResult, match=r"toy/64: tensor 0 of gan_fast is off by .* not timed"):
        measure(case_of(result), device=CPU)


def test_a_result_of_another_shape_or_count_is_refused():
    for wrong in ([torch.ones(1)], [torch.ones(64)] * 2, []):
        case = Case(
            "toy",
            "toys",
            1,
            0,
            ("gan_fast",),
            lambda d, w=wrong: Prepared((Contender("gan_fast", "ours", lambda: w),), (torch.ones(64),)),
        )
        with pytest.raises(WrongResult):
            measure(case, device=CPU)


def test_a_compiler_that_is_wrong_is_left_out():
    def build(device):
        contenders = [Contender(n, role, lambda v=v: [torch.full((8,), v)]) for n, role, v in named]
        return Prepared(tuple(contenders), (torch.ones(8),))

    named = (("gan_fast", "ours", 1.0), ("eager", "eager", 1.0), ("torch.compile", "compiled", 2.0))
    case = Case("toy", "toys", 8, 0, tuple(n for n, _, _ in named), build)
    with pytest.warns(UserWarning, match=r"of torch.compile is off by 1, allowed .*; the case goes on without it"):
        m = measure(case, device=CPU, rounds=6, budget=0.01)
    assert [t.name for t in m.timings] == ["gan_fast", "eager"]


def test_a_measurement_holds_medians_quartiles_and_ratios():
    m = measure(case_of(1.0, targets={"eager": 1e9}), device=CPU, rounds=6, budget=0.1)
    assert [t.name for t in m.timings] == ["gan_fast", "eager", COPY]
    for t in m.timings:
        assert 0 < t.q1 <= t.median <= t.q3
    ours, eager, _ = m.timings
    assert m.ratio("eager") == eager.median / ours.median
    assert m.ratio("compiled") is None
    assert "target 1000000000.0" in m.missed_targets()[0]


def test_a_sample_fills_an_accelerators_queue():
    counts = {s: jobs_of_a_sample(s, torch.device("cuda")) for s in (1e-9, 2e-5, 3e-3, 0.03, 0.15, 2.0)}
    assert counts == {1e-9: 2000, 2e-5: 1000, 3e-3: 10, 0.03: 6, 0.15: 2, 2.0: 2}
    assert [jobs_of_a_sample(s, CPU) for s in (1e-9, 1e-4, 1.0)] == [200, 20, 1]


def test_the_profiling_tool_runs(capsys):
    assert profile_cuda.main(["--device", "cpu", "--parts", "modulated", "--shape", "1x4x4x4", "--seconds", "0"]) == 0
    printed = capsys.readouterr().out
    assert all(f"ours, {mode}" in printed for mode in ("auto", "triton", "shared")) and "aten::" in printed
    with pytest.raises(SystemExit):
        profile_cuda.main(["--parts", "speed"])


def test_the_promised_cases_are_there():
    names = {case.name for case in all_cases()}
    for loss in (
        "minimax",
        "non_saturating",
        "wasserstein",
        "hinge",
        "least_squares",
        "relativistic",
        "relativistic_average",
    ):
        for size in (64, 61_504, 4_194_304):
            assert f"discriminator/{loss}/{size}" in names
    for drop_in in ("bce_with_logits", "bce", "softplus", "logsigmoid", "feature_matching"):
        assert f"{drop_in}/61504" in names
    assert "logit_gradients/non_saturating/64" in names
    assert any(name.startswith("dcgan step") for name in names)
    assert {f"upfirdn2d/{job}/float32/nchw" for job in ("up2", "down2", "filter")} <= names
    for critic in ("dcgan", "dcgan_no_bias", "r3gan"):
        for layout in ("nchw", "channels_last"):
            assert {f"critic_step/r1_r2/{critic}/{layout}", f"critic_step/r1_phase/{critic}/{layout}"} <= names
    assert {"critic_step/r1_r2/r3gan/channels_last/bfloat16", "critic_step/wgan_gp/dcgan/channels_last"} <= names
    assert {"filtered_lrelu/forward/1048576", "filtered_lrelu/forward+backward/1048576"} <= names
    assert len(names) == len(all_cases())


def test_the_command_writes_a_record_that_the_report_reads(tmp_path, capsys):
    record = tmp_path / "run.json"
    assert main(["--quick", "--device", "cpu", "--filter", "logit_gradients", "--json", str(record)]) == 0
    out = capsys.readouterr().out
    assert "logit_gradients/non_saturating/64" in out
    environment = json.loads(record.read_text())["environment"]
    for key in ("device", "threads", "torch", "commit", "date", "copy_gigabytes_per_second"):
        assert environment[key]
    report.main([str(record)])
    assert "| logit_gradients/non_saturating/64 |" in (tmp_path / "run.md").read_text()
    assert (tmp_path / "run.png").stat().st_size > 10_000


def test_the_report_reads_pytest_benchmarks_record(tmp_path):
    def entry(contender, role, median):
        info = {"case": "hinge/64", "group": "g", "size": 64, "contender": contender, "role": role, "bytes": 1024}
        return {"extra_info": info, "stats": {"median": median, "q1": median, "q3": median}}

    entries = [entry("gan_fast", "ours", 1e-5), entry("eager", "eager", 3e-5), entry(COPY, "copy", 1e-6)]
    conditions = {"device": "d", "threads": 2, "torch": "t", "python": "p", "commit": "c", "date": "now"}
    record = tmp_path / "run.json"
    record.write_text(json.dumps({"machine_info": {"gan_fast_environment": conditions}, "benchmarks": entries}))
    report.main([str(record)])
    assert (
        "| hinge/64 | 10.0 us (10.0 us to 10.0 us) | 30.0 us | - | 3.00 | - | 0.102 | 10% |"
        in (tmp_path / "run.md").read_text()
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_are_counted_and_weighed(transposed):
    conv = torch.nn.functional.conv_transpose2d if transposed else torch.nn.functional.conv2d
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    w = torch.randn(*((4, 3) if transposed else (3, 4)), 3, 3, requires_grad=True)
    flops = 2.0 * 2 * 4 * 3 * 9 * (81 if transposed else 16)
    for wanted in ([], [w], [x, w]):

        def job(wanted=wanted):
            y = conv(x, w, stride=2)
            return torch.autograd.grad(y.sum(), wanted) if wanted else y

        seen = observe(job, CPU)
        assert (seen.convolutions, seen.flops) == (1 + len(wanted), flops * (1 + len(wanted)))


def test_peak_memory_is_of_what_is_held_at_once():
    def job():
        a = torch.ones(1000)
        b = a + 1
        del a
        return b + 1

    assert observe(job, CPU).peak_bytes == pytest.approx(2 * 4000, abs=64)  # and the constants


def small_case(name: str) -> Case:
    return next(case for case in critic_step.cases(small=True) if case.name == name)


def test_the_critic_step_is_four_passes():
    m = measure(small_case("critic_step/r1_r2/dcgan/channels_last"), device=CPU, quick=True, rounds=5, budget=0.0)
    passes = {t.name: t.figures.passes for t in m.timings}
    assert passes["critic_backward, shared"] == pytest.approx(4, abs=0.05)
    assert passes["combined, one call"] == pytest.approx(6, abs=0.05)
    assert passes["no penalty, one call"] < 3
    for t in m.timings:
        assert t.figures.error < 1e-4 and t.figures.peak_bytes > 0


def test_a_wrong_critic_step_is_refused(monkeypatch):
    def nearly(setting):
        critic_step.r1_phase(setting)
        next(setting.critic.parameters()).grad.mul_(1.0001)

    monkeypatch.setitem(critic_step.R1_PHASE, "fast_double_backward", ("ours", nearly, critic_step.r1_phase))
    with pytest.raises(WrongResult, match="times autograd's own error; not timed"):
        measure(small_case("critic_step/r1_phase/dcgan/nchw"), device=CPU)


def test_no_such_case_is_wrong_usage(capsys):
    assert main(["--filter", "no such case"]) == 2
    assert "--list" in capsys.readouterr().err
