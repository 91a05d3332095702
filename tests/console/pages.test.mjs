import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { OPERATOR, URL, VIEWER, close, control, person } from "./world.mjs";

before(async () => {
  await control("insert", "500");
});
after(close);

const shown = (page, name) => page.locator(`[data-figure=${name}]`);
const number = (text) => Number(text.replaceAll(",", ""));

/** Waits until all that was written is settled. */
async function settled() {
  for (;;) {
    const metrics = await control("metrics");
    const sum = (name) =>
      [...metrics.matchAll(new RegExp(`^pg2planhat_${name}\\{section="logins".*\\} (\\d+)$|^pg2planhat_${name}\\{.*section="logins"\\} (\\d+)$`, "gm"))]
        .reduce((total, found) => total + Number(found[1] ?? found[2]), 0);
    const open = await control("text", "SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'sending'");
    if (sum("rows_unsettled") === 0 && open === "0") return;
  }
}

test("the verdict, the books and the figures are those of the program", async () => {
  const page = await person(OPERATOR);
  await page.getByText("Exactly").waitFor();
  for (const more of [100, 250, 400]) {
    await control("insert", String(more));
    const total = number(await control("text", "SELECT count(*) FROM app_event"));
    await page.waitForFunction(
      (rows) => document.querySelector("[data-account=delivered]")?.textContent?.replaceAll(",", "") === String(rows),
      total,
    );
    assert.equal(number(await control("received")), total);
    const metrics = await control("metrics");
    const delivered = [...metrics.matchAll(/^pg2planhat_rows_delivered_total\{.*\} (\d+)$/gm)].map((found) => Number(found[1]));
    assert.equal(delivered.reduce((sum, rows) => sum + rows, 0), total);
    await page.getByText("Exactly").waitFor();
  }
  assert.deepEqual(page.errors, []);
});

test("a sink that is away is said within 15 s, and over when it is back", async () => {
  const page = await person(OPERATOR);
  await control("fault", "status 503");
  await control("insert", "5");
  await page.getByRole("heading", { name: /Planhat does not take rows now/ }).waitFor({ timeout: 15000 });
  await control("fault", "clear");
  await page.getByRole("heading", { name: /^(Rows flow|All is delivered)/ }).waitFor({ timeout: 40000 });
});

test("a program that is gone turns the verdict amber within 5 s, and it comes back by itself", async () => {
  const page = await person(OPERATOR);
  await page.locator("#link", { hasText: "live" }).waitFor();
  await control("kill", "");
  await page.getByRole("heading", { name: "The console has lost the program." }).waitFor({ timeout: 5000 });
  await page.locator(".verdict.is-warn").waitFor();
  await control("start", "");
  // A session lives in the program's memory: the page asks for the token again.
  await page.reload();
  await page.getByLabel("Token").fill(OPERATOR);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: /^(Rows flow|All is delivered)/ }).waitFor({ timeout: 20000 });
});

test("the ledger follows, rests when asked, and goes on after a cut stream without a hole or a double", async () => {
  const page = await person(OPERATOR);
  await page.goto(`${URL}/logs?section=logins`);
  const delivered = async () => {
    const ids = await page.locator("[data-batches] tbody tr").evaluateAll((rows) => rows.map((row) => row.id));
    assert.equal(new Set(ids).size, ids.length, "a batch stands twice");
    return ids;
  };
  await page.locator("#link", { hasText: "live" }).waitFor();
  const newest = () => control("text", "SELECT 'b' || max(id) FROM pg2planhat.delivery WHERE section = 'logins'");
  await control("insert", "3");
  await page.locator(`#${await newest()}`).waitFor();
  await page.getByRole("button", { name: "Pause following" }).click();
  await control("insert", "4");
  await page.locator("#news", { hasText: /^\d+ new while following rests/ }).waitFor();
  assert.equal(await page.locator(`#${await newest()}`).count(), 0);
  await page.getByRole("button", { name: "Follow again" }).click();
  await page.locator(`#${await newest()}`).waitFor();
  // Who reads farther down is not pushed along.
  await page.evaluate(() => (document.body.style.minHeight = "4000px"));
  await page.mouse.wheel(0, 900);
  await page.waitForFunction(() => scrollY > 200);
  await control("insert", "2");
  await page.locator("#news", { hasText: /^\d+ new since you scrolled/ }).waitFor();
  await page.mouse.wheel(0, -2000);
  await page.locator(`#${await newest()}`).waitFor();
  assert.equal(await page.locator("#news").textContent(), "");
  await page.context().setOffline(true);
  for (let round = 0; round < 3; round++) await control("insert", "2");
  await page.context().setOffline(false);
  await page.locator("#link", { hasText: /^live/ }).waitFor();
  await page.locator(`#${await newest()}`).waitFor({ timeout: 15000 });
  await settled();
  await page.locator(`#${await newest()}`).waitFor({ timeout: 15000 });
  const ids = (await delivered()).map((id) => Number(id.slice(1)));
  const known = await control("text", "SELECT string_agg(id::text, ',' ORDER BY id) FROM pg2planhat.delivery WHERE section = 'logins'");
  const expected = known.split(",").map(Number).slice(-ids.length);
  assert.deepEqual([...ids].sort((one, other) => one - other), expected);
});

test("a viewer reads everything, has no button that fails, and what rows say is withheld", async () => {
  await control("fault", "refuse 2");
  await control("insert", "6");
  await control("sql", "SELECT pg_sleep(1)");
  const page = await person(VIEWER);
  await page.getByText("support · viewer").waitFor();
  for (const path of ["/", "/sections/logins", "/logs", "/checks"]) {
    await page.goto(URL + path);
    const forms = await page.locator("main form[method=post]").count();
    assert.equal(forms, 0, path);
    assert.equal(await page.getByText("no such company").count(), 0, path);
  }
  const operator = await person(OPERATOR);
  await operator.goto(`${URL}/logs?outcome=partial`);
  // What Planhat said stays text.
  await operator.getByText("no such company <img").first().waitFor();
  assert.equal(await operator.locator("main img").count(), 0);
  assert.deepEqual(operator.errors, []);
});

test("the checks are looked at, and shown by subject", async () => {
  const page = await person(OPERATOR);
  await page.goto(`${URL}/checks`);
  await page.getByRole("button", { name: "Look", exact: true }).click();
  await page.getByRole("heading", { name: /Ready to run|Not ready/ }).waitFor();
  await page.getByRole("link", { name: /^All \d+/ }).click();
  await page.getByRole("heading", { name: /section logins/i }).waitFor();
});
