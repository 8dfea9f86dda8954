"""All that changes while a VAE is trained, and its checkpoints: RUN/checkpoints/step-00001000/, whole or absent.

state = VaeState.new(config, settings, torch.device("cuda"))
state.resume(run, told)                # does nothing where there is no checkpoint
state.save(run, told)                  # the last two are kept
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from model.errors import BadInput
from model.vae import VideoVAE
from model.vae_config import VAEConfig
from train.checkpoint import checkpoints
from train.muon import Muon
from train.store import sync
from train.vae_discriminator import PatchDiscriminator3D
from train.vae_settings import VaeTraining
from train.vae_watch import Watch

log = logging.getLogger(__name__)

#: Settings of a training that make it another one; others may be changed when it goes on.
_FIXED = {
    f"training.{name}" for name in ("seed", "loss.adversarial", "discriminator_width", "discriminator_depth")
}


@dataclass
class VaeState:
    """A training as it stands.

    Attributes:
        vae: the network that learns.
        average: the running average of its weights, which is validated and saved.
        optimizer: of the VAE.
        critic: the discriminator, and its optimizer; null where none is trained.
        watch: whether all goes well.
        step: optimizer steps done.
    """

    vae: VideoVAE
    average: VideoVAE
    optimizer: torch.optim.Optimizer
    critic: PatchDiscriminator3D | None
    critic_optimizer: torch.optim.Optimizer | None
    watch: Watch
    step: int = 0

    @staticmethod
    def new(config: VAEConfig, settings: VaeTraining, device: torch.device) -> VaeState:
        """Before the first step; the weights are a function of the seed."""
        torch.manual_seed(settings.seed)
        vae = VideoVAE(config).to(device)
        # The principal components stay: steps of any size would shake what the network builds upon.
        # With codes they are but a beginning: what is rounded is no longer theirs.
        for path in (vae.encoder.linear, vae.decoder.linear):
            path.requires_grad_(config.bottleneck == "fsq")
        optimizer = Muon([p for p in vae.parameters() if p.requires_grad], lr=settings.lr)
        critic = critic_optimizer = None
        if settings.loss.adversarial > 0:
            critic = PatchDiscriminator3D(settings.discriminator_width, settings.discriminator_depth).to(
                device
            )
            critic_optimizer = torch.optim.AdamW(
                critic.parameters(), lr=settings.discriminator_lr, betas=(0.5, 0.9), weight_decay=0.0
            )
        average = copy.deepcopy(vae).eval()
        return VaeState(vae, average, optimizer, critic, critic_optimizer, Watch(settings.diverged_at))

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average towards the weights as they are after `step` steps; faster in the beginning."""
        decay = min(decay, (1.0 + self.step) / (10.0 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.vae.parameters()), 1.0 - decay)

    def save(self, run: Path, told: dict[str, Any], watch: dict[str, Any]) -> None:
        """Write the checkpoint of this step, with `told` of the configuration and the watch as it was before it."""
        folder = run / "checkpoints" / f"step-{self.step:08d}"
        if (folder / "COMPLETE").is_file():  # a run that goes on from it
            return
        temporary = folder.with_name(f".{folder.name}.tmp")
        for stale in (temporary, folder):
            shutil.rmtree(stale, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, network in self._networks().items():
            state = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
            save_file(state, temporary / f"{name}.safetensors")
        for name, optimizer in self._optimizers().items():
            torch.save(optimizer.state_dict(), temporary / f"{name}.pt")
        state = {"step": self.step, "watch": watch, **told}
        (temporary / "state.json").write_text(json.dumps(state, indent=2) + "\n")
        (temporary / "COMPLETE").touch()
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        temporary.rename(folder)
        sync(folder.parent)
        for old in checkpoints(run)[:-2]:
            shutil.rmtree(old)

    def resume(self, run: Path, told: dict[str, Any]) -> None:
        """Load the last complete checkpoint, if any; says which settings of the training are others than before.

        Raises BadInput if it is of another VAE, of other data or ranks, or was drawn from another seed.
        """
        found = checkpoints(run)
        if not found:
            return
        state = json.loads((found[-1] / "state.json").read_text())
        changed = _changed(state, json.loads(json.dumps(told)))
        fixed = [one for name, one in changed.items() if not name.startswith("training.") or name in _FIXED]
        if fixed:
            raise BadInput(
                f"{run} was begun with other values of {'; '.join(fixed)}. Give them as before to go on, "
                "or another folder to start anew."
            )
        if changed:
            log.warning("%s goes on with other values of %s", run, "; ".join(changed.values()))
        for name, network in self._networks().items():
            network.load_state_dict(load_file(found[-1] / f"{name}.safetensors"))
        for name, optimizer in self._optimizers().items():
            kept = torch.load(found[-1] / f"{name}.pt", weights_only=True, map_location="cpu")
            optimizer.load_state_dict(kept)
        self.watch.load(state["watch"])
        self.step = int(state["step"])

    def _networks(self) -> dict[str, nn.Module]:
        networks: dict[str, nn.Module] = {"model": self.vae, "ema": self.average}
        return networks if self.critic is None else networks | {"critic": self.critic}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        found = {"optimizer": self.optimizer}
        return found if self.critic_optimizer is None else found | {"critic_optimizer": self.critic_optimizer}


def _changed(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """ "part.name" -> what a reader should know, for each value that differs in one of the parts of `now`."""
    found: dict[str, str] = {}
    for part, values in now.items():
        old = before.get(part, {})
        for name in sorted(old.keys() | values.keys()):
            if part == "training" and name == "loss":
                found |= _changed(
                    {"training.loss": old.get(name, {})}, {"training.loss": values.get(name, {})}
                )
            elif old.get(name) != values.get(name):
                found[f"{part}.{name}"] = f"{name} ({old.get(name)} before, {values.get(name)} now)"
    return found
