// What differs in Firefox: what it says of the page that sends, and its cache of pages. It is driven by WebDriver BiDi.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import puppeteer from "puppeteer-core";
import { Newspaper, Service } from "./service.mjs";
import { html, line, until } from "./support.mjs";

let service, paper, browser;

before(async () => {
  service = await Service.start();
  paper = await Newspaper.start();
  browser = await puppeteer.launch({ browser: "firefox", executablePath: process.env.FOOTFALL_FIREFOX, headless: true });
});
after(async () => {
  await browser?.close();
  paper?.stop();
  await service?.remove();
});

const COUNTER = '<b id="a" data-footfall="page.views.all">–</b><i id="l" data-footfall-page="/none">–</i>';

const shows = (tab, selector, wanted) =>
  until(`${selector} shows ${wanted}`, async () => (await tab.$eval(selector, element => element.textContent)) === wanted);

/** A tab that notes its faults and what it says. */
async function open() {
  const tab = await browser.newPage();
  tab.said = [];
  tab.on("pageerror", fault => tab.said.push(String(fault)));
  tab.on("console", message => tab.said.push(message.text()));
  return tab;
}

/** How many leaves the service has taken. */
const leaves = () => service.metric('footfall_beacons_total{outcome="taken",site="demo"}');

test("a view counts and its figures are shown, in the language vi_VN, under a strict policy", async () => {
  const tab = await open();
  for (const [path, policy] of [
    ["/plain", ""],
    ["/nonce", "default-src 'none'; script-src 'nonce-n0nce'; connect-src *; img-src *"],
    ["/strict", "default-src 'none'; script-src 'nonce-n0nce' 'strict-dynamic'; connect-src *; img-src *; require-trusted-types-for 'script'; trusted-types 'none'"],
  ]) {
    await tab.goto(paper.put(path, html(line(service, 'nonce="n0nce"'), COUNTER).replace('lang="vi"', 'lang="vi_VN"'), policy ? { "content-security-policy": policy } : {}));
    await shows(tab, "#a", "1");
    await shows(tab, "#l", "0");
  }
  assert.deepEqual(tab.said, []);
  await tab.close();
});

test("the policy of the page on referrers does not matter: its view and its leave are taken", async () => {
  // Also where the service is below a path of the site: then the browser would not name the origin, were it not asked to.
  paper.own = service;
  const places = [service, { url: paper.url + "/thong-ke" }];
  for (const [policy, place] of ["no-referrer", "same-origin", "strict-origin", "unsafe-url"].flatMap(policy => places.map(place => [policy, place]))) {
    const tab = await open();
    const path = `/policy/${policy}/${places.indexOf(place)}`;
    await tab.goto(paper.put(path, html(line(place), COUNTER), { "referrer-policy": policy }));
    await shows(tab, "#a", "1");
    const before = await leaves();
    await tab.goto(paper.put("/left", html("")));
    await until(`the leave under ${policy} by ${place.url} is taken`, async () => (await leaves()) > before);
    assert.equal(await service.views(path), 1);
    await tab.close();
  }
});

test("a page that comes back from the cache is a view, and a route of a script too", async () => {
  const tab = await open();
  const url = paper.put("/back", html(line(service) + '<script>addEventListener("pageshow", event => (window.restored = event.persisted))</script>', COUNTER));
  await tab.goto(url);
  await shows(tab, "#a", "1");
  await tab.goto(paper.put("/other", html("")));
  await tab.evaluate(() => void history.back());
  await until("it comes from the cache", () => tab.evaluate(() => window.restored === true));
  await until("it is counted again", async () => (await service.views("/back")) === 2);
  await shows(tab, "#a", "2");
  await tab.evaluate(() => history.pushState({}, "", "/back/two"));
  await until("the route is counted", async () => (await service.views("/back/two")) === 1);
  await shows(tab, "#a", "1");
  await tab.evaluate(() => history.replaceState({}, "", "/back/two/index.html?utm_source=x"));
  await tab.evaluate(() => footfall.view("/back/three"));
  await until("the named page is counted", async () => (await service.views("/back/three")) === 1);
  assert.equal(await service.views("/back/two"), 1);
  assert.deepEqual(tab.said, []);
  await tab.close();
});
