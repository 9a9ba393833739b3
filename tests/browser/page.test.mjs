// What a page may rely on, seen in a browser.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { build, integrity, isPacked, released, VERSION } from "./build.mjs";
import { browse, browseAlone, Newspaper, Service } from "./service.mjs";
import { html, later, line, quiet, sent, text, until, visitor } from "./support.mjs";

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

const views = (page, number) => until(`${page} has ${number} views`, async () => (await service.views(page)) === number);

/** So many are counted, and no more when the tab that could send more has gone on. */
async function stays(tab, page, number) {
  await views(page, number);
  await later(tab);
  assert.equal(await service.views(page), number);
}

test("the released files are made from the sources, small, and as their hashes say", async () => {
  const made = await build();
  assert.deepEqual(released(), made);
  for (const [name, text] of Object.entries(made)) assert.ok(isPacked(name, text), `${name} is packed anew`);
  const size = name => gzipSync(made[name], { level: 9 }).length;
  const [core, more, rare] = ["js", "more.js", "rare.js"].map(file => size(`v${VERSION}.${file}`));
  console.log(`# page script: ${core} bytes gzip, ${core + more} with more.js, rare.js has ${rare}`);
  assert.ok(core <= 1792, `footfall.js has ${core} bytes`);
  assert.ok(core + more <= 3072, `two files have ${core + more} bytes`);
  assert.ok(rare <= 1536, `rare.js has ${rare} bytes`);
  for (const entry of integrity().trim().split("\n")) {
    const [name, hash] = entry.split(" ");
    const answer = await fetch(`${service.url}/footfall.${name}`);
    assert.equal(answer.headers.get("cache-control"), "public, max-age=31536000, immutable");
    const body = Buffer.from(await answer.arrayBuffer());
    assert.equal(`sha384-${createHash("sha384").update(body).digest("base64")}`, hash);
  }
});

test("a view counts once, a reload again, and the figures appear in the page's language", async () => {
  for (let n = 0; n < 3; n++) await service.view("/seen");
  const url = paper.put("/seen", html(line(service), `<b id="a" data-footfall="page.views.all">–</b><b id="p" data-footfall="page.views.all" data-footfall-pad="9">–</b><b id="x" data-footfall="nothing.here">–</b>`));
  const tab = await visitor(browser, service);
  await tab.goto(url);
  await text(tab, "#a", "4");
  await text(tab, "#p", "000000004");
  assert.equal(await tab.getAttribute("#p", "aria-label"), "4");
  assert.equal(await tab.textContent("#x"), "–");
  await stays(tab, "/seen", 4);
  await tab.reload();
  await text(tab, "#a", "5");
  await tab.evaluate(() => document.body.insertAdjacentHTML("beforeend", '<i id="late" data-footfall="page.views.all"></i>'));
  await text(tab, "#late", "5");
  await later(tab);
  assert.equal(sent(tab, "view").length, 2);
  quiet(tab);
  await tab.context().close();
});

test("data-page beats the canonical link beats the location", async () => {
  const tab = await visitor(browser, service);
  const link = `<link rel="canonical" href="${paper.url}/canonical">`;
  await tab.goto(paper.put("/by-link", html(link + line(service))) + "?utm_source=x");
  await views("/canonical", 1);
  await tab.goto(paper.put("/by-name", html(link + line(service, 'data-page="/named"'))));
  await views("/named", 1);
  await tab.goto(paper.put("/foreign", html('<link rel="canonical" href="https://elsewhere.example/x">' + line(service))));
  await stays(tab, "/foreign", 1);
  assert.equal(await service.views("/canonical"), 1);
  quiet(tab);
  await tab.context().close();
});

