// Libraries that show another page without loading another document, and what they leave in the document.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { browse, Newspaper, Service } from "./service.mjs";
import { line, quiet, sent, until, visitor } from "./support.mjs";

let service, paper, browser;

before(async () => {
  service = await Service.start();
  paper = await Newspaper.start();
  for (const [name, file] of Object.entries({
    turbo: "@hotwired/turbo/dist/turbo.es2017-umd.js",
    turbolinks: "turbolinks/dist/turbolinks.js",
    swup: "swup/dist/Swup.umd.js",
    htmx: "htmx.org/dist/htmx.min.js",
  }))
    paper.put(`/lib/${name}.js`, readFileSync(new URL(`node_modules/${file}`, import.meta.url)), { "content-type": "text/javascript" });
  browser = await browse();
});
after(async () => {
  await browser?.close();
  paper?.stop();
  await service?.remove();
});

/** What loads and starts a library, the body's attributes, and whether it brings the head of the next page. */
const libraries = {
  turbo: ['<script defer src="/lib/turbo.js"></script>', "", true],
  turbolinks: ['<script defer src="/lib/turbolinks.js"></script><script>addEventListener("DOMContentLoaded", () => Turbolinks.start())</script>', "", true],
  swup: ['<script defer src="/lib/swup.js"></script><script>addEventListener("DOMContentLoaded", () => new Swup({ animationSelector: false }))</script>', "", false],
  htmx: ['<script defer src="/lib/htmx.js"></script>', 'hx-boost="true"', false],
};

const link = page => `<link rel="canonical" href="${page}">`;

/** How a page is named, and whether it is where the library leaves the head of the first. */
const namings = [
  ["its location", () => ["", ""], true],
  ["its canonical link", page => [link("/named" + page), ""], false],
  ["data-page", page => ["", `data-page="/named${page}"`], false],
];

for (const [library, [head, attributes, brings]] of Object.entries(libraries))
  test(`${library}: each page counts once, under its own name and in the language vi_VN`, async () => {
    for (const [how, name, plain] of namings) {
      const tab = await visitor(browser, service);
      const own = `/${library}-${how.replace(/\W/g, "-")}`;
      const one = own + "/one";
      const two = own + "/two";
      for (const [page, other] of [[one, two], [two, one]]) {
        const [extra, attribute] = name(page);
        paper.put(page, `<!doctype html><html lang="vi_VN"><head><title>Tin ${page}</title>${extra}${line(service, attribute)}${head}</head>
          <body ${attributes}><main id="swup" class="transition-main"><p id="which">${page}</p><b id="a" data-footfall="page.views.all">–</b><a id="go" href="${other}">đọc tiếp</a></main></body></html>`);
      }
      const shown = page => (plain || (!brings && page === two) ? page : "/named" + page);
      const counted = [];
      const is = async page => {
        counted.push(shown(page));
        const wanted = counted.filter(name => name === shown(page)).length;
        await until(`${library} shows ${page}`, async () => (await tab.textContent("#which")) === page);
        await until(`${shown(page)} has its view by ${library}`, async () => (await tab.clock.runFor(500), (await service.views(shown(page))) === wanted)).catch(fault =>
          assert.fail(`${fault} ${sent(tab, "view").map(body => JSON.parse(body).url)}`),
        );
        await until("its figure is shown", async () => (await tab.clock.runFor(500), (await tab.textContent("#a")) === String(wanted)));
      };
      await tab.goto(paper.url + one);
      await is(one);
      await tab.click("#go");
      await is(two);
      await tab.click("#go");
      await is(one);
      await tab.goBack();
      await is(two);
      await tab.clock.runFor(5000);
      assert.equal(sent(tab, "view").length, 4, `${library}, ${how}: ${sent(tab, "view").map(body => JSON.parse(body).url)}`);
      quiet(tab);
      await tab.context().close();
    }
  });
