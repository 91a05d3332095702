// @ts-check
// What lives in the page: pieces that follow the program, ages that tick, keys. What a person does is in acts.js. Everything
// works without both. Markup that the server sends is parsed and adopted: scripts in it do not run.
/** @template {Element} T @param {string} selector @param {ParentNode} [root] @returns {T | null} */
export const one = (selector, root = document) => /** @type {any} */ (root.querySelector(selector));
/** @param {string} selector @param {ParentNode} [root] @returns {HTMLElement[]} */
export const all = (selector, root = document) => /** @type {any} */ ([...root.querySelectorAll(selector)]);
/** @param {string} html @returns {Node[]} */
export function parsed(html) {
  const table = html.trimStart().startsWith("<tr");
  const text = table ? `<table><tbody>${html}</tbody></table>` : html;
  const body = new DOMParser().parseFromString(text, "text/html").body;
  const nodes = [...(table ? /** @type {Element} */ (body.querySelector("tbody")) : body).childNodes];
  return nodes.map((node) => document.importNode(node, true));
}

// ── Times ────────────────────────────────────────────────────────────────────────────────────────────────────────
/** @param {number} s */
function spoken(s) {
  if (s < 9.95) return `${Math.max(s, 0).toFixed(1)} s`;
  if (s < 119.5) return `${s.toFixed(0)} s`;
  if (s < 3570) return `${(s / 60).toFixed(0)} min`;
  const minutes = Math.round(s / 60);
  if (s < 172800) return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
  return `${(s / 86400).toFixed(0)} days`;
}
/** The server's clock less this one's, in milliseconds. */
let ahead = 0;
function tick() {
  for (const time of all("time[data-age]")) {
    const at = Date.parse(time.getAttribute("datetime") ?? "");
    if (!Number.isNaN(at)) time.textContent = `${spoken((Date.now() + ahead - at) / 1000)} ago`;
  }
}
/** @param {ParentNode} [root] */
export function localTimes(root = document) {
  for (const time of all("time[datetime]", root)) {
    const at = new Date(time.getAttribute("datetime") ?? "");
    if (!Number.isNaN(at.getTime())) time.title = `${at.toLocaleString()} here`;
  }
}

// ── Pieces ───────────────────────────────────────────────────────────────────────────────────────────────────────
export const say = (/** @type {string} */ text) => all("#said").forEach((said) => (said.textContent = text));
/** @param {HTMLElement} place @param {string} html */
function put(place, html) {
  const active = document.activeElement;
  const held = active && place.contains(active) ? active.getAttribute("href") ?? active.id : null;
  const scrolled = all(".scroll", place).map((box) => box.scrollLeft);
  const open = all("details[open]", place).map((box) => box.closest("tr")?.id ?? box.parentElement?.id ?? "");
  const plots = all("details.as-table", place).map((box) => box.hasAttribute("open"));
  place.replaceChildren(...parsed(html));
  all(".scroll", place).forEach((box, at) => (box.scrollLeft = scrolled[at] ?? 0));
  for (const id of open) if (id) one(`#${CSS.escape(id)} details`, place)?.setAttribute("open", "");
  all("details.as-table", place).forEach((box, at) => plots[at] && box.setAttribute("open", ""));
  if (held) all("a[href], button", place).find((e) => (e.getAttribute("href") ?? e.id) === held)?.focus();
  localTimes(place);
  unhide(place);
}
let lost = 0;
let verdictClass = one("[data-live=verdict] [data-class]")?.getAttribute("data-class");
/** @param {string} name @param {string} html */
function piece(name, html) {
  const place = /** @type {HTMLElement | null} */ (one(`[data-live="${name}"]`));
  if (!place || holds(place)) return;
  put(place, html);
  if (name === "verdict") {
    const now = one("[data-class]", place)?.getAttribute("data-class");
    // Its seconds change all the time; it is said again when it is another sentence.
    if (now !== verdictClass) say(one("h1", place)?.textContent ?? "");
    verdictClass = now;
  }
}
/** Whether a person is in the middle of something there. @param {HTMLElement} place */
const holds = (place) => {
  const selected = getSelection();
  return Boolean(selected && !selected.isCollapsed && selected.anchorNode && place.contains(selected.anchorNode));
};
const link = (/** @type {string} */ text) => all("#link").forEach((place) => (place.textContent = text));
const found = () => (clearTimeout(lost), (lost = 0));
function goneAway() {
  if (document.body.dataset.lost) return;
  link("lost, as of");
  document.body.dataset.lost = "1";
  const [template, place] = [one("#lost"), one("[data-live=verdict]")];
  if (template instanceof HTMLTemplateElement && place) {
    place.replaceChildren(document.importNode(template.content, true));
    verdictClass = "lost";
  }
  say("The console has lost the program. What follows may be old.");
}
/** Says something above the page, until the stream goes on. @param {string} text @param {string} [more] */
export function above(text, more = "") {
  one(".out")?.remove();
  one("main")?.prepend(...parsed(`<p class="note is-warn out">${text} ${more}</p>`));
  one("main")?.scrollIntoView();
  say(text);
}
/** The program is there, and does not know us any more: what somebody types on this page stays. They log in beside it. */
export function loggedOut() {
  found();
  unfollow();
  link("logged out, as of");
  const again = `/login?next=${encodeURIComponent(location.pathname + location.search)}`;
  above("You are logged out: what follows may be old.", `<a href="${again}" target="_blank">Log in again</a>`);
}

