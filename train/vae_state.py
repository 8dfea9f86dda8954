"""All that changes while a VAE is trained, and its checkpoints: RUN/checkpoints/step-00001000/, whole or absent.

state = VaeState.new(config, settings, torch.device("cuda"))
state.resume(run, told)                # does nothing where there is no checkpoint
state.save(run, told)                  # the last two are kept
"""

from __future__ import annotations

import copy
import json
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
from train.vae_discriminator import PatchDiscriminator3D
from train.vae_settings import VaeTraining
from train.vae_watch import Watch


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
        for path in (vae.encoder.linear, vae.decoder.linear):
            path.requires_grad_(False)
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

    def save(self, run: Path, told: dict[str, Any]) -> None:
        """Write the checkpoint of this step, with `told` of the configuration."""
        folder = run / "checkpoints" / f"step-{self.step:08d}"
        temporary = folder.with_name(f".{folder.name}.tmp")
        for stale in (temporary, folder):
            shutil.rmtree(stale, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, network in self._networks().items():
            state = {key: value.contiguous() for key, value in network.state_dict().items()}
            save_file(state, temporary / f"{name}.safetensors")
        for name, optimizer in self._optimizers().items():
            torch.save(optimizer.state_dict(), temporary / f"{name}.pt")
        state = {"step": self.step, "watch": self.watch.state(), **told}
        (temporary / "state.json").write_text(json.dumps(state, indent=2) + "\n")
        (temporary / "COMPLETE").touch()
        temporary.rename(folder)
        for old in checkpoints(run)[:-2]:
            shutil.rmtree(old)

    def resume(self, run: Path, told: dict[str, Any]) -> None:
        """Load the last complete checkpoint, if any. Raises BadInput if it was made with other settings."""
        found = checkpoints(run)
        if not found:
            return
        state = json.loads((found[-1] / "state.json").read_text())
        for part, values in json.loads(json.dumps(told)).items():
            before = state.get(part, {})
            if differing := sorted(key for key in values if values[key] != before.get(key)):
                raise BadInput(
                    f"{run} was begun with other values of {', '.join(differing)}. Give them as before to go on, "
                    "or another folder to start anew."
                )
        for name, network in self._networks().items():
            network.load_state_dict(load_file(found[-1] / f"{name}.safetensors"))
        for name, optimizer in self._optimizers().items():
            optimizer.load_state_dict(torch.load(found[-1] / f"{name}.pt", weights_only=True))
        self.watch.load(state["watch"])
        self.step = int(state["step"])

    def _networks(self) -> dict[str, nn.Module]:
        networks: dict[str, nn.Module] = {"model": self.vae, "ema": self.average}
        return networks if self.critic is None else networks | {"critic": self.critic}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        found = {"optimizer": self.optimizer}
        return found if self.critic_optimizer is None else found | {"critic_optimizer": self.critic_optimizer}
