// Whatever a page, an extension, a proxy or an old browser does: what it has counted and shown, seen in a browser.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { released } from "./build.mjs";
import { browse, Newspaper, Service } from "./service.mjs";
import { html, later, line, pause, quiet, sent, text, until, visitor } from "./support.mjs";

let service, paper, browser;

before(async () => {
  service = await Service.start({
    FOOTFALL_PAGE__SCRIPT: "evermore",
    FOOTFALL_SITE__0__KEY: "demo",
    FOOTFALL_SITE__0__HOSTS: "127.0.0.1,localhost",
    FOOTFALL_SITE__0__PAGE_QUERY: "id",
    FOOTFALL_SITE__1__KEY: "group",
    FOOTFALL_SITE__1__HOSTS: "127.0.0.1",
    FOOTFALL_SITE__1__ROBOTS_ALLOW: "HeadlessChrome",
    FOOTFALL_SITE__2__KEY: "asks",
    FOOTFALL_SITE__2__HOSTS: "127.0.0.1",
    FOOTFALL_SITE__2__ROBOTS_ALLOW: "HeadlessChrome",
    FOOTFALL_SITE__2__REQUIRE_CONSENT: "true",
  });
  paper = await Newspaper.start();
  browser = await browse();
});
after(async () => {
  await browser?.close();
  paper?.stop();
  await service?.remove();
});

const COUNTER = '<b id="a" data-footfall="page.views.all">–</b>';

const views = (page, number, site) =>
  until(`${page} has ${number} views`, async () => (await service.views(page, site)) === number);

/** What was asked of the service beside its scripts. */
const asked = tab => tab.requests.filter(url => url.startsWith(service.url + "/api/"));

/** The page's clock goes on by so many milliseconds, in steps that let answers in. */
async function pass(tab, milliseconds) {
  for (let done = 0; done < milliseconds; done += 5000) {
    await tab.clock.runFor(Math.min(5000, milliseconds - done));
    await tab.evaluate(() => fetch("/").catch(() => {}));
  }
}

/** The same as `text`, without waiting for the page's turns. */
const soon = (tab, selector, wanted) =>
  until(`${selector} shows ${wanted}`, async () => (await tab.clock.runFor(500), (await tab.textContent(selector)) === wanted));

let number = 0;

/** A page of its own under a path of its own. */
const page = (head, body = COUNTER, headers) => {
  const path = `/any/${++number}`;
  return { path, url: paper.put(path, html(head, body), headers) };
};

test("a page with figures asks twice in its first minute, one without them twice in two", async () => {
  const tab = await visitor(browser, service);
  await pause(tab);
  await tab.goto(page(line(service)).url);
  await until("the view is answered", async () => (await tab.clock.runFor(500), await tab.textContent("#a")) === "1");
  await pass(tab, 57_000);
  console.log(`# requests of a view's first minute on a page with figures: ${asked(tab).length}`);
  assert.equal(asked(tab).length, 2);
  assert.deepEqual(tab.beacons.map(body => [JSON.parse(body).kind, JSON.parse(body).answer]), [["view", "counters"], ["ping", "counters"]]);
  await pass(tab, 60_000);
  assert.equal(asked(tab).length, 4);

  const other = await visitor(browser, service);
  await pause(other);
  const plain = page(line(service), "");
  await other.goto(plain.url);
  await views(plain.path, 1);
  await pass(other, 119_000);
  assert.equal(asked(other).length, 2);
  assert.equal(JSON.parse(sent(other, "ping")[0]).answer, undefined);
  quiet(tab);
  quiet(other);
  await tab.context().close();
  await other.context().close();
});

test("any setting that is no usable number is the default", async () => {
  const tab = await visitor(browser, service);
  await pause(tab);
  for (const [value, seconds] of [["60s", 60], ["1m", 60], ["60,5", 60], ["", 60], ["0", 60], ["null", 60], ["NaN", 60], ["1 2", 60], ["-5", 15], ["1", 15], ["15", 15], [" 30 ", 30], ["0x1e", 30], ["9e99", 1e4]]) {
    tab.beacons.length = 0;
    const { path, url } = page(line(service, `data-ping="${value}"`), "");
    await tab.goto(url);
    await views(path, 1);
    await tab.clock.runFor(65_000);
    await later(tab, 500);
    assert.equal(sent(tab, "ping").length, Math.floor(65 / seconds), `data-ping="${value}"`);
  }
  for (const [pad, shown] of [["3", "001"], ["999999999", "0".repeat(19) + "1"], ["x", "1"], ["-4", "1"], ["2.9", "01"]]) {
    await tab.goto(page(line(service), `<b id="a" data-footfall="page.views.all" data-footfall-pad="${pad}">–</b>`).url);
    await until(`pad ${pad}`, async () => (await tab.clock.runFor(500), await tab.textContent("#a")) === shown);
  }
  quiet(tab);
  await tab.context().close();
});