// ── The stream ───────────────────────────────────────────────────────────────────────────────────────────────────
/** @type {EventSource | null} */
let stream = null;
/** When the stream said something last: one that hangs keeps its connection, and brings no error. */
let heard = 0;
let after = "";
function follow() {
  const page = document.body.dataset.page;
  if (!page || stream || document.hidden) return;
  const query = after ? page.replace(/after=\d+/, `after=${after}`) : page;
  const own = (stream = new EventSource(`/live?${query}`));
  heard = Date.now();
  own.onerror = async () => {
    if (!lost) lost = setTimeout(goneAway, 3000);
    if (own.readyState !== EventSource.CLOSED) return;
    stream = null; // It was refused: a program that began anew knows no session.
    const seen = await fetch("/live?page=none", { method: "HEAD" }).catch(() => null);
    if (seen?.status === 401) loggedOut();
    else setTimeout(follow, 2000);
  };
  own.addEventListener("out", loggedOut);
  own.addEventListener("bye", () => {
    unfollow();
    if (!lost) lost = setTimeout(goneAway, 3000);
    setTimeout(follow, 2000);
  });
  for (const name of ["clock", "gone"]) own.addEventListener(name, () => (heard = Date.now()));
  own.addEventListener("clock", (event) => {
    found();
    one(".out")?.remove();
    delete document.body.dataset.lost;
    for (const clock of all("#clock")) clock.textContent = event.data.slice(11, 19);
    const off = Date.parse(event.data) - Date.now();
    ahead = Math.abs(off) < 2000 ? 0 : off;
    link("live");
    tick();
  });
  own.addEventListener("gone", () => goneAway());
  own.addEventListener("batch", (event) => {
    after = event.lastEventId;
    batch(event.data);
  });
  const names = new Set(all("[data-live]").map((place) => place.dataset.live ?? ""));
  for (const name of names) own.addEventListener(name, (event) => piece(name, event.data));
}
function unfollow() {
  stream?.close();
  stream = null;
}
document.addEventListener("visibilitychange", () => (document.hidden ? unfollow() : follow()));
setInterval(() => {
  if (!stream || Date.now() - heard < 15000) return;
  goneAway();
  unfollow();
  follow();
}, 1000);
// ── Logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────
/** @type {string[]} */
let held = [];
let following = true;
const MOST = 500; // Rows in the page at most.
/** @param {string} html */
function batch(html) {
  if (!one("[data-follow='1']")) return;
  if (!following || scrollY > 120) {
    held.push(html);
    if (held.length > 2000) held.shift();
    const number = new Set(held.map((row) => row.slice(0, row.indexOf(">")).match(/id="b\d+"/)?.[0])).size;
    for (const news of all("#news")) news.textContent = `${number} new ${following ? "since you scrolled" : "while following rests"}`;
    return;
  }
  row(html);
}
/** @param {string} html */
function row(html) {
  let body = one("[data-batches] tbody");
  // The first row of an empty page brings its table.
  if (!body) return location.reload();
  const fresh = parsed(html).find((node) => node instanceof HTMLTableRowElement);
  if (!(fresh instanceof HTMLTableRowElement)) return;
  const known = one(`#${CSS.escape(fresh.id)}`);
  known ? known.replaceWith(fresh) : body.prepend(fresh);
  localTimes(fresh);
  while (body.childElementCount > MOST) body.lastElementChild?.remove();
}
function catchUp() {
  const rows = held;
  held = [];
  for (const html of rows) row(html);
  for (const news of all("#news")) news.textContent = "";
}
addEventListener("scroll", () => following && scrollY <= 120 && held.length && catchUp(), { passive: true });
one("#follow")?.addEventListener("click", (event) => {
  const button = /** @type {HTMLElement} */ (event.currentTarget);
  following = !following;
  button.setAttribute("aria-pressed", String(following));
  for (const word of all("span", button)) word.textContent = following ? "Pause following" : "Follow again";
  if (following) catchUp();
});
/** What needs a script is hidden without it. @param {ParentNode} [root] */
export function unhide(root = document) {
  for (const button of all("button[data-copy], #follow, #theme, #keys, #all-rows", root)) button.hidden = false;
}
// ── Theme and keys ───────────────────────────────────────────────────────────────────────────────────────────────
const THEMES = ["", "light", "dark"];
one("#theme")?.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "") + 1) % THEMES.length];
  const root = document.documentElement.dataset;
  next ? (root.theme = next) : delete root.theme;
  document.cookie = `pg2planhat_theme=${next}; path=/; SameSite=Strict; max-age=${next ? 31536000 : 0}`;
  say(next ? `Theme: ${next}` : "Theme: the system's");
});
const GO = { o: "/", l: "/logs", q: "/quarantine", c: "/checks" };
let keysAreOn = localStorage.getItem("pg2planhat_keys") !== "off";
let wentG = 0;
/** @type {HTMLDialogElement | null} */
let help = null;
function showKeys() {
  help?.remove();
  const words = one("#keys-help");
  if (!(words instanceof HTMLTemplateElement)) return;
  help = document.createElement("dialog");
  help.setAttribute("aria-labelledby", "keys-h");
  help.append(document.importNode(words.content, true));
  /** @type {any} */ (one("[value=switch]", help)).textContent = keysAreOn ? "Turn the keys off" : "Turn the keys on";
  const own = help;
  own.addEventListener("close", () => {
    if (own.returnValue === "switch") {
      keysAreOn = !keysAreOn;
      localStorage.setItem("pg2planhat_keys", keysAreOn ? "on" : "off");
    }
    own.remove();
  });
  document.body.append(own);
  own.showModal();
}
one("#keys")?.addEventListener("click", showKeys);
addEventListener("keydown", (event) => {
  const typing = event.target instanceof Element && event.target.closest("input, select, textarea, dialog");
  if (!keysAreOn || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key;
  if (Date.now() - wentG < 1200 && key in GO) {
    wentG = 0;
    location.assign(GO[/** @type {keyof typeof GO} */ (key)]);
  } else if (key === "g") wentG = Date.now();
  else if (key === "?") showKeys();
  else if (key === "/") {
    event.preventDefault();
    /** @type {HTMLElement | null} */ (one(".filters input:not([type=hidden]), .filters select"))?.focus();
  }
});
// ── The start ────────────────────────────────────────────────────────────────────────────────────────────────────
const login = one("#login");
const key = location.hash.match(/^#k=([0-9a-f]{64})$/)?.[1];
if (login instanceof HTMLFormElement && key) {
  // The key is for one use: it stays in no history.
  history.replaceState(null, "", location.pathname);
  for (const token of /** @type {any[]} */ (all("#token"))) token.value = key;
  login.requestSubmit();
}
for (const retry of all("#retry")) retry.setAttribute("href", location.href);
unhide();
localTimes();
tick();
setInterval(tick, 1000);
follow();
