import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { OPERATOR, URL, close, control, look, person } from "./world.mjs";

const PAGES = ["/", "/sections/logins", "/sections/seats", "/logs", "/logs?tab=events", "/logs?tab=program", "/checks?all=1", "/quarantine", "/repair", "/sections/logins/resync", "/sections/logins/mapping", "/mapping", "/config", "/trace?key=5"];

before(async () => {
  await control("insert", "500");
});
after(close);

test("every page is accessible in both themes and at both widths, and does not scroll sideways", async () => {
  const page = await person(OPERATOR, { bypassCSP: true });
  for (const path of PAGES) {
    await page.goto(URL + path);
    await page.locator("#link", { hasText: "live" }).waitFor({ state: "attached" });
    assert.equal(await page.locator("h1").count(), 1, path);
    await look(page, path === "/" ? "overview" : path.slice(1).replaceAll(/[^a-z]+/g, "-"));
  }
  // A small laptop, and a window that shares the screen with another: the sections are there whole.
  await page.goto(URL);
  await page.locator("#link", { hasText: "live" }).waitFor({ state: "attached" });
  for (const width of [1340, 1280, 1200, 1100, 1024]) {
    await page.setViewportSize({ width, height: 900 });
    const cut = await page.locator("#sections .scroll").evaluate((box) => box.scrollWidth - box.clientWidth);
    assert.ok(cut <= 0, `the sections are cut off by ${cut} px at ${width}`);
  }
});

test("the login, an error, checks that were looked at, and an answer of SQL look as the rest", async () => {
  await control("sql", "CREATE ROLE reader LOGIN PASSWORD 'secret-of-reader'; GRANT SELECT ON app_event TO reader");
  const page = await person(OPERATOR, { bypassCSP: true });
  await page.goto(`${URL}/sql`);
  await page.getByLabel(/^Statement/).fill("SELECT id, email, NULL AS nothing, at FROM app_event ORDER BY id LIMIT 12");
  await page.getByRole("button", { name: "Ask" }).click();
  await page.getByRole("heading", { name: "12 rows" }).waitFor();
  await look(page, "sql");
  await page.goto(`${URL}/checks`);
  await page.getByRole("button", { name: "Look", exact: true }).click();
  await page.getByRole("heading", { name: /Ready to run|Not ready/ }).waitFor();
  await look(page, "checks-looked");
  await page.goto(`${URL}/sections/none`);
  await look(page, "error");
  await page.goto(`${URL}/login`);
  await look(page, "login");
});

test("without JavaScript every page reads", async () => {
  const page = await person(OPERATOR, { javaScriptEnabled: false });
  for (const path of PAGES) {
    await page.goto(URL + path);
    await page.getByRole("main").waitFor();
    assert.equal(await page.locator("h1").count(), 1, path);
    assert.equal(await page.locator("button[data-copy]:visible").count(), 0, path);
  }
  await page.getByRole("button", { name: "log out" }).click();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
});
