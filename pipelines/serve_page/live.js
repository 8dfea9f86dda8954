// The page: its views, and the tables as they change under it.
import { addressOf, ask, follow, go, here, known, link } from "./address.js";
import { opened, showClip } from "./clip.js";
import { attempt, pendingLine, trouble } from "./decisions.js";
import { gallery } from "./gallery.js";
import { help, listen } from "./keys.js";
import { askName, who } from "./names.js";
import { overview } from "./overview.js";
import { sql } from "./sql.js";

const EVERY_MS = 4000, SETTLE_MS = 10000;
const VIEWS = { overview: "Overview", clips: "Clips", sql: "SQL" };
const place = (id) => document.getElementById(id);

function tabs(view) {
  place("tabs").replaceChildren(...Object.entries(VIEWS).map(([name, words]) => {
    const tab = link({ view: name, clip: "" }, words);
    if (name === view) tab.setAttribute("aria-current", "page");
    return tab;
  }), el("button", { type: "button", class: "small", onclick: help }, "Keys ?"));
}

const drawn = { view: null, models: 0, at: 0 }; // the tables that are shown, and since when

async function show() {
  if (!known.state) return; // nobody has answered yet
  Object.assign(drawn, { view: known.state.view, models: known.state.models.length, at: Date.now() });
  const { view } = here(), now = view in VIEWS ? view : "overview";
  tabs(now);
  for (const name of Object.keys(VIEWS)) place(`view-${name}`).hidden = name !== now;
  await attempt(async () => {
    if (now === "sql") sql();
    await Promise.all([showClip(), now === "clips" ? gallery(known.state.view) : now === "overview" ? overview(known.state.view) : null]);
  });
}

// While a command is at work the tables change all the time: what is shown follows now and then, or at once if asked.
async function refresh(now = false) {
  known.state = await ask("/api/state");
  const { dataset, clips, captions, vectors } = known.state;
  const name = dataset.replace(/\/+$/, "").split("/").pop();
  document.title = `${name}: Reelmill`;
  place("name").textContent = name;
  const waiting = [captions === "ready" ? null : `captions for the search: ${captions}`, vectors === "ready" ? null : `embeddings: ${vectors}`];
  place("about").textContent = [`${dataset}, ${number(clips)} clips`, ...waiting].filter(Boolean).join(" · ");
  showName();
  trouble("tables", known.state.trouble);
  pendingLine(() => refresh(true));
  const is_other = drawn.view !== known.state.view || drawn.models !== known.state.models.length;
  const is_time = now || drawn.view === null || (!opened() && Date.now() - drawn.at > SETTLE_MS);
  if (is_other && is_time) await show();
}

async function change() {
  await askName();
  place("who-is").querySelector("button").focus();
}

// Who decides in this browser, and the button to say that it is somebody else.
function showName() {
  const name = who(), at = place("who-is"), told = JSON.stringify([name, known.state.asks_name]);
  if (at.dataset.told === told) return; // or the button would lose the focus at every look
  at.dataset.told = told;
  at.replaceChildren(...[name ? `you are ${name}` : null,
    known.state.asks_name ? el("button", { type: "button", class: "small", onclick: change }, name ? "Change" : "Say who you are") : null].filter(Boolean));
}

async function watch() {
  if (!document.hidden) await attempt(() => refresh(), "look");
  setTimeout(watch, EVERY_MS);
}

follow(() => attempt(show));
document.addEventListener("named", showName);
document.addEventListener("overruled", () => attempt(() => refresh()));
listen();
place("foot").append("Served by reelmill serve. What is decided by hand lies in overrides/, and counts from the next reelmill decide on.");
watch();
