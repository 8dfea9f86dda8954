"""The loss on clips that training never shows, by noise level, and videos drawn from their captions.

    validation = Validation(held, config, shape, shares, ranks)
    validation.losses(model)                             # {"0.1": 1.23, ...} of the weights that model has
    validation.videos(model)                             # to look at

Noise, texts and what is shown are the same each time, so that curves show the model alone.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.any_vae import AnyVAE, any_vae_id, load_any_vae
from model.config import DiTConfig
from model.dit import DiT
from model.errors import BadInput
from model.sample_config import SampleConfig
from model.sampler import Request, sample
from model.vae import to_pixels
from train.batch import Batch, make_batch, n_tokens, token_errors
from train.blend import Choice, draw_caption
from train.board import Shown
from train.caption_features import outline, shown
from train.config import ConditionMix, TrainConfig
from train.data import DamagedClip, LatentDataset
from train.packing import pack_greedily
from train.parallel import Shares
from train.ranks import Ranks
from train.stop import Stop

logger = logging.getLogger(__name__)

#: An epoch that no training comes to: its draws are those of validation.
EPOCH = 2**31


class Validation:
    """See the module; all ranks take part in everything."""

    def __init__(
        self,
        held: LatentDataset,
        config: TrainConfig,
        shape: DiTConfig,
        shares: Shares,
        ranks: Ranks,
        stop: Stop | None = None,
    ) -> None:
        """`stop` tells that a run was asked to end, which has no time for the rest of a validation."""
        self._stop, self._is_asked = stop or Stop(), False
        blend = replace(config.captions, drop_share=0.0, cut_share=0.0)
        self._config = replace(
            config, captions=blend, condition=ConditionMix(1, 0, 0, 0, 0, 0, 0), left_out=0.0
        )
        self._data, self._shape, self._shares, self._ranks = held, shape, shares, ranks
        sizes = [n_tokens(clip.size, shape) for clip in held.clips]
        packs = pack_greedily(range(len(sizes)), sizes, config.packing) if sizes else []
        # As many for each rank: under FSDP2 all of them run the model together.
        packs += [[]] * (-len(packs) % shares.ranks)
        self._packs = packs[shares.rank :: shares.ranks]
        self._vae: AnyVAE | None = None

    @torch.no_grad()
    def losses(self, model: DiT) -> tuple[dict[str, float | None], int]:
        """Mean error of generated tokens at each level, and how many clips could not be read.

        Nothing if no clip is held back; null where none could be read, or it is not finite. Levels that are left when
        the run is asked to end are left out.
        """
        if not self._data.clips:
            return {}, 0
        found: dict[str, float | None] = {}
        damaged = 0.0
        for level in self._config.validation.levels:
            sums = torch.zeros(4, dtype=torch.float64, device=self._ranks.device)
            for pack in self._packs:
                batch = make_batch(self._data, pack, EPOCH, self._config, self._shape, level)
                if self._shares.sequence and self._any_damaged(batch):
                    (batch,) = self._shares.agreed([batch])
                batch = batch.to(self._ranks.device)
                with torch.autocast(
                    self._ranks.device.type, torch.bfloat16, enabled=self._config.precision == "bf16"
                ):
                    v = model(batch.pack)
                own = self._shares.own(batch)
                sums[:2] += torch.stack([token_errors(v, own).sum(), own.is_generated.sum()]).double()
                sums[2] += len(batch.damaged) if self._shares.is_first else 0
            sums[3] = self._stop.asked
            error, tokens, here, stops = self._ranks.sum_(sums).tolist()
            found[f"{level:g}"] = error / tokens if tokens and math.isfinite(error) else None
            damaged = max(damaged, here)
            self._is_asked = stops > 0
            if self._is_asked:
                break
        return found, round(damaged)

    def _any_damaged(self, batch: Batch) -> bool:
        """Whether any rank could not read all of its batch."""
        return not self._ranks.all_of(not batch.damaged)

    def videos(self, model: DiT) -> list[Shown]:
        """Videos drawn from the captions of the first held clips; all ranks draw them, and rank 0 gets them.

        None where the VAE is not at hand there, which a warning tells.
        """
        if self._is_asked:
            return []
        is_first = self._ranks.rank == 0
        vae = self._decoder() if is_first and self._config.validation.samples else None
        # What one rank cannot read or load must not leave the others alone with the model.
        wanted = self._ranks.gather(self._wanted() if vae else {})[0]
        if not wanted:
            return []
        sequence, model.sequence = model.sequence, None  # each rank computes all tokens
        model.eval()
        try:
            config = SampleConfig(steps=20, guidance=3.0, precision=self._config.precision)
            latents = sample(model, list(wanted.values()), config, self._config.flow)
        finally:
            model.train()
            model.sequence = sequence
        if vae is None:
            return []
        try:
            return [
                Shown(text, _frames(vae, x), request.fps)
                for (text, request), x in zip(wanted.items(), latents, strict=True)
            ]
        except torch.OutOfMemoryError as error:
            logger.warning("samples are drawn no more: %s", error)
            self._config = replace(self._config, validation=replace(self._config.validation, samples=0))
            return []

    def _wanted(self) -> dict[str, Request]:
        """What to draw, by clip and kind of caption: the first clips that are no pictures."""
        films = [i for i, clip in enumerate(self._data.clips) if clip.size[0] > 1]
        found = {}
        for seed, number in enumerate(films[: self._config.validation.samples]):
            clip = self._data.clips[number]
            try:
                _, texts = self._data.read(number)
            except DamagedClip as error:
                logger.warning("no sample is drawn of a clip held back: %s", error)
                continue
            choice: Choice = draw_caption(
                outline(texts),
                seed=self._config.seed,
                clip_id=clip.clip_id,
                epoch=EPOCH,
                config=self._config.captions,
            )
            name = f"{clip.clip_id} ({choice.kind or 'no caption'})"
            found[name] = Request(clip.size, clip.fps, shown(texts, choice), seed)
        return found

    def _decoder(self) -> AnyVAE | None:
        about = self._data.about
        if self._vae is None:
            try:
                place = self._config.validation.vae or about.get("vae") or ""
                vae = load_any_vae(place)
                if any_vae_id(vae) != about["vae_id"]:
                    raise BadInput(
                        f"the VAE in {place} is {any_vae_id(vae)}, the dataset's is {about['vae_id']}."
                    )
            except BadInput as error:
                logger.warning("no samples are drawn: %s (--validation.vae tells where it is)", error)
                self._config = replace(self._config, validation=replace(self._config.validation, samples=0))
                return None
            self._vae = vae.to(self._ranks.device)
        return self._vae


@torch.inference_mode()
def _frames(vae: AnyVAE, latent: Tensor) -> NDArray[np.uint8]:
    """(C, t, h, w) -> (T, H, W, 3)."""
    device = next(iter(vae.parameters())).device
    found: NDArray[np.uint8] = to_pixels(vae.decode_latents(latent[None].to(device)))[0].cpu().numpy()
    return found