test("no name of an element takes the place of what the script needs", async () => {
  const tab = await visitor(browser, service);
  const evil = "//elsewhere.example/x.js";
  const names = ["currentScript", "querySelectorAll", "querySelector", "hidden", "head", "body", "title", "readyState", "addEventListener", "dispatchEvent", "createElement",
    "documentElement", "visibilityState", "footfall", "footfall_more", "footfallVisitor", "navigation", "Document", "site", "first", "fetch", "localStorage", "location", "defaultView", "nodeType", "bind"];
  const one = name => `<img name="${name}" id="${name}" src="${evil}"><form name="${name}"><input name="site"><input name="src" value="${evil}"></form>`;
  const some = Array.from({ length: 6 }, (_, at) => names.filter((_, name) => name % 6 === at).map(one).join(""));
  for (const body of [...some, names.map(one).join(""), '<a id="footfall" href="x"></a><a id="footfall" name="view"></a>', `<iframe name="footfall_more" srcdoc="x"></iframe>`,
    '<form><input name="shadowRoot"><input name="shadowRoot"></form><form><fieldset name="shadowRoot"></fieldset></form>', '<form name="footfall_more"><input name="call"></form><form name="footfall_rare"><input name="call"></form>']) {
    // Before the line, as a comment of a reader may be.
    const { path, url } = page("", body + COUNTER + '<i id="l" data-footfall-page="/any/none">–</i>' + line(service));
    await tab.goto(url);
    // The names take the tools' place too.
    const shown = () => tab.evaluate(() => [..."al"].map(id => Document.prototype.getElementById.call(document, id).textContent).join());
    await until(`${body} is filled`, async () => (await tab.clock.runFor(500), (await shown()) === "1,0"));
    assert.equal(await service.views(path), 1, body);
  }
  assert.ok(!tab.requests.some(url => url.includes("elsewhere") && url.endsWith(".more.js")));
  quiet(tab);
  await tab.context().close();
});

test("what a browser lacks or a page replaces costs no view and no word", async () => {
  const define = (name, value) => `Object.defineProperty(window, "${name}", { configurable: true, value: ${value} });`;
  for (const script of [
    define("localStorage", "null"),
    define("localStorage", "undefined"),
    define("localStorage", "{}"),
    'Object.defineProperty(window, "localStorage", { get() { throw new DOMException("denied", "SecurityError"); } });',
    "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };",
    "Math.random = () => 0.5;",
    "Math.random = () => 0; Date.now = () => 1.7e12;",
    define("crypto", "undefined"),
    define("crypto", "null"),
    "navigator.sendBeacon = null; delete Navigator.prototype.sendBeacon;",
    define("BroadcastChannel", "undefined"),
    define("EventSource", "undefined"),
    define("navigation", "null"),
    define("Request", "undefined"),
    define("URL", '"https://bao.example/"'),
    define("self", "{}"),
    define("doc", "1"),
    define("name", "{}"),
    define("Intl", "undefined"),
    "window.requestIdleCallback = window.queueMicrotask = null;",
    "String.prototype.toJSON = function () { return '\"' + this + '\"'; }; Array.prototype.toJSON = Object.prototype.toJSON = () => 'x';",
    "Object.prototype.extra = function () {}; Array.prototype.extra = function () {};",
    "Object.prototype.page = Object.prototype.hash = Object.prototype.frames = Object.prototype.bind = Object.prototype.call = function () {};",
    "Event = class {}; CustomEvent = null;",
    "EventTarget.prototype.addEventListener = () => { throw 1; };",
    "console.log = console.error = null;",
    "document.querySelectorAll = document.addEventListener = document.createElement = () => { throw 1; };",
    "Element.prototype.remove = null; window.addEventListener('error', () => true);",
    "window.footfallVisitor = 7;",
    "window.footfallVisitor = () => { throw 1; };",
    "window.footfallVisitor = () => 'x'.repeat(99);",
    "window.footfallVisitor = () => null;",
    "window.footfall = 1; window.footfall_more = 'x';",
    "Object.defineProperty(window, 'footfall', { value: 1 });",
    "Object.defineProperty(window, 'footfall', { get() { throw 1; }, set() { throw 1; } });",
  ]) {
    const tab = await visitor(browser, service);
    await tab.addInitScript(script);
    const { path, url } = page(line(service));
    for (const shown of script.startsWith("Math") ? "12" : "1") {
      await tab.goto(url);
      await soon(tab, "#a", shown).catch(fault => assert.fail(`${script}: ${fault}`));
      assert.equal(await service.views(path), Number(shown), script);
    }
    quiet(tab);
    await tab.context().close();
  }
});

test("a view is sent where no timer runs, and as an image where fetch never answers", async () => {
  for (const [script, image] of [["window.setInterval = null;", false], ["window.fetch = () => new Promise(() => {});", true]]) {
    const tab = await visitor(browser, service);
    await tab.addInitScript(script);
    const { path, url } = page(line(service), "");
    await tab.goto(url);
    await until(script, async () => (await tab.clock.runFor(5000), (await service.views(path)) === 1));
    assert.equal(tab.requests.some(url => url.includes("/beacon.gif?")), image, script);
    quiet(tab);
    await tab.context().close();
  }
});

