"""Ten questions that analysts ask of a dataset first, as SQL over the views of `reelmill query`.

reelmill query --dataset films.reel --examples       # all ten, to read and to copy
reelmill query --dataset films.reel --example 3      # the answer to the third
"""

from __future__ import annotations

import shlex
import shutil
import textwrap
from dataclasses import dataclass

from curate.errors import BadInput


@dataclass(frozen=True)
class Example:
    """A question: its title, what the answer tells and what none means, and the SQL, which runs as it stands.

    `is_read_down`: the answer is text, which a table would cut; it is printed down, a column a line.
    """

    title: str
    tells: str
    sql: str
    empty: str = "No rows."
    is_read_down: bool = False

    def heading(self) -> str:
        """Title and `tells`, to stand above the answer on the terminal."""
        return f"{self.title}\n{textwrap.fill(self.tells, min(shutil.get_terminal_size().columns, 100))}"


FUNNEL = Example(
    "Funnel by source",
    "What became of every file: shots found, kept, captioned and packed; minutes kept. The first row is all files "
    "together; then those with the most shots. Exact copies of a file are left out, and the folder that all share.",
    """
WITH shared AS (
    SELECT coalesce(max(n), 0) AS folder
    FROM (SELECT first, last, unnest(range(1, length(first))) AS n
          FROM (SELECT min(uri) AS first, max(uri) AS last FROM sources))
    WHERE first[n] = '/' AND starts_with(last, first[:n])
)
SELECT CASE WHEN grouping(s.uri) = 1 THEN 'ALL FILES' ELSE s.uri[any_value(folder) + 1:] END AS file,
       count(d.clip_id) AS shots,
       count(*) FILTER (d.keep) AS kept,
       count(*) FILTER (d.keep AND d.n_generated > 0) AS captioned,
       count(*) FILTER (d.keep AND d.shard IS NOT NULL) AS packed,
       round(coalesce(sum(d.end_s - d.start_s) FILTER (d.keep), 0) / 60, 1) AS minutes,
       CASE WHEN grouping(s.uri) = 0 THEN any_value(s.status) END AS status
FROM sources s CROSS JOIN shared LEFT JOIN dataset d USING (source_id)
WHERE s.duplicate_of IS NULL
GROUP BY ROLLUP (s.uri)
ORDER BY grouping(s.uri) DESC, shots DESC, file
LIMIT 30
""",
)

REJECTED = Example(
    "Why clips were rejected",
    "Clips by the first rule that they failed. `only_this` of them fail no other rule that was looked at: text is "
    "not read of a clip that another rule rejects, and its copies are not looked for.",
    """
SELECT split_part(reason, ' ', 1) AS rule,
       count(*) AS clips,
       round(100.0 * count(*) / (SELECT count(*) FROM decisions), 1) AS percent,
       count(*) FILTER (len(reasons) = 1) AS only_this,
       round(sum(end_s - start_s) / 60, 1) AS minutes,
       arg_min(replace(regexp_replace(reason, '^\\S+ ((copy )?of \\S+ \\((.*)\\))?', '\\3'), ' differ', ''), clip_id)
           AS for_example
FROM decisions JOIN clips USING (clip_id)
WHERE NOT keep
GROUP BY rule
ORDER BY clips DESC, rule
""",
    "No clip was rejected.",
)

LENGTHS = Example(
    "Caption length by captioner",
    "Words per caption of each kind and captioner: the mean, and the lengths that 5, 50 and 95 % do not exceed. "
    "`cut_off` of them reached the token limit.",
    """
SELECT kind, captioner, model,
       count(*) AS captions,
       count(*) FILTER (status = 'truncated') AS cut_off,
       round(avg(words), 1) AS mean,
       quantile_disc(words, 0.05) AS p5,
       quantile_disc(words, 0.5) AS median,
       quantile_disc(words, 0.95) AS p95
FROM (SELECT *, strlen(text) - strlen(replace(text, ' ', '')) + 1 AS words FROM captions WHERE text IS NOT NULL)
GROUP BY kind, captioner, model
ORDER BY kind, captioner, model
""",
    "No caption has a text.",
)

