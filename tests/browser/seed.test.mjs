// The page of a newspaper whose past came along, seen by its last reader. `tests/it/store/entries.rs` prepares the
// service: after this reader it shows the figures that footfall was made for.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browse } from "./service.mjs";
import { quiet, text, until, visitor } from "./support.mjs";

const service = { url: process.env.FOOTFALL_URL };
let browser;

before(async () => {
  browser = await browse();
});
after(() => browser?.close());

const BLOCK = `Thống kê truy cập
001316717
Đang online: 61
Trong tuần: 10.194
Trong tháng: 53.796
Trong năm: 634.758`;

const lines = text => text.split("\n").map(line => line.trim()).filter(Boolean).join("\n");

test("the sixty-first reader sees the block of the newspaper, and that the article was read thirteen times", async () => {
  const tab = await visitor(browser, service);
  await tab.goto(`${service.url}/demo`);
  await text(tab, '.meta [data-footfall="page.views.all"]', "13");
  let shown;
  const same = async () => (shown = lines(await tab.innerText("div.footfall"))) === BLOCK;
  await until("it is the block", same).catch(() => assert.equal(shown, BLOCK));
  // Beside it stand the same figures, though both may have been fetched before this reader's view.
  const frame = tab.frameLocator(".blocks iframe");
  await until("the frame has them", async () => lines(await frame.locator("body").innerText()) === BLOCK);
  const badge = await tab.evaluate(async () => (await fetch(document.querySelector(".blocks img").src)).text());
  assert.match(badge, /<title>[^<]*: 10\.194</);
  await tab.goto(`${service.url}/widget/demo?lang=vi`);
  await until("the widget is the same", async () => (shown = lines(await tab.innerText("body"))) === BLOCK).catch(() =>
    assert.equal(shown, BLOCK),
  );
  quiet(tab);
  await tab.context().close();
});