test("elements that are not HTML, in a document that is not, spoil nothing", async () => {
  const tab = await visitor(browser, service);
  const own = line(service).replace("data-localhost", 'data-localhost=""').replace("defer", 'defer=""');
  const body = COUNTER + '<x xmlns="urn:x" id="my_pv" data-footfall="online"><y data-footfall-page="/x"/></x>';
  const path = `/any/${++number}`;
  const xhtml = `<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="vi"><head><title>Tin</title>${own}</head><body>${body}</body></html>`;
  await tab.goto(paper.put(path, xhtml, { "content-type": "application/xhtml+xml" }));
  await soon(tab, "#a", "1");
  assert.equal(await service.views(path), 1);
  const svg = `<svg xmlns="http://www.w3.org/2000/svg"><script href="${service.url}/footfall.js"/></svg>`;
  await tab.goto(paper.put(`/any/${++number}`, svg, { "content-type": "image/svg+xml" }));
  await later(tab);
  quiet(tab);
  await tab.context().close();
});

test("a figure is written in the language of its place, or of the browser where that is none", async () => {
  const tab = await visitor(browser, service, { locale: "de-DE" });
  const now = { buckets: {}, online: 1234567.5, page: {} };
  await tab.route("**/api/v1/beacon", route => route.fulfill({ json: now, headers: { footfall: "1", "access-control-allow-origin": "*", "access-control-expose-headers": "footfall" } }));
  const german = "1.234.567,5";
  for (const [lang, shown] of [
    ["vi", german], ["vi_VN", german], ["vi-VN", german], ["VI_vn", german], ["en_US", "1,234,567.5"], ["en-IN", "12,34,567.5"], ["zh_Hans_CN", "1,234,567.5"], ["es_MX", "1,234,567.5"],
    ["", german], ["vi_VN.UTF-8", german], ["not a language", german], ["-", german], ["_", german], ["x", german], ["{{ lang }}", german], ["en;q=1", german], ["123", german], ["🇻🇳", german], ["undefined", german],
  ]) {
    await tab.goto(paper.put("/lang", `<!doctype html><html lang="${lang}"><head><title>Tin</title>${line(service)}</head><body><b id="a" data-footfall="online">–</b><p lang="en"><b id="e" data-footfall="online">–</b></p></body></html>`));
    await soon(tab, "#a", shown).catch(fault => assert.fail(`lang="${lang}": ${fault}`));
    await soon(tab, "#e", "1,234,567.5");
  }
  quiet(tab);
  await tab.context().close();
});

test("each item of a list, and each figure, stands for itself", async () => {
  await service.view("/bai/1");
  await service.view("/bai/2?id=7");
  const items = [["/bai/1", "1"], ["bai/1", "1"], [paper.url.slice(5) + "/bai/1", "1"], ["", "–"], ["#", "–"], ["javascript:alert(1)", "–"], ["mailto:a@b.vn", "–"], ["https://partner.example/bai/1", "–"], ["http://[", "–"], ["%", "0"], ["/bai/2?id=7&fbclid=" + "x".repeat(99), "1"],
    ["/bai/1#binh-luan", "1"], ["/bai/2?access_token=secret&id=7", "1"], ["/bai/1?access_token=secret", "1"], ["/" + "dài".repeat(900), "0"], ["constructor", "0"], ["__proto__", "0"], ["toString", "0"]];
  const spans = items.map(([page], at) => `<i id="i${at}" data-footfall-page="${page}">–</i>`).join("");
  const odd = ["constructor", "__proto__", "toString", "views", "views.all.x", "..", "visits.decade"].map(name => `<u data-footfall="${name}">–</u>`).join("");
  const frail = `<x-frail id="f" data-footfall="online"></x-frail><script>customElements.define("x-frail", class extends HTMLElement { set textContent(_) { throw 1; } })</script><form data-footfall="online"><input name="dataset"><input name="closest"></form>`;
  const tab = await visitor(browser, service);
  await tab.goto(paper.put("/items/list", html('<base href="/">' + line(service), frail + odd + spans + COUNTER)));
  await soon(tab, "#a", "1");
  await soon(tab, "#i0", "1");
  await soon(tab, `#i${items.length - 1}`, "0");
  await later(tab);
  for (const [at, [item, shown]] of items.entries()) assert.equal(await tab.textContent(`#i${at}`), shown, item);
  assert.ok(asked(tab).every(url => !/alert|binh-luan|mailto|null|secret|fbclid/.test(url)));
  assert.deepEqual(await tab.evaluate(() => [...new Set([...document.querySelectorAll("u")].map(u => u.textContent))]), ["–"]);
  quiet(tab);
  await tab.context().close();
});

