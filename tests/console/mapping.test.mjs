import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { OPERATOR, URL, ask, close, control, findings, look, person, until } from "./world.mjs";

const received = async () => Number(await control("received"));
before(async () => {
  await control("insert", "30");
  await control("sql", "ALTER TABLE app_event ADD COLUMN plan text DEFAULT 'free'");
  await control("sql", "UPDATE app_event SET plan = '0.10' WHERE id = 1");
});
after(close);

test("a draft shows what real rows become, and refusals at their field; an older answer does not overwrite", async () => {
  const page = await person(OPERATOR, { bypassCSP: true });
  await page.goto(`${URL}/sections/logins/mapping`);
  await page.getByText("30 of 30 rows become items").waitFor();
  await look(page, "mapping-edited");
  // A column of text where a number is wanted: the rows are refused, at their field.
  await page.getByLabel("Column of weight").selectOption("action");
  await page.getByText("30 go into quarantine").waitFor();
  await page.locator("[data-piece='why-weight']", { hasText: "30 of 30 rows would go into quarantine" }).waitFor();
  // Two changes at once: what stands at the end is the answer to the last.
  await page.getByLabel("Column of weight").selectOption("id");
  await page.getByLabel("Column of weight").selectOption("weight");
  await page.getByText("30 of 30 rows become items").waitFor();
  await page.getByLabel("Column of email").selectOption("");
  await page.getByLabel("Column of externalId").selectOption("");
  await page.getByRole("alert").waitFor();
  assert.deepEqual(page.errors, []);
  await page.goto(`${URL}/mapping?table=public.usage_daily`);
  await page.getByRole("heading", { name: "A new section of public.usage_daily" }).waitFor();
});

test("digits stay as they are on the page", async () => {
  await control("sql", "ALTER TABLE app_event ALTER COLUMN weight TYPE numeric");
  await control("sql", "INSERT INTO app_event (email, user_id, action, weight) VALUES ('a@b.c', 'u', 'x', 0.1), ('a@b.c', 'u', 'x', 9007199254740993), ('a@b.c', 'u', 'x', 1e400)");
  const page = await person(OPERATOR);
  await page.goto(`${URL}/sections/logins/mapping`);
  await page.locator(".item", { hasText: "9007199254740993" }).waitFor();
  await page.locator(".item", { hasText: '"weight": 0.1' }).waitFor();
  await page.getByText("1 go into quarantine").waitFor();
});

test("what is changed is reviewed, saved with its comments kept, and applied without a row lost or doubled", async () => {
  await control("sql", "ALTER TABLE app_event DROP COLUMN IF EXISTS extra");
  const page = await person(OPERATOR, { bypassCSP: true });
  await page.goto(`${URL}/sections/logins/mapping`);
  await page.getByLabel("Unanswered").selectOption("hold");
  await page.getByText("1 change not saved").waitFor();
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("heading", { name: "logins · settings change" }).waitFor();
  assert.match(await page.locator(".diff").textContent(), /\+ +in_doubt: hold/);
  await look(page, "review");
  const before = await control("config");
  await page.getByRole("button", { name: "Save to the file" }).click();
  await page.getByRole("heading", { name: "The file has changed since this instance began" }).waitFor();
  const after = await control("config");
  const lines = after.split("\n").filter((line) => !line.includes("in_doubt: hold"));
  assert.deepEqual(lines, before.split("\n"), "nothing else is changed");
  await look(page, "config-changed");
  assert.equal(await page.getByText("00000000").count(), 0, "no secret");
  const start = await received();
  await control("insert", "50");
  await page.getByRole("button", { name: "Apply the file" }).click();
  await page.getByRole("heading", { name: "The file says what runs" }).waitFor({ timeout: 20000 });
  await control("insert", "50");
  await until("100 rows", async () => (await received()) >= start + 100);
  await page.goto(`${URL}/sections/logins`);
  await page.getByText("held in quarantine for a person").waitFor();
  const total = Number(await control("text", "SELECT count(*) FROM app_event"));
  const held = Number(await control("text", "SELECT count(*) FROM pg2planhat.quarantine"));
  await until("each row once", async () => (await received()) + held === total);
  const actors = await control("text", "SELECT string_agg(action || ' ' || actor, ', ' ORDER BY id) FROM pg2planhat.event WHERE actor <> 'pg2planhat'");
  assert.equal(actors, "config_save console:maria, config_apply console:maria");
});

