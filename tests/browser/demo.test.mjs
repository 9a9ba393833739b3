// What a newcomer sees first, and the footer block of the newspaper that this was made for.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { browse, Service, until } from "./service.mjs";
import { quiet, visitor } from "./support.mjs";

let service, browser;

before(async () => {
  service = await Service.start();
  browser = await browse();
});
after(async () => {
  await browser?.close();
  await service?.remove();
});

const SEED = `Thống kê truy cập
001316717
Đang online: 61
Trong tuần: 10.194
Trong tháng: 53.796
Trong năm: 634.758`;

const SEED_COUNTERS = {
  site: "demo",
  at: "2023-09-15T08:19:00+07:00",
  online: 61,
  buckets: { day: "2023-09-15", week: "2023-W37", month: "2023-09", year: "2023" },
  views: { day: 61, week: 61, month: 61, year: 61, all: 61 },
  visits: { day: 61, week: 10194, month: 53796, year: 634758, all: 1316717 },
  visitors: { day: 61, week: 61, month: 61, year: 61, all: 61 },
  stale: false,
};

const lines = text => text.split("\n").map(line => line.trim()).filter(Boolean).join("\n");

test("the widget, kept fresh by the page script, is the seed's block", async () => {
  const tab = await visitor(browser, service);
  await tab.route("**/counters?**", route => route.fulfill({ json: SEED_COUNTERS }));
  await tab.goto(`${service.url}/widget/demo?lang=vi`);
  await until("it is the seed's block", async () => lines(await tab.innerText("body")) === SEED, 10).catch(async () => assert.equal(lines(await tab.innerText("body")), SEED));
  quiet(tab);
  await tab.context().close();
});

test("the demo page moves while a second visitor reads, without a shift or a fault, on phone and desktop", async () => {
  mkdirSync(new URL("../../target/browser/", import.meta.url), { recursive: true });
  let read = 0;
  for (const [name, viewport] of [["phone", { width: 390, height: 844 }], ["desktop", { width: 1280, height: 900 }]]) {
    const tab = await visitor(browser, service);
    await tab.setViewportSize(viewport);
    await tab.addInitScript(() => {
      window.shift = 0;
      new PerformanceObserver(list => { for (const entry of list.getEntries()) shift += entry.value; }).observe({ type: "layout-shift", buffered: true });
    });
    await tab.goto(`${service.url}/demo`);
    const shown = () => tab.textContent('.meta [data-footfall="page.views.all"]');
    read += 1;
    await until("the first view is shown", async () => (await shown()) === String(read));
    const other = await visitor(browser, service);
    await other.goto(`${service.url}/demo`);
    read += 1;
    await until("the second visitor's view is shown", async () => (await shown()) === String(read), 10);
    await sleep(500);
    assert.equal(await tab.evaluate(() => shift), 0);
    assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: wider than the window`);
    await tab.screenshot({ path: new URL(`../../target/browser/demo-${name}.png`, import.meta.url).pathname, fullPage: true });
    quiet(tab);
    quiet(other);
    await other.context().close();
    await tab.context().close();
  }
});
