"""A random text tower of open_clip with a tokenizer of eleven words, saved as open_clip and the hub do."""

import json
from pathlib import Path

import torch

VOCABULARY = ["<pad>", "<s>", "</s>", "<unk>", "a", "disc", "left", "moves", "red", "small", "star"]


def word_tokenizer(folder: Path) -> None:
    """Write a tokenizer that knows VOCABULARY: <s>, the words, </s>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(VOCABULARY)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)


def open_clip_text_folder(folder: Path, seed: int = 0) -> Path:
    """Write a random CLIP, whose text tower gives 24 features per token, in open_clip's format."""
    from open_clip import CustomTextCLIP
    from safetensors.torch import save_file

    text = {"context_length": 16, "vocab_size": 11, "width": 24, "heads": 2, "layers": 2}
    text |= {"pool_type": "eos", "eos_id": 2, "pad_id": 0, "hf_tokenizer_name": "ours"}
    vision = {"image_size": 16, "patch_size": 8, "width": 24, "layers": 1, "head_width": 12}
    torch.manual_seed(seed)
    model = CustomTextCLIP(embed_dim=24, vision_cfg=vision, text_cfg=dict(text))
    config = {"model_cfg": {"embed_dim": 24, "custom_text": True, "vision_cfg": vision, "text_cfg": text}}
    config["preprocess_cfg"] = {}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    word_tokenizer(folder)
    return folder
