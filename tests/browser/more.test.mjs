// What few pages use, strict policies, frameworks, and the manners of a page: seen in a browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { build as bundle } from "esbuild";
import { browse, Newspaper, Service } from "./service.mjs";
import { html, later, line, noteShifts, pause, quiet, sent, shifted, text, until, visitor } from "./support.mjs";

let service, paper, browser;

before(async () => {
  service = await Service.start();
  paper = await Newspaper.start();
  browser = await browse();
});
after(async () => {
  await browser?.close();
  paper?.stop();
  await service?.remove();
});

const FOOTER = `<footer lang="vi"><p>Lượt xem: <span data-footfall="page.views.all">0</span></p><h2>Thống kê truy cập</h2><ul>
  <li><span data-footfall="visits.all" data-footfall-pad="9">000000000</span></li>
  <li>Đang online: <span data-footfall="online">0</span></li>
  <li>Trong tuần: <span data-footfall="visits.week">0</span></li></ul></footer>`;

test("a list of 120 articles is filled by few requests, each bounded", async () => {
  const paths = Array.from({ length: 120 }, (_, at) => `/bai-viet/${at}/${"tin-tức-".repeat(at % 4)}`);
  for (const path of paths.slice(0, 5)) await service.view(path);
  const tab = await visitor(browser, service);
  // Lists are read again after half a minute, which does not go by here.
  await pause(tab);
  await tab.goto(paper.put("/list", html(line(service), paths.map((path, at) => `<p>${at} <b data-footfall-page="${path}">–</b></p>`).join(""))));
  await tab.clock.runFor(500);
  await until("what fills lists is there", () => tab.evaluate(() => typeof footfall_more === "function"));
  await tab.clock.runFor(500);
  const asked = () => tab.requests.filter(url => url.includes("/pages?"));
  const named = url => new URL(url).searchParams.getAll("page");
  await until("all are asked for", () => asked().flatMap(named).length >= paths.length);
  await until("all are filled", async () => {
    await tab.clock.runFor(100);
    return tab.evaluate(() => [...document.querySelectorAll("b")].every((b, at) => b.textContent === (at < 5 ? "1" : "0")));
  });
  await later(tab, 10_000);
  assert.ok(asked().length <= 12, `${asked().length} requests`);
  assert.deepEqual(asked().flatMap(named), paths);
  for (const url of asked()) {
    assert.ok(Buffer.byteLength(url) <= 2000, `${url.length} bytes`);
    assert.ok(named(url).length <= 50);
  }
  quiet(tab);
  await tab.context().close();
});

test("elements named as busuanzi and Vercount name theirs are filled", async () => {
  const names = ["busuanzi_value_site_pv", "busuanzi_value_page_pv", "vercount_value_site_uv"];
  const tab = await visitor(browser, service);
  await tab.goto(paper.put("/foreign", html(line(service),
    `<span id="busuanzi_container_site_pv" style="display:none">Σ <i id="${names[0]}"></i></span>` +
    `<i id="${names[1]}"></i><i id="${names[2]}"></i><i id="busuanzi_value_page_uv">?</i>`)));
  await text(tab, `#${names[1]}`, "1");
  await until("the site's are there", async () => Number(await tab.textContent(`#${names[0]}`)) >= 1);
  await until("the box is shown", () => tab.isVisible("#busuanzi_container_site_pv"));
  assert.equal(await tab.textContent("#busuanzi_value_page_uv"), "?");
  await tab.goto(paper.put("/foreign-alone", html(line(service), '<i id="busuanzi_site_uv"></i>')));
  await until("visitors alone are there", async () => Number(await tab.textContent("#busuanzi_site_uv")) >= 1);
  quiet(tab);
  await tab.context().close();
});

