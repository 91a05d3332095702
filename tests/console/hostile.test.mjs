// Names, keys, values, answers and log lines that would like to be markup, to turn the line around, or to burst the page.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { OPERATOR, URL, ask, close, control, person, until } from "./world.mjs";

const MARKUP = "<img src=x onerror=alert(1)>";
const TURN = "\u202e";
const NAME = `'${MARKUP}${TURN}`;
const TABLE = `public."t '${MARKUP}${TURN}txt"`;
const KEY = `key '"${MARKUP}${TURN}`;
const WORD = "w".repeat(10240);
const VALUES = [
  `</pre></td></template><script>alert(1)</script>`,
  `"><svg/onload=alert(1)>`,
  `${TURN}gpj.exe`,
  `a\u0001\u001b[31m\u009b\u0007\u0085\u2028b`,
  WORD,
  `'"\`&amp;&#x3c;img&#x3e;`,
  `line one\r\nevent: verdict\r\ndata: <b>forged</b>\r\n\r\nline`,
];
const quoted = (text) => `'${text.replaceAll("'", "''")}'`;
const ident = (text) => `"${text.replaceAll('"', '""')}"`;
const insert = (key, value) =>
  control("sql", `INSERT INTO ${TABLE} (${ident(`k ${NAME}`)}, email, user_id, action, weight, ${ident(`c ${NAME}`)})
    VALUES (${quoted(key)}, ${quoted(value)}, ${quoted(value)}, ${quoted(value)}, 1, ${quoted(value)})`);

before(async () => {
  let number = 0;
  for (const value of VALUES) await insert(`${KEY}${number++}`, value);
  await until("the rows", async () => Number(await control("received")) >= VALUES.length);
  // Each of these is refused, with such a text as Planhat's own words.
  for (const value of [...VALUES, MARKUP, `${MARKUP}\n\r\n${TURN}`]) {
    await control("fault", `saying ${value}`);
    const before = await control("text", "SELECT count(*) FROM pg2planhat.quarantine");
    await insert(`${KEY}r${number++}`, value);
    await until("a refusal", async () => (await control("text", "SELECT count(*) FROM pg2planhat.quarantine")) !== before);
    // Where all of a batch is refused again and again, the section would halt.
    const received = Number(await control("received"));
    await insert(`${KEY}g${number++}`, "good");
    await until("a good row", async () => Number(await control("received")) > received);
  }
});
after(close);

/** What the page holds beside text, and what of it stands where it should not. */
async function judged(page, path) {
  const bad = await page.evaluate((turn) => {
    const bad = [];
    const odd = "img, iframe, object, embed, svg script, script:not([src]), base, meta[http-equiv], [onerror], [onload], [onclick], [style], a[href^=javascript]";
    for (const found of document.querySelectorAll(odd)) bad.push(`markup: ${found.outerHTML.slice(0, 120)}`);
    // A character that turns the line around turns its own element, no other.
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode()) {
      const box = text.parentElement;
      if (!text.data.includes(turn) || !box || box.closest("script, template, [hidden]")) continue;
      const { display, unicodeBidi } = getComputedStyle(box);
      if (display.startsWith("inline") && !display.includes("-") && !/isolate|plaintext/.test(unicodeBidi)) bad.push(`turned: ${box.outerHTML.slice(0, 120)}`);
    }
    const root = document.documentElement;
    if (root.scrollWidth > root.clientWidth) bad.push(`wide: ${root.scrollWidth} of ${root.clientWidth}`);
    return bad;
  }, TURN);
  assert.deepEqual(bad, [], path);
}

