// From an empty folder to flowing rows, with the keyboard's and the mouse's means of a person, and a clock beside it.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { URL, close, control, look, open, until } from "./world.mjs";

after(close);
let began = Date.now();
const clock = [];
const mark = (what) => clock.push(`${((Date.now() - began) / 1000).toFixed(1)} s ${what}`);

test("from an empty folder to flowing rows", async () => {
  const context = await (await open()).newContext({ viewport: { width: 1440, height: 900 }, bypassCSP: true });
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(await control("link"));
  await page.getByRole("heading", { name: "Connect to your database" }).waitFor();
  mark("the wizard is open");
  // Whatever else is asked for leads to it.
  await page.goto(`${URL}/logs`);
  await page.getByRole("heading", { name: "Connect to your database" }).waitFor();
  // The demonstration is a press away, and has a console of its own.
  await page.getByRole("button", { name: "Try the demo" }).click({ noWaitAfter: true });
  const demo = page.getByRole("link", { name: "Open its console" });
  await demo.waitFor({ timeout: 60000 });
  const [other] = await Promise.all([context.waitForEvent("page"), demo.click()]);
  await other.getByRole("heading", { level: 1, name: /Rows flow|All is delivered|Starting/ }).waitFor({ timeout: 30000 });
  await other.getByRole("heading", { level: 1, name: /Rows flow/ }).waitFor({ timeout: 60000 });
  await other.close();
  mark("the demonstration's rows flow");
  began = Date.now();
  const port = await control("port");
  const sim = await control("sim");
  await page.getByLabel("Host").fill("127.0.0.1");
  await page.getByLabel("Port").fill(port);
  await page.getByLabel("User").fill("app_reader");
  await page.getByLabel("Encryption").selectOption("disable");
  assert.equal(await page.locator(".finding").count(), 0, "nothing is asked before there is something to log in with");
  await page.getByLabel("Password").fill("not the one");
  // Leaving the field is enough: what is wrong stands below it.
  await page.keyboard.press("Tab");
  await page.getByText(/password authentication failed/).first().waitFor();
  assert.equal(await page.getByLabel("Password").inputValue(), "not the one", "what was typed stays");
  mark("a wrong password is said, without a button");
  await page.getByLabel("Tenant UUID").fill("11111111-2222-4333-8444-555555555555");
  await page.getByLabel("Address").fill(sim);
  await page.keyboard.press("Tab");
  await page.getByText(/password authentication failed/).first().waitFor();
  assert.equal(await page.getByRole("link", { name: "Choose tables" }).count(), 0, "nothing goes on without a connection");
  await look(page, "setup-connect-wrong");
  await page.getByLabel("Password").fill("first-secret");
  await page.keyboard.press("Tab");
  await page.getByText(/connected to /).first().waitFor();
  assert.equal(await page.getByLabel("Database", { exact: true }).evaluate((box) => box.tagName), "SELECT", "databases to choose from");
  mark("connected, without a button");
  await page.getByRole("button", { name: "Look again" }).click();
  await page.getByText(/connected to /).first().waitFor();
  await look(page, "setup-connect");
  assert.equal(await page.getByText(/may not replicate|permission denied to start WAL sender|replication/i).count() > 0, true);
  mark("connected");
  await page.getByRole("link", { name: "Choose tables" }).first().click();
  await page.getByRole("heading", { name: "Choose tables" }).waitFor();
  await page.getByRole("checkbox", { name: "public.app_event" }).check();
  await page.getByRole("checkbox", { name: "public.usage_daily" }).check();
  assert.equal(await page.getByRole("checkbox", { name: "public.without_key" }).isDisabled(), true);
  await page.getByText("no column is unique and NOT NULL").waitFor();
  await look(page, "setup-tables");
  await page.getByRole("button", { name: "Map fields" }).click();
  await page.getByRole("heading", { name: "Map fields" }).waitFor();
  await page.getByText("100 of 100 rows become items").waitFor();
  await look(page, "setup-map");
  mark("two tables are mapped by guess");
  // A column of the other table's value is changed, and kept.
  await page.getByRole("link", { name: "Look and change" }).first().click();
  await page.getByText("100 of 100 rows become items").waitFor();
  await page.getByLabel("Unanswered").selectOption("hold");
  await page.getByText("1 change not saved").waitFor();
  await page.getByRole("button", { name: "Keep" }).click();
  await page.getByRole("heading", { name: "Map fields" }).waitFor();
  await page.getByRole("link", { name: "Check", exact: true }).click();
  await page.getByRole("heading", { name: "Check", exact: true }).waitFor();
  await page.locator(".verdict").waitFor();
  await look(page, "setup-check");
  mark("checked");
  await page.getByRole("link", { name: "Prepare the database" }).last().click();
  const script = await page.locator("#script").textContent();
  assert.match(script, /CREATE PUBLICATION/);
  await look(page, "setup-prepare");
  // Here a DBA runs the script, by psql.
  await control("psql", script);
  mark("the script has run");
  await page.getByRole("link", { name: "Run", exact: true }).last().click();
  const yaml = await page.locator("#yaml").textContent();
  for (const secret of ["first-secret", "11111111-2222"]) assert.equal(yaml.includes(secret), false, "no secret is in the file");
  assert.match(yaml, /in_doubt: hold/);
  await look(page, "setup-run");
  const lines = yaml.split("\n").length;
  await page.getByRole("button", { name: "Write and run" }).click();
  await page.getByRole("heading", { level: 1 }).waitFor();
  const rows = Number(await control("text", "SELECT (SELECT count(*) FROM app_event) + (SELECT count(*) FROM usage_daily)"));
  await until("every row at the stand-in", async () => Number(await control("received")) === rows);
  mark(`${rows} rows at the stand-in, a file of ${lines} lines`);
  await control("insert", "10");
  await until("new rows flow", async () => Number(await control("received")) === rows + 10);
  await page.getByRole("heading", { name: /Rows flow|All is delivered/ }).waitFor();
  mark("new rows flow");
  await look(page, "setup-done");
  const written = await control("config");
  assert.ok(written.includes("in_doubt: hold") && written.includes("{ env: PGPASSWORD }"), written);
  for (const secret of ["first-secret", "11111111-2222"]) assert.equal(written.includes(secret), false);
  // What was written is what `check` takes, with the secrets where the file says.
  assert.equal(await control("check"), "0");
  // The wizard was for the first one.
  const gone = await page.goto(`${URL}/setup`);
  assert.equal(gone.status(), 404);
  assert.deepEqual(errors, []);
  console.log(clock.join("\n"));
});
