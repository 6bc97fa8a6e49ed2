"""Runs every case by Triton's interpreter and prints, as JSON, what failed: {case: message or null}.

The smallest cases run again in the other memory order and then once more, which replays what the run before has kept.

A program of its own: TRITON_INTERPRET is read when a kernel is defined, and would stay for every other test.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch


def main() -> None:
    from gan_fast.triton import launch
    from triton_kernels.cases import CASES, compare, inputs

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # empty tensors are NaN: what no kernel writes shows
    outcome: dict[str, str | None] = {}
    for case in CASES:
        # the interpreter truncates where it converts to bfloat16: a whole ulp, twice
        factor = 2.0 if case.dtype == "bfloat16" else 1.0
        try:
            list(compare(case, launch, inputs(case), factor))
            if case in CASES[:2] or case.dtype == "float16":
                contiguous = inputs(case, order=torch.contiguous_format)
                list(compare(case, launch, contiguous, factor))
                kept = len(launch._replays)
                list(compare(case, launch, contiguous, factor))
                assert len(launch._replays) == kept, "the second run made plans again"
            outcome[case.name] = None
        except AssertionError as error:
            outcome[case.name] = str(error)
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
