// Old rows on their way: how far, how long still, and a restart in the middle.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { OPERATOR, URL, close, control, person, picture, until } from "./world.mjs";

const number = (text) => Number(text.replaceAll(",", ""));
after(close);

test("a backfill's progress rises, says how long still, survives a restart, and ends as streaming", async () => {
  const total = number(await control("text", "SELECT count(*) FROM app_event"));
  let page = await person(OPERATOR);
  await page.goto(`${URL}/sections/logins`);
  await page.locator(".route .chip", { hasText: "backfilling" }).waitFor();
  const card = () => page.getByRole("region", { name: "Backfill" });
  const brought = async () => number((await card().getByRole("heading").textContent()).match(/[\d,]+/)[0]);
  await card().waitFor();
  const first = await brought();
  await until("progress", async () => (await brought()) > first);
  await card().getByText(/left/).waitFor();
  await picture(page, "backfill-light-1440");
  // New rows do not wait for it.
  await control("insert", "5");
  await control("kill", "");
  const before = number(await control("received"));
  assert.ok(before < total, "it was in the middle");
  await control("start", "");
  page = await person(OPERATOR);
  await page.goto(`${URL}/sections/logins`);
  await page.locator(".route .chip", { hasText: "backfilling" }).waitFor();
  assert.ok((await brought()) >= first, "it goes on where it was");
  await page.locator(".route .chip", { hasText: "streaming" }).waitFor({ timeout: 30000 });
  await until("each row", async () => number(await control("received")) >= total + 5);
  // The batch that was under way may have come twice, and no other.
  assert.ok(number(await control("received")) <= total + 5 + 100);
  await card().waitFor({ state: "detached" });
  await page.getByText(/No row is missing/).waitFor({ timeout: 10000 });
  // An audit of one's own.
  const audits = async () => number(await control("text", "SELECT count(*) FROM pg2planhat.audit"));
  const known = await audits();
  await page.getByRole("button", { name: "Audit now" }).click();
  await until("another audit", async () => (await audits()) > known);
  await page.getByText(/No row is missing/).waitFor();
  await page.getByRole("button", { name: "Audit now" }).waitFor();
  assert.deepEqual(page.errors, []);
});