test("a page is the same however it is spelled, and another where the service says so", async () => {
  const tab = await visitor(browser, service);
  for (const [at, [from, to, more]] of [
    ["/", "", 0], ["", "/", 0], ["/index.html", "/", 0], ["/", "/index.php", 0], ["", "?utm_source=x", 0], ["?fbclid=1", "", 0], ["", "#dau", 0], ["//", "/", 0],
    ["/%C3%A9", "/e%CC%81", 0], ["/e%CC%81", "/é", 0], ["/%41", "/A", 0], ["/%E1", "/%E1?x", 0], ["?id=1", "?id=1&x=2", 0], ["?x=2&id=1", "?id=1", 0], ["?id=1#a", "?id=1#b", 0],
    ["?id=1", "?id=2", 1], ["", "?id=1", 1], ["/a", "/b", 1], ["/%E1", "/%E2", 1],
  ].entries()) {
    const path = `/same/${at}`;
    paper.put(path, html(line(service), COUNTER));
    const file = decodeURI(new URL(paper.url + path + from.replace("%E1", "%25E1")).pathname);
    paper.put(new URL(paper.url + path + from).pathname, html(line(service), COUNTER));
    await tab.goto(paper.url + path + from);
    await soon(tab, "#a", "1");
    const before = sent(tab, "view").length;
    await tab.evaluate(url => history.replaceState({}, "", url), path + to);
    if (more) await until(`${from} to ${to} is a view`, async () => (await tab.clock.runFor(500), sent(tab, "view").length > before));
    else {
      // The second file is there, which decides.
      await until("it is looked at", async () => (await tab.clock.runFor(1000), to.startsWith("#") || tab.requests.some(url => url.endsWith("more.js"))));
      await later(tab, 4000);
      assert.equal(sent(tab, "view").length, before, `${from} to ${to}: ${file}`);
    }
  }
  quiet(tab);
  await tab.context().close();
});

test("what is no page of the site, or is read from elsewhere, shows the totals of the site", async () => {
  const tab = await visitor(browser, service);
  const body = '<b id="v" data-footfall="views.all">–</b>' + COUNTER;
  const total = () => until("the site's total is shown", async () => (await tab.clock.runFor(500), /\d/.test(await tab.textContent("#v"))));
  // The site has 127.0.0.1, and not localhost, where a copy is.
  await tab.goto(paper.put("/copy", html(line(service).replace('"demo"', '"group"'), body)).replace("127.0.0.1", "localhost") + "?token=secret");
  await total();
  await later(tab);
  assert.equal(await tab.textContent("#a"), "–");
  // On the author's machine nothing is counted and no page is named.
  const before = tab.beacons.length;
  const { path, url } = page(line(service).replace("data-localhost", ""), body);
  await tab.goto(url + "?token=secret#access_token=secret");
  await total();
  await later(tab);
  assert.equal(tab.beacons.length, before);
  assert.equal(await service.views(path), 0);
  assert.ok(asked(tab).every(url => !/secret/.test(url)), "a token stands in a URL that caches keep");
  assert.ok(tab.beacons.every(body => !/access_token/.test(body)));
  quiet(tab);
  await tab.context().close();
});

/** What a beacon is answered by one who is not the service. */
const others = [
  ["a firewall", { status: 403, contentType: "text/html", body: "<h1>Forbidden</h1>" }],
  ["a rewrite", { status: 404, contentType: "text/html", body: "<h1>Not found</h1>" }],
  ["a redirect that made it a GET", { status: 405, headers: { footfall: "1" }, body: "" }],
  ["a slow way", { status: 408, headers: { footfall: "1" }, body: "" }],
  ["a slow proxy", { status: 408, body: "" }],
  ["a front page", { status: 200, contentType: "text/html", body: "<h1>Tin</h1>" }],
  ["a captive portal", { status: 204, body: "" }],
  ["a broken gateway", { status: 502, body: "" }],
  ["a limit", { status: 429, headers: { footfall: "1", "retry-after": "10" }, body: "" }],
  ["an overloaded service", { status: 503, headers: { footfall: "1", "retry-after": "5" }, body: "" }],
];

test("only the service's own answers end the attempts; an image passes where a POST does not", async () => {
  const open = { "access-control-allow-origin": "*", "access-control-expose-headers": "footfall, footfall-reason" };
  for (const [what, answer] of others) {
    const tab = await visitor(browser, service);
    let attempts = 0;
    await tab.route("**/api/v1/beacon", route => {
      attempts += 1;
      return attempts > 2 ? route.continue() : route.fulfill({ ...answer, headers: { ...open, ...answer.headers } });
    });
    const { path, url } = page(line(service));
    await tab.goto(url);
    await until(`${what}: it is tried again`, async () => (await tab.clock.runFor(2500), attempts === 3));
    await soon(tab, "#a", "1");
    await later(tab, 30_000);
    assert.equal(await service.views(path), 1, what);
    assert.equal(new Set(sent(tab, "view").map(body => JSON.parse(body).id)).size, 1, what);
    quiet(tab);
    await tab.context().close();
  }
  const tab = await visitor(browser, service);
  await tab.route("**/api/v1/beacon", route => route.fulfill({ ...others[0][1], headers: open }));
  const { path, url } = page(line(service));
  await tab.goto(url);
  await until("the image is counted", async () => (await tab.clock.runFor(500), (await service.views(path)) === 1));
  await soon(tab, "#a", "1");
  await later(tab, 300_000);
  assert.equal(await service.views(path), 1);
  assert.ok(sent(tab, "view").length <= 4);
  quiet(tab);
  await tab.context().close();
});

