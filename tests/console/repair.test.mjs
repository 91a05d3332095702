import assert from "node:assert/strict";
import { after, test } from "node:test";
import { OPERATOR, URL, VIEWER, close, control, look, person, until } from "./world.mjs";

const number = (text) => Number(text.replaceAll(",", ""));
const received = async () => number(await control("received"));
after(close);

/** The slot goes while nothing runs, and rows are written that it will never bring. */
async function broken(rows) {
  await control("kill", "");
  await until("the walsender to end", async () =>
    (await control("text", "SELECT count(*) FROM pg_stat_replication")) === "0");
  await control("sql", "SELECT pg_drop_replication_slot('pg2planhat')");
  await control("insert", String(rows));
  await control("start", "unready");
  await until("the console to listen", () => fetch(`${URL}/login`).then(() => true, () => false));
}

for (const [title, how] of [
  ["Read the gap again", "gap"],
  ["Go on from now", "accept-loss"],
  ["Deliver everything again", "backfill"],
]) {
  test(`${title}: it ends as its text said`, async () => {
    const start = await received();
    await control("insert", "30");
    await until("30 rows", async () => (await received()) >= start + 30);
    const before = await received();
    await broken(7);
    const page = await person(OPERATOR, { bypassCSP: true });
    await page.getByRole("heading", { name: "Stopped: the replication slot is gone." }).waitFor({ timeout: 20000 });
    if (how === "gap") {
      const viewer = await person(VIEWER);
      await viewer.goto(`${URL}/repair`);
      await viewer.getByText("This needs the role operator.").waitFor();
    }
    await page.getByRole("link", { name: "How to go on" }).click();
    const way = page.locator("label.pick", { hasText: title });
    await way.waitFor({ timeout: 20000 });
    if (how === "gap") {
      await look(page, "repair-ways");
    }
    const said = await way.locator(".pick__n").textContent();
    const counts = [...said.matchAll(/[\d,]+/g)].map((found) => number(found[0]));
    const total = number(await control("text", "SELECT count(*) FROM app_event"));
    const rows = { gap: counts[0], "accept-loss": 0, backfill: total }[how];
    if (how === "gap") assert.ok(rows >= 7 && rows <= total, said);
    if (how === "accept-loss") assert.match(said, /^up to \d+ rows are lost · none count twice$/);
    if (how === "backfill") assert.equal(counts[0], total);
    await way.click();
    const act = page.getByRole("button", { name: title });
    assert.equal(await act.isDisabled(), true);
    await page.getByLabel(/^Type/).fill(String(counts[0]));
    await act.click();
    // The program that stays looks every 10 s.
    await until("rows to flow", async () => {
      await page.goto(URL);
      return page.getByRole("heading", { name: /^(Rows flow|All is delivered)/ }).count();
    });
    await until(`${rows} rows`, async () => (await received()) >= before + rows);
    await control("insert", "3");
    await until("3 new rows", async () => (await received()) >= before + rows + 3);
    assert.equal(await received(), before + rows + 3);
    const actor = await control("text", "SELECT actor FROM pg2planhat.event WHERE action = 'repair' ORDER BY id DESC LIMIT 1");
    assert.equal(actor, "console:maria");
    assert.deepEqual(page.errors.filter((error) => !error.includes("ERR_")), []);
  });
}
