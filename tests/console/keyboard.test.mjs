// The main ways by the keyboard alone, and text of twice the size.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { OPERATOR, URL, close, control, open, person } from "./world.mjs";

before(() => control("insert", "40"));
after(close);

/** Goes on by Tab until what has the focus is called so. */
async function tabTo(page, name) {
  for (let step = 0; step < 80; step++) {
    await page.keyboard.press("Tab");
    const called = await page.evaluate(() => {
      const now = document.activeElement;
      const label = now instanceof HTMLInputElement ? now.labels?.[0]?.textContent : "";
      return `${now?.getAttribute("aria-label") ?? ""} ${label ?? ""} ${now?.textContent ?? ""}`.trim();
    });
    if (called.includes(name)) return;
  }
  throw new Error(`no Tab leads to ${name}`);
}

test("the main ways are gone by the keyboard alone", async () => {
  const page = await (await (await open()).newContext({ viewport: { width: 1440, height: 900 } })).newPage();
  await page.goto(`${URL}/login`);
  await tabTo(page, "Token");
  await page.keyboard.type(OPERATOR);
  await page.keyboard.press("Enter");
  await page.locator("#link", { hasText: "live" }).waitFor();
  await page.keyboard.press("Tab");
  assert.match(await page.evaluate(() => document.activeElement?.textContent ?? ""), /Skip to the content/);
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "main");
  await page.keyboard.press("g");
  await page.keyboard.press("l");
  await page.getByRole("heading", { level: 1, name: "Logs" }).waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("o");
  await page.locator("#link", { hasText: "live" }).waitFor();
  await tabTo(page, "logins");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "logins" }).waitFor();
  // Pause, and resume.
  await tabTo(page, "Pause");
  await page.keyboard.press("Enter");
  await page.locator(".route .chip", { hasText: "paused" }).waitFor({ timeout: 8000 });
  await page.getByRole("button", { name: "Resume" }).waitFor();
  await tabTo(page, "Resume");
  await page.keyboard.press("Enter");
  await page.locator(".route .chip", { hasText: "streaming" }).waitFor({ timeout: 8000 });
  // A dialog: into it, and back to what opened it.
  await page.getByRole("button", { name: "Pause" }).waitFor();
  await tabTo(page, "Re-sync…");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  assert.equal(await page.evaluate(() => Boolean(document.activeElement?.closest("dialog"))), true, "focus is in the dialog");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" }).catch(() => page.getByRole("dialog").waitFor({ state: "hidden" }));
  assert.match(await page.evaluate(() => document.activeElement?.textContent ?? ""), /Re-sync/);
});

test("at 200 % every page fits, and nothing is cut", async () => {
  // A window of half the size is what 200 % leaves of this one.
  const page = await person(OPERATOR, { viewport: { width: 640, height: 450 }, deviceScaleFactor: 2 });
  for (const path of ["/", "/sections/logins", "/logs", "/checks", "/quarantine", "/repair", "/sections/logins/resync", "/sections/logins/mapping", "/mapping", "/config", "/trace?key=5"]) {
    await page.goto(URL + path);
    await page.getByRole("main").waitFor();
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
    assert.equal(wide, false, `${path} scrolls sideways`);
    const cut = await page.evaluate(() =>
      [...document.querySelectorAll("h1, h2, button, .chip, label")]
        .filter((box) => box instanceof HTMLElement && box.offsetParent && !box.closest(".scroll, .sr, .nav") && box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflow !== "visible")
        .map((box) => box.textContent));
    assert.deepEqual(cut, [], path);
  }
});
