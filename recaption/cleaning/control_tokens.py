"""Chat control tokens that a server forgot to take away: `<|im_end|>`, `</s>`, `<start_of_turn>model`, `[/INST]`.

    drop_control_tokens("<|im_start|>assistant\\nA dog runs.<|im_end|>")   # "A dog runs."

They go at the start and at the end only: in the middle of a caption they may stand on a screen in the picture.
"""

from __future__ import annotations

import re

from recaption.cleaning.sentences import Masked

_TOKEN = (
    r"(?:<\|(?!(?:begin|end)_of_thought\b)[\w/-]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?s>|<(?:start|end)_of_turn>|"
    r"</?(?:eos|bos|pad|unk|eot|image|video|caption|description|answer|output|response)>|\[/?INST\])"
)
# After these the text is another turn of the talk, which the model went on with by itself.
_END_OF_TURN = (
    r"(?:<\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|end|return|eos|user|im_start)\|>|</s>|<end_of_turn>|<eos>|"
    r"<｜end[^｜<>]{1,30}｜>)"
)
_START = re.compile(
    rf"(?:\s*{_TOKEN}(?:\s*(?:assistant|model)(?=\s*(?:\n|:|{_TOKEN})):?)?)+\s*"
    r"|\s*(?:#+ *)?(?-i:ASSISTANT|Assistant) *:\s*",
    flags=re.I,
)
_AT_END = re.compile(rf"(?:{_TOKEN}\s*)+$", flags=re.I)
_NEXT_TURN = re.compile(rf"(?:(?<=[.!?\"')\]\n])|(?<=[.!?\"')\]] )){_END_OF_TURN}.*", flags=re.I | re.S)


def drop_control_tokens(text: str) -> str:
    """The text without a chat template's marks around it, and without the turns that follow the first."""
    if found := _START.match(text):
        text = text[found.end() :]
    masked = Masked(text)
    return _AT_END.sub("", masked.unmask(_NEXT_TURN.sub("", masked.text)))
