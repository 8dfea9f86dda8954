"""Re-threshold the clips of a dataset: decisions/ anew from clips/, in seconds, with no decode.

reelmill decide --dataset demo-run/dataset --rules.motion.min=0.5 --rules.luma.if_null=reject
reelmill decide --dataset demo-run/dataset --explain 3f2a
reelmill decide --dataset demo-run/dataset --what-if motion.min=0.4 --what-if luma.max=200
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any

from curate.decide import DecideConfig


@dataclass(frozen=True)
class DecideCommand:
    """Decide anew which clips are kept: thresholds over the scores, then copies.

    Attributes:
        dataset: the dataset folder or URI.
        rules: the thresholds.
        explain: a clip_id, or its beginning: tell that clip's story; nothing is written.
        what_if: changes such as motion.min=0.4 (also --what-if, repeated): print how the funnel would change;
            nothing is written. Both start from the rules that made decisions/, or from `rules` if any are given.
    """

    dataset: str
    rules: DecideConfig = field(default_factory=DecideConfig)
    explain: str | None = None
    what_if: list[str] = field(default_factory=list)


def decide(config: DecideCommand) -> None:
    from curate.dataset import Dataset

    dataset = Dataset(config.dataset)
    if config.explain is not None:
        print(_story(dataset, config))
    elif config.what_if:
        print(_changes(dataset, config))
    else:
        write_decisions(dataset, config.rules)
        print(told(dataset))
        if lost := words_without_clips(dataset):
            print(
                f"words  {lost} of people's words (overrides/) are on clips that are no longer there: their films were "
                "cut anew, or have gone. They tell source_id, start_s and end_s."
            )


def write_decisions(dataset, rules: DecideConfig) -> None:  # type: ignore[no-untyped-def]
    """Replace decisions/ by what `rules` say of clips/; the rules are noted in the same file."""
    from curate.one_writer import alone

    with alone(dataset, "decisions"):
        dataset.write("decisions", _decided(dataset, rules), {"rules": json.dumps(asdict(rules))})


def words_without_clips(dataset) -> int:  # type: ignore[no-untyped-def]
    """How many clips that somebody overruled are not in clips/ any more."""
    from curate.overrides import latest

    words = {clip for clip, word in latest(dataset).items() if word["keep"] is not None}
    return len(words.difference(dataset.read("clips", ["clip_id"])["clip_id"].to_pylist())) if words else 0


def stored_rules(dataset) -> dict | None:  # type: ignore[no-untyped-def]
    """The rules that made decisions/, as they were written; None if there are no decisions, or they do not tell."""
    told = dataset.notes("decisions").get("rules")
    return json.loads(told) if told else None


def rules_in_force(dataset) -> DecideConfig:  # type: ignore[no-untyped-def]
    """The rules that made decisions/; the defaults for a dataset without decisions."""
    from curate.errors import BadInput

    stored = stored_rules(dataset)
    if stored is None and dataset.has("decisions"):
        raise BadInput(
            f"{dataset.uri}: decisions/ does not tell its rules. Run `reelmill decide --dataset URI` once, "
            "or give the rules."
        )
    rules: DecideConfig = _filled(DecideConfig(), stored or {})
    return rules


def _filled(default: Any, values: dict) -> Any:
    """`default` (a dataclass) with those of `values` that it still knows."""
    known = {}
    for name, value in values.items():
        if hasattr(default, name):
            inner = getattr(default, name)
            known[name] = _filled(inner, value) if is_dataclass(inner) else value
    return replace(default, **known)


def _clips(dataset, rules: DecideConfig):  # type: ignore[no-untyped-def]
    """The columns that deciding reads, and the bitrate of each clip's source."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from curate.decide import needed

    clips = dataset.read("clips", needed(rules))
    sources = dataset.read("sources", ["source_id", "size_bytes", "duration_s"])
    rate = pc.divide(pc.multiply(sources["size_bytes"].cast(pa.float64()), 8.0), sources["duration_s"])
    at = pc.index_in(clips["source_id"], value_set=sources["source_id"].combine_chunks())
    return clips.append_column("bitrate", rate.combine_chunks().take(at.combine_chunks()))