test("works without a current script, twice pasted counts once", async () => {
  const inserted = `<script>const s = document.createElement("script"); s.type = "module"; s.src = "${service.url}/footfall.js";
    s.dataset.site = "demo"; s.dataset.localhost = ""; document.head.append(s);</script>`;
  const tab = await visitor(browser, service);
  await tab.goto(paper.put("/inserted", html(inserted + line(service) + line(service))));
  await stays(tab, "/inserted", 1);
  await tab.goto(paper.put("/module", html(line(service).replace("defer", 'type="module"'))));
  await stays(tab, "/module", 1);
  quiet(tab);
  await tab.context().close();
});

test("coming back from the back-forward cache is a view", async () => {
  const tab = await visitor(browser, service);
  await tab.goto(paper.put("/first", html(line(service) + '<script>addEventListener("pageshow", e => (window.restored = e.persisted))</script>')));
  await views("/first", 1);
  await tab.goto(paper.put("/second", html(line(service))));
  await views("/second", 1);
  await tab.goBack({ waitUntil: "commit" });
  await until("the page comes from the cache", () => tab.evaluate(() => window.restored === true));
  await stays(tab, "/first", 2);
  quiet(tab);
  await tab.context().close();
});

test("a prerendered page counts when it is shown", async () => {
  // A browser that nothing drives: one that is driven does not prerender. The pages tell how they fare.
  paper.put("/told", "");
  paper.put("/prerendered", html(line(service) + `<script>
    const activated = () => performance.getEntriesByType("navigation")[0].activationStart > 0;
    setInterval(() => fetch(document.prerendering ? "/told?waiting" : "/told?activated=" + activated()), 500);</script>`));
  const rules = `<script type="speculationrules">{"prerender":[{"urls":["/prerendered"],"eagerness":"immediate"}]}</script>`;
  let show;
  paper.put("/shown-next", new Promise(kept => (show = kept)));
  const start = paper.put("/rules", html(rules, '<script>fetch("/shown-next").then(answer => answer.text()).then(() => (location.href = "/prerendered"))</script>'));
  const alone = browseAlone(start);
  // As often as the script has its turns.
  const told = (what, times) => until(`${what} was told ${times} times`, () => paper.asked.filter(url => url === "/told?" + what).length >= times);
  try {
    await told("waiting", 4);
    assert.equal(await service.views("/prerendered"), 0);
    show("now");
    await views("/prerendered", 1);
    await told("activated=true", 4);
    assert.equal(await service.views("/prerendered"), 1);
  } finally {
    await alone.close();
  }
});

test("a change of the path by a script is a view, the same path is none", async () => {
  const tab = await visitor(browser, service);
  // The canonical link stays as it is: the script gives it some seconds to follow.
  const views = (page, number) => until(`${page} has ${number} views`, async () => (await tab.clock.runFor(500), (await service.views(page)) === number));
  await tab.goto(paper.put("/app", html(`<link rel="canonical" href="${paper.url}/app">` + line(service), '<b id="a" data-footfall="page.views.all">–</b>')));
  await views("/app", 1);
  await tab.evaluate(() => history.pushState({}, "", "/app/two"));
  await views("/app/two", 1);
  await text(tab, "#a", "1");
  await tab.evaluate(() => history.replaceState({}, "", "/app/two?x=1#y"));
  await stays(tab, "/app/two", 1);
  await tab.evaluate(() => {
    navigation.addEventListener("navigate", event => event.intercept());
    return navigation.navigate("/app/three").finished.then(() => {});
  });
  await views("/app/three", 1);
  await tab.evaluate(() => history.go(-2));
  await views("/app", 2);
  await stays(tab, "/app/two", 1);
  quiet(tab);
  await tab.context().close();
});