test("two tabs move at once, through one stream, which a hidden tab gives up", async () => {
  const first = await visitor(browser, service);
  const other = await first.context().newPage();
  const url = paper.put("/live", html(line(service, 'data-live="stream"'), '<b id="a" data-footfall="page.views.all">–</b>'));
  await first.goto(url);
  const streams = number => until(`${number} streams are open`, async () => (await service.metric("footfall_live_readers")) === number);
  await streams(1);
  await other.goto(url);
  await text(other, "#a", "2");
  // The page that streams tells the others so twice a second. The last words are all of one page when it is settled which.
  await other.evaluate(site => {
    window.told = [];
    (window.heard = new BroadcastChannel(site)).onmessage = ({ data: [rank] }) => told.push(rank);
  }, `${service.url}/api/v1/sites/demo/`);
  const settled = (from = 0) => until("one page streams and says so", () => other.evaluate(from => told.length >= from + 8 && new Set(told.slice(-8)).size === 1, from));
  await settled();
  for (let n = 3; n < 6; n++) {
    await service.view("/live");
    await Promise.all([text(first, "#a", String(n)), text(other, "#a", String(n))]);
    await streams(1);
  }
  await first.close();
  await settled(await other.evaluate(() => told.length));
  await streams(1);
  await service.view("/live");
  await text(other, "#a", "6");
  await other.evaluate(() => {
    Object.defineProperty(Document.prototype, "hidden", { get: () => true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await streams(0);
  await other.context().close();
});

test("where streams are refused the figures move by pings", async () => {
  const tab = await visitor(browser, service);
  await tab.route("**/live?**", route => route.fulfill({ status: 503 }));
  await tab.goto(paper.put("/refused", html(line(service, 'data-live="stream"'), '<b id="a" data-footfall="page.views.all">–</b>')));
  await tab.clock.runFor(2000);
  await until("it is filled", async () => (await tab.clock.runFor(500), await tab.textContent("#a")) === "1");
  await service.view("/refused");
  await until("it moves", async () => (await tab.clock.runFor(6000), await tab.textContent("#a")) === "2");
  await tab.context().close();
});

test("pings bring new figures, and never lower one within its bucket", async () => {
  const tab = await visitor(browser, service);
  let all = 40;
  let day = "2026-01-01";
  await tab.route("**/api/v1/beacon", route => {
    const json = { buckets: { day }, online: all, views: { day: all, all }, visits: {}, visitors: {}, page: { page: "/p", views: {} } };
    return route.fulfill({ json, headers: { footfall: "1", "access-control-allow-origin": "*", "access-control-expose-headers": "footfall" } });
  });
  await tab.goto(paper.put("/lower", html(line(service), '<b id="d" data-footfall="views.day"></b><b id="o" data-footfall="online"></b><b id="v" data-footfall="views.all"></b>')));
  const shows = (selector, wanted) => until(`${selector} ${wanted}`, async () => (await tab.clock.runFor(6000), await tab.textContent(selector)) === wanted);
  await shows("#d", "40");
  all = 30;
  await shows("#o", "30");
  assert.equal(await tab.textContent("#d"), "40");
  day = "2026-01-02";
  await shows("#d", "30");
  assert.equal(await tab.textContent("#v"), "40");
  quiet(tab);
  await tab.context().close();
});

test("a strict policy with nonce, strict-dynamic and Trusted Types is not violated", async () => {
  const policy = extra =>
    ({ "content-security-policy": `default-src 'none'; script-src 'nonce-n0nce' ${extra}; connect-src ${service.url}; img-src ${service.url}; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'` });
  const body = '<b id="a" data-footfall="page.views.all" data-footfall-pad="4">–</b>';
  const tab = await visitor(browser, service);
  await tab.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", event => violations.push(event.violatedDirective + " " + event.sample));
  });
  const nonce = 'nonce="n0nce"';
  for (const [path, extra, scripts, content] of [
    ["/strict", "'strict-dynamic'", line(service, nonce), body],
    ["/strict-more", "'strict-dynamic'", `<script defer ${nonce} src="${service.url}/footfall.more.js"></script>` + line(service, nonce), body + '<i id="l" data-footfall-page="/strict">–</i><button data-footfall-opt-out>x</button>'],
    ["/nonce-only", "", `<script defer ${nonce} src="${service.url}/footfall.more.js"></script>` + line(service, nonce), body + '<i id="l" data-footfall-page="/strict">–</i>'],
  ]) {
    await tab.goto(paper.put(path, html(scripts, content), policy(extra)));
    await text(tab, "#a", "0001");
    if (content.includes('"l"')) await text(tab, "#l", "1");
    await later(tab);
    assert.deepEqual(await tab.evaluate(() => violations), [], path);
  }
  // Fetched by the script itself, under strict-dynamic and without Trusted Types.
  await tab.goto(paper.put("/dynamic", html(line(service, nonce), '<i id="l" data-footfall-page="/strict">–</i>'), { "content-security-policy": "script-src 'nonce-n0nce' 'strict-dynamic'" }));
  await text(tab, "#l", "1");
  await later(tab);
  assert.deepEqual(await tab.evaluate(() => violations), []);
  quiet(tab);
  await tab.context().close();
});

test("a site that tells visitors apart by it gets an id of the browser, and not before consent", async () => {
  const tab = await visitor(browser, service);
  const first = `<script defer src="${service.url}/footfall.rare.js"></script>`;
  const url = paper.put("/identity", html(first + line(service, 'data-identity="browser" data-consent="required"')));
  const views = () => sent(tab, "view");
  const identity = async () => {
    await tab.goto(url);
    const before = views().length;
    await later(tab);
    assert.equal(views().length, before);
    await tab.evaluate(() => footfall.consent());
    await until("the view is sent", () => views().length > before);
    return JSON.parse(views()[before]).visitor;
  };
  await tab.goto(url);
  await later(tab);
  assert.equal(await tab.evaluate(() => localStorage.length), 0);
  const id = await identity();
  assert.ok(id.length > 20 && id.length <= 64, id);
  assert.equal(await identity(), id);
  quiet(tab);
  await tab.context().close();
});

test("the hash of the fixed version is taken, another is not", async () => {
  const pinned = readFileSync(new URL("../../src/serve/public/script/released/integrity", import.meta.url), "utf8").split("\n").find(file => file.startsWith("v1.js ")).split(" ");
  const tab = await visitor(browser, service);
  await tab.goto(paper.put("/pinned", html(line(service, `integrity="${pinned[1]}" crossorigin="anonymous"`, `footfall.${pinned[0]}`), '<b id="a" data-footfall="page.views.all">–</b>')));
  await text(tab, "#a", "1");
  quiet(tab);
  await tab.goto(paper.put("/mispinned", html(line(service, `integrity="${pinned[1]}" crossorigin="anonymous"`, "footfall.more.js"))));
  assert.equal(await tab.evaluate(() => typeof footfall_more), "undefined");
  await tab.context().close();
});

test("a page that React hydrates finds what its server wrote", async () => {
  const source = `
    import { createElement as h, useState } from "react";
    import { hydrateRoot } from "react-dom/client";
    const Footer = () => { const [n, set] = useState(0);
      return h("footer", null, h("p", null, "Lượt xem: ", h("span", { id: "a", "data-footfall": "page.views.all" }, "–")),
        h("span", { id: "empty", "data-footfall": "page.views.all" }), h("button", { onClick: () => set(n + 1) }, String(n))); };
    hydrateRoot(document.getElementById("root"), h(Footer), { onRecoverableError: fault => console.error("recoverable " + fault) });`;
  const resolveDir = new URL(".", import.meta.url).pathname;
  const made = await bundle({ stdin: { contents: source, resolveDir }, bundle: true, write: false, format: "iife", define: { "process.env.NODE_ENV": '"development"' } });
  paper.put("/react.js", made.outputFiles[0].text, { "content-type": "text/javascript" });
  const { renderToString } = createRequire(import.meta.url)("react-dom/server");
  const { createElement: h } = createRequire(import.meta.url)("react");
  const rendered = renderToString(h("footer", null, h("p", null, "Lượt xem: ", h("span", { id: "a", "data-footfall": "page.views.all" }, "–")),
    h("span", { id: "empty", "data-footfall": "page.views.all" }), h("button", null, "0")));
  const tab = await visitor(browser, service);
  for (const how of ["defer", "async"]) {
    await tab.goto(paper.put(`/react-${how}`, html(line(service) + `<script ${how} src="/react.js"></script>`, `<div id="root">${rendered}</div>`)));
    await text(tab, "#a", "1");
    await text(tab, "#empty", "1");
    await tab.click("button");
    await text(tab, "button", "1");
    assert.equal(await tab.textContent("#a"), "1");
  }
  assert.deepEqual(tab.said.filter(said => !/React DevTools/.test(said)), []);
  assert.deepEqual(tab.faults, []);
  await tab.context().close();
});

test("nothing shifts, and axe finds nothing", async () => {
  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  const tab = await visitor(browser, service);
  await noteShifts(tab);
  await tab.goto(paper.put("/manners", html(line(service), `<main><h1>Tin</h1><p>Bài</p>${FOOTER}<button data-footfall-opt-out>Không đếm tôi</button></main>`)));
  await until("it is filled", async () => (await tab.textContent("[data-footfall-pad]")) !== "000000000");
  await later(tab);
  assert.equal(await shifted(tab), 0);
  await tab.evaluate(axe);
  const { violations } = await tab.evaluate(() => axe.run());
  assert.deepEqual(violations.map(violation => violation.id), []);
  assert.equal(await tab.evaluate(() => document.querySelectorAll("[aria-live],[role=status]").length), 0);
  quiet(tab);
  await tab.context().close();
});

test("hostile titles, paths and pages run no script", async () => {
  const evil = '"><img src=x onerror=alert(1)><script>alert(2)</script>';
  const tab = await visitor(browser, service);
  let alarmed = false;
  tab.on("dialog", dialog => ((alarmed = true), dialog.dismiss()));
  const escaped = evil.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");
  const path = "/evil/" + encodeURIComponent(evil);
  paper.pages.set(new URL(paper.url + path).pathname, { body: html(`<title>${escaped}</title>` + line(service), `<b id="a" data-footfall="page.views.all">–</b><b data-footfall="${escaped}">–</b><i id="l" data-footfall-page="/${escaped}">–</i>`) });
  await tab.goto(paper.url + path + "?q=<script>alert(3)</script>");
  await text(tab, "#a", "1");
  await text(tab, "#l", "0");
  await later(tab);
  assert.equal(alarmed, false);
  assert.ok(!tab.requests.some(url => url.endsWith("/x")), "an image of theirs is asked for");
  quiet(tab);
  await tab.context().close();
});
