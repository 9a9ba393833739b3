// The real service, pages of a newspaper on another origin, and a browser.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const BINARY = process.env.FOOTFALL_BINARY;
const BROWSER = process.env.FOOTFALL_BROWSER;

/** Polls until a condition holds, and gives its value. */
export async function until(what, condition, seconds = 30) {
  const deadline = Date.now() + seconds * 1000;
  let last;
  while (Date.now() < deadline) {
    try {
      last = await condition();
      if (last) return last;
    } catch (fault) {
      last = fault;
    }
    await sleep(50);
  }
  throw new Error(`it never came true: ${what} (last: ${last})`);
}

/** A port that is free now. */
export function freePort() {
  return new Promise(found => {
    const server = createTcp().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });
}

/** A footfall process on ports of its own, which can be stopped and started again on the same data. */
export class Service {
  static async start(variables = {}) {
    const service = new Service();
    service.dir = mkdtempSync(join(tmpdir(), "footfall-browser-"));
    service.port = await freePort();
    service.adminPort = await freePort();
    service.url = `http://127.0.0.1:${service.port}`;
    service.variables = variables;
    await service.begin();
    return service;
  }

  async begin() {
    this.process = spawn(BINARY, ["serve"], {
      cwd: this.dir,
      env: {
        PATH: process.env.PATH,
        FOOTFALL_LISTEN: `127.0.0.1:${this.port}`,
        FOOTFALL_ADMIN_LISTEN: `127.0.0.1:${this.adminPort}`,
        FOOTFALL_DATA_DIR: join(this.dir, "data"),
        FOOTFALL_LOG: "warn",
        ...this.variables,
      },
      stdio: ["ignore", "ignore", "inherit"],
    });
    this.ended = new Promise(ended => this.process.once("exit", ended));
    await until("the service is ready", async () => (await fetch(`http://127.0.0.1:${this.adminPort}/readyz`)).ok);
  }

  async stop() {
    this.process.kill("SIGTERM");
    await this.ended;
  }

  async remove() {
    await this.stop();
    rmSync(this.dir, { recursive: true, force: true });
  }

  async counters(page = "/") {
    const answer = await fetch(`${this.url}/api/v1/sites/demo/counters?page=${encodeURIComponent(page)}`);
    return answer.json();
  }

  /** How often a page was viewed. */
  async views(page) {
    return (await this.counters(page)).page.views.all;
  }
}

/** The newspaper: serves what a test puts in `pages`, as `{body, headers}` by path. */
export class Newspaper {
  static async start() {
    const paper = new Newspaper();
    paper.pages = new Map();
    paper.asked = [];
    paper.server = createServer((request, response) => {
      paper.asked.push(request.url);
      const page = paper.pages.get(new URL(request.url, "http://x").pathname);
      response.writeHead(page ? 200 : 404, { "content-type": "text/html; charset=utf-8", ...page?.headers });
      response.end(page?.body ?? "");
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