test("a hidden tab counts when it is shown, pings while it is, and says when it is left", async () => {
  const tab = await visitor(browser, service);
  await tab.addInitScript(() => {
    let hidden = sessionStorage.shown !== "yes";
    Object.defineProperty(Document.prototype, "hidden", { get: () => hidden });
    Object.defineProperty(Document.prototype, "visibilityState", { get: () => (hidden ? "hidden" : "visible") });
    window.turn = to => {
      hidden = to;
      document.dispatchEvent(new Event("visibilitychange"));
    };
  });
  await tab.goto(paper.put("/hidden", html(line(service, 'data-ping="15"'))));
  await later(tab, 20_000);
  assert.deepEqual(tab.beacons, []);
  await tab.evaluate(() => turn(false));
  await stays(tab, "/hidden", 1);
  await tab.clock.runFor(16000);
  await until("it pings", () => sent(tab, "ping").length > 0);
  await tab.evaluate(() => turn(true));
  await until("it leaves", () => tab.beacons.at(-1).includes('"kind":"leave"'));
  const before = tab.beacons.length;
  await later(tab, 120_000);
  assert.equal(tab.beacons.length, before);
  assert.equal(await service.views("/hidden"), 1);
  quiet(tab);
  await tab.context().close();
});

test("a view survives the way to the next page", async () => {
  const tab = await visitor(browser, service);
  const next = paper.put("/next", html(""));
  await tab.goto(paper.put("/quick", html(line(service).replace("defer", "") + `<script>location.href = "${next}"</script>`)), { waitUntil: "commit" });
  await tab.waitForURL(next);
  await stays(tab, "/quick", 1);
  await tab.context().close();
});

test("a service that is away gets the view later, once; the page stays as it was written", async () => {
  const tab = await visitor(browser, service);
  await tab.goto(paper.put("/warm", html(line(service))));
  await views("/warm", 1);
  const url = paper.put("/away", html(line(service), '<b id="a" data-footfall="page.views.all">viết</b>'));
  await service.stop();
  await tab.goto(url);
  await until("the view was tried", () => tab.beacons.some(body => body.includes("/away")));
  await later(tab);
  assert.equal(await tab.textContent("#a"), "viết");
  await service.begin();
  await tab.clock.runFor(5000);
  await stays(tab, "/away", 1);
  const ids = new Set(tab.beacons.filter(body => body.includes("/away")).map(body => JSON.parse(body).id));
  assert.equal(ids.size, 1);
  quiet(tab);
  await tab.context().close();
});

test("what is not counters, not a site or blocked leaves the page as it was written", async () => {
  const body = '<b id="a" data-footfall="page.views.all">viết</b><b id="o" data-footfall="online">viết</b>';
  const answers = ["", "null", "[]", "nonsense", "{}", '{"buckets":{},"online":-1,"page":{"views":{"all":"<b>9</b>"}}}', '{"buckets":5,"online":null,"page":7}'];
  const headers = { footfall: "1", "access-control-allow-origin": "*", "access-control-expose-headers": "footfall" };
  for (const [at, answer] of answers.entries()) {
    const tab = await visitor(browser, service);
    await tab.route("**/api/v1/**", route => route.fulfill({ body: answer, headers }));
    const told = tab.waitForResponse(/beacon/);
    await tab.goto(paper.put(`/malformed/${at}`, html(line(service), body)));
    await (await told).finished();
    await later(tab);
    assert.equal(await tab.textContent("#a"), "viết", answer);
    assert.equal(await tab.textContent("#o"), "viết", answer);
    quiet(tab);
    await tab.context().close();
  }
  const tab = await visitor(browser, service);
  const read = tab.waitForResponse(/beacon/);
  await tab.goto(paper.put("/unknown", html(line(service).replace('"demo"', '"nobody"'), body)));
  assert.equal((await read).status(), 404);
  await later(tab);
  assert.equal(await tab.textContent("#a"), "viết");
  await tab.route("**/footfall.js", route => route.abort());
  await tab.goto(paper.put("/blocked", html(line(service), body)));
  await later(tab);
  assert.equal(await tab.textContent("#a"), "viết");
  quiet(tab);
  await tab.context().close();
});