test("a view whose answer was lost counts once, also when the reader goes on", async () => {
  // A gateway that passes the first beacon on and loses the answer.
  const passed = [];
  const gateway = createServer(async (request, response) => {
    let body = "";
    for await (const piece of request) body += piece;
    const answer = await fetch(service.url + request.url, { method: request.method, headers: { "user-agent": request.headers["user-agent"] }, body: body || undefined });
    if (body) passed.push(JSON.parse(body));
    const headers = { "access-control-allow-origin": "*", "content-type": answer.headers.get("content-type") ?? "" };
    response.writeHead(body && passed.length === 1 ? 502 : answer.status, headers).end(await answer.text());
  });
  await new Promise(listening => gateway.listen(0, "127.0.0.1", listening));
  const tab = await visitor(browser, service);
  const { path, url } = page(line({ url: `http://127.0.0.1:${gateway.address().port}` }), "");
  await tab.goto(url);
  await until("it is known as missed", async () => (await tab.clock.runFor(500), tab.requests.some(url => url.includes("/beacon.gif?"))));
  await tab.goto(paper.put("/gone-on", html("")));
  await until("the reader has left", () => passed.some(({ kind }) => kind === "leave"));
  await until("it was sent again", () => passed.filter(({ kind }) => kind === "view").length === 2);
  assert.equal(new Set(passed.map(({ id }) => id)).size, 1);
  assert.equal(await service.views(path), 1);
  quiet(tab);
  await tab.context().close();
  gateway.closeAllConnections();
  gateway.close();
});

test("redirects, also such as make a POST a GET, and a page saved to a disk", async () => {
  // The service is asked by http, and its proxy sends everyone on to another URL.
  const tab = await visitor(browser, service);
  for (const [status, image] of [[301, true], [302, true], [303, true], [307, false], [308, false]]) {
    const proxy = createServer((request, response) => response.writeHead(status, { location: service.url + request.url, "access-control-allow-origin": "*" }).end());
    await new Promise(listening => proxy.listen(0, "127.0.0.1", listening));
    const { path, url } = page(line({ url: `http://127.0.0.1:${proxy.address().port}` }));
    tab.requests.length = 0;
    await tab.goto(url);
    await until(`it is counted by ${status}`, async () => (await tab.clock.runFor(500), (await service.views(path)) === 1));
    await soon(tab, "#a", "1");
    assert.equal(tab.requests.some(url => url.includes("/beacon.gif?")), image, `${status}`);
    proxy.closeAllConnections();
    proxy.close();
  }

  // Its path may name a person.
  const folder = mkdtempSync(join(tmpdir(), "nguyen-van-a-"));
  writeFileSync(join(folder, "tin.html"), html(line(service, 'data-live="stream"').replace("data-localhost", ""), '<b id="v" data-footfall="views.all">–</b>' + COUNTER));
  const before = tab.beacons.length;
  await tab.goto(`file://${folder}/tin.html`);
  await until("the site's total is shown", async () => (await tab.clock.runFor(500), /\d/.test(await tab.textContent("#v"))));
  await until("its figures are streamed", async () => (await tab.clock.runFor(500), tab.requests.some(url => url.includes("/live?"))));
  assert.equal(await tab.textContent("#a"), "–");
  assert.equal(tab.beacons.length, before);
  assert.ok(tab.requests.every(url => url.startsWith("file:") || !url.includes("nguyen")));
  quiet(tab);
  rmSync(folder, { recursive: true });
  await tab.context().close();
});

test("what the service refuses is not asked again and again", async () => {
  const tab = await visitor(browser, service);
  const { url } = page(line(service).replace('"demo"', '"nobody"'));
  await tab.goto(url);
  await until("it is asked", () => tab.beacons.length === 1);
  await later(tab, 120_000);
  assert.equal(tab.beacons.length, 1);
  assert.ok(asked(tab).length <= 6, asked(tab).join("\n"));
  assert.equal(await tab.textContent("#a"), "–");
  quiet(tab);
  await tab.context().close();
});

