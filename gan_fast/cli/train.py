"""gan-fast train [--recipe NAME] [settings of the recipe]"""

from __future__ import annotations

from collections.abc import Sequence

from gan_fast import recipes
from gan_fast.cli import UsageError
from gan_fast.cli.parse import parse
from gan_fast.training import Trainer, evaluate_run, folder

DEFAULT_RECIPE = "dcgan"


def main(argv: Sequence[str]) -> int:
    name, rest = _take_recipe(list(argv))
    try:
        kind = type(recipes.get(name))
    except ValueError as error:
        raise UsageError(str(error)) from error
    run(Trainer(parse(kind, rest, "train")))
    return 0


def run(trainer: Trainer) -> None:
    """Train, then print where everything is and the quality figure."""
    result = trainer.fit()
    if not trainer.world.is_main:
        return
    print("\n".join(result.lines()))
    count = trainer.recipe.evaluation_samples
    if trainer.judgement is not None and result.reason == "finished":
        print("\n".join([*trainer.judgement.lines(), f"  written to   {folder.RunFolder(result.run).quality}"]))
    elif result.reason == "finished" and count != 0:
        print("judging samples", flush=True)
        report, where = evaluate_run(result.run, count=count, data=trainer.data)
        print("\n".join([*report.lines(), f"  written to   {where}"]))


def _take_recipe(arguments: list[str]) -> tuple[str, list[str]]:
    """The value of --recipe, and the arguments without it."""
    for i, argument in enumerate(arguments):
        if argument.startswith("--recipe="):
            return argument.removeprefix("--recipe="), arguments[:i] + arguments[i + 1 :]
        if argument == "--recipe":
            if i + 1 == len(arguments):
                raise UsageError(f"--recipe needs a name: {', '.join(recipes.names())}")
            return arguments[i + 1], arguments[:i] + arguments[i + 2 :]
    return DEFAULT_RECIPE, arguments