def _decided(dataset, rules: DecideConfig):  # type: ignore[no-untyped-def]
    from curate.decide import decide as decide_clips
    from curate.overrides import latest

    return decide_clips(_clips(dataset, rules), rules, latest(dataset))


def _story(dataset, config: DecideCommand) -> str:  # type: ignore[no-untyped-def]
    from curate.story import story

    sources = dataset.read("sources", ["source_id", "uri", "duplicate_of"]).to_pylist()
    uris = {row["source_id"]: row["uri"] for row in sources if row["duplicate_of"] is None}
    given = config.rules != DecideConfig()
    rules = config.rules if given else rules_in_force(dataset)
    decisions = _decided(dataset, rules) if given else dataset.read("decisions")
    return story(dataset.read("clips"), decisions, config.explain or "", uris, rules)


def _changes(dataset, config: DecideCommand) -> str:  # type: ignore[no-untyped-def]
    from curate.story import changes

    before = config.rules if config.rules != DecideConfig() else rules_in_force(dataset)
    after = before
    for change in config.what_if:
        after = _changed(after, change)
    text: str = changes(_decided(dataset, before), _decided(dataset, after))
    if waiting := waiting_text(dataset):
        text += f"\n{waiting} Both figures heed what was said."
    return text


def waiting_text(dataset) -> str:  # type: ignore[no-untyped-def]
    """A sentence on the words that decisions/ does not follow yet; empty if there are none."""
    from curate.overrides import waiting

    clips = len(waiting(dataset))
    if not clips:
        return ""
    what = "1 clip waits" if clips == 1 else f"{clips:,} clips wait"
    command = f"`reelmill overrule --dataset {dataset.uri}`"
    return f"What people said of {what} for {command}, which decides by the rules in force."


def _changed(rules: DecideConfig, change: str) -> DecideConfig:
    """`rules` with one `key=value`, read and checked like the flag --rules.key=value."""
    from pipelines.cli import parse

    parsed = parse(DecideCommand, ["--dataset=.", f"--rules.{change}"], name="decide").rules

    def put(old: Any, new: Any, names: list[str]) -> Any:
        inner = getattr(new, names[0])
        return replace(
            old, **{names[0]: put(getattr(old, names[0]), inner, names[1:]) if names[1:] else inner}
        )

    changed: DecideConfig = put(rules, parsed, change.partition("=")[0].split("."))
    return changed


def told(dataset) -> str:  # type: ignore[no-untyped-def]
    """The funnel, and which of the clips that are rejected now were cut or encoded before."""
    lines = [funnel_text(dataset)]
    if dataset.has("shards") or dataset.has("latents"):
        from pipelines.query import connect
        from pipelines.stale import REMEDY, rejected_since

        with connect(dataset) as tables:
            stale = rejected_since(tables)
        if stale:
            places = ", ".join(f"{count:,} in {name}" for name, count in stale.items())
            lines.append(f"left   rejected clips still lie where they were put before: {places}; {REMEDY}.")
    return "\n".join(lines)


def funnel_text(dataset) -> str:  # type: ignore[no-untyped-def]
    """The funnel in a few lines; every file and clip that came in is accounted for."""
    from curate.funnel import count_funnel

    return count_funnel(dataset).text()


def _gathered(argv: list[str]) -> list[str]:
    """`--what-if A --what-if B` as the one list that the parser reads."""
    others, changes = [], []
    words = iter(argv)
    for word in words:
        if word in ("--what-if", "--what_if"):
            changes.append(next(words, ""))
        elif word.startswith("--what-if="):
            changes.append(word.partition("=")[2])
        else:
            others.append(word)
    return others + ([f"--what_if={json.dumps(changes)}"] if changes else [])


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    words = _gathered(sys.argv[1:] if argv is None else argv)
    return run_command(DecideCommand, decide, words, name="decide")


if __name__ == "__main__":
    raise SystemExit(main())
