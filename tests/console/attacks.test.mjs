// Trials from the bug reports of other consoles, in the browser.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { OPERATOR, URL, ask, close, control, person } from "./world.mjs";

before(() => control("insert", "200"));
after(close);

test("after the log out the back button shows nothing, and another tab says that it is out", async () => {
  const page = await person(OPERATOR);
  const other = await page.context().newPage();
  await other.goto(`${URL}/sections/logins`);
  await other.locator("#link", { hasText: "live" }).waitFor();
  await page.goto(`${URL}/logs`);
  await page.locator("#link", { hasText: "live" }).waitFor();
  await page.getByRole("button", { name: "log out" }).click();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  await other.locator(".out", { hasText: "You are logged out" }).waitFor({ timeout: 8000 });
  assert.equal(await other.getByRole("link", { name: "Log in again" }).getAttribute("href"), "/login?next=%2Fsections%2Flogins");
  await page.goBack().catch(() => {});
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  assert.equal(await page.locator("[data-batches]").count(), 0);
});

test("a program that began anew asks for the token, and says so on the page", async () => {
  const page = await person(OPERATOR);
  await page.goto(`${URL}/sections/logins/mapping`);
  await page.getByLabel("Batch size").fill("321");
  await control("kill", "");
  await control("start", "");
  await page.locator(".out", { hasText: "You are logged out" }).waitFor({ timeout: 15000 });
  assert.equal(await page.getByLabel("Batch size").inputValue(), "321", "what was typed stays");
  const [other] = await Promise.all([page.context().waitForEvent("page"), page.getByRole("link", { name: "Log in again" }).click()]);
  await other.getByLabel("Token").fill(OPERATOR);
  await other.getByRole("button", { name: "Log in" }).click();
  await other.getByRole("heading", { name: "Mapping of logins" }).waitFor();
});

test("a clock that is wrong, on whatever day, counts ages by the server's", async () => {
  for (const hours of [-26, 11]) {
    const page = await person(OPERATOR);
    await page.clock.install({ time: Date.now() + hours * 3600000 });
    await page.goto(URL);
    await page.locator("#link", { hasText: "live" }).waitFor();
    await control("insert", "1");
    await page.waitForFunction(() => [...document.querySelectorAll("time[data-age]")].some((time) => /^\d+(\.\d)? s ago$/.test(time.textContent) && !/^0\.0/.test(time.textContent)), undefined, { timeout: 10000 }).catch(async () => {
      throw new Error(`${hours} h: ${await page.locator("time[data-age]").allTextContents()}`);
    });
    await page.context().close();
  }
});

test("no page holds the keyboard", async () => {
  const page = await person(OPERATOR);
  for (const path of ["/", "/sections/logins", "/sections/logins/mapping", "/logs", "/config", "/mapping"]) {
    await page.goto(URL + path);
    await page.locator("#link", { hasText: "live" }).waitFor();
    await page.evaluate(() => {
      const here = (window.passed = []);
      document.addEventListener("focusin", (event) => here.push(event.target));
    });
    for (const key of ["Tab", "Shift+Tab"]) {
      await page.evaluate(() => (window.passed.length = 0));
      for (let step = 0; step < 30; step++) await page.keyboard.press(key);
      const { all, most } = await page.evaluate(() => {
        const times = new Map();
        for (const place of window.passed) times.set(place, (times.get(place) ?? 0) + 1);
        return { all: window.passed.length, most: Math.max(...times.values()) };
      });
      // A short page is gone round more than once; one that holds the keyboard goes on the spot.
      assert.ok(all >= 20 && most <= 4, `${path}: ${key} came to ${all} places, to one of them ${most} times`);
    }
  }
});

test("a draft is answered though others ask at the same time", async () => {
  const page = await person(OPERATOR);
  await page.goto(`${URL}/sections/logins/mapping`);
  await page.getByText("rows become items").waitFor();
  const crowd = setInterval(() => {
    for (let at = 0; at < 3; at++) ask("GET", "/sections/logins/mapping").catch(() => {});
  }, 60);
  await page.getByLabel("Batch size").fill("77");
  const seen = page.getByText("1 change not saved").waitFor({ timeout: 10000 });
  setTimeout(() => clearInterval(crowd), 2500);
  await seen.finally(() => clearInterval(crowd));
});

test("a host that is reached in the clear takes the page's own forms", async () => {
  // A browser says of a plain address neither Sec-Fetch-Site nor, where no referrer may be sent, the origin.
  const page = await person(OPERATOR, {}, URL.replace("127.0.0.1", "console.example"));
  await page.getByRole("heading", { name: /Rows flow|All is delivered/ }).waitFor();
  await page.getByRole("button", { name: "log out" }).click();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
});

test("a program that hangs is lost, though its connection stays", async () => {
  const page = await person(OPERATOR);
  await page.locator("#link", { hasText: "live" }).waitFor();
  await control("freeze", "");
  try {
    await page.getByRole("heading", { name: "The console has lost the program." }).waitFor({ timeout: 25000 });
  } finally {
    await control("thaw", "");
  }
  await page.locator("#link", { hasText: "live" }).waitFor({ timeout: 20000 });
  await page.getByRole("heading", { name: /Rows flow|All is delivered/ }).waitFor();
});
