"""From the text encoders that a person names to what loads them and what tells them apart.

place = text_place("embedded,hf:google/umt5-xxl")        # what `load_text_encoder` takes
text_id(place)                                           # changes with the weights of any of them
"""

from __future__ import annotations


def text_place(names: str) -> str:
    """`names` separated by commas, `embedded` replaced by the folder of the encoder that ships with the code."""
    from model.text import encoder_names
    from pipelines.demo.weights import embedded

    return ",".join(str(embedded("coca")) if name == "embedded" else name for name in encoder_names(names))


def text_id(place: str) -> str:
    """The ids of all encoders at `place` in their order, with commas between them."""
    from model.text import encoder_names
    from pipelines.encode_plan import fingerprint

    return ",".join(fingerprint(name) for name in encoder_names(place))