test("every page shows hostile text as text, and does not burst", async () => {
  const id = await control("text", "SELECT min(id) FROM pg2planhat.quarantine");
  const word = encodeURIComponent(`${NAME}"`);
  const key = encodeURIComponent(`${KEY}4`);
  const paths = [
    "/", "/sections/odd", "/sections/odd/mapping", "/sections/odd/resync", "/logs", "/logs?tab=events", "/logs?tab=program&level=TRACE",
    "/logs?outcome=partial", "/quarantine", `/quarantine?id=${id}`, "/checks?all=1", "/repair", "/config", "/mapping",
    `/mapping?table=${encodeURIComponent(TABLE)}`, `/trace?key=${key}`, `/trace?key=${word}&section=${word}`,
    `/sections/${word}`, `/plans/${word}`, `/logs?section=${word}&outcome=${word}&key=${word}`, `/logs?since=${word}`,
    `/logs?tab=program&text=${word}&level=${word}`, `/quarantine?section=${word}&reason=${word}`, `/mapping?schema=${word}`,
    `/mapping?table=${word}`, `/mapping?table=${WORD}`, `/${word}`, `/login?next=${word}`,
  ];
  const page = await person(OPERATOR);
  const dialogs = [];
  page.on("dialog", (dialog) => (dialogs.push(dialog.message()), dialog.dismiss()));
  await page.goto(`${URL}/checks`);
  await page.getByRole("button", { name: /^Look/ }).click();
  await page.getByRole("heading", { name: /Ready to run|Not ready/ }).waitFor();
  for (const path of paths) {
    await page.goto(URL + path);
    const live = page.locator("#link");
    if (await live.count()) await live.filter({ hasText: /live/ }).waitFor({ state: "attached" });
    for (const width of [1440, 390]) {
      await page.setViewportSize({ width, height: 900 });
      await judged(page, `${path} at ${width}`);
    }
  }
  assert.deepEqual(dialogs, []);
  await page.setViewportSize({ width: 1440, height: 900 });
});

test("what is said while one looks stays text, too", async () => {
  const page = await person(OPERATOR);
  await page.goto(`${URL}/logs`);
  await page.locator("#link", { hasText: "live" }).waitFor();
  await control("fault", `saying ${VALUES[6]}`);
  await insert(`${KEY}live`, VALUES[0]);
  await page.locator("[data-batches] tr", { hasText: `${KEY}live` }).first().waitFor();
  await page.locator("[data-batches] td", { hasText: "forged" }).first().waitFor();
  assert.equal(await page.locator("[data-batches] b", { hasText: "forged" }).count(), 0);
  await judged(page, "the ledger, live");
  await page.goto(`${URL}/sections/odd`);
  await page.locator("#link", { hasText: "live" }).waitFor();
  await control("fault", `saying ${VALUES[0]}`);
  await insert(`${KEY}live2`, VALUES[2]);
  await page.locator("tr", { hasText: `${KEY}live2` }).first().waitFor();
  await judged(page, "the section, live");
  assert.deepEqual(page.errors, []);
});

test("a draft, a plan and a copy hold it as text, and give it back as it is", async () => {
  const page = await person(OPERATOR);
  await page.goto(`${URL}/sections/odd/mapping`);
  await page.getByText("rows become items").waitFor();
  assert.equal(await page.getByText("not saved").count(), 0, "a form that nobody touched changes nothing");
  await page.getByLabel("Batch size").fill("700");
  await page.getByText("1 change not saved").waitFor();
  await judged(page, "a draft, tried");
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("heading", { name: "Review and save" }).waitFor();
  await judged(page, "the review");
  const diff = (await page.locator("#patch").textContent()).split("\n").filter((line) => /^[+-] /.test(line));
  assert.deepEqual(diff, ["+    batch: { rows: 700 }"]);
  const id = await control("text", "SELECT max(id) FROM pg2planhat.quarantine");
  await page.goto(`${URL}/quarantine?id=${id}`);
  assert.equal(await page.locator("#raw").textContent(), await control("text", `SELECT item FROM pg2planhat.quarantine WHERE id = ${id}`));
  await page.getByLabel("Choose all").check();
  await page.getByRole("button", { name: "Drop…" }).click();
  await page.getByRole("dialog").waitFor();
  await judged(page, "a dialog");
  // A script gets it exactly, and as JSON that no page runs.
  const trace = await ask("GET", `/trace?key=${encodeURIComponent(`${KEY}0`)}`);
  assert.equal(trace.headers.get("x-content-type-options"), "nosniff");
  assert.equal((await trace.json())[0].key, `${KEY}0`);
});