test("the policy of the page on referrers does not matter", async () => {
  const tab = await visitor(browser, service);
  for (const policy of ["no-referrer", "same-origin", "origin", "strict-origin", "unsafe-url", "no-referrer-when-downgrade"]) {
    const { path, url } = page(line(service), COUNTER, { "referrer-policy": policy });
    await tab.goto(url);
    await soon(tab, "#a", "1");
    const answered = tab.waitForResponse(answer => answer.request().postData()?.includes('"kind":"leave"'));
    await tab.evaluate(() => {
      Object.defineProperty(Document.prototype, "hidden", { configurable: true, get: () => true });
      document.dispatchEvent(new Event("visibilitychange"));
    });
    assert.equal((await answered).status(), 204, policy);
    assert.equal(await service.views(path), 1, policy);
  }
  quiet(tab);
  await tab.context().close();
});

test("figures are shown some seconds after the document is parsed, whatever it waits for", async () => {
  const tab = await visitor(browser, service);
  paper.put("/never.png", new Promise(() => {}));
  await tab.goto(page(line(service), COUNTER + '<img src="/never.png">').url, { waitUntil: "commit" });
  await text(tab, "#a", "1");
  assert.equal(await tab.evaluate(() => document.readyState), "interactive");
  quiet(tab);
  await tab.context().close();
});

test("the settings of the line as it was written hold where a tool runs the script from elsewhere", async () => {
  const tab = await visitor(browser, service);
  const src = `${service.url}/footfall.js`;
  const run = attributes => `<script>addEventListener("load", () => { const s = document.createElement("script"); s.src = "${src}"; ${attributes} document.head.append(s); })</script>`;
  const set = 'data-site="demo" data-localhost data-consent="required" data-page="/as-written"';
  for (const head of [
    `<script type="rocketlazyloadscript" data-rocket-src="${src}" ${set} defer></script>` + run(""),
    `<script type="text/plain" src="${src}" ${set}></script>` + run("s.async = false;"),
    `<script type="litespeed/javascript" data-src="${src}" ${set}></script>` + run('s.dataset.optimized = "1";'),
    `<script data-wpfc-original-src="//127.0.0.1/footfall.js" ${set}></script>` + run(""),
  ]) {
    const before = tab.beacons.length;
    await tab.goto(page(head).url);
    await until("the script runs", () => tab.evaluate(() => typeof footfall?.consent === "function"));
    await later(tab);
    assert.equal(tab.beacons.length, before, head);
    await tab.evaluate(() => footfall.consent());
    await until("the view is sent", async () => (await tab.clock.runFor(500), tab.beacons.length > before));
    assert.equal(JSON.parse(tab.beacons[before]).url, "/as-written");
    assert.equal(JSON.parse(tab.beacons[before]).consent, true);
  }
  // A text of its own, another service's line before it.
  const text = released()["v1.js"];
  const other = '<script src="/customer-service-more.js" data-site="ABCDEFG" defer></script>';
  const coded = "data:text/javascript;base64," + Buffer.from(text).toString("base64");
  for (const head of [
    `<script type="text/plain" src="${src}" data-site="demo" data-localhost></script><script src="${coded}"></script>`,
    other + line(service).replace("defer", 'type="module"'),
    other + `<script src="${coded}" data-site="demo" data-localhost data-service="${service.url}"></script>`,
    other + `<script data-site="demo" data-localhost data-service="${service.url}">${text}</script>`,
    `<script type="text/plain" src="${src}?ver=1" data-site="demo" data-localhost></script>` + run(""),
  ]) {
    const { path, url } = page(head);
    await tab.goto(url);
    await soon(tab, "#a", "1").catch(fault => assert.fail(`${head.slice(0, 200)}: ${fault}`));
    assert.equal(await service.views(path), 1);
  }
  // Where nothing is left of it, the configuration of the site decides.
  const lost = page(`<script defer src="${src}" data-site="asks" data-localhost></script>`);
  await tab.goto(lost.url);
  await until("it is refused", () => sent(tab, "view").some(body => body.includes(lost.path)));
  await later(tab);
  assert.equal(await service.views(lost.path, "asks"), 0);
  await tab.evaluate(() => footfall.consent());
  await until("it is counted", async () => (await tab.clock.runFor(500), (await service.views(lost.path, "asks")) === 1));
  quiet(tab);
  await tab.context().close();
});

test("routes in the fragment are pages where the line says so; no other fragment is sent", async () => {
  const tab = await visitor(browser, service);
  const { path, url } = page(line(service, "data-hash"));
  await tab.goto(url + "#/tin/1");
  await soon(tab, "#a", "1");
  assert.equal(await service.views(`${path}/tin/1`), 1);
  for (const [hash, route, number] of [["#!/tin/2", "/tin/2", 1], ["#/tin/1", "/tin/1", 2], ["#/tin/3?x=1", "/tin/3", 1]]) {
    await tab.evaluate(hash => (location.hash = hash), hash);
    await later(tab);
    await views(path + route, number);
  }
  assert.equal(sent(tab, "view").length, 4);
  for (const attributes of ["", "data-hash"]) {
    const plain = page(line(service, attributes));
    await tab.goto(plain.url + "?long=" + "x".repeat(9000) + "&id=5#access_token=secret");
    await soon(tab, "#a", "1");
    assert.equal(await service.views(plain.path + "?id=5"), 1);
  }
  assert.ok(tab.beacons.every(body => body.length < 4096 && !body.includes("secret")));
  quiet(tab);
  await tab.context().close();
});

