"""The steps of the demo: each calls one command with the settings of a small world and a short patience."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.captioners import CaptionerConfig
    from pipelines.demo.__main__ import DemoConfig

TOLD = {
    "render": "films of several shots, some with faults, and captions beside most of them",
    "curate": "find the shots, measure and score them, decide which to keep",
    "recaption": "a short and a dense caption for every kept clip",
    "shard": "cut the kept clips and pack them into WebDataset tars",
    "encode": "VAE latents and text embeddings",
    "train": "a tiny diffusion transformer on the latents, begun with the weights of --init",
    "sample": "videos from prompts",
    "report": "one page that shows it all",
}


# Below it a clip contradicts its film's caption: of true ones, about three in a hundred lie there.
WORLD_CLIP_TEXT_SIM = -0.05


@dataclass(frozen=True)
class Places:
    """Where the demo puts things."""

    out: Path

    @property
    def films(self) -> Path:
        return self.out / "films"

    @property
    def dataset(self) -> str:
        return str(self.out / "dataset")

    @property
    def run(self) -> Path:
        return self.out / "runs" / "dit"

    @property
    def samples(self) -> Path:
        return self.out / "samples"

    @property
    def report(self) -> Path:
        return self.out / "report.html"


def render(config: DemoConfig, places: Places) -> None:
    """Render the films, unless the same ones lie there already."""
    from pipelines.demo.films import render_films
    from pipelines.progress import Progress

    asked = {"films": config.films, "seed": 0}
    marker = places.films / "rendered.json"
    if marker.exists() and json.loads(marker.read_text()) == asked:
        print(f"{config.films} films are there already: {places.films}")
        return
    with Progress("render", total=config.films, unit="films") as progress:
        render_films(places.films, n_films=config.films, seed=0, on_film=lambda *_: progress.advance(1))
    marker.write_text(json.dumps(asked))


def curate(config: DemoConfig, places: Places) -> None:
    from curate.clip_scores import ClipConfig
    from curate.decide import DecideConfig, Range
    from pipelines.curate import CurateConfig
    from pipelines.curate import curate as run

    # What the embedded CLIP thinks of other footage than the world's would reject at random.
    knows = config.footage is None and config.clip == "embedded"
    sim = Range(min=WORLD_CLIP_TEXT_SIM) if knows else Range()
    run(
        CurateConfig(
            input=config.footage or str(places.films),
            dataset=places.dataset,
            clip=ClipConfig(model=config.clip),
            rules=DecideConfig(clip_text_sim=sim),
            engine=config.engine,
            ray=config.ray,
        )
    )


def n_kept(places: Places) -> int:
    """Clips that the decisions keep."""
    from curate.dataset import Dataset
    from curate.funnel import count_funnel

    return count_funnel(Dataset(places.dataset)).kept


def recaption(config: DemoConfig, places: Places) -> None:
    from pipelines.recaption import RecaptionConfig
    from pipelines.recaption import recaption as run

    run(
        RecaptionConfig(
            dataset=places.dataset,
            captioner=captioner(config.captioner),
            engine=config.engine,
            ray=config.ray,
        )
    )


def captioner(choice: str) -> CaptionerConfig:
    """`embedded`, a folder, or URL#MODEL. Raises BadInput when a URL names no model."""
    from curate.errors import BadInput
    from pipelines.captioners import CaptionerConfig, CocaBackend
    from recaption.openai.config import OpenAIConfig

    if not choice.startswith(("http://", "https://")):
        return CaptionerConfig(backend="coca", coca=CocaBackend(model=choice))
    url, _, model = choice.partition("#")
    if not model:
        raise BadInput(f"--captioner {choice} names no model: write it as {choice}#MODEL.")
    return CaptionerConfig(backend="openai", openai=OpenAIConfig(base_url=url, model=model))


def shard(config: DemoConfig, places: Places) -> None:
    from pipelines.shard import ShardCommand
    from pipelines.shard import shard as run

    run(ShardCommand(dataset=places.dataset, engine=config.engine, ray=config.ray))


def encode(config: DemoConfig, places: Places) -> None:
    from pipelines.demo.world_latents import world_frames
    from pipelines.encode import EncodeConfig
    from pipelines.encode import encode as run

    run(EncodeConfig(dataset=places.dataset, frames=world_frames(), engine=config.engine, ray=config.ray))


def train(config: DemoConfig, places: Places) -> None:
    from model.config import FlowConfig, SizeConfig
    from pipelines.train import train as run
    from train.config import OptimConfig, PackingConfig, TrainConfig

    is_given = config.init is not None
    small = SizeConfig(preset="tiny", width=128, depth=6, heads=2, patch=(1, 1, 1), pooled_text=True)
    run(
        TrainConfig(
            dataset=places.dataset,
            out=str(places.run),
            init=config.init,
            steps=config.steps,
            save_every=max(1, config.steps // 4),
            precision="bf16",
            model=SizeConfig() if is_given else small,
            flow=FlowConfig(base_tokens=32, mean=0.2, std=0.7),
            packing=PackingConfig(budget=2400),
            optim=OptimConfig(
                name="muon", lr=3e-4 if is_given else 3e-3, warmup=20, schedule="cosine", ema=0.99
            ),
        )
    )


def sample(config: DemoConfig, places: Places) -> None:
    from model.sample_config import SampleConfig
    from pipelines.sample import SampleCommand
    from pipelines.sample import sample as run

    run(
        SampleCommand(
            checkpoint=str(places.run),
            prompt=list(config.prompts),
            out=str(places.samples),
            # Kinds are decided at these noise levels; at all levels the colours of so small a model glare.
            sampler=SampleConfig(guidance=3.0, guidance_interval=(0.4, 0.9)),
        )
    )


def report(config: DemoConfig, places: Places) -> None:
    from pipelines.report import ReportConfig
    from pipelines.report import report as run

    run(
        ReportConfig(
            dataset=places.dataset,
            run=str(places.run) if places.run.exists() else None,
            samples=str(places.samples) if places.samples.exists() else None,
            out=str(places.report),
        )
    )
