"""Re-threshold the clips of a dataset: decisions/ anew from clips/, in seconds, with no decode.

reelmill decide --dataset demo-run/dataset --rules.motion.min=0.5 --rules.luma.if_null=reject
"""

from __future__ import annotations

from dataclasses import dataclass, field

from curate.decide import DecideConfig


@dataclass(frozen=True)
class DecideCommand:
    """Decide anew which clips are kept: thresholds over the scores, then copies.

    Attributes:
        dataset: the dataset folder or URI.
        rules: the thresholds.
    """

    dataset: str
    rules: DecideConfig = field(default_factory=DecideConfig)


def decide(config: DecideCommand) -> None:
    from curate.dataset import Dataset

    dataset = Dataset(config.dataset)
    write_decisions(dataset, config.rules)
    print(funnel_text(dataset))


def write_decisions(dataset, rules: DecideConfig) -> None:  # type: ignore[no-untyped-def]
    """Replace decisions/ by what `rules` say of clips/."""
    from curate.decide import NEEDED
    from curate.decide import decide as decide_clips

    dataset.write("decisions", decide_clips(dataset.read("clips", NEEDED), rules))


def funnel_text(dataset) -> str:  # type: ignore[no-untyped-def]
    """The funnel in a few lines; every file and clip that came in is accounted for."""
    from curate.funnel import count_funnel

    return count_funnel(dataset).text()


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(DecideCommand, decide, argv, name="decide")


if __name__ == "__main__":
    raise SystemExit(main())