test("whatever a page calls, is called by, or names itself, one page counts", async () => {
  const tab = await visitor(browser, service);
  for (const call of ["footfall.view(new Event('x'))", "footfall.view({})", "footfall.view(5)", "footfall.view(location)", "footfall.view(new URL(location))", "footfall.view('')", "footfall.view(null)", "footfall.view('https://elsewhere.example/')", "(0, footfall.view)()"]) {
    const { path, url } = page(line(service, 'data-auto="off"'));
    await tab.goto(url);
    await soon(tab, "#a", "0");
    await tab.evaluate(call);
    await soon(tab, "#a", "1");
    assert.equal(await service.views(path), 1, call);
  }
  for (const [at, said] of ["/of-page ", "\n\t/of-page\r\n", "/of-\npage", " /of-page/"].entries()) {
    await tab.goto(page(line(service, `data-page="${said}"`)).url);
    await soon(tab, "#a", String(at + 1));
  }
  assert.equal(await service.views("/of-page"), 4);
  for (const [attributes, call, counts] of [
    ["data-consent", "0", 0], ['data-consent="off"', "footfall.consent(undefined)", 0], ["data-consent", "footfall.consent(null)", 0], ["data-consent", "footfall.consent(false)", 0],
    ["", "footfall.consent(undefined)", 1], ["data-consent", "footfall.consent({})", 1], ["data-consent", "footfall.consent(), footfall.consent(true)", 1],
  ]) {
    const { path, url } = page(line(service, attributes));
    await tab.goto(url);
    await soon(tab, "#a", attributes ? "0" : "1");
    await tab.evaluate(call);
    await later(tab);
    assert.equal(await service.views(path), counts, `${attributes} ${call}`);
  }
  quiet(tab);
  await tab.context().close();
});

test("in endless scrolling an article counts once a load, however often it is passed", async () => {
  const tab = await visitor(browser, service);
  const { path, url } = page(line(service));
  await tab.goto(url);
  await soon(tab, "#a", "1");
  for (let times = 0; times < 4; times++) {
    for (const article of [path + "/next", path]) {
      await tab.evaluate(article => footfall.view(article), article);
      await later(tab);
    }
  }
  for (let times = 0; times < 4; times++) {
    for (const article of [path + "/third", path]) {
      await tab.evaluate(article => history.replaceState({}, "", article), article);
      await later(tab, 1500);
    }
  }
  assert.equal(await service.views(path), 1);
  assert.equal(await service.views(path + "/next"), 1);
  assert.equal(await service.views(path + "/third"), 1);
  quiet(tab);
  await tab.context().close();
});

test("a bundled or copied script is told where the service is, and says so where it is not", async () => {
  paper.put("/assets/app.js", released()["v1.js"], { "content-type": "text/javascript" });
  const tab = await visitor(browser, service);
  const line = (service, type = "defer") => `<script ${type} src="/assets/app.js" data-site="demo" data-localhost ${service}></script>`;
  for (const [where, type] of [[service.url, "defer"], [service.url + "/", "defer"], [service.url, 'type="module"']]) {
    await tab.goto(page(line(`data-service="${where}"`, type)).url);
    await soon(tab, "#a", "1");
  }
  // Renamed by its deployment; the third file reads the counters.
  await tab.goto(page(`<script defer src="${service.url}/evermore.js" data-site="demo" data-localhost data-auto="off" data-more="evermore.v1.more.js"></script>`).url);
  await soon(tab, "#a", "0");
  quiet(tab);
  await tab.goto(page(line("")).url + "#footfall-debug");
  await until("it says what is missing", () => tab.said.some(said => /data-service/.test(said)));
  assert.equal(await tab.textContent("#a"), "–");
  await tab.context().close();
});

test("two sites count on one page, and each shows its own figures", async () => {
  const tab = await visitor(browser, service);
  const both = line(service) + line(service).replace('"demo"', '"group"');
  const body = COUNTER + '<b id="g" data-site="group" data-footfall="page.views.all">–</b>';
  const { path, url } = page(both, body);
  await service.view(path);
  await tab.goto(url);
  await soon(tab, "#a", "2");
  await soon(tab, "#g", "1");
  await later(tab);
  assert.equal(await service.views(path), 2);
  assert.equal(await service.views(path, "group"), 1);
  assert.equal(sent(tab, "view").length, 2);
  quiet(tab);
  await tab.context().close();
});

