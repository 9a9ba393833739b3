// The page of figures: it renews itself, fits phone and desktop, light and dark, and axe finds nothing.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { browse, Service } from "./service.mjs";
import { quiet, text, until, visitor } from "./support.mjs";

const TOKEN = "a-token-of-a-newsroom";
const LONG = "/tin-tuc/" + "mot-bai-viet-rat-dai-".repeat(20);
const HOSTILE = "/<img src=x onerror=document.title='taken'>\"'";
let service, browser;

before(async () => {
  service = await Service.start({
    FOOTFALL_SITE__0__KEY: "demo",
    FOOTFALL_SITE__0__HOSTS: "localhost,127.0.0.1",
    FOOTFALL_SITE__0__NEWSROOM_TOKEN: TOKEN,
    FOOTFALL_STORE__FLUSH_INTERVAL: "100ms",
  });
  browser = await browse();
});
after(async () => {
  await browser?.close();
  await service?.remove();
});

let readers = 0;

/** A view by a visitor of its own. */
const view = url => service.view(url, { "user-agent": `Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.${++readers}` });

const pages = () => ({
  newsroom: `${service.url}/newsroom/demo?token=${TOKEN}`,
  overview: `${service.adminUrl}/`,
});

test("figures move without a reload, and hostile pages stay text", async () => {
  for (const page of ["/a", "/a", LONG, HOSTILE]) await view(page);
  let count = 4;
  for (const url of Object.values(pages())) {
    const tab = await visitor(browser, service);
    await tab.goto(url);
    await until("the page is listed", async () => (await tab.textContent(".most")).includes("onerror"));
    await tab.evaluate(() => { window.loaded = "once"; document.querySelector("details").open = true; });
    await view("/a");
    count += 1;
    await text(tab, ".tiles div:nth-of-type(2) .n", String(count));
    assert.equal(await tab.evaluate(() => window.loaded), "once", "it was not loaded anew");
    assert.equal(await tab.evaluate(() => document.querySelector("details").open), true, "the table stays open");
    assert.ok(!(await tab.title()).includes("taken"));
    assert.equal(await tab.locator(".most img").count(), 0);
    quiet(tab);
    await tab.context().close();
  }
});

test("without JavaScript the page stands", async () => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const tab = await context.newPage();
  await tab.goto(pages().newsroom);
  assert.match(await tab.innerText("#fresh"), /As of loading/);
  assert.equal(await tab.locator("svg").count(), 2);
  await context.close();
});

test("it says so when the service no longer answers", async () => {
  const tab = await visitor(browser, service);
  await tab.goto(pages().newsroom);
  await tab.route("**/newsroom/**", route => route.abort());
  await until("the note changes", async () => (await tab.textContent("#fresh")).startsWith("Not renewed"));
  await tab.context().close();
});

test("nothing overflows and axe finds nothing, at phone and desktop width, light and dark", async () => {
  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  mkdirSync(new URL("../../target/browser/", import.meta.url), { recursive: true });
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [390, 1280]) {
      for (const [name, url] of Object.entries(pages())) {
        const tab = await visitor(browser, service, { colorScheme, viewport: { width, height: 844 }, bypassCSP: true });
        await tab.goto(url);
        await tab.locator("details").first().evaluate(details => { details.open = true; });
        const wide = await tab.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= width, `${name} at ${width}: ${wide} wide`);
        await tab.evaluate(axe);
        const { violations } = await tab.evaluate(() => axe.run());
        const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map(node => node.html).join(" ")}`);
        assert.deepEqual(told, [], `${name} at ${width}, ${colorScheme}`);
        await tab.screenshot({ path: new URL(`../../target/browser/${name}-${width}-${colorScheme}.png`, import.meta.url).pathname, fullPage: true });
        await tab.context().close();
      }
    }
  }
});
