"""gan_fast where there is no Triton, and where there is one that nothing needs yet."""

from __future__ import annotations

import os
import subprocess
import sys


def run(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_layer_on_the_cpu_needs_no_triton() -> None:
    program = """
import sys
sys.modules["triton"] = None
import torch
from gan_fast import doctor, ops, triton
from gan_fast.triton import rule
x, w, s = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3), torch.randn(2, 3)
ops.modulated_conv2d(x, w, s, padding=1, act="lrelu").sum()
torch.ops.gan_fast.modulated_convolution(x, w, s, None, None, None, 1, 2, 0.2, 1.0, -1.0)
assert rule.choices() == [] and doctor.modulated_choices() == []
rows = [row for row in doctor.serving() if row.op == "modulated_convolution" and row.device == "cuda"]
print(rows[0].reason)
"""
    reason = run(program)
    assert "triton is not installed" in reason or "no CUDA" in reason


def test_importing_gan_fast_does_not_import_triton() -> None:
    program = """
import sys
import torch
before = "triton" in sys.modules
import gan_fast, gan_fast.doctor
assert before or "triton" not in sys.modules
print("lazy")
"""
    assert run(program) == "lazy"
