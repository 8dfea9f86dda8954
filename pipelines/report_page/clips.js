// Clips -------------------------------------------------------------------------------------------------------
const FACTS = ["duration_s", "motion", "object_motion", "luma", "black_ratio", "static_ratio", "sharpness", "text_area", "overlay_area", "aesthetic", "clip_text_sim", "embedding_spread", "nsfw"];

function film(clip) {
  const shape = clip.picture_w / clip.picture_h / (16 / 9), fills = Math.abs(shape - 1) < 0.02;  // of its screen
  return el("div", { class: "film", style: {
    ...(fills ? { width: "100%", height: "100%" } : { "aspect-ratio": `${clip.picture_w} / ${clip.picture_h}`, [shape > 1 ? "width" : "height"]: "100%" }),
    "background-image": `url(${clip.picture})`, "background-size": `${clip.frames * 100}% 100%`,
    "animation-timing-function": clip.frames > 1 ? `steps(${clip.frames}, jump-none)` : "linear",
    "animation-delay": "-0.9s" } });
}

// The picture of a clip: plays under the pointer, and on click, Enter or Space until the next.
function screenOf(clip, what, mark) {
  if (!clip.picture) return el("div", { class: "screen", tabindex: "-1" }, el("p", {}, `no picture: ${clip.no_picture}`), mark || null);
  const screen = el("div", { class: "screen", tabindex: "0", role: "button", "aria-pressed": "false", "aria-label": `play the frames of ${what}`,
    onclick: () => screen.setAttribute("aria-pressed", screen.classList.toggle("run")),
    onkeydown: (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      screen.click();
    } }, film(clip), mark || null);
  return screen;
}

function captionOf(row) {
  const by = [row.kind, row.captioner, row.chosen ? null : "not chosen", row.status === "ok" ? null : row.status];
  return el("p", { class: row.text ? "cap" : "cap bad" }, el("b", {}, by.filter(Boolean).join(" · ")),
    row.text || row.error || row.text_raw || "(no text)");
}

const valueOf = (clip, name) => (name === "duration_s" ? clip.end_s - clip.start_s : clip[name]);

function factOf(clip, name) {
  const value = valueOf(clip, name), why = (clip.score_errors || {})[name];
  return value === null || value === undefined ? `null${why ? ` (${why})` : ""}` : short(value);
}

// What rejected a clip, by the first word of the reason.
const ruleName = (name) => (name === "override" ? "by hand" : plain(name));
const ruleOf = (reason) => reason.split(" ")[0];

// Why a clip is what it is: a person's word, which stands among the reasons too, and what the rules have against it.
function whyOf(clip) {
  const rules = (clip.reasons || []).filter((reason) => ruleOf(reason) !== "override");
  return [clip.override ? el("p", { class: "why hand" }, `by hand: ${clip.override}`) : null,
    ...rules.map((reason) => el("p", { class: "why" }, reason.replace(/^\S+/, plain)))].filter(Boolean);
}

const fileOf = (clip) => (clip.uri || "unknown source").split("/").pop();

function clipCard(clip) {
  const file = fileOf(clip), state = clip.keep === true ? "kept" : clip.keep === false ? "rejected" : "waiting";
  const chosen = clip.captions.filter((row) => row.chosen || row.kind === "original");
  const first = chosen.length ? chosen : clip.captions.slice(0, 1);
  const given = clip.source_caption && !clip.captions.some((row) => row.kind === "original")
    ? el("p", { class: "cap" }, el("b", {}, "with the file"), clip.source_caption) : null;
  const rest = clip.captions.filter((row) => !first.includes(row));
  const mark = el("span", { class: { kept: "mark", rejected: "mark no", waiting: "mark wait" }[state] }, state === "waiting" ? "not decided yet" : state);
  const card = el("article", { class: "card clip", "aria-label": `clip ${clip.clip_id}` },
    screenOf(clip, `clip ${clip.clip_id}`, mark),
    el("div", { class: "text" },
      whyOf(clip), first.map(captionOf), given,
      el("p", { class: "facts" }, `${file}, ${clip.start_s.toFixed(2)} to ${clip.end_s.toFixed(2)} s · ${clip.width}×${clip.height}` + (clip.camera ? ` · ${plain(clip.camera)}` : "")),
      el("details", {}, el("summary", {}, "Full text and scores"), rest.map(captionOf),
        el("dl", {}, FACTS.map((name) => [el("dt", {}, plain(name)), el("dd", { class: factOf(clip, name).startsWith("null (") ? "long" : null }, factOf(clip, name))]),
          el("dt", {}, "frames"), el("dd", {}, `${clip.n_frames} at ${short(clip.fps)} per second`),
          clip.bucket ? [el("dt", {}, "bucket"), el("dd", {}, clip.bucket)] : [],
          el("dt", {}, "clip"), el("dd", { class: "mono" }, clip.clip_id)))));
  return { card, clip, state, reasons: [...(clip.override ? ["override"] : []), ...(clip.reasons || []).map(ruleOf)],
    words: [file, clip.clip_id, clip.source_caption || "", ...clip.captions.map((row) => row.text || "")].join("\n").toLowerCase() };
}
