// One clip: its film, what the rules and people say, every caption, score and table row, and what looks like it.
import { ask, filter, go, here, link } from "./address.js";
import { attempt, choose, pendingText, said } from "./decisions.js";
import { cardWith, decide, page } from "./gallery.js";
import { picture } from "./pictures.js";

let open = null; // the clip in the dialog
export const opened = () => open;

export async function showClip() {
  const dialog = document.getElementById("clip"), wanted = here().clip;
  if (!wanted) {
    const last = open;
    open = null;
    if (dialog.open) dialog.close();
    dialog.replaceChildren(); // ends the film
    if (last) cardWith(last.clip_id)?.focus();
    return;
  }
  if (open?.clip_id === wanted && dialog.open) return;
  let clip;
  try {
    clip = await ask(`/api/clips/${encodeURIComponent(wanted)}`);
  } catch (error) {
    clip = { clip_id: wanted, error: error.message };
  }
  if (here().clip !== wanted) return;
  open = clip;
  dialog.replaceChildren(...(clip.error ? [head(clip), el("p", {}, clip.error)] : contents(clip)));
  if (!dialog.open) dialog.showModal();
  dialog.focus(); // and not its first button, which Enter would press
  dialog.scrollTop = 0;
  if (!clip.error) similar(clip);
}

export const close = () => go({ clip: "" });

export function step(by) {
  const at = page.clips.findIndex((clip) => clip.clip_id === open?.clip_id), to = page.clips[at + by];
  if (at >= 0 && to) go({ clip: to.clip_id }, { replace: true });
}

const head = (clip) => el("div", { class: "dialog-head" }, el("h2", { class: "mono" }, clip.clip_id),
  el("span", { class: "turn" }, el("button", { type: "button", onclick: () => step(-1), "aria-label": "Previous clip" }, "←"),
    el("button", { type: "button", onclick: () => step(1), "aria-label": "Next clip" }, "→"),
    el("button", { type: "button", onclick: close }, "Close")));

function contents(clip) {
  return [head(clip),
    el("div", { class: "beside" }, el("div", {}, filmOf(clip), judgement(clip), people(clip)), el("div", {}, captionsOf(clip), scoresOf(clip))),
    el("h3", {}, "Similar clips"), el("div", { class: "similar", id: "similar" }, el("p", { class: "hint" }, "…")),
    story(clip)];
}

// Asked for when it is opened: it reads every table.
function story(clip) {
  const told = el("pre", {}, "…");
  return el("details", { ontoggle: async (event) => {
    if (!event.target.open) return;
    try {
      told.textContent = (await ask(`/api/clips/${encodeURIComponent(clip.clip_id)}/story`)).story.join("\n");
    } catch (error) {
      told.textContent = error.message;
    }
  } }, el("summary", {}, "The whole story, as reelmill inspect tells it"), told);
}

function filmOf(clip) {
  if (clip.shard) {
    const address = `/clips/${encodeURIComponent(clip.clip_id)}/video`, place = el("div", { class: "player" });
    const video = el("video", { controls: "", loop: "", preload: "metadata", playsinline: "", src: address, onerror: async () => {
      const told = await fetch(address, { headers: { Range: "bytes=0-0" } }).then((answer) => (answer.ok ? {} : answer.json())).catch(() => ({}));
      place.replaceChildren(strip(clip), el("p", { class: "hint" }, `It cannot be played: ${told.error || "this browser does not know its codec."}`));
    } });
    video.muted = true; // or browsers do not begin by themselves
    video.autoplay = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    place.append(video);
    return place;
  }
  return el("div", { class: "player" }, strip(clip), el("p", { class: "hint" }, "In no shard: these are pictures from its source."));
}

function strip(clip) {
  const screen = el("div", { class: "screen", tabindex: "0", role: "img", "aria-label": "pictures of the clip" }, el("p", {}, "…"));
  picture(screen, clip);
  return el("div", { class: "playing" }, screen);
}

