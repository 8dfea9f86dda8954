"""Every table of a dataset: its columns, types, units and meaning, declared once.

A table is written with its schema as it stands here, whatever the batch holds, so an all-null batch cannot
drift. Unit and description of a column lie in its Arrow field metadata (`pyarrow.parquet.read_schema(FILE)` shows
them), and what a row is, the key and the order in the schema's. `docs/tables.md` is made from here:
`python -m curate.table_docs > docs/tables.md`.

New columns need nothing more: a file that lacks them reads as null there. Anything else needs a higher
`SCHEMA_VERSION` and a function in `curate/table_versions.py`, which reads the files of before.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 3


def _column(
    name: str, kind: pa.DataType, description: str, *, unit: str | None = None, nullable: bool = True
) -> pa.Field:
    """A column; `unit` is "1" for ratios and scores without one, absent for ids, texts, places and flags."""
    told = {"description": description} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, nullable=nullable, metadata=told)


def _schema(name: str, *columns: pa.Field, row: str, key: str, order: str) -> pa.Schema:
    """A table: what one row is, the column that no two rows share, and the columns it is sorted by."""
    told = {"table": name, "schema_version": str(SCHEMA_VERSION), "row": row, "key": key, "sorted_by": order}
    return pa.schema(list(columns), metadata={f"reelmill.{what}": text for what, text in told.items()})


def describe(schema: pa.Schema) -> dict[str, str]:
    """Column name -> description, read from the field metadata."""
    return {field.name: (field.metadata or {}).get(b"description", b"").decode() for field in schema}


def told(schema: pa.Schema, what: str) -> str:
    """What the schema tells of its table: table, schema_version, row, key or sorted_by; "" if it does not."""
    text: bytes = (schema.metadata or {}).get(f"reelmill.{what}".encode(), b"")
    return text.decode()


def order_of(schema: pa.Schema) -> list[str]:
    """The columns that a table is sorted by, nulls last."""
    return told(schema, "sorted_by").split()


SOURCES = _schema(
    "sources",
    _column("source_id", pa.string(), "hex of the content hash (BLAKE2b, 128 bits); null if unreadable"),
    _column("uri", pa.string(), "where the file was read", nullable=False),
    _column("size_bytes", pa.int64(), "size of the file", unit="B"),
    _column("container", pa.string(), "container format as FFmpeg names it"),
    _column("codec", pa.string(), "codec of the video stream as FFmpeg names it"),
    _column(
        "width", pa.int32(), "picture width as displayed (rotation and sample aspect applied)", unit="px"
    ),
    _column("height", pa.int32(), "picture height as displayed", unit="px"),
    _column("fps", pa.float64(), "average frame rate", unit="frames/s"),
    _column("is_vfr", pa.bool_(), "true if frame intervals differ by more than 1 ms and half the median"),
    _column("duration_s", pa.float64(), "from the first frame shown to the end of the last", unit="s"),
    _column("n_frames", pa.int64(), "frames really decoded", unit="frames"),
    _column("rotation_deg", pa.int32(), "clockwise rotation to display: 0, 90, 180 or 270", unit="deg"),
    _column(
        "decode_passes", pa.int32(), "decodings of the source's frames to split and measure it", unit="passes"
    ),
    _column("has_audio", pa.bool_(), "true if the container holds an audio stream"),
    _column("caption", pa.string(), "caption from a sidecar file, if there is one"),
    _column("duplicate_of", pa.string(), "uri of another input file with the same content; its clips stand"),
    _column("status", pa.string(), "ok, partial (damaged: what could be decoded stands) or failed"),
    _column("error", pa.string(), "full error text when status is not ok"),
    _column("failure", pa.string(), "of a failed file: transient (tried again by the next run) or permanent"),
    _column("attempts", pa.int32(), "of a transient failure: tries so far, over all runs", unit="tries"),
    _column("config_hash", pa.string(), "hash of the analysis configuration that made this row"),
    row="input file, those that could not be read too",
    key="uri",
    order="source_id uri",
)

CROP = pa.struct(
    [
        _column("x", pa.int32(), "left edge in the picture as displayed", unit="px"),
        _column("y", pa.int32(), "upper edge in the picture as displayed", unit="px"),
        _column("w", pa.int32(), "width", unit="px"),
        _column("h", pa.int32(), "height", unit="px"),
    ]
)

CLIPS = _schema(
    "clips",
    _column("clip_id", pa.string(), "hex; a pure function of source_id and span", nullable=False),
    _column("source_id", pa.string(), "the source that the clip is cut from", nullable=False),
    _column("index", pa.int32(), "place of the shot in its source, from 0"),
    _column("start_s", pa.float64(), "PTS of the first frame, from the first frame of the source", unit="s"),
    _column("end_s", pa.float64(), "end (exclusive): PTS of the frame after the last", unit="s"),
    _column("n_frames", pa.int32(), "frames between start_s and end_s", unit="frames"),
    _column("fps", pa.float64(), "n_frames divided by end_s - start_s", unit="frames/s"),
    _column("width", pa.int32(), "picture width as displayed", unit="px"),
    _column("height", pa.int32(), "picture height as displayed", unit="px"),
    _column("crop", CROP, "the picture inside its black borders", unit="px"),
    _column("transition_in", pa.string(), "how it begins: cut, dissolve, fade, edge of the source, division"),
    _column("transition_out", pa.string(), "how it ends: cut, dissolve, fade, edge of the source, division"),
    _column(
        "motion",
        pa.float32(),
        "median over time of mean optical flow inside crop, % of its diagonal per second "
        "(Data-Juicer's score is in pixels of the source per half second)",
        unit="%/s",
    ),
    _column("motion_source", pa.string(), "where motion was read: flow, or codec (vectors; approximate)"),
    _column(
        "camera",
        pa.string(),
        "static (under 0.5 % of the diagonal per second), pan, tilt, zoom_in, zoom_out, roll, shake or mixed",
    ),
    _column(
        "object_motion",
        pa.float32(),
        "median over time of the flow that the camera's affine motion leaves, % of the diagonal per second",
        unit="%/s",
    ),
    _column("luma", pa.float32(), "mean luma inside crop, 0 (black) to 255", unit="1"),
    _column("black_ratio", pa.float32(), "share of frames with mean luma below 16, 0 to 1", unit="1"),
    _column("static_ratio", pa.float32(), "share of frame pairs without a visible change, 0 to 1", unit="1"),
    _column("sharpness", pa.float32(), "median Laplacian variance of the luma at 144 lines", unit="1"),
    _column(
        "text_area",
        pa.float32(),
        "share of the picture inside crop under the union of RapidOCR's text boxes, mean over a few keyframes, 0 to 1",
        unit="1",
    ),
    _column(
        "overlay_area",
        pa.float32(),
        "largest share of the picture under logos and subtitles, 0 to 1",
        unit="1",
    ),
    _column("aesthetic", pa.float32(), "LAION aesthetic head on CLIP ViT-L/14, about 1 to 10", unit="1"),
    _column(
        "clip_text_sim",
        pa.float32(),
        "cosine of CLIP clip embedding and the source's caption, -1 to 1",
        unit="1",
    ),
    _column(
        "nsfw", pa.float32(), "probability of unsafe content, highest over the keyframes, 0 to 1", unit="1"
    ),
    _column(
        "embedding", pa.list_(pa.float32()), "mean CLIP image embedding over keyframes, unit length", unit="1"
    ),
    _column(
        "embedding_model",
        pa.string(),
        "the CLIP model that made embedding and clip_text_sim; embedded/HASH is ours",
    ),
    _column(
        "embedding_spread", pa.float32(), "mean of 1 - cosine of keyframe and embedding, 0 if alike", unit="1"
    ),
    _column(
        "phash", pa.string(), "perceptual hashes (64-bit DCT, hex), two per second of the shot, joined by -"
    ),
    _column("score_errors", pa.map_(pa.string(), pa.string()), "score name -> why it is null"),
    _column("config_hash", pa.string(), "hash of the analysis configuration that made this row"),
    row="shot of a source: its span and scores, no decision in it",
    key="clip_id",
    order="clip_id",
)

DECISIONS = _schema(
    "decisions",
    _column("clip_id", pa.string(), "the clip decided on", nullable=False),
    _column("keep", pa.bool_(), "true if no filter failed, or a person said so", nullable=False),
    _column("reason", pa.string(), "the first failing filter with its figure; null if kept"),
    _column(
        "reasons",
        pa.list_(pa.string()),
        "every failing filter with its figure; if a person keeps the clip, what the rules had against it",
    ),
    _column("duplicate_of", pa.string(), "clip_id of the better copy that is kept instead"),
    _column("cluster", pa.int32(), "semantic cluster, null until clustering has run"),
    _column("weight", pa.float32(), "sampling weight, 1 unless balancing is on", unit="1"),
    _column(
        "override",
        pa.string(),
        "the word of a person that stood above the rules: keep or reject, by whom, why",
    ),
    _column("config_hash", pa.string(), "hash of the decision configuration that made this row"),
    row="clip: kept or not, and why",
    key="clip_id",
    order="clip_id",
)

OVERRIDES = _schema(
    "overrides",
    _column("override_id", pa.string(), "hex, of chance", nullable=False),
    _column("clip_id", pa.string(), "the clip judged", nullable=False),
    _column("source_id", pa.string(), "the source that it is cut from"),
    _column(
        "start_s", pa.float64(), "where it begins in the source, as it was cut when this was said", unit="s"
    ),
    _column("end_s", pa.float64(), "where it ended then", unit="s"),
    _column("keep", pa.bool_(), "keep or reject it, whatever the rules say; null takes the word back"),
    _column("note", pa.string(), "why, in the person's words"),
    _column("author", pa.string(), "who said so", nullable=False),
    _column("created_at", pa.timestamp("us", tz="UTC"), "when it was said", nullable=False),
    row="word of a person on a clip; the newest on a clip counts",
    key="override_id",
    order="clip_id created_at override_id",
)

CAPTIONS = _schema(
    "captions",
    _column("caption_id", pa.string(), "hash of everything that produced the caption", nullable=False),
    _column("clip_id", pa.string(), "the clip described", nullable=False),
    _column("window", pa.int32(), "number of the window within the clip, from 0"),
    _column("start_s", pa.float64(), "start of the window in the source", unit="s"),
    _column("end_s", pa.float64(), "end of the window in the source", unit="s"),
    _column("frame_times_s", pa.list_(pa.float64()), "PTS in the source of the frames really sent", unit="s"),
    _column("kind", pa.string(), "original, short, dense, structured, rewrite or merged"),
    _column("lang", pa.string(), "ISO 639-1 code of the language asked for"),
    _column("text", pa.string(), "the cleaned caption; null unless status is ok or truncated"),
    _column("text_raw", pa.string(), "what the captioner returned, never overwritten"),
    _column("structured", pa.string(), "structured caption as JSON text"),
    _column("parent_id", pa.string(), "caption_id that this one was rewritten from; the first of parent_ids"),
    _column("parent_ids", pa.list_(pa.string()), "caption_ids that this one was merged or rewritten from"),
    _column("status", pa.string(), "ok, truncated, refused, repetitive, wrong_lang, bad_json or error"),
    _column("error", pa.string(), "full error text when status is error"),
    _column("flags", pa.list_(pa.string()), "remarks, such as world_captioner: knows only the demo's world"),
    _column("captioner", pa.string(), "the backend: coca, openai, transformers, vllm or sidecar"),
    _column("model", pa.string(), "the model's name or content hash"),
    _column("revision", pa.string(), "revision of the model, if it has one"),
    _column("prompt_id", pa.string(), "name and version of the prompt file"),
    _column("prompt_hash", pa.string(), "hash of the prompt as rendered"),
    _column("sampling", pa.string(), "sampling settings as JSON text"),
    _column("seed", pa.int64(), "seed of the generation"),
    _column("cleaner_version", pa.string(), "version of the cleaning rules behind text"),
    _column("n_frames", pa.int32(), "frames sent", unit="frames"),
    _column("finish_reason", pa.string(), "why generation stopped, in the backend's words"),
    _column("tokens_in", pa.int32(), "prompt tokens, if the backend tells", unit="tokens"),
    _column("tokens_out", pa.int32(), "generated tokens, if the backend tells", unit="tokens"),
    _column("latency_ms", pa.float32(), "time from request to answer", unit="ms"),
    _column("retries", pa.int32(), "tries after the first", unit="tries"),
    _column("cost_usd", pa.float64(), "cost, if prices are configured", unit="USD"),
    _column("clip_score", pa.float32(), "cosine of CLIP image and caption embeddings, -1 to 1", unit="1"),
    _column(
        "clip_margin",
        pa.float32(),
        "clip_score less the 0.99 quantile of the same caption's cosines with other clips",
        unit="1",
    ),
    _column("chosen", pa.bool_(), "true for the caption to train on, of its clip and kind"),
    _column("run_id", pa.string(), "the run that generated the row"),
    _column("created_at", pa.timestamp("us", tz="UTC"), "when the row was generated"),
    row="answer of a captioner about a clip or a window of it, the failed ones too",
    key="caption_id",
    order="clip_id kind caption_id",
)

SHARDS = _schema(
    "shards",
    _column("clip_id", pa.string(), "the clip, and the key of its members in the tar", nullable=False),
    _column("shard", pa.string(), "path of the tar relative to shards/"),
    _column("bucket", pa.string(), "aspect, height and length class"),
    _column("mp4_offset", pa.int64(), "first byte of KEY.mp4 in the tar", unit="B"),
    _column("mp4_size", pa.int64(), "bytes of KEY.mp4", unit="B"),
    _column("json_offset", pa.int64(), "first byte of KEY.json in the tar", unit="B"),
    _column("json_size", pa.int64(), "bytes of KEY.json", unit="B"),
    _column("width", pa.int32(), "picture width as encoded", unit="px"),
    _column("height", pa.int32(), "picture height as encoded", unit="px"),
    _column("fps", pa.float64(), "average frame rate as encoded", unit="frames/s"),
    _column("n_frames", pa.int32(), "frames encoded", unit="frames"),
    _column("duration_s", pa.float64(), "length as encoded", unit="s"),
    _column("cut_id", pa.string(), "hash of the span and the encoder settings that made KEY.mp4"),
    _column("copied", pa.bool_(), "true if the source's packets were taken over without encoding"),
    _column("has_audio", pa.bool_(), "true if KEY.mp4 holds an audio track"),
    _column("audio_error", pa.string(), "why audio that was to be kept is missing, or only partly there"),
    _column(
        "error", pa.string(), "why the clip could not be cut; shard is then null; the next run tries again"
    ),
    row="kept clip, cut and packed",
    key="clip_id",
    order="clip_id",
)

LATENTS = _schema(
    "latents",
    _column("clip_id", pa.string(), "the clip, and the key of its members in the tar", nullable=False),
    _column("shard", pa.string(), "path of the tar relative to the latents folder"),
    _column("latent_offset", pa.int64(), "first byte of KEY.latent in the tar", unit="B"),
    _column("latent_size", pa.int64(), "bytes of KEY.latent", unit="B"),
    _column("text_offset", pa.int64(), "first byte of KEY.text in the tar", unit="B"),
    _column("text_size", pa.int64(), "bytes of KEY.text", unit="B"),
    _column("t", pa.int32(), "latent frames", unit="latent frames"),
    _column("h", pa.int32(), "latent height", unit="latent px"),
    _column("w", pa.int32(), "latent width", unit="latent px"),
    _column("n_tokens", pa.int32(), "tokens after patching by 1x2x2", unit="tokens"),
    _column("fps", pa.float64(), "frame rate of the encoded video", unit="frames/s"),
    _column(
        "keyframe_at",
        pa.list_(pa.int32()),
        "those whose last picture KEY.latent also has by itself",
        unit="latent frames",
    ),
    _column(
        "suffix",
        pa.int32(),
        "those at the end that KEY.latent also has as a clip of their own",
        unit="latent frames",
    ),
    _column("caption_kinds", pa.list_(pa.string()), "kinds of caption whose embeddings KEY.text holds"),
    _column("error", pa.string(), "why the clip could not be encoded; shard is then null"),
    row="clip of the shards, encoded by the VAE of the folder",
    key="clip_id",
    order="clip_id",
)

TABLES: dict[str, pa.Schema] = {
    "sources": SOURCES,
    "clips": CLIPS,
    "decisions": DECISIONS,
    "overrides": OVERRIDES,
    "captions": CAPTIONS,
    "shards": SHARDS,
    "latents": LATENTS,
}
