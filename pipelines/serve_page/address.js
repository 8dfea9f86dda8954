// The state of the page is its address: what is shown can be sent to somebody else, and Back goes back.
const FRESH = { view: "overview", clip: "", q: "", text: "", like: "", state: "", reason: "", score: "", least: "", most: "",
  camera: "", source: "", sort: "", order: "", offset: "" };
export const FILTERS = ["q", "text", "like", "state", "reason", "score", "least", "most", "camera", "source", "sort", "order"];
export const NONE = Object.fromEntries(FILTERS.map((name) => [name, ""])); // no filter at all
export const PAGE = 50;
const listeners = [];

export function here() {
  const given = new URLSearchParams(location.search), found = { ...FRESH };
  for (const name of Object.keys(FRESH)) if (given.has(name)) found[name] = given.get(name);
  return found;
}

export function addressOf(changes) {
  const state = { ...here(), ...changes }, query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value !== FRESH[name] && value !== "") query.set(name, value);
  const text = query.toString();
  return text ? `/?${text}` : "/";
}

export function go(changes, { replace = false } = {}) {
  const to = addressOf(changes);
  if (to === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", to);
  listeners.forEach((listen) => listen());
}

// Another filter begins at its first page.
export const filter = (changes) => go({ ...changes, view: "clips", offset: "", clip: "" });

export function follow(listen) {
  listeners.push(listen);
}
window.addEventListener("popstate", () => listeners.forEach((listen) => listen()));

// A link that changes the state; opened in another tab it is an address like any other.
export const link = (changes, ...children) => el("a", { href: addressOf(changes), onclick: (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(changes);
} }, ...children);

// What the server says, or an Error with its words.
export async function ask(path, { body, signal } = {}) {
  const options = body === undefined ? { signal } : { signal, method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is `reelmill serve` still running?");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(found.error || `the server answered ${answer.status}`), { status: answer.status });
  return found;
}

export const known = { state: null }; // what /api/state said last
