// Robots are told from readers: the user agents that packages have gathered of both, and clients of this machine.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { browse, Service } from "./service.mjs";
import { until } from "./support.mjs";

let service;

before(async () => {
  service = await Service.start({ FOOTFALL_SITE__0__ROBOTS_ALLOW: "" });
});
after(() => service?.remove());

const read = path => JSON.parse(readFileSync(new URL(`node_modules/${path}`, import.meta.url)));

/** What a header can hold, each once. */
const distinct = agents => [...new Set(agents.map(agent => agent.trim()))].filter(agent => /^[\x20-\x7e]+$/.test(agent));

const DRY_RUN = "/api/v1/beacon.gif?dry_run&site=demo&url=/a";
const agent = new Agent({ keepAlive: true, maxSockets: 1 });

/** What would become of a view that a client sends with this user agent. */
const told = userAgent =>
  new Promise((done, failed) => {
    const asked = request(service.url + DRY_RUN, { agent, headers: { "user-agent": userAgent } }, answer => {
      let body = "";
      answer.on("data", piece => (body += piece)).on("end", () => done(JSON.parse(body)));
    });
    asked.on("error", failed).end();
  });

/** Those of some user agents that are taken for robots'. */
async function robots(agents) {
  const found = [];
  for (const agent of agents) {
    const { outcome, reason } = await told(agent);
    assert.ok(outcome === "counted" || (outcome === "filtered" && reason === "robot"), agent);
    if (outcome === "filtered") found.push(agent);
  }
  return found;
}

test("of the crawlers that are known 95 % are left out, and of the browsers 0.2 %", async () => {
  const crawlers = distinct(read("crawler-user-agents/crawler-user-agents.json").flatMap(crawler => crawler.instances));
  const browsers = distinct([
    ...read("user-agents/dist/user-agents.json").map(browser => browser.userAgent),
    ...read("top-user-agents/src/index.json"),
  ]);
  assert.ok(crawlers.length > 1500 && browsers.length > 900, `${crawlers.length} crawlers, ${browsers.length} browsers`);
  const out = (await robots(crawlers)).length / crawlers.length;
  const wrong = await robots(browsers);
  console.log(`${(100 * out).toFixed(1)} % of ${crawlers.length} crawlers, ${wrong.length} of ${browsers.length} browsers`);
  assert.ok(out >= 0.95, `${out}`);
  assert.ok(wrong.length <= 0.002 * browsers.length, wrong.join("\n"));
});

test("of readers behind one address as many are told apart as they have user agents", async () => {
  const browsers = read("user-agents/dist/user-agents.json");
  const weight = browsers.reduce((sum, browser) => sum + browser.weight, 0);
  const agents = new Set();
  let random = 1;
  for (let reader = 0; reader < 100; reader++) {
    random = (random * 1103515245 + 12345) % 2 ** 31;
    let left = (random / 2 ** 31) * weight;
    const { userAgent } = browsers.find(browser => (left -= browser.weight) < 0) ?? browsers[0];
    agents.add(userAgent);
    const headers = { "user-agent": userAgent, "x-forwarded-for": "203.0.113.9" };
    const answer = await fetch(`${service.url}/api/v1/beacon?_=${reader}`, { method: "POST", headers, body: '{"site":"demo","url":"/one"}' });
    assert.equal(answer.status, 204, userAgent);
  }
  const { visits } = await (await fetch(`${service.url}/api/v1/sites/demo/counters`)).json();
  console.log(`of 100 readers behind one address ${visits.day} are told apart`);
  assert.equal(visits.day, agents.size);
  assert.ok(30 < agents.size && agents.size < 60, `${agents.size}`);
});

test("programs of this machine are robots, and so is a browser without a screen", async () => {
  const url = service.url + DRY_RUN;
  const run = async (program, ...more) => JSON.parse((await promisify(execFile)(program, more)).stdout);
  const python = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())";
  const clients = [await (await fetch(url)).json(), await run("curl", "--silent", url), await run("python3", "-c", python, url)];
  for (const { reason, detail } of clients) assert.equal(reason, "robot", detail);
  const browser = await browse();
  const tab = await browser.newPage();
  await tab.goto(`${service.url}/demo`);
  const robots = () => service.metric('footfall_beacons_total{outcome="robot",site="demo"}');
  await until("its beacon is left out", async () => (await robots()) > 0);
  await browser.close();
  assert.equal(await service.metric('footfall_views_total{site="demo"}'), 100, "those of the test before");
});