test("nothing is sent or stored before consent, and nothing when opted out", async () => {
  const tab = await visitor(browser, service);
  await tab.goto(paper.put("/consent", html(line(service, 'data-consent="required" data-identity="browser"', "footfall.js") , '<button data-footfall-opt-out>Không đếm tôi</button>')));
  await later(tab);
  assert.deepEqual(tab.beacons, []);
  assert.equal(await tab.evaluate(() => localStorage.length), 0);
  await tab.evaluate(() => footfall.consent());
  await stays(tab, "/consent", 1);
  const button = tab.locator("button");
  await until("the button is wired", async () => (await button.getAttribute("aria-pressed")) === "false");
  await button.click();
  await until("it is pressed", async () => (await button.getAttribute("aria-pressed")) === "true");
  const before = tab.beacons.length;
  await tab.goto(paper.put("/opted-out", html(line(service))));
  await later(tab);
  assert.equal(tab.beacons.length, before);
  assert.equal(await service.views("/opted-out"), 0);
  await tab.evaluate(() => footfall.optOut(false));
  await stays(tab, "/opted-out", 1);
  quiet(tab);
  await tab.context().close();
});

test("Global Privacy Control and Do Not Track are honoured where the site says so; localhost and frames are ignored", async () => {
  const tab = await visitor(browser, service);
  await tab.addInitScript(() => {
    Object.defineProperty(Navigator.prototype, "globalPrivacyControl", { get: () => true });
    Object.defineProperty(Navigator.prototype, "doNotTrack", { get: () => "1" });
  });
  for (const [path, attributes, number] of [
    ["/gpc", 'data-gpc="globalPrivacyControl"', 0],
    ["/dnt", 'data-dnt="doNotTrack"', 0],
    ["/neither", "", 1],
  ]) {
    await tab.goto(paper.put(path, html(line(service, attributes))));
    await later(tab);
    await stays(tab, path, number);
  }
  await tab.goto(paper.put("/local", html(line(service).replace("data-localhost", ""))));
  await later(tab);
  paper.put("/inner", html(line(service)));
  paper.put("/inner-too", html(line(service, "data-frames")));
  await tab.goto(paper.put("/outer", html("", '<iframe src="/inner"></iframe><iframe src="/inner-too"></iframe>')));
  await stays(tab, "/inner-too", 1);
  assert.equal(await service.views("/inner"), 0);
  assert.equal(await service.views("/local"), 0);
  quiet(tab);
  await tab.context().close();
});

test("a page may count and fill by itself", async () => {
  const tab = await visitor(browser, service);
  await tab.goto(paper.put("/manual", html(line(service, 'data-auto="off" data-fill="off"') + "<script>document.addEventListener('footfall:counters', e => (window.told = e.detail))</script>", '<b id="a" data-footfall="page.views.all">–</b>')));
  await until("the counters are told", () => tab.evaluate(() => window.told?.page.views.all === 0));
  await tab.evaluate(() => footfall.view("/by-hand"));
  await until("the page's counters are told", () => tab.evaluate(() => window.told.page.page === "/by-hand" && window.told.page.views.all === 1));
  await later(tab);
  assert.equal(await tab.textContent("#a"), "–");
  assert.equal(await service.views("/manual"), 0);
  quiet(tab);
  await tab.goto(paper.put("/debug", html(line(service))) + "#footfall-debug");
  await until("beacons and answers are printed", () => tab.said.some(said => /"kind":"view".*Response.*"buckets"/.test(said)));
  // Where nothing is sent, it says why.
  const local = line(service).replace("data-localhost", "");
  const asks = line(service, 'data-consent="required" data-auto="off"');
  for (const [name, body, why] of [
    ["/silent", local, /footfall sends nothing from demo: .*no data-localhost/],
    ["/asks", asks, /not called footfall\.consent\(\); data-auto is off/],
    ["/out", line(service) + "<script>localStorage.footfallOptOut = 1</script>", /has opted out/],
  ]) {
    await tab.goto(paper.put(name, html(body)) + "#footfall-debug");
    await until(`the console says why ${name} sends nothing`, () => tab.said.some(said => why.test(said)));
  }
  await tab.context().close();
});
