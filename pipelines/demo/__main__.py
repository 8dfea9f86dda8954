"""The whole road in one command: films in, captioned shards and sampled videos out, with tiny embedded models.

    reelmill demo                           # renders 60 films of the procedural world; under ten minutes on 2 cores
    reelmill demo --footage ~/videos        # the same on your own videos
    reelmill demo --footage ~/videos --clip ViT-B-32/openai --captioner http://127.0.0.1:8000/v1#Qwen/Qwen2.5-VL-7B

Each step is a command of its own; the demo prints how it was called. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.engine import Engine, RayConfig


@dataclass(frozen=True)
class DemoConfig:
    """Run the whole road on rendered films, or on your own with --footage DIR.

    Attributes:
        footage: a folder of videos; null renders films of the procedural world.
        out: folder for everything the demo makes.
        films: how many films are rendered.
        steps: training steps of the tiny diffusion transformer.
        init: weights that its training begins with: `embedded` (those that ship with the code and know the procedural
            world), a run or checkpoint of `reelmill train`, or null for random ones, which want more steps.
        clip: CLIP model: `embedded` (knows only the procedural world), an open_clip ARCH/TAG, or a folder.
        captioner: `embedded` (knows only the procedural world), a folder of train-captioner, or the address of an
            OpenAI-compatible server followed by # and its model's name.
        prompts: what to generate at the end.
        engine: ray streams over a cluster or this machine; local runs in this process.
        ray: how to reach or start Ray.
    """

    footage: str | None = None
    out: str = "demo-run"
    films: int = 60
    steps: int = 300
    init: str | None = "embedded"
    clip: str = "embedded"
    captioner: str = "embedded"
    prompts: tuple[str, ...] = (
        "a large red disc moves right over a snowy field",
        "a large yellow star moves up over a night sky",
        "a large blue square moves left over a sandy desert",
    )
    engine: Engine = "ray"
    ray: RayConfig = field(default_factory=RayConfig)


def demo(config: DemoConfig) -> None:
    """Run the steps one after another, each as its command would, and print one summary at the end."""
    from pipelines.demo import steps
    from pipelines.demo.summary import summary

    places = steps.Places(Path(config.out))
    own = config.footage is not None
    if own and "embedded" in (config.clip, config.captioner):
        print(EMBEDDED_KNOW_ONLY_THE_WORLD)
    road: list[tuple[str, Callable[[], None]]] = [
        ("curate", lambda: steps.curate(config, places)),
        ("recaption", lambda: steps.recaption(config, places)),
        ("shard", lambda: steps.shard(config, places)),
        ("encode", lambda: steps.encode(config, places)),
        ("train", lambda: steps.train(config, places)),
        ("sample", lambda: steps.sample(config, places)),
        ("report", lambda: steps.report(config, places)),
    ]
    if not own:
        road.insert(0, ("render", lambda: steps.render(config, places)))
    seconds: dict[str, float] = {}
    for number, (name, step) in enumerate(road, 1):
        print(f"\n[{number}/{len(road)}] {name}: {steps.TOLD[name]}", flush=True)
        began = time.monotonic()
        step()
        seconds[name] = time.monotonic() - began
        if name == "curate" and not steps.n_kept(places):
            print("No clip was kept, so there is nothing to caption or to train on; the report shows why.")
            steps.report(config, places)
            break
    print(summary(config, places, seconds))


EMBEDDED_KNOW_ONLY_THE_WORLD = (
    "The embedded models know only the procedural world: on your footage their captions and CLIP scores mean nothing "
    "(captions are flagged world_captioner, the CLIP threshold is off). For real models give --clip ARCH/TAG or a "
    "folder, and --captioner URL#MODEL of an OpenAI-compatible server."
)


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(DemoConfig, demo, argv, name="demo")


if __name__ == "__main__":
    raise SystemExit(main())
