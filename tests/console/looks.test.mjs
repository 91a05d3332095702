import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { OPERATOR, URL, close, control, findings, person, picture } from "./world.mjs";

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