WORDS = Example(
    "Words by camera motion",
    "Words that captions use more often when the camera moves in one way than they do over all: does `pan` get "
    "said where the camera pans? From the chosen captions of up to 10,000 clips; words of at least 3 clips.",
    """
WITH sample AS (
    SELECT clip_id, camera FROM clips WHERE camera IS NOT NULL ORDER BY hash(clip_id) LIMIT 10000
), said AS (
    SELECT DISTINCT clip_id, camera, unnest(regexp_extract_all(lower(text), '\\p{L}{3,}')) AS word
    FROM captions JOIN sample USING (clip_id)
    WHERE chosen AND kind <> 'original'
), here AS (
    SELECT camera, word, count(*) AS n, sum(count(*)) OVER (PARTITION BY word) AS n_all
    FROM said GROUP BY camera, word
), clips_of AS (
    SELECT camera, count(DISTINCT clip_id) AS n_clips, sum(count(DISTINCT clip_id)) OVER () AS all_clips
    FROM said GROUP BY camera
)
SELECT camera, word, n AS clips, round(100 * n / n_clips, 1) AS percent_of_clips,
       round((n / n_clips) / (n_all / all_clips), 1) AS times_as_often
FROM here JOIN clips_of USING (camera)
WHERE n >= 3
QUALIFY times_as_often > 1 AND row_number() OVER (PARTITION BY camera ORDER BY times_as_often DESC, n DESC, word) <= 5
ORDER BY camera, times_as_often DESC, clips DESC, word
""",
    "No word stands out: none that 3 clips share is said more often of one camera motion than over all.",
)

DISAGREE = Example(
    "Captions that disagree with their clip",
    "The ten chosen captions that CLIP finds least like their own clip, against other clips (`clip_margin`; below 0 "
    "another clip fits better). Look at one with `reelmill inspect --clip ID`.",
    """
SELECT text, kind, round(clip_margin, 3) AS margin, round(clip_score, 3) AS score, clip_id
FROM captions
WHERE chosen AND kind <> 'original' AND clip_score IS NOT NULL
ORDER BY clip_margin NULLS LAST, clip_score, caption_id
LIMIT 10
""",
    "No chosen caption that a captioner wrote has been compared with its clip: `clip_score` is null.",
    is_read_down=True,
)

COPIES = Example(
    "Duplicates",
    "Clips with the most copies; `others` of these come from other files. The copies are rejected in favour "
    "of `kept_clip`; `how` tells how near the first of them is to it.",
    """
SELECT d.duplicate_of AS kept_clip,
       count(*) AS copies,
       count(*) FILTER (c.source_id <> k.source_id) AS others,
       round(sum(c.end_s - c.start_s), 1) AS seconds,
       arg_min(replace(regexp_extract(d.reason, '\\((.*)\\)', 1), ' differ', ''), d.clip_id) AS how
FROM decisions d
JOIN clips c ON c.clip_id = d.clip_id
JOIN clips k ON k.clip_id = d.duplicate_of
GROUP BY kept_clip
ORDER BY copies DESC, kept_clip
LIMIT 20
""",
    "No clip was rejected as a copy of another.",
)

COST = Example(
    "Cost per thousand captions",
    "Dollars per thousand usable captions, tries that failed included, with tokens per request. Rows without a "
    "price are left out of the dollars and counted in `no_price`.",
    """
SELECT captioner, model, kind,
       count(*) AS requests,
       count(*) FILTER (status IN ('ok', 'truncated')) AS usable,
       count(*) - count(cost_usd) AS no_price,
       round(avg(tokens_in)) AS tokens_in,
       round(avg(tokens_out)) AS tokens_out,
       round(sum(cost_usd), 2) AS usd,
       round(1000 * sum(cost_usd)
             / nullif(count(*) FILTER (status IN ('ok', 'truncated') AND cost_usd IS NOT NULL), 0), 3) AS usd_per_1000
FROM captions
WHERE kind <> 'original'
GROUP BY captioner, model, kind
ORDER BY usd DESC NULLS LAST, captioner, model, kind
""",
    "No captioner was asked: there are no captions but the sources' own.",
)