test("a file that somebody else has changed is not overwritten, and what it would do is said", async () => {
  const form = { name: "seats", kind: "custom_metric", model: "Company", sync: "receive", base: "another" };
  const stale = await ask("POST", "/config/plan", form);
  assert.ok([412, 422].includes(stale.status), String(stale.status));
  // Of a section that has sent nothing, nothing would count twice.
  await control("sql", "INSERT INTO usage_daily (external_id, value) VALUES ('acme', 1)");
  const sent = "SELECT count(*) FROM pg2planhat.delivery WHERE section = 'seats' AND outcome = 'delivered'";
  await until("a row of seats", async () => Number(await control("text", sent)) > 0);
  await control("config", JSON.stringify({ from: "name: seats", to: "name: chairs" }));
  const page = await person(OPERATOR);
  await page.goto(`${URL}/config`);
  await page.getByRole("heading", { name: /chairs · a new name for a table that is delivered already/ }).waitFor();
  const act = page.getByRole("button", { name: "Apply the file" });
  assert.equal(await act.isDisabled(), true, "rows may count twice: a word is to be typed");
  await control("config", JSON.stringify({ from: "name: chairs", to: "name: [" }));
  await page.reload();
  await page.getByText("cannot be used as it is").waitFor();
  assert.equal(await act.count(), 0);
  await control("config", JSON.stringify({ from: "name: [", to: "name: seats" }));
});

test("a file from a ConfigMap is not written: its patch applies where it is kept", async () => {
  await control("configmap", "yes");
  const page = await person(OPERATOR);
  await page.goto(`${URL}/sections/seats/mapping`);
  await page.getByLabel("Batch size").fill("250");
  await page.getByText("1 change not saved").waitFor();
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByText(/comes from a ConfigMap: apply the patch where that is kept/).waitFor();
  assert.equal(await page.getByRole("button", { name: "Save to the file" }).count(), 0);
  const folder = mkdtempSync(join(tmpdir(), "patch-"));
  const before = await control("config");
  writeFileSync(join(folder, "pg2planhat.yaml"), before);
  writeFileSync(join(folder, "x.patch"), await page.locator("#patch").textContent());
  execFileSync("git", ["apply", "x.patch"], { cwd: folder });
  const after = readFileSync(join(folder, "pg2planhat.yaml"), "utf8");
  rmSync(folder, { recursive: true });
  const added = after.split("\n").filter((line) => !before.split("\n").includes(line));
  assert.deepEqual(added, ["    batch: { rows: 250 }"]);
  assert.equal(await control("config"), before);
  await control("configmap", "no");
  // Where it can be written, somebody else's edit in between is not overwritten.
  await page.goto(`${URL}/sections/seats/mapping`);
  await page.getByLabel("Batch size").fill("250");
  await page.getByText("1 change not saved").waitFor();
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("button", { name: "Save to the file" }).waitFor();
  await control("config", JSON.stringify({ from: "name: seats", to: "name: seats # mine" }));
  const [answer] = await Promise.all([page.waitForResponse((answer) => answer.url().endsWith("/plans")), page.getByRole("button", { name: "Save to the file" }).click()]);
  assert.equal(answer.status(), 412);
  assert.ok((await control("config")).includes("name: seats # mine"));
  await control("config", JSON.stringify({ from: "name: seats # mine", to: "name: seats" }));
});

