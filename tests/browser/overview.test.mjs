// The page of figures, as operators and a newsroom see it.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { browse, Service, until } from "./service.mjs";
import { quiet, visitor } from "./visitor.mjs";

const TOKEN = "0123456789abcdef";
const LONG = "/kinh-te/" + "lam-dong-day-manh-xuat-khau-rau-hoa-".repeat(6);

let service, browser;

before(async () => {
  service = await Service.start({
    FOOTFALL_SITE__0__KEY: "demo",
    FOOTFALL_SITE__0__HOSTS: "localhost,127.0.0.1",
    FOOTFALL_SITE__0__NEWSROOM_TOKEN: TOKEN,
    FOOTFALL_STORE__FLUSH_INTERVAL: "200ms",
  });
  browser = await browse();
});
after(async () => {
  await browser?.close();
  await service?.remove();
});

async function read(page) {
  const beacon = { site: "demo", url: page };
  const answer = await fetch(`${service.url}/api/v1/beacon`, { method: "POST", body: JSON.stringify(beacon) });
  assert.equal(answer.status, 204);
}

const views = tab => tab.textContent(".tiles > div:nth-child(2) .n");

test("the newsroom's page renews itself, and is quiet", async () => {
  const tab = await visitor(browser, service);
  await read("/a");
  await tab.goto(`${service.url}/newsroom/demo?token=${TOKEN}`);
  assert.equal(await views(tab), "1");
  await tab.click("summary >> nth=0");
  await read("/b");
  await read("/b");
  await until("the views have come", async () => (await views(tab)) === "3", 20);
  assert.ok(await tab.evaluate(() => document.querySelector("details").open), "what was opened stays open");
  assert.equal(await tab.textContent("#fresh"), "Live");
  quiet(tab);
  await tab.context().close();
});

test("axe finds nothing and nothing is wider than the window, on phone and desktop, light and dark", async () => {
  const shots = new URL("../../target/browser/", import.meta.url);
  mkdirSync(shots, { recursive: true });
  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  await read(LONG);
  for (const [device, width] of [["phone", 390], ["desktop", 1280]]) {
    for (const colorScheme of ["light", "dark"]) {
      const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, bypassCSP: true });
      const tab = await context.newPage();
      await until("the long page is listed", async () => {
        await tab.goto(`http://127.0.0.1:${service.adminPort}/`);
        return (await tab.textContent("main")).includes(LONG);
      });
      const name = `${device}, ${colorScheme}`;
      assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: too wide`);
      await tab.evaluate(axe);
      const { violations } = await tab.evaluate(() => axe.run());
      assert.deepEqual(violations.map(found => [found.id, found.nodes.map(node => node.html)]), [], name);
      await tab.screenshot({ path: new URL(`overview-${device}-${colorScheme}.png`, shots).pathname, fullPage: true });
      await context.close();
    }
  }
});
