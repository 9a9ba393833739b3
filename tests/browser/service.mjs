// The real service, pages of a newspaper on another origin, and a browser.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, request as ask } from "node:http";
import { createServer as createTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { until } from "./support.mjs";

const BINARY = process.env.FOOTFALL_BINARY;
const BROWSER = process.env.FOOTFALL_BROWSER;

/** A port that is free now, below those that the system gives to connections: it stays free while a service restarts. */
async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const server = createTcp();
    const free = await new Promise(told => server.once("error", () => told(false)).listen(port, "127.0.0.1", () => told(true)));
    if (free) return new Promise(closed => server.close(() => closed(port)));
  }
}

/** A footfall process on ports of its own, which can be stopped and started again on the same data. */
export class Service {
  static async start(variables = {}) {
    const service = new Service();
    service.dir = mkdtempSync(join(tmpdir(), "footfall-browser-"));
    service.variables = variables;
    await service.choosePorts();
    // Another test may be faster to take a port that was free.
    await service.begin().catch(() => service.choosePorts().then(() => service.begin()));
    return service;
  }

  async choosePorts() {
    this.port = await freePort();
    this.adminPort = await freePort();
    this.url = `http://127.0.0.1:${this.port}`;
    this.adminUrl = `http://127.0.0.1:${this.adminPort}`;
  }

  async begin() {
    const started = spawn(BINARY, ["serve"], {
      cwd: this.dir,
      env: {
        PATH: process.env.PATH,
        FOOTFALL_LISTEN: `127.0.0.1:${this.port}`,
        FOOTFALL_ADMIN_LISTEN: `127.0.0.1:${this.adminPort}`,
        FOOTFALL_DATA_DIR: join(this.dir, "data"),
        FOOTFALL_LOG: "warn",
        // The browsers of these tests say that they have no screen.
        FOOTFALL_SITE__0__KEY: "demo",
        FOOTFALL_SITE__0__HOSTS: "localhost,127.0.0.1",
        FOOTFALL_SITE__0__TIME_ZONE: "UTC",
        FOOTFALL_SITE__0__ROBOTS_ALLOW: "HeadlessChrome",
        ...this.variables,
      },
      stdio: ["ignore", "ignore", "inherit"],
    });
    this.process = started;
    this.ended = new Promise(ended => started.once("exit", ended));
    const ready = async () => started.exitCode !== null || (await fetch(`${this.adminUrl}/readyz`)).ok;
    await until("the service is ready", ready);
    assert.equal(started.exitCode, null, "the service ended at once");
  }

  async stop() {
    this.process.kill("SIGTERM");
    await this.ended;
  }

  async remove() {
    await this.stop();
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** Sends a view, and sees it counted. */
  async view(url, headers = {}) {
    const body = JSON.stringify({ site: "demo", url });
    const browser = { "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0" };
    const answer = await fetch(`${this.url}/api/v1/beacon`, { method: "POST", headers: { ...browser, ...headers }, body });
    assert.equal(answer.status, 204);
  }

  /** How often a page was viewed. */
  async views(page, site = "demo") {
    const answer = await fetch(`${this.url}/api/v1/sites/${site}/counters?page=${encodeURIComponent(page)}`);
    return (await answer.json()).page.views.all;
  }

  /** The value of a series of its metrics. */
  async metric(series) {
    const all = await (await fetch(`${this.adminUrl}/metrics`)).text();
    return Number(all.split("\n").find(row => row.startsWith(series + " "))?.split(" ")[1]);
  }
}

/** Has the service answer a request to the newspaper, as its web server would. */
function passOn(request, response, service) {
  const { method, headers } = request;
  const asked = ask(service.url + request.url.replace("/thong-ke", ""), { method, headers }, answer => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  request.pipe(asked);
}

/** The newspaper: serves what a test puts in `pages`, as `{body, headers}` by path, and notes what is `asked` for. */
export class Newspaper {
  static async start() {
    const paper = new Newspaper();
    paper.pages = new Map();
    paper.asked = [];
    paper.server = createServer((request, response) => {
      paper.asked.push(request.url);
      // The service below a path of the newspaper's own.
      if (paper.own && request.url.startsWith("/thong-ke/")) return passOn(request, response, paper.own);
      const page = paper.pages.get(new URL(request.url, "http://x").pathname);
      response.writeHead(page ? 200 : 404, { "content-type": "text/html; charset=utf-8", ...page?.headers });
      // A body may be a promise: the answer ends when it is kept.
      Promise.resolve(page?.body ?? "").then(body => response.end(body));
    });
    await new Promise(listening => paper.server.listen(0, "127.0.0.1", listening));
    paper.url = `http://127.0.0.1:${paper.server.address().port}`;
    return paper;
  }

  put(path, body, headers = {}) {
    this.pages.set(path, { body, headers });
    return this.url + path;
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Debian's Chromium. Its own defaults matter here: the back-forward cache stays on. */
export function browse() {
  return chromium.launch({
    executablePath: BROWSER,
    headless: true,
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
    args: FLAGS,
  });
}

/** The same on one page with nobody at the wheel. */
export function browseAlone(url) {
  const dir = mkdtempSync(join(tmpdir(), "footfall-chromium-"));
  const browser = spawn(BROWSER, ["--headless=new", `--user-data-dir=${dir}`, ...FLAGS, url], { stdio: "ignore", detached: true });
  const ended = new Promise(ended => browser.once("exit", ended));
  return {
    async close() {
      process.kill(-browser.pid, "SIGKILL");
      await ended;
      rmSync(dir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    },
  };
}