ASPECTS = Example(
    "Minutes kept by aspect ratio",
    "Minutes found and kept by the nearest usual shape of the picture inside its black borders, and the median of "
    "its shorter side in pixels (`lines`).",
    """
WITH shapes AS (
    SELECT keep, end_s - start_s AS seconds,
           coalesce(crop.w, width) AS w, coalesce(crop.h, height) AS h, w / h AS ratio,
           CASE WHEN ratio < 0.65 THEN '9:16' WHEN ratio < 0.87 THEN '3:4' WHEN ratio < 1.15 THEN '1:1'
                WHEN ratio < 1.54 THEN '4:3' WHEN ratio < 2.04 THEN '16:9' ELSE '21:9' END AS aspect
    FROM clips JOIN decisions USING (clip_id)
    WHERE width > 0 AND height > 0
)
SELECT aspect,
       count(*) AS clips,
       count(*) FILTER (keep) AS kept,
       round(sum(seconds) / 60, 1) AS minutes,
       round(coalesce(sum(seconds) FILTER (keep), 0) / 60, 1) AS minutes_kept,
       round(100 * coalesce(sum(seconds) FILTER (keep), 0) / sum(seconds), 1) AS percent_kept,
       quantile_disc(least(w, h), 0.5) AS lines
FROM shapes
GROUP BY aspect
ORDER BY minutes_kept DESC, aspect
""",
    "There are no clips.",
)

FAILED = Example(
    "Failed files and their errors",
    "Files that could not be read, or only in part, with the error in full (`--format json` does not cut it). A "
    "transient failure is tried again by the next run, a permanent one with --retry_failed.",
    """
SELECT status, failure, attempts, uri, error
FROM sources
WHERE status <> 'ok'
ORDER BY status, failure, uri
""",
    "None: every file was read in full.",
)

BALANCE = Example(
    "Shard balance",
    "Shards of each bucket, and how many times their mean the largest is (`to_mean`): workers that each read one "
    "shard wait for the largest.",
    """
WITH tars AS (
    SELECT bucket, shard, count(*) AS clips, sum(duration_s) AS seconds, sum(mp4_size) / 1e6 AS mb
    FROM shards
    WHERE shard IS NOT NULL
    GROUP BY bucket, shard
)
SELECT bucket,
       count(*) AS shards,
       sum(clips)::BIGINT AS clips,
       round(sum(seconds) / 60, 1) AS minutes,
       round(sum(mb), 1) AS mb,
       round(max(mb), 1) AS largest_mb,
       round(max(mb) / avg(mb), 2) AS to_mean
FROM tars
GROUP BY bucket
ORDER BY mb DESC, bucket
""",
    "No clip lies in a shard.",
)

EXAMPLES = (FUNNEL, REJECTED, LENGTHS, WORDS, DISAGREE, COPIES, COST, ASPECTS, FAILED, BALANCE)


def numbered(number: int) -> Example:
    """The example with that number, from 1. Raises BadInput for another one."""
    if not 1 <= number <= len(EXAMPLES):
        raise BadInput(f"there is no example {number}; they are numbered from 1 to {len(EXAMPLES)}.")
    return EXAMPLES[number - 1]


def listing(dataset: str) -> str:
    """All examples with their SQL, and how to run one."""
    parts = []
    for number, example in enumerate(EXAMPLES, 1):
        told = textwrap.fill(example.tells, 100, initial_indent="   ", subsequent_indent="   ")
        parts.append(
            f"{number}. {example.title}\n{told}\n\n{textwrap.indent(example.sql.strip(), '     ')}\n"
        )
    parts.append(f"Run one: reelmill query --dataset {shlex.quote(dataset)} --example 3")
    return "\n".join(parts)
