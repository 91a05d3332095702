import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { OPERATOR, URL, VIEWER, ask, close, control, look, person, until } from "./world.mjs";

const number = (text) => Number(text.replaceAll(",", ""));
const received = async () => number(await control("received"));

/** Waits until the stand-in has so many items. */
async function arrived(rows) {
  await until(`${rows} items`, async () => (await received()) >= rows);
}

before(async () => {
  await control("insert", "300");
  await arrived(300);
});
after(close);

test("a section is paused and resumed; a second tab sees it", async () => {
  const [one, other] = [await person(OPERATOR), await person(OPERATOR)];
  await one.goto(`${URL}/sections/logins`);
  await other.goto(`${URL}/sections/logins`);
  await one.getByRole("button", { name: "Pause" }).click();
  await other.locator(".route .chip", { hasText: "paused" }).waitFor({ timeout: 8000 });
  await one.getByRole("button", { name: "Resume" }).waitFor();
  const before = await received();
  await control("insert", "20");
  await control("sql", "SELECT pg_sleep(2)");
  assert.equal(await received(), before, "nothing of a paused section is sent");
  await one.getByRole("button", { name: "Resume" }).click();
  await other.locator(".route .chip", { hasText: "streaming" }).waitFor({ timeout: 8000 });
  await arrived(before + 20);
  const actors = await control("text", "SELECT string_agg(DISTINCT actor, ',') FROM pg2planhat.event WHERE action IN ('pause', 'resume')");
  assert.equal(actors, "console:maria");
  assert.deepEqual(one.errors, []);
});

test("a halted section is tried at once when it is asked to", async () => {
  const page = await person(OPERATOR);
  await page.goto(`${URL}/sections/logins`);
  await control("fault", "status 401");
  await control("insert", "3");
  await page.locator(".route .chip", { hasText: "halted" }).waitFor({ timeout: 20000 });
  const before = await received();
  await control("fault", "clear");
  await page.getByRole("button", { name: "Probe now" }).click();
  await page.locator(".route .chip", { hasText: "streaming" }).waitFor({ timeout: 10000 });
  await arrived(before + 3);
  await page.getByText(/asked to probe now: it is tried now/).waitFor();
});