function judgement(clip) {
  const rules = clip.keep === null ? "not decided yet" : clip.keep ? "kept" : "rejected";
  const note = el("input", { type: "text", id: "note", maxlength: 2000, placeholder: "note (optional)", "aria-label": "Note" });
  const place = el("div", { class: "judge" });
  const draw = () => place.replaceChildren(
    el("p", {}, el("b", { class: clip.keep === false ? "mark no" : "mark" }, rules), clip.override || clip.keep === null ? "" : " by the rules"),
    ...whyOf(clip),
    clip.duplicate_of ? sideBySide(clip) : "",
    pendingText(clip) ? el("p", { class: "word" }, pendingText(clip)) : "",
    el("div", { class: "doings" }, note, ...choose(clip, say)));
  const say = async (keep) => {
    await decide(clip, keep, note.value.trim());
    note.value = "";
    Object.assign(clip, await ask(`/api/clips/${encodeURIComponent(clip.clip_id)}`));
    draw();
    place.parentElement.querySelector(".people").replaceWith(people(clip));
  };
  clip.say = (keep) => attempt(() => say(keep));
  draw();
  return place;
}

// A copy and the better one that is kept instead of it.
function sideBySide(clip) {
  const half = (clip_id, words) => {
    const screen = el("div", { class: "screen" }, el("p", {}, "…"));
    picture(screen, { clip_id });
    return link({ clip: clip_id }, el("div", { class: "playing" }, screen), el("span", { class: "facts" }, words));
  };
  return el("div", { class: "pair-of" }, half(clip.duplicate_of, `stands for both: ${clip.duplicate_of}`), half(clip.clip_id, "this one, a copy"));
}

const people = (clip) => el("div", { class: "people" }, clip.history.length > 1 ? [el("h3", {}, "What people said"), el("ol", {}, clip.history.map((row) =>
  el("li", {}, el("b", {}, said(row.keep)), ` by ${row.author}, ${row.created_at.slice(0, 16)} UTC${row.note ? `: ${row.note}` : ""}`)))] : []);

const captionsOf = (clip) => el("div", { class: "captions" }, el("h3", {}, "Captions"),
  clip.captions.length ? clip.captions.map(captionOf) : el("p", { class: "hint" }, "None yet."));

function scoresOf(clip) {
  const names = ["duration_s", ...known_scores(clip)], why = clip.score_errors;
  return el("div", {}, el("h3", {}, "Scores"), el("dl", {}, names.map((name) => {
    const value = clip[name], told = value === null ? `null: ${why[name] || "no reason recorded"}` : short(value);
    return [el("dt", {}, plain(name)), el("dd", {}, told)];
  }).flat(), [["camera", clip.camera || `null: ${why.camera || "no reason recorded"}`], ["frames", `${clip.n_frames} at ${short(clip.fps)} per second`],
    ["picture", `${clip.width}×${clip.height}`], ["span", `${clip.start_s.toFixed(3)} to ${clip.end_s.toFixed(3)} s, shot ${clip.index + 1}`],
    ["begins, ends", `${clip.transition_in}, ${clip.transition_out}`], ["cluster", clip.cluster], ["weight", clip.weight === null ? null : short(clip.weight)], ["shard", clip.shard]]
    .filter(([, value]) => value !== null).map(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]).flat()),
  el("p", { class: "facts" }, "from ", link({ view: "clips", clip: "", offset: "", source: clip.source_id }, clip.uri || clip.source_id)));
}

const known_scores = (clip) => ["motion", "object_motion", "luma", "black_ratio", "static_ratio", "sharpness", "text_area", "overlay_area",
  "aesthetic", "clip_text_sim", "nsfw", "embedding_spread"].filter((name) => name in clip);

async function similar(clip) {
  const place = document.getElementById("similar");
  try {
    const found = await ask(`/api/clips?${new URLSearchParams({ like: clip.clip_id, limit: 6 })}`);
    if (open !== clip) return;
    place.replaceChildren(...found.clips.map((other) => {
      const screen = el("div", { class: "screen" }, el("p", {}, "…"));
      picture(screen, other);
      const card = link({ clip: other.clip_id }, screen, el("span", { class: "facts" }, `cosine ${other.cosine.toFixed(3)}`));
      card.setAttribute("aria-label", `clip ${other.clip_id}`);
      return card;
    }), el("button", { type: "button", onclick: () => filter({ like: clip.clip_id, q: "", text: "" }) }, "All by similarity"));
  } catch (error) {
    place.replaceChildren(el("p", { class: "hint" }, error.message));
  }
}
