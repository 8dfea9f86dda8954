// The gallery: pages of clips, filtered and sorted by the server.
import { FILTERS, PAGE, ask, filter, go, here } from "./address.js";
import { choose, overrule, pendingText } from "./decisions.js";
import { bar_of_filters } from "./filters.js";
import { forget, picture } from "./pictures.js";

let shown = null, asked = 0, abort = new AbortController();
export const page = { clips: [], total: 0, offset: 0 };

export async function gallery(view, { again = false } = {}) {
  const state = here(), query = new URLSearchParams({ limit: PAGE });
  for (const name of [...FILTERS, "offset"]) if (state[name]) query.set(name, state[name]);
  const wanted = `${view} ${query}`, place = document.getElementById("view-clips");
  if (shown === wanted && !again) return;
  if (!place.firstChild) {
    place.append(el("div", { id: "filters" }), el("p", { class: "hint", id: "remarks", role: "status" }), el("div", { class: "pager", id: "pager-top" }),
      el("div", { class: "gallery", id: "wall" }), el("div", { class: "pager", id: "pager-end" }));
  }
  bar_of_filters(document.getElementById("filters"));
  const remarks = document.getElementById("remarks"), wall = document.getElementById("wall");
  abort.abort();
  abort = new AbortController();
  const turn = ++asked;
  wall.classList.add("old");
  try {
    if (state.text) remarks.textContent = "Reading the text with CLIP; the first time takes some seconds…";
    const found = await ask(`/api/clips?${query}`, { signal: abort.signal });
    if (turn !== asked) return;
    shown = wanted;
    Object.assign(page, found);
    remarks.textContent = found.remarks;
    draw(wall);
  } catch (error) {
    if (error.name === "AbortError") return;
    shown = null;
    Object.assign(page, { clips: [], total: 0, offset: 0 });
    draw(wall);
    remarks.textContent = error.message;
    const again = () => { if (turn === asked && here().text) gallery(view, { again: true }); };
    if (error.status === 503 && state.text) setTimeout(again, 2000); // CLIP is being loaded
  } finally {
    if (turn === asked) wall.classList.remove("old");
  }
}

function draw(wall) {
  const focused = document.activeElement?.closest?.("#wall .clip")?.dataset.clip;
  forget();
  wall.replaceChildren(...page.clips.map(cardOf));
  if (!page.clips.length) wall.append(el("p", { class: "hint" }, "No clip fits."));
  for (const id of ["pager-top", "pager-end"]) document.getElementById(id).replaceChildren(...pager());
  if (focused) cardWith(focused)?.focus();
}

export const cardWith = (clip_id) => document.querySelector(`#wall .clip[data-clip="${CSS.escape(clip_id)}"]`);

function cardOf(clip) {
  const { card } = clipCard({ ...clip, picture: null, no_picture: "" }), text = card.querySelector(".text");
  card.tabIndex = 0;
  card.dataset.clip = clip.clip_id;
  const screen = card.querySelector(".screen");
  screen.tabIndex = -1;
  screen.addEventListener("click", () => go({ clip: clip.clip_id }));
  picture(screen, clip);
  const found = [clip.snippet ? el("p", { class: "cap found" }, marked(clip.snippet, clip.marks)) : null,
    clip.cosine === undefined ? null : el("p", { class: "facts" }, `cosine ${clip.cosine.toFixed(3)}`),
    pendingText(clip) ? el("p", { class: "word" }, pendingText(clip)) : null];
  text.prepend(...found.filter(Boolean));
  text.append(el("div", { class: "doings" }, ...choose(clip, (keep) => decide(clip, keep)),
    el("button", { type: "button", class: "small", onclick: () => filter({ like: clip.clip_id, q: "", text: "" }) }, "Similar"),
    el("button", { type: "button", class: "small", onclick: () => go({ clip: clip.clip_id }) }, "Open")));
  return card;
}

// A person's word on a clip of the page; its card shows it at once.
export async function decide(clip, keep, note) {
  const { word, pending } = await overrule(clip, keep, note);
  const on_page = page.clips.find((other) => other.clip_id === clip.clip_id);
  if (!on_page) return;
  Object.assign(on_page, { word, pending });
  const old = cardWith(clip.clip_id), had_focus = old && old.contains(document.activeElement);
  if (!old) return;
  const card = cardOf(on_page);
  const film_there = old.querySelector(".film");
  if (film_there) card.querySelector(".screen").firstElementChild.replaceWith(film_there);
  old.replaceWith(card);
  if (had_focus) card.focus();
}

function marked(text, [begin, end]) {
  return text.split(begin).flatMap((part, i) => {
    if (i === 0) return [part];
    const [found, ...rest] = part.split(end);
    return [el("mark", {}, found), rest.join("")];
  });
}

export function turn(pages) {
  const to = page.offset + pages * PAGE;
  if (to >= 0 && to < page.total) {
    go({ offset: to ? String(to) : "" });
    document.getElementById("views").scrollIntoView();
  }
}

function pager() {
  const first = page.offset + 1, last = page.offset + page.clips.length, pages = Math.ceil(page.total / PAGE);
  const told = el("output", {}, page.total ? `${number(first)} to ${number(last)} of ${number(page.total)}` : "0 clips");
  const input = el("input", { type: "number", min: 1, max: pages, value: Math.floor(page.offset / PAGE) + 1, "aria-label": "Page",
    onchange: () => turn(Math.min(pages, Math.max(1, Math.round(input.valueAsNumber || 1))) - 1 - Math.floor(page.offset / PAGE)) });
  const button = (words, by, off) => el("button", { type: "button", disabled: off ? "" : null, onclick: () => turn(by) }, words);
  return [told, pages > 1 ? el("span", { class: "turn" }, button("← Previous", -1, page.offset === 0), el("label", {}, "page ", input, ` of ${number(pages)}`),
    button("Next →", 1, last >= page.total)) : null].filter(Boolean);
}