test("a re-sync is counted, typed, done once, and recorded with the name", async () => {
  const page = await person(OPERATOR, { bypassCSP: true });
  await page.goto(`${URL}/sections/logins`);
  const total = number(await control("text", "SELECT count(*) FROM app_event"));
  const before = await received();
  await page.getByRole("link", { name: "Re-sync…" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("radio", { name: /Everything/ }).check();
  await dialog.getByRole("button", { name: "Count the rows" }).click();
  const act = dialog.getByRole("button", { name: new RegExp(`^Deliver ${total.toLocaleString("en")} rows again$`) });
  await act.waitFor();
  await look(page, "resync-counted");
  assert.equal(await act.isDisabled(), true);
  await dialog.getByLabel(/Type the number/).fill(String(total - 1));
  assert.equal(await act.isDisabled(), true, "a wrong number");
  await dialog.getByLabel(/Type the number/).fill(total.toLocaleString("en"));
  const plan = await dialog.locator("input[name=plan]").inputValue();
  await act.click();
  await page.getByText(/to be delivered again: begun/).waitFor({ timeout: 10000 });
  await arrived(before + total);
  const again = await ask("POST", "/plans", { plan, typed: String(total) });
  assert.equal(again.status, 409, "a plan is done once");
  const last = await control("text", "SELECT actor || ' ' || (args->>'rows') FROM pg2planhat.event WHERE action = 'resync' ORDER BY id DESC LIMIT 1");
  assert.equal(last, `console:maria ${total}`);
  assert.equal(await received(), before + total, "each row exactly once more");
});

test("a table that grew meanwhile is counted anew, and nothing is done", async () => {
  const planned = await (await ask("POST", "/sections/logins/resync", { by: "all" })).json();
  assert.equal(planned.typed, String(planned.rows));
  const wrong = await ask("POST", "/plans", { plan: planned.plan, typed: String(planned.rows + 1) });
  assert.equal(wrong.status, 422);
  assert.equal(wrong.headers.get("content-type"), "application/problem+json");
  const other = await ask("POST", "/plans", { plan: planned.plan, typed: planned.typed }, "viewer");
  assert.equal(other.status, 403);
  await control("insert", "150");
  await control("sql", "SELECT pg_sleep(1)");
  const events = await control("text", "SELECT count(*) FROM pg2planhat.event WHERE action = 'resync'");
  const late = await ask("POST", "/plans", { plan: planned.plan, typed: planned.typed });
  assert.equal(late.status, 409);
  assert.match((await late.json()).detail, new RegExp(`is ${(planned.rows + 150).toLocaleString("en")} now`));
  assert.equal(await control("text", "SELECT count(*) FROM pg2planhat.event WHERE action = 'resync'"), events);
});

test("a key and a time are understood, and what is none is said", async () => {
  const half = number(await control("text", "SELECT max(id) - 10 FROM app_event"));
  const by = await (await ask("POST", "/sections/logins/resync", { by: "key", key: String(half) })).json();
  assert.equal(by.rows, 10);
  const none = await (await ask("POST", "/sections/logins/resync", { by: "key", key: "99999999" })).json();
  assert.deepEqual([none.plan, none.rows], [null, 0]);
  for (const form of [{ by: "key", key: "x" }, { by: "time", time: "yesterday" }, { by: "nonsense" }])
    assert.equal((await ask("POST", "/sections/logins/resync", form)).status, 422, JSON.stringify(form));
});

test("the quarantine shows groups, the item byte for byte, and sends again or drops", async () => {
  await control("fault", "refuse 14");
  // Where all of a batch is refused, the section probes: some must be taken.
  await control("insert", "40");
  await until("14 rows in quarantine", async () => (await control("text", "SELECT count(*) FROM pg2planhat.quarantine")) === "14");
  const page = await person(OPERATOR, { bypassCSP: true });
  await page.goto(`${URL}/quarantine`);
  await page.getByRole("heading", { name: /14 rows: refused by Planhat, “no such company/ }).waitFor();
  assert.equal(await page.locator("main img").count(), 0, "what Planhat said stays text");
  await page.locator("[data-choose] tbody a").first().click();
  const id = (await page.getByRole("heading", { name: /^Row \d+/ }).textContent()).match(/\d+/)[0];
  const item = await control("text", `SELECT item FROM pg2planhat.quarantine WHERE id = ${id}`);
  assert.equal(await page.locator("#raw").textContent(), item, "the item's bytes");
  assert.equal((await page.locator(".item pre").first().textContent()).replaceAll(/\s+/g, ""), item.replaceAll(/\s+/g, ""));
  await look(page, "quarantine-rows");
  const withheld = await person(VIEWER);
  await withheld.goto(`${URL}/quarantine?id=${id}`);
  await withheld.getByText("withheld from your role").first().waitFor();
  assert.equal(await withheld.getByText("no such company").count(), 0);
  assert.equal(await withheld.locator("main form[method=post]").count(), 0);
  const document = await (await ask("GET", `/quarantine?id=${id}`, undefined, "viewer")).text();
  assert.ok(document.includes('"withheld":true') && !document.includes("example.com"), document);
  // Two are sent again: nothing is to be typed.
  const before = await received();
  const boxes = page.locator("[data-choose] [name=id]");
  await boxes.nth(0).check();
  await boxes.nth(1).click({ modifiers: ["Shift"] });
  await page.getByText("2 chosen").waitFor();
  await page.getByRole("button", { name: "Send again", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Send 2 rows again" }).click();
  await page.getByText(/2 rows of logins to be sent again from quarantine: 2 rows are sent again/).waitFor({ timeout: 15000 });
  await arrived(before + 2);
  // The others are dropped: more than ten take their number.
  await page.goto(`${URL}/quarantine`);
  await page.getByLabel("Choose all").check();
  await page.getByRole("button", { name: "Drop…" }).click();
  const act = page.getByRole("dialog").getByRole("button", { name: "Drop 12 rows" });
  await act.waitFor();
  assert.equal(await act.isDisabled(), true);
  await page.getByRole("dialog").getByLabel(/^Type 12/).fill("12");
  await act.click();
  await page.getByText("Nothing is in quarantine").waitFor();
  assert.equal(await control("text", "SELECT count(*) FROM pg2planhat.quarantine"), "0");
  assert.equal(await control("text", "SELECT actor FROM pg2planhat.event WHERE action = 'quarantine_drop'"), "console:maria");
  assert.equal(await received(), before + 2, "what was dropped is not delivered");
  assert.deepEqual(page.errors, []);
});

test("without JavaScript every action can be done", async () => {
  const page = await person(OPERATOR, { javaScriptEnabled: false });
  await page.goto(`${URL}/sections/logins`);
  await page.getByRole("link", { name: "Re-sync…" }).click();
  await page.getByRole("radio", { name: /From a key/ }).check();
  const last = number(await control("text", "SELECT max(id) - 5 FROM app_event"));
  await page.getByLabel("Key", { exact: true }).fill(String(last));
  await page.getByRole("button", { name: "Count the rows" }).click();
  await page.getByRole("heading", { name: "5 rows will count twice in Planhat, for ever" }).waitFor();
  await page.getByLabel(/Type the number/).fill("4");
  await page.getByRole("button", { name: "Deliver 5 rows again" }).click();
  await page.getByText("Type 5 to go on").waitFor();
  const before = await received();
  await page.getByLabel(/Type the number/).fill("5");
  await page.getByRole("button", { name: "Deliver 5 rows again" }).click();
  await page.getByRole("heading", { level: 1, name: "logins" }).waitFor();
  await arrived(before + 5);
  await page.getByRole("button", { name: "Pause" }).click();
  await until("the section to be paused", async () => {
    await page.goto(`${URL}/sections/logins`);
    return page.getByRole("button", { name: "Resume" }).count();
  });
  await page.getByRole("button", { name: "Resume" }).click();
  // Rows of the quarantine are chosen, planned on a page of its own, and dropped; the checks are looked at.
  const held = async () => number(await control("text", "SELECT count(*) FROM pg2planhat.quarantine"));
  await control("fault", "refuse 2");
  await until("two rows in quarantine", async () => {
    await control("insert", "4");
    return (await held()) >= 2;
  });
  const rows = await held();
  await page.goto(`${URL}/quarantine`);
  for (const box of await page.locator("[data-choose] [name=id]").all()) await box.check();
  await page.getByRole("button", { name: "Drop…" }).click();
  await page.getByRole("button", { name: /^Drop \d+ rows$/ }).click();
  await page.getByText("Nothing is in quarantine").waitFor();
  assert.ok((await held()) < rows);
  await page.goto(`${URL}/checks`);
  await page.getByRole("button", { name: "Look", exact: true }).click();
  await page.getByRole("heading", { name: /Ready to run|Not ready/ }).waitFor();
});
