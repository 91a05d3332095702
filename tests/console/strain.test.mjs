// What other consoles were strained by: long names, two presses at once, a session that ends while somebody types, and a
// browser that keeps no cookie.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { OPERATOR, URL, close, control, open, person } from "./world.mjs";

const LONG = "support_ticket_satisfaction_survey_answers";
const PAGES = ["/", `/sections/${LONG}`, `/sections/${LONG}/resync`, `/sections/${LONG}/mapping`, "/logs", "/quarantine", "/checks?all=1", "/mapping", "/config", "/repair", "/trace?key=5"];

before(() => control("insert", "200"));
after(close);

/** Logs in on the page that asks for it. */
async function logIn(page) {
  await page.getByLabel("Token").fill(OPERATOR);
  await page.getByRole("button", { name: "Log in" }).click();
}

test("long names leave room for everything else", async () => {
  const page = await person(OPERATOR);
  await page.goto(`${URL}/checks`);
  await page.getByRole("button", { name: "Look", exact: true }).click();
  await page.getByRole("heading", { name: /Ready to run|Not ready/ }).waitFor();
  for (const width of [1440, 390]) {
    await page.setViewportSize({ width, height: 900 });
    for (const path of PAGES) {
      await page.goto(URL + path);
      await page.locator("#link", { hasText: "live" }).waitFor({ state: "attached" });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(wide <= 0, `${path} scrolls sideways by ${wide} at ${width}`);
    }
  }
  await page.setViewportSize({ width: 1440, height: 900 });
  await page.goto(URL);
  await page.locator("#link", { hasText: "live" }).waitFor();
  const side = await page.locator(".side").boundingBox();
  const badge = await page.locator(".nav .badge").first().boundingBox();
  assert.ok(badge.x + badge.width <= side.x + side.width, "the menu shows how many sections there are");
  assert.equal(await page.locator(".nav--in a").last().getAttribute("title"), LONG);
  const cut = await page.locator("#sections .scroll").evaluate((box) => box.scrollWidth - box.clientWidth);
  assert.ok(cut <= 0, `the sections are cut off by ${cut} px`);
  await page.locator(".chart text").first().waitFor();
  const out = await page.$$eval(".chart", (charts) =>
    charts.flatMap((chart) =>
      [...chart.querySelectorAll("text")].filter((text) => text.getBBox().x + text.getBBox().width > chart.viewBox.baseVal.width + 1).map((text) => text.textContent)));
  assert.deepEqual(out, [], "labels of a plot");
});

test("two presses of a button are one", async () => {
  const page = await person(OPERATOR);
  const asked = () => control("text", "SELECT count(*) FROM pg2planhat.event WHERE action = 'pause'");
  const had = Number(await asked());
  // The answer takes its time, and somebody presses again.
  await page.route("**/*", async (route) => {
    if (route.request().method() === "POST") await new Promise((wake) => setTimeout(wake, 600));
    await route.continue();
  });
  for (const [path, name] of [["/sections/logins", "Pause"], ["/sections/logins", "Audit now"], ["/checks", /^Look/]]) {
    await page.goto(URL + path);
    await page.locator("#link", { hasText: "live" }).waitFor();
    const sent = [];
    page.on("request", (request) => request.method() === "POST" && sent.push(request.url()));
    await page.getByRole("button", { name }).evaluate((button) => {
      window.before = true;
      button.click();
      // The stream may have drawn the button anew meanwhile.
      const again = () => [...document.querySelectorAll("button")].find((other) => other.textContent === button.textContent);
      setTimeout(() => again()?.click(), 250);
    });
    await page.waitForFunction(() => !window.before && document.readyState === "complete");
    await page.locator("#link", { hasText: "live" }).waitFor();
    page.removeAllListeners("request");
    assert.equal(sent.length, 1, `${name}: ${sent}`);
    assert.equal(await page.locator("main .note[role=alert]").count(), 0, `${name} ends with an error`);
  }
  assert.equal(Number(await asked()), had + 1);
});

test("a session that ends while somebody types takes nothing with it", async () => {
  const page = await person(OPERATOR);
  await page.goto(`${URL}/sections/logins/mapping`);
  await page.locator("#link", { hasText: "live" }).waitFor({ state: "attached" });
  await page.getByLabel("Batch size").fill("321");
  await page.context().clearCookies();
  // What is pressed before the page knows of it is not sent, either.
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.locator(".out", { hasText: "You are logged out" }).waitFor();
  assert.equal(new globalThis.URL(page.url()).pathname, "/sections/logins/mapping");
  assert.equal(await page.getByLabel("Batch size").inputValue(), "321", "what was typed stays");
  // The login has a tab of its own; this one goes on as soon as somebody is back.
  const [other] = await Promise.all([page.context().waitForEvent("page"), page.getByRole("link", { name: "Log in again" }).click()]);
  await logIn(other);
  await other.getByRole("heading", { name: "Mapping of logins" }).waitFor();
  await other.close();
  // As a browser says when the tab is looked at again; one without a window never hides it.
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await page.locator(".out").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("heading", { name: "Review and save" }).waitFor();
  await page.getByText("321").first().waitFor();
});

test("a browser that keeps no cookie is told so", async () => {
  const page = await (await (await open()).newContext()).newPage();
  await page.route("**/session", async (route) => {
    const headers = { origin: URL, "content-type": "application/x-www-form-urlencoded" };
    const answer = await fetch(`${URL}/session`, { method: "POST", headers, body: route.request().postData(), redirect: "manual" });
    await route.fulfill({ status: answer.status, headers: { location: answer.headers.get("location") } });
  });
  await page.goto(`${URL}/login?next=%2Flogs`);
  await page.context().clearCookies();
  await logIn(page);
  await page.getByRole("alert").filter({ hasText: "allow cookies" }).waitFor({ timeout: 5000 }).catch(async () => assert.fail(`${page.url()}: ${await page.innerText("body")}`));
  // Whoever was only away is not told of cookies.
  await page.goto(`${URL}/logs`);
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  assert.equal(await page.getByRole("alert").count(), 0);
});
