// @ts-check
// What a person does in the page: copies, choices, dialogs, forms. Without this script every form works as a page.
import { above, all, localTimes, loggedOut, one, parsed, say, unhide } from "./live.js";

// ── Copies, choices, dialogs ─────────────────────────────────────────────────────────────────────────────────────
document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-copy]") : null;
  if (!button) return;
  const from = one(button.getAttribute("data-copy") ?? "");
  const text = from instanceof HTMLTextAreaElement ? from.value : from?.textContent ?? "";
  await navigator.clipboard.writeText(text);
  const [word, was] = [one("span", button) ?? button, (one("span", button) ?? button).textContent];
  word.textContent = "Copied";
  say("Copied");
  setTimeout(() => (word.textContent = was), 1500);
});
/** The sheet of a page as a dialog; whatever has none is gone to. @param {string} address @param {RequestInit} [init] */
async function sheet(address, init) {
  const answer = await fetch(address, { headers: { accept: "text/html" }, ...init });
  if (answer.status === 401) return one("dialog.sheet")?.remove(), loggedOut();
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const found = one("[data-sheet]", page) ?? (answer.ok ? null : one("main .note", page));
  if (!found) return answer.url === location.href ? location.reload() : location.assign(answer.url);
  const opener = /** @type {HTMLElement | null} */ (document.activeElement);
  const dialog = one("dialog.sheet") ?? document.createElement("dialog");
  if (!(dialog instanceof HTMLDialogElement)) return;
  dialog.className = "sheet";
  dialog.setAttribute("aria-labelledby", "sheet-h");
  dialog.replaceChildren(...[...found.childNodes].map((node) => document.importNode(node, true)));
  if (!found.hasAttribute("data-sheet")) dialog.append(...parsed(`<div class="dlg__foot"><a class="btn" href="" data-close>Close</a></div>`));
  const title = one("h1", dialog);
  if (title) title.id = "sheet-h";
  if (!dialog.open) {
    document.body.append(dialog);
    dialog.addEventListener("close", () => (dialog.remove(), opener?.focus()));
    dialog.showModal();
  } else say(one("[role=alert], h1", dialog)?.textContent ?? "");
  localTimes(dialog);
  weigh(dialog);
  /** @type {HTMLElement | null} */ (one("[data-typed], [role=alert] ~ form input, input:checked", dialog))?.focus();
  return true;
}
/** What must be typed keeps its button shut until it is. @param {ParentNode} [root] */
function weigh(root = document) {
  for (const way of all("[data-word]:checked", root)) {
    const [typed, word, act] = ["[data-typed]", "[data-word-of]", "[data-act-of]"].map((part) => one(part, way.closest("form") ?? root));
    if (typed instanceof HTMLElement) typed.dataset.typed = way.dataset.word;
    if (word) word.textContent = way.dataset.word ?? "";
    if (act) act.textContent = way.dataset.act ?? "";
  }
  for (const input of /** @type {HTMLInputElement[]} */ (all("input[data-typed]", root))) {
    const plain = (/** @type {string} */ text) => text.replace(/[\s,._'’]/g, "");
    const button = /** @type {HTMLButtonElement | null} */ (input.form?.querySelector("[type=submit]") ?? null);
    if (button) button.disabled = plain(input.value) !== plain(input.dataset.typed ?? "") || !input.value;
  }
  const boxes = /** @type {HTMLInputElement[]} */ (all("[data-choose] [name=id]"));
  const [number, count] = [boxes.filter((box) => box.checked).length, one("#chosen-n")];
  if (count) count.textContent = number ? `${number} chosen` : "";
  for (const button of /** @type {HTMLButtonElement[]} */ (all("[data-chosen]"))) button.disabled = !number;
}
document.addEventListener("click", (event) => {
  const place = event.target instanceof Element ? event.target.closest("a[data-dialog], dialog [data-close]") : null;
  if (!(place instanceof HTMLAnchorElement) || event.metaKey || event.ctrlKey) return;
  event.preventDefault();
  place.hasAttribute("data-close") ? place.closest("dialog")?.close() : sheet(place.href);
});
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement) || !form.matches("[data-dialog], dialog.sheet form")) return;
  event.preventDefault();
  if (form.dataset.sent) return; // A double click.
  form.dataset.sent = "1";
  const by = /** @type {SubmitEvent} */ (event).submitter;
  const fields = /** @type {any} */ (new FormData(form, by));
  const answer = sheet(by?.getAttribute("formaction") ?? form.action, { method: "POST", body: new URLSearchParams(fields) });
  answer.then((shown) => shown && delete form.dataset.sent, () => delete form.dataset.sent);
});
/** When a form was sent last, by its address. @type {Map<string, number>} */
const sent = new Map();
/** Whether the program is there, and knows us still. What is typed would be lost with the page that says it is not. */
async function known() {
  const seen = await fetch("/live?page=none", { method: "HEAD" }).catch(() => null);
  if (seen?.status === 401) loggedOut();
  else if (!seen) above("The program cannot be reached: nothing was sent.");
  return Boolean(seen && seen.status !== 401);
}
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement) || form.method !== "post" || event.defaultPrevented || form.dataset.known) return;
  event.preventDefault();
  // A double click. The form may be another by now: the stream draws some anew.
  if (Date.now() - (sent.get(form.action) ?? 0) < 5000) return;
  sent.set(form.action, Date.now());
  if (!(await known())) return void sent.delete(form.action);
  form.dataset.known = "1";
  form.requestSubmit(event.submitter);
  delete form.dataset.known;
});
addEventListener("pageshow", () => sent.clear());
/** @type {HTMLInputElement | null} */
let lastBox = null;
document.addEventListener("input", (event) => {
  const input = event.target;
  if (!(input instanceof HTMLInputElement)) return;
  if (input.id === "all-rows") for (const box of /** @type {any[]} */ (all("[data-choose] [name=id]"))) box.checked = input.checked;
  weigh();
});
document.addEventListener("click", (event) => {
  const box = event.target;
  if (!(box instanceof HTMLInputElement) || !box.matches("[data-choose] [name=id]")) return;
  const boxes = /** @type {HTMLInputElement[]} */ (all("[data-choose] [name=id]"));
  const [from, to] = [boxes.indexOf(lastBox ?? box), boxes.indexOf(box)].sort((a, b) => a - b);
  if (event.shiftKey && from >= 0) for (const other of boxes.slice(from, to + 1)) other.checked = box.checked;
  lastBox = box;
  weigh();
});
// ── The draft ────────────────────────────────────────────────────────────────────────────────────────────────────
const draft = { timer: 0, run: new AbortController() };
const stopTrying = () => (clearTimeout(draft.timer), draft.run.abort());
/** Sends a form that changes nothing, and puts the pieces of the answer where they belong. @param {HTMLFormElement} form */
async function tryOut(form) {
  const run = (draft.run = new AbortController());
  const said = all("[data-trying]", form);
  const soon = setTimeout(() => said.forEach((place) => (place.textContent = place.dataset.trying ?? "")), 400);
  const body = new URLSearchParams(/** @type {any} */ (new FormData(form)));
  const asked = fetch(form.action, { method: "POST", body, signal: run.signal });
  const answer = await asked.catch(() => null).finally(() => clearTimeout(soon));
  const text = await answer?.text().catch(() => null);
  if (run.signal.aborted) return;
  if (answer?.status === 429) return tryLater(form, 1000); // Others ask just now.
  for (const place of said) place.textContent = "";
  const page = new DOMParser().parseFromString(text ?? "", "text/html");
  for (const place of all("[data-piece]", form)) {
    const fresh = all("[data-piece]", page).find((other) => other.dataset.piece === place.dataset.piece);
    // Whoever is at work in a piece keeps it.
    if (!fresh || place.contains(document.activeElement)) continue;
    place.replaceChildren(...[...fresh.childNodes].map((node) => document.importNode(node, true)));
    place.className = fresh.className;
    unhide(place);
  }
}
/** @param {HTMLFormElement} form @param {number} after */
function tryLater(form, after) {
  stopTrying(); // An older answer never replaces a newer one.
  draft.timer = setTimeout(() => tryOut(form), after);
}
for (const form of /** @type {any[]} */ (all("form[data-tries]"))) {
  if (form.dataset.tries === "input") form.addEventListener("input", () => tryLater(form, 300));
  // A connection is tried when a field is left, once there is something to log in with.
  else form.addEventListener("change", () => {
    const filled = ["password", "url"].some((name) => form.elements[name]?.value || form.elements[name]?.dataset.kept);
    // A click on a button that leaves the field goes first.
    if (filled) tryLater(form, 400);
  });
  form.addEventListener("submit", stopTrying);
}
weigh();
