// What every browser test needs: the browser, a person who is logged in, and the ways to change the world.
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

export const URL = process.env.CONSOLE_URL;
export const OPERATOR = process.env.OPERATOR;
export const VIEWER = process.env.VIEWER;
const PICTURES = process.env.PICTURES ?? "target/console-pictures";
const axe = createRequire(import.meta.url).resolve("axe-core");
const root = process.getuid?.() === 0;

/** Asks the control port. */
export async function control(path, body) {
  const answer = await fetch(`${process.env.CONTROL}/${path}`, { method: body === undefined ? "GET" : "POST", body });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.text();
}

/** Asks the console as a script does: a token, forms, documents. */
export function ask(method, path, form, who = "operator") {
  const headers = { authorization: `Bearer ${who === "operator" ? OPERATOR : VIEWER}`, accept: "application/json" };
  const body = form === undefined ? undefined : new URLSearchParams(form);
  return fetch(URL + path, { method, headers, body, redirect: "manual" });
}

/** Waits until something is so, at most 20 s. */
export async function until(what, holds) {
  const end = Date.now() + 20000;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`not within 20 s: ${what}`);
    await new Promise((wake) => setTimeout(wake, 50));
  }
}

let browser;
export async function open() {
  // Chromium's own sandbox does not run as root, which CI's throwaway machine is.
  const args = ["--host-resolver-rules=MAP console.example 127.0.0.1", ...(root ? ["--no-sandbox"] : [])];
  browser ??= await chromium.launch({ executablePath: process.env.CHROMIUM, args });
  return browser;
}

export async function close() {
  await browser?.close();
  browser = undefined;
}

/** A page of somebody who is logged in. Errors of the page's script fail the test that asks `page.errors`. */
export async function person(token, options = {}, url = URL) {
  const context = await (await open()).newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && page.errors.push(message.text()));
  await page.goto(`${url}/login`);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { level: 1 }).waitFor();
  return page;
}

/** What axe finds on the page; of a look that changes colours alone only what depends on colours. */
export async function findings(page, coloursAlone = false) {
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.addScriptTag({ path: axe }).catch(() => {});
  return page.evaluate(async (coloursAlone) => {
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    const runOnly = coloursAlone ? { type: "rule", values: ["color-contrast", "link-in-text-block"] } : tags;
    const { violations } = await globalThis.axe.run(document, { runOnly, resultTypes: ["violations"] });
    return violations.map((found) => `${found.id}: ${found.nodes.map((node) => node.target.join(" ")).slice(0, 3).join("; ")}`);
  }, coloursAlone);
}

/** The page in both themes and at both widths: a picture of each, nothing for axe to find, no scrolling sideways. */
export async function look(page, name) {
  const was = page.viewportSize();
  for (const width of [1440, 390]) {
    await page.setViewportSize({ width, height: 900 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
    if (wide) throw new Error(`${name} scrolls sideways at ${width}`);
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await picture(page, `${name}-${colorScheme}-${width}`);
      const found = await findings(page, colorScheme === "dark");
      if (found.length) throw new Error(`${name} ${colorScheme} ${width}: ${found.join("\n")}`);
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(was);
}

/** Keeps a picture, for people to look at. */
export async function picture(page, name) {
  mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: `${PICTURES}/${name}.png`, fullPage: true });
}