test("what stays as it is is not written again", async () => {
  const tab = await visitor(browser, service);
  const body = COUNTER + '<i id="l" data-footfall-page="/any/none">–</i><u id="p" data-footfall="views.all" data-footfall-pad="6">–</u><button data-footfall-opt-out>x</button><span id="busuanzi_container_site_pv" style="display:none"><i id="busuanzi_value_site_pv"></i></span>';
  await tab.goto(page(line(service), body).url);
  await soon(tab, "#l", "0");
  await until("all is filled", async () => (await tab.clock.runFor(500), (await tab.isVisible("#busuanzi_value_site_pv")) && (await tab.getAttribute("button", "aria-pressed")) === "false"));
  await tab.evaluate(() => {
    window.changes = 0;
    new MutationObserver(list => (changes += list.length)).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  });
  await later(tab, 5000);
  assert.equal(await tab.evaluate(() => changes), 0);
  quiet(tab);
  await tab.context().close();
});

test("figures inside open shadow roots are filled", async () => {
  const tab = await visitor(browser, service);
  const body = `<x-foot></x-foot><div><template shadowrootmode="open"><i id="d" data-footfall="online">–</i></template></div><script>
    customElements.define("x-foot", class extends HTMLElement { connectedCallback() {
      this.attachShadow({ mode: "open" }).innerHTML = '<p><x-in></x-in></p>'; } });
    customElements.define("x-in", class extends HTMLElement { connectedCallback() {
      this.attachShadow({ mode: "open" }).innerHTML = '<b id="a" data-footfall="page.views.all">–</b><i id="l" data-footfall-page="/any/none">–</i><button data-footfall-opt-out>x</button>'; } });
  </script>`;
  await tab.goto(page(line(service), body).url);
  await soon(tab, "#a", "1");
  await soon(tab, "#l", "0");
  assert.match(await tab.textContent("#d"), /\d/);
  await tab.click("button");
  await until("it is pressed", async () => (await tab.clock.runFor(500), (await tab.getAttribute("button", "aria-pressed")) === "true"));
  quiet(tab);
  await tab.context().close();
});

test("a canonical link on any host of the site names the page; on another it does not", async () => {
  const tab = await visitor(browser, service);
  const on = (host, path) => `<link rel="canonical" href="${host}${path}">`;
  const elsewhere = paper.url.replace("127.0.0.1", "localhost");
  for (const [link, wanted] of [
    [on(elsewhere, "/on-m"), "/on-m"],
    [on("https://partner.example", "/theirs"), null],
    [on("", ""), null],
    [on("", "#top"), null],
    ['<link rel="canonical">', null],
    [on("javascript:", "alert(1)"), null],
    [on("http://", "["), null],
    ['<link rel="shortlink Canonical" href="/of-two ">', "/of-two"],
  ]) {
    const { path, url } = page(link + line(service));
    await tab.goto(url);
    await soon(tab, "#a", "1").catch(fault => assert.fail(`${link}: ${fault}`));
    assert.equal(await service.views(wanted ?? path), 1, link);
  }
  quiet(tab);
  await tab.context().close();
});

test("the id of a browser lasts for the site's day, whatever the reader's clock says", async () => {
  const tab = await visitor(browser, service, { timezoneId: "Pacific/Kiritimati" });
  const first = `<script defer src="${service.url}/footfall.rare.js"></script>`;
  const url = paper.put("/its-day", html(first + line(service, 'data-identity="browser"'), COUNTER));
  let at = "2026-03-04T10:00:00+07:00";
  await tab.route("**/api/v1/beacon", route =>
    route.fulfill({ json: { at, buckets: { day: at.slice(0, 10) }, online: 1, views: {}, page: { page: "/its-day", views: { all: sent(tab, "view").length } } }, headers: { footfall: "1", "access-control-allow-origin": "*", "access-control-expose-headers": "footfall" } }));
  const identity = async () => {
    const before = sent(tab, "view").length;
    await tab.goto(url);
    await soon(tab, "#a", String(before + 1));
    return JSON.parse(sent(tab, "view")[before]).visitor;
  };
  await tab.clock.setFixedTime(new Date("2031-01-01T23:00:00Z"));
  // What only looks like the line asks for none.
  await tab.goto(paper.put("/its-day", html(first + line(service), COUNTER + '<b data-identity="browser"></b>')));
  await soon(tab, "#a", "1");
  assert.equal(JSON.parse(sent(tab, "view")[0]).visitor, "");
  paper.put("/its-day", html(first + line(service, 'data-identity="browser"'), COUNTER));
  const id = await identity();
  assert.ok(id.length > 15 && id.length <= 64, id);
  // 13 hours are left of the site's day, over the reader's midnight.
  await tab.clock.setFixedTime(new Date("2031-01-02T11:00:00Z"));
  at = "2026-03-04T22:00:00+07:00";
  assert.equal(await identity(), id);
  await tab.clock.setFixedTime(new Date("2031-01-02T14:00:00Z"));
  at = "2026-03-05T01:00:00+07:00";
  const next = await identity();
  assert.notEqual(next, id);
  assert.equal(await identity(), next);
  quiet(tab);
  await tab.context().close();
});
