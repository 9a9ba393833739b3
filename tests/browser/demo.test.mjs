// What a newcomer sees first, and the footer block of the newspaper that this was made for.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { browse, Service } from "./service.mjs";
import { noteShifts, quiet, shifted, text, until, visitor } from "./support.mjs";

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
  let shown;
  const same = async () => (shown = lines(await tab.innerText("body"))) === SEED;
  await until("it is the seed's block", same).catch(() => assert.equal(shown, SEED));
  quiet(tab);
  await tab.context().close();
});

test("the demo page moves while a second visitor reads, without a shift or a fault, on phone and desktop", async () => {
  mkdirSync(new URL("../../target/browser/", import.meta.url), { recursive: true });
  let read = 0;
  for (const [name, viewport] of [["phone", { width: 390, height: 844 }], ["desktop", { width: 1280, height: 900 }]]) {
    const tab = await visitor(browser, service, { locale: "vi-VN" });
    await tab.setViewportSize(viewport);
    await noteShifts(tab);
    await tab.goto(`${service.url}/demo`);
    const views = '.meta [data-footfall="page.views.all"]';
    read += 1;
    await text(tab, views, String(read));
    const other = await visitor(browser, service, { locale: "vi-VN" });
    await other.goto(`${service.url}/demo`);
    read += 1;
    await text(tab, views, String(read));
    assert.equal(await shifted(tab), 0);
    assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: wider than the window`);
    const button = "[data-footfall-opt-out]";
    const says = async words => (await tab.innerText(button)) === words;
    assert.ok(await says("Không tính lượt xem từ trình duyệt này"));
    await tab.click(button);
    await until("it offers the opposite", () => says("Tính lại lượt xem từ trình duyệt này"));
    await tab.click(button);
    await until("it offers the first again", () => says("Không tính lượt xem từ trình duyệt này"));
    await tab.screenshot({ path: new URL(`../../target/browser/demo-${name}.png`, import.meta.url).pathname, fullPage: true });
    await tab.click("text=English");
    read += 1;
    await text(tab, views, String(read));
    assert.ok(await says("Do not count views from this browser"));
    assert.equal(await tab.getAttribute("html", "lang"), "en");
    quiet(tab);
    quiet(other);
    await other.context().close();
    await tab.context().close();
  }
});
