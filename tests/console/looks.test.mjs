import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { OPERATOR, URL, close, control, findings, look, person, picture } from "./world.mjs";

const PAGES = ["/", "/sections/logins", "/sections/seats", "/logs", "/logs?tab=events", "/logs?tab=program", "/checks?all=1", "/quarantine", "/repair", "/sections/logins/resync", "/sections/logins/mapping", "/mapping", "/config", "/trace?key=5"];

before(async () => {
  await control("insert", "500");
});
after(close);

test("every page is accessible in both themes and at both widths, and does not scroll sideways", async () => {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1440, 390]) {
      const page = await person(OPERATOR, { colorScheme, viewport: { width, height: 900 }, bypassCSP: true });
      for (const path of PAGES) {
        await page.goto(URL + path);
        await page.locator("#link", { hasText: "live" }).waitFor({ state: "attached" });
        const name = path === "/" ? "overview" : path.slice(1).replaceAll(/[^a-z]+/g, "-");
        await picture(page, `${name}-${colorScheme}-${width}`);
        assert.deepEqual(await findings(page), [], `${path} ${colorScheme} ${width}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
        assert.equal(wide, false, `${path} scrolls sideways at ${width}`);
        assert.equal(await page.locator("h1").count(), 1, path);
      }
      await page.context().close();
    }
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
