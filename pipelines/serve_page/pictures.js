// Strips of pictures, fetched for the cards that are looked at: a few at a time, so that the page itself never waits.
const AT_ONCE = 3;
let waiting = [], running = 0, abort = new AbortController(), made = [];

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    waiting.push(entry.target);
  }
  next();
}, { rootMargin: "200px" });
const clips = new WeakMap();

// `screen` shows the pictures of `clip` once it comes into sight.
export function picture(screen, clip) {
  clips.set(screen, clip);
  screen.firstElementChild.textContent = "…";
  seen.observe(screen);
}

// Forget what is not there yet, for another page comes.
export function forget() {
  abort.abort();
  abort = new AbortController();
  waiting = [];
  made.forEach((address) => URL.revokeObjectURL(address));
  made = [];
}

function next() {
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    load(waiting.shift(), abort.signal).finally(() => { running -= 1; next(); });
  }
}

async function load(screen, signal) {
  const clip = clips.get(screen), told = screen.firstElementChild;
  try {
    const answer = await fetch(`/clips/${encodeURIComponent(clip.clip_id)}/strip.webp`, { signal });
    if (!answer.ok) throw new Error((await answer.json()).error);
    const address = URL.createObjectURL(await answer.blob());
    made.push(address);
    const [width, height] = answer.headers.get("X-Size").split("x").map(Number);
    told.replaceWith(film({ picture: address, frames: Number(answer.headers.get("X-Frames")), picture_w: width, picture_h: height }));
  } catch (error) {
    if (error.name !== "AbortError") told.textContent = `no picture: ${error.message}`;
  }
}
