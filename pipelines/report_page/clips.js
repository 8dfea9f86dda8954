// Clips -------------------------------------------------------------------------------------------------------
const FACTS = ["motion", "luma", "black_ratio", "static_ratio", "sharpness", "text_area", "overlay_area", "aesthetic", "clip_text_sim", "nsfw"];

function film(clip) {
  const wide = clip.picture_w / clip.picture_h >= 16 / 9;
  return el("div", { class: "film", style: {
    "aspect-ratio": `${clip.picture_w} / ${clip.picture_h}`, [wide ? "width" : "height"]: "100%",
    "background-image": `url(${clip.picture})`, "background-size": `${clip.frames * 100}% 100%`,
    "animation-timing-function": clip.frames > 1 ? `steps(${clip.frames}, jump-none)` : "linear",
    "animation-delay": "-0.9s" } });
}

function captionOf(row) {
  const by = [row.kind, row.captioner, row.chosen ? null : "not chosen", row.status === "ok" ? null : row.status];
  return el("p", { class: row.text ? "cap" : "cap bad" }, el("b", {}, by.filter(Boolean).join(" · ")),
    row.text || row.error || row.text_raw || "(no text)");
}

function clipCard(clip) {
  const kept = clip.keep !== false;
  const chosen = clip.captions.filter((row) => row.chosen || row.kind === "original");
  const first = chosen.length ? chosen : clip.captions.slice(0, 1);
  const given = clip.source_caption && !clip.captions.some((row) => row.kind === "original")
    ? el("p", { class: "cap" }, el("b", {}, "with the file"), clip.source_caption) : null;
  const rest = clip.captions.filter((row) => !first.includes(row));
  const file = (clip.uri || "unknown source").split("/").pop();
  const card = el("article", { class: "card clip" },
    el("div", { class: "screen", tabindex: "0", role: "img", "aria-label": `frames of clip ${clip.clip_id}` },
      clip.picture ? film(clip) : el("p", {}, `no picture: ${clip.no_picture}`),
      clip.keep === null ? null : el("span", { class: kept ? "mark" : "mark no" }, kept ? "kept" : "rejected")),
    el("div", { class: "text" },
      (clip.reasons || []).map((reason) => el("p", { class: "why" }, reason)),
      first.map(captionOf), given,
      el("p", { class: "facts" }, `${file}, ${clip.start_s.toFixed(2)} to ${clip.end_s.toFixed(2)} s · ${clip.width}×${clip.height}` + (clip.camera ? ` · ${plain(clip.camera)}` : "")),
      el("details", {}, el("summary", {}, "Scores and more"), rest.map(captionOf),
        el("dl", {}, FACTS.map((name) => [el("dt", {}, plain(name)), el("dd", {}, short(clip[name]))]),
          el("dt", {}, "frames"), el("dd", {}, `${clip.n_frames} at ${short(clip.fps)} per second`),
          clip.bucket ? [el("dt", {}, "bucket"), el("dd", {}, clip.bucket)] : [],
          el("dt", {}, "clip"), el("dd", { class: "mono" }, clip.clip_id)))));
  return { card, kept, reasons: (clip.reasons || []).map((reason) => reason.split(" ")[0]),
    words: [file, clip.clip_id, clip.source_caption || "", ...clip.captions.map((row) => row.text || "")].join("\n").toLowerCase() };
}

function gallery() {
  const cards = data.gallery.map(clipCard), wall = el("div", { class: "gallery" }, cards.map((c) => c.card));
  const state = { which: "all", reason: "", words: "" }, told = el("output", { "aria-live": "polite" });
  const choices = ["all", "kept", "rejected"].map((which) =>
    el("button", { type: "button", "aria-pressed": which === "all", onclick: () => { state.which = which; show(); } }, which[0].toUpperCase() + which.slice(1)));
  const names = [...new Set(cards.flatMap((c) => c.reasons))].sort();
  const select = el("select", { "aria-label": "Reason", onchange: () => { state.reason = select.value; show(); } },
    el("option", { value: "" }, "any reason"), names.map((name) => el("option", { value: name }, plain(name))));
  const search = el("input", { type: "search", placeholder: "words in captions or file name", "aria-label": "Search captions",
    oninput: () => { state.words = search.value.toLowerCase(); show(); } });
  const play = el("button", { type: "button", "aria-pressed": "false",
    onclick: () => play.setAttribute("aria-pressed", wall.classList.toggle("playing")) }, "Play all");
  function show() {
    let n = 0;
    for (const c of cards) {
      const fits = (state.which === "all" || c.kept === (state.which === "kept")) &&
        (!state.reason || c.reasons.includes(state.reason)) && c.words.includes(state.words);
      c.card.hidden = !fits;
      n += fits;
    }
    choices.forEach((button, i) => button.setAttribute("aria-pressed", ["all", "kept", "rejected"][i] === state.which));
    told.textContent = `${number(n)} of ${number(cards.length)} shown`;
  }
  show();
  return [el("div", { class: "filters" }, choices, names.length ? select : null, search, play, told), wall];
}