test("what the form does not know stays, and what a change would lose is named", async () => {
  const change = (from, to) => control("config", JSON.stringify({ from, to }));
  const odd = [
    ["name: logins", "name: logins # ours\n    batch: { rows: 500, in_flight: 2 } # few"],
    ["flush: 50ms", "flush: &soon 50ms # soon"],
    ["flush: 50ms", "flush: *soon"],
  ];
  for (const [from, to] of odd) await change(from, to);
  const page = await person(OPERATOR, { bypassCSP: true });
  await page.goto(`${URL}/sections/logins/mapping`);
  await page.getByText("rows become items").waitFor();
  assert.equal(await page.getByText("not saved").count(), 0, "a form that nobody touched changes nothing");
  await page.getByLabel("Batch size").fill("600");
  await page.getByText("1 change not saved").waitFor();
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("heading", { name: "Review and save" }).waitFor();
  const diff = (await page.locator(".diff").textContent()).split("\n").filter((line) => /^[+-]/.test(line));
  assert.deepEqual(diff, ["-    batch: { rows: 500, in_flight: 2 } # few", "+    batch: { rows: 600, in_flight: 2 } # few"]);
  await page.goto(`${URL}/sections/logins/mapping`);
  await page.getByLabel("Run once in").selectOption("10m");
  await page.getByRole("alert").getByText("a change from here would lose what `&soon` shares with another place").waitFor();
  assert.match(await page.getByLabel("To write by hand").textContent(), /^flush: 10m$/);
  assert.deepEqual(await findings(page), []);
  for (const [from, to] of odd.reverse()) await change(to, from);
});

test("how rows are read is chosen in the form", async () => {
  await control("sql", "CREATE VIEW daily AS SELECT user_id AS account_id, count(*)::int AS logins, max(at) AS day FROM app_event GROUP BY 1");
  const page = await person(OPERATOR, { bypassCSP: true });
  // A view has no log: it is offered, guessed as compared, and tried.
  await page.goto(`${URL}/mapping`);
  const row = page.locator("tr", { hasText: "public.daily" });
  await row.getByText("no log of its own").waitFor();
  await row.getByRole("link", { name: "Map it" }).click();
  await page.getByRole("heading", { name: "A new section of public.daily" }).waitFor();
  assert.equal(await page.getByLabel("Rows come").inputValue(), "diff");
  assert.equal(await page.getByLabel("Of a row").isVisible(), false, "nothing tells an insert from an update there");
  assert.equal(await page.getByLabel("Start with").isVisible(), false);
  await page.locator("#key").fill("account_id");
  await page.getByLabel("Compared every").selectOption("10m");
  await page.getByLabel("Of the result").selectOption("new");
  await page.getByLabel("Not older than").fill("30d");
  await page.getByText(/rows? become/).first().waitFor();
  await look(page, "mapping-compared");
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("heading", { name: "Review and save" }).waitFor();
  const added = (await page.locator("#section-yaml").textContent()).split("\n").map((line) => line.trim());
  for (const line of ["read: diff", "every: 10m", "send: new", 'within: "30d"', "key: account_id"])
    assert.ok(added.includes(line) || added.includes(`- ${line}`), `${line}\n${added.join("\n")}`);
  // Updates of a table's rows, for a section that streams.
  await page.goto(`${URL}/sections/seats/mapping`);
  assert.equal(await page.getByLabel("Compared every").isVisible(), false);
  await page.getByLabel("Of a row").selectOption("insert_and_update");
  await page.getByText("1 change not saved").waitFor();
  await page.getByRole("button", { name: "Review and save" }).click();
  await page.getByRole("heading", { name: "Review and save" }).waitFor();
  const diff = (await page.locator(".diff").textContent()).split("\n").filter((line) => /^[+-] /.test(line));
  // In quotes: YAML 1.1 takes a plain `on` for true.
  assert.deepEqual(diff, ['+    "on": insert_and_update']);
});

test("where is a row? every page asks", async () => {
  const page = await person(OPERATOR, { bypassCSP: true });
  await page.getByRole("textbox", { name: "Where is a row? Its key" }).fill("5");
  await page.keyboard.press("Enter");
  await page.getByText(/batch \d+ delivered it/).first().waitFor();
  assert.deepEqual(await findings(page), []);
  const document = await (await ask("GET", "/trace?key=5&section=logins", undefined, "viewer")).json();
  assert.equal(document[0].outcome, "delivered");
  // No login for SQL: it is off.
  assert.equal((await ask("GET", "/sql")).status, 422);
  assert.equal(await page.getByRole("link", { name: "SQL" }).count(), 0);
});
